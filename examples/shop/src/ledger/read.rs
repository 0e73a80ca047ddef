//! Lists of products and orders.

use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::database::{Fault, Pool};

/// Something to buy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Product {
    id: i32,
    name: String,
    note: String,
    price_cents: i64,
}

/// A booked order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Order {
    id: i64,
    key: String,
    product: String,
    quantity: i32,
    amount_cents: i64,
    placed_by: String,
    /// Milliseconds since 1970, by the primary's clock.
    placed_at_ms: i64,
}

/// Which orders.
#[derive(Clone, Debug)]
pub(crate) enum Listing {
    /// The newest, newest first.
    Newest,
    /// Those whose key begins so, from an order on, oldest first.
    Run {
        /// Beginning of the key.
        prefix: String,
        /// Only orders after this one.
        after: i64,
    },
}

/// All products.
pub(crate) async fn products(pool: &Pool, deadline: Instant) -> Result<Vec<Product>, Fault> {
    let sql = "select id, name, note, price_cents from shop.products order by id";
    let rows = pool.query(sql, &[], deadline).await?;
    Ok(rows
        .iter()
        .map(|row| Product { id: row.get(0), name: row.get(1), note: row.get(2), price_cents: row.get(3) })
        .collect())
}

/// At most `limit` orders.
pub(crate) async fn orders(
    pool: &Pool,
    listing: &Listing,
    limit: i64,
    deadline: Instant,
) -> Result<Vec<Order>, Fault> {
    let select = "select o.id, o.key, p.name, o.quantity, o.amount_cents, o.placed_by,
                         (extract(epoch from o.placed_at) * 1000)::bigint
                  from shop.orders o join shop.products p on p.id = o.product_id";
    let rows = match listing {
        Listing::Newest => {
            let sql = format!("{select} order by o.id desc limit $1");
            pool.query(&sql, &[(&limit, Type::INT8)], deadline).await?
        }
        Listing::Run { prefix, after } => {
            let sql = format!("{select} where starts_with(o.key, $2) and o.id > $3 order by o.id limit $1");
            let params = [(&limit as _, Type::INT8), (prefix as _, Type::TEXT), (after as _, Type::INT8)];
            pool.query(&sql, &params, deadline).await?
        }
    };
    Ok(rows
        .iter()
        .map(|row| Order {
            id: row.get(0),
            key: row.get(1),
            product: row.get(2),
            quantity: row.get(3),
            amount_cents: row.get(4),
            placed_by: row.get(5),
            placed_at_ms: row.get(6),
        })
        .collect())
}
