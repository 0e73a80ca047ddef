//! Booking an order exactly once.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::database::{Fault, Pool};

/// Longest key accepted.
const MAX_KEY: usize = 200;

/// Books the order and both ledger entries, or finds the order of an earlier attempt.
///
/// An order that is found is also written to. Its first attempt may have been cut off after the commit on the primary but
/// before a standby had it; a mere look would call it booked although a failover could still lose it. The commit of our
/// write is acknowledged only when everything before it is safe.
const BOOK: &str = "
with placed as (
    insert into shop.orders (key, product_id, quantity, amount_cents, placed_by)
    select $1, id, $3, price_cents * $3, $4 from shop.products where id = $2
    on conflict (key) do update set repeats = orders.repeats + 1
    returning id, product_id, quantity, amount_cents, repeats = 0 as fresh
), entered as (
    insert into shop.entries (order_id, account_id, amount_cents)
    select placed.id, side.account, side.sign * placed.amount_cents
    from placed, (values (1, -1), (2, 1)) as side (account, sign) where placed.fresh
)
select id, amount_cents, fresh, product_id = $2 and quantity = $3 as same from placed";

/// What a client orders.
#[derive(Debug, Deserialize)]
pub(crate) struct NewOrder {
    /// The client's name for this order. An order with the same key is the same order.
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) product: i32,
    #[serde(default = "one")]
    pub(crate) quantity: i32,
}

/// A booked order.
#[derive(Debug, Serialize)]
pub(crate) struct Booked {
    pub(crate) order: i64,
    pub(crate) key: String,
    pub(crate) amount_cents: i64,
    /// It was booked by an earlier request with the same key.
    pub(crate) repeated: bool,
}

/// Why an order was not booked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The client's fault.
    #[error("{0}")]
    Invalid(&'static str),
    /// No such product.
    #[error("there is no product {0}")]
    NoProduct(i32),
    /// The key was used for something else.
    #[error("the key was used for another order before; take a new key for a new order")]
    KeyTaken,
    /// The database.
    #[error(transparent)]
    Database(#[from] Fault),
}

impl NewOrder {
    fn check(&self) -> Result<(), OrderError> {
        if self.key.is_empty() {
            return Err(OrderError::Invalid(
                "an order needs a key: send the header Idempotency-Key or the field `key`",
            ));
        }
        if self.key.len() > MAX_KEY || self.key.contains('\0') {
            return Err(OrderError::Invalid("the key is too long, or contains a zero byte"));
        }
        if (1..=1000).contains(&self.quantity) {
            return Ok(());
        }
        Err(OrderError::Invalid("the quantity must be from 1 to 1000"))
    }
}

/// Books `order` in the name of `instance` and returns after the commit.
pub(crate) async fn book(
    pool: &Pool,
    order: &NewOrder,
    instance: &str,
    deadline: Instant,
) -> Result<Booked, OrderError> {
    order.check()?;
    let params = [
        (&order.key as _, Type::TEXT),
        (&order.product as _, Type::INT4),
        (&order.quantity as _, Type::INT4),
        (&instance as _, Type::TEXT),
    ];
    let rows = pool.query(BOOK, &params, deadline).await?;
    let row = rows.first().ok_or(OrderError::NoProduct(order.product))?;
    if !row.get::<_, bool>("same") {
        return Err(OrderError::KeyTaken);
    }
    Ok(Booked {
        order: row.get("id"),
        key: order.key.clone(),
        amount_cents: row.get("amount_cents"),
        repeated: !row.get::<_, bool>("fresh"),
    })
}

fn one() -> i32 {
    1
}
