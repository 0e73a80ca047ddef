//! Whether the books are in order.

use serde::Serialize;
use tokio::time::Instant;

use crate::database::{Fault, Pool};

/// What an auditor finds.
#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    pub(crate) orders: i64,
    /// Orders whose key another order has, too. Must be 0.
    pub(crate) duplicates: i64,
    /// Sum of all ledger entries. Must be 0.
    pub(crate) ledger_sum_cents: i64,
    /// Orders without exactly two entries that cancel out to the order's amount. Must be 0.
    pub(crate) unbalanced: i64,
    /// The three figures are 0.
    pub(crate) in_order: bool,
}

/// Goes through all books; reads every order and entry.
pub(crate) async fn audit(pool: &Pool, deadline: Instant) -> Result<Audit, Fault> {
    let sql = "
        with per_order as (
            select order_id, count(*) as entries, sum(amount_cents) as sum, max(amount_cents) as booked
            from shop.entries group by order_id
        )
        select count(*), count(*) - count(distinct o.key),
               (select coalesce(sum(amount_cents), 0)::bigint from shop.entries),
               count(*) filter (where e.entries is distinct from 2 or e.sum <> 0 or e.booked <> o.amount_cents)
        from shop.orders o left join per_order e on e.order_id = o.id";
    let rows = pool.query(sql, &[], deadline).await?;
    let row = rows.first().ok_or_else(|| Fault::Refused("no result".into()))?;
    let (duplicates, ledger_sum_cents, unbalanced) = (row.get(1), row.get(2), row.get(3));
    let in_order = duplicates == 0_i64 && ledger_sum_cents == 0_i64 && unbalanced == 0_i64;
    Ok(Audit { orders: row.get(0), duplicates, ledger_sum_cents, unbalanced, in_order })
}
