//! The state that the page shows, gathered once for all who look at it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Shop;
use crate::database::{Fault, Pool};
use crate::ledger::{self, Listing, Member, Order, Pace, Product, Totals};

/// Viewers within this time see the same state.
const FRESH: Duration = Duration::from_millis(200);
/// Sums over everything are made anew after this time.
const TOTALS_FRESH: Duration = Duration::from_secs(2);
/// How long gathering may take.
const DEADLINE: Duration = Duration::from_millis(900);
/// How many orders the page lists.
const LISTED: i64 = 12;

/// What the page shows. Goods and figures are the last known ones when the database does not answer.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct State {
    instance: String,
    node: String,
    primary: Server,
    /// Nothing when no standby route is configured.
    standby: Option<Server>,
    /// Whether the list of orders was read from the standby.
    orders_from_standby: bool,
    products: Vec<Product>,
    orders: Vec<Order>,
    pace: Option<Pace>,
    totals: Option<Totals>,
}

/// Who answered on one route.
#[derive(Clone, Debug, Default, Serialize)]
struct Server {
    member: Option<Member>,
    /// Why nobody did.
    reason: Option<String>,
    answered_in_ms: f64,
}

/// The latest state.
#[derive(Default)]
pub(super) struct Snapshots {
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    state: Arc<State>,
    made_at: Option<Instant>,
    totals_at: Option<Instant>,
}

impl Snapshots {
    /// The state, at most [`FRESH`] old. Who asks while it is being gathered gets the same one.
    pub(super) async fn current(&self, shop: &Shop) -> Arc<State> {
        let mut latest = self.latest.lock().await;
        if latest.made_at.is_none_or(|at| at.elapsed() > FRESH) {
            let with_totals = latest.totals_at.is_none_or(|at| at.elapsed() > TOTALS_FRESH);
            let state = gather(shop, &latest.state, with_totals).await;
            if with_totals && state.primary.reason.is_none() {
                latest.totals_at = Some(Instant::now());
            }
            latest.state = Arc::new(state);
            latest.made_at = Some(Instant::now());
        }
        latest.state.clone()
    }
}

async fn gather(shop: &Shop, before: &State, with_totals: bool) -> State {
    let deadline = Instant::now() + DEADLINE;
    let (primary, standby) = tokio::join!(
        from_primary(shop, before, with_totals, deadline),
        from_standby(shop.replica.as_ref(), deadline),
    );
    let mut state = primary;
    if let Some((server, orders)) = standby {
        state.orders_from_standby = orders.is_some();
        state.orders = orders.unwrap_or(state.orders);
        state.standby = Some(server);
    }
    state
}

async fn from_primary(shop: &Shop, before: &State, with_totals: bool, deadline: Instant) -> State {
    let pool = shop.primary.as_ref();
    let mut state =
        State { instance: shop.instance.clone(), node: shop.node.clone(), standby: None, ..before.clone() };
    let (primary, orders) = look(pool, deadline).await;
    if let Some(orders) = orders {
        state.orders = orders;
    }
    state.primary = primary;
    let more = async {
        state.pace = Some(ledger::pace(pool, deadline).await?);
        if state.products.is_empty() {
            state.products = ledger::products(pool, deadline).await?;
        }
        if with_totals {
            state.totals = Some(ledger::totals(pool, deadline).await?);
        }
        Ok::<(), Fault>(())
    };
    if let (None, Err(fault)) = (&state.primary.reason, more.await) {
        shop.schema.consider(&fault);
        state.primary.reason = Some(fault.to_string());
    }
    state
}

async fn from_standby(pool: Option<&Pool>, deadline: Instant) -> Option<(Server, Option<Vec<Order>>)> {
    Some(look(pool?, deadline).await)
}

/// Who answers there, and the newest orders it knows.
async fn look(pool: &Pool, deadline: Instant) -> (Server, Option<Vec<Order>>) {
    let begin = Instant::now();
    let member = ledger::member(pool, deadline).await;
    let answered_in_ms = begin.elapsed().as_secs_f64() * 1000.0;
    let orders = match &member {
        Ok(_) => ledger::orders(pool, &Listing::Newest, LISTED, deadline).await.ok(),
        Err(_) => None,
    };
    match member {
        Ok(member) => (Server { member: Some(member), reason: None, answered_in_ms }, orders),
        Err(fault) => (Server { member: None, reason: Some(fault.to_string()), answered_in_ms }, orders),
    }
}
