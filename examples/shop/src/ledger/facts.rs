//! What the page shows beside the goods: who answered, how fast orders come, what they sum up to.

use serde::Serialize;
use tokio::time::Instant;

use crate::database::{Fault, Pool};

/// Seconds of history shown.
const HISTORY: usize = 60;

/// The PostgreSQL server at the other end of a route.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Member {
    /// The cluster_name it was given, else its address.
    name: String,
    address: String,
    port: i32,
    /// It follows a primary.
    standby: bool,
    timeline: i32,
    version: String,
    newest_order: i64,
}

/// The orders of the last minute, by the primary's clock.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pace {
    /// Orders per second over the last three full seconds.
    per_second: f64,
    /// Orders of each of the last 60 seconds, oldest first; the running second is not among them.
    history: Vec<i64>,
    /// The longest time between two consecutive orders of the last minute.
    longest_gap_ms: Option<i64>,
    /// The latest unusual pause of the last minute.
    last_gap: Option<Gap>,
    /// How long ago the newest order was placed, if in the last minute.
    newest_age_ms: Option<i64>,
}

/// A pause between two consecutive orders of at least 200 ms and five times the usual one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Gap {
    ms: i64,
    /// How long ago it ended.
    ago_ms: i64,
}

/// Sums over everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Totals {
    orders: i64,
    sales_cents: i64,
    ledger_sum_cents: i64,
}

/// Asks the server who it is.
pub(crate) async fn member(pool: &Pool, deadline: Instant) -> Result<Member, Fault> {
    let sql = "
        select coalesce(host(inet_server_addr()), 'socket'), coalesce(inet_server_port(), 0), pg_is_in_recovery(),
               case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
                    else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
               current_setting('cluster_name'), split_part(current_setting('server_version'), ' ', 1),
               coalesce((select max(id) from shop.orders), 0)";
    let rows = pool.query(sql, &[], deadline).await?;
    let row = rows.first().ok_or_else(|| Fault::Refused("no result".into()))?;
    let (address, cluster): (String, String) = (row.get(0), row.get(4));
    Ok(Member {
        name: if cluster.is_empty() { address.clone() } else { cluster },
        address,
        port: row.get(1),
        standby: row.get(2),
        timeline: row.get(3),
        version: row.get(5),
        newest_order: row.get(6),
    })
}

/// Looks at the orders of the last minute.
pub(crate) async fn pace(pool: &Pool, deadline: Instant) -> Result<Pace, Fault> {
    let sql = "
        with now as materialized (select clock_timestamp() as t), recent as (
            select placed_at, placed_at - lag(placed_at) over (order by placed_at) as gap,
                   floor(extract(epoch from date_trunc('second', now.t) - placed_at))::int + 1 as age
            from shop.orders, now where placed_at > now.t - interval '61 s'
        )
        select age, count(*), (extract(epoch from max(gap)) * 1000)::bigint,
               (extract(epoch from max(now.t) - max(placed_at)) * 1000)::bigint
        from recent, now group by age";
    let rows = pool.query(sql, &[], deadline).await?;
    let mut history = vec![0; HISTORY];
    let (mut longest_gap_ms, mut newest_age_ms) = (None, None);
    for row in &rows {
        let (gap, age): (Option<i64>, Option<i64>) = (row.get(2), row.get(3));
        longest_gap_ms = longest_gap_ms.max(gap);
        newest_age_ms = [newest_age_ms, age].into_iter().flatten().min();
        let second = usize::try_from(row.get::<_, i32>(0)).unwrap_or(0);
        if (1..=HISTORY).contains(&second) {
            history[HISTORY - second] = row.get(1);
        }
    }
    let last_three: i64 = history[HISTORY - 3..].iter().sum();
    let per_second = f64::from(i32::try_from(last_three).unwrap_or(i32::MAX)) / 3.0;
    let last_gap = last_gap(pool, deadline).await?;
    Ok(Pace { per_second, history, longest_gap_ms, last_gap, newest_age_ms })
}

async fn last_gap(pool: &Pool, deadline: Instant) -> Result<Option<Gap>, Fault> {
    let sql = "
        with recent as (
            select placed_at, extract(epoch from placed_at - lag(placed_at) over (order by placed_at)) * 1000 as gap
            from shop.orders where placed_at > clock_timestamp() - interval '61 s'
        ), usual as (select percentile_cont(0.5) within group (order by gap) as gap from recent)
        select recent.gap::bigint, (extract(epoch from clock_timestamp() - placed_at) * 1000)::bigint
        from recent, usual where recent.gap >= greatest(200, 5 * usual.gap) order by placed_at desc limit 1";
    let rows = pool.query(sql, &[], deadline).await?;
    Ok(rows.first().map(|row| Gap { ms: row.get(0), ago_ms: row.get(1) }))
}

/// Sums up everything; reads every order and entry.
pub(crate) async fn totals(pool: &Pool, deadline: Instant) -> Result<Totals, Fault> {
    let sql = "select count(*), coalesce(sum(amount_cents), 0)::bigint,
                      (select coalesce(sum(amount_cents), 0)::bigint from shop.entries) from shop.orders";
    let rows = pool.query(sql, &[], deadline).await?;
    let row = rows.first().ok_or_else(|| Fault::Refused("no result".into()))?;
    Ok(Totals { orders: row.get(0), sales_cents: row.get(1), ledger_sum_cents: row.get(2) })
}
