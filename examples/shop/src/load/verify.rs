//! Comparing what was acknowledged with what is booked.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::run::Placed;

/// How long the shop may take to answer each question.
const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: usize = 1000;

/// The result of the comparison.
#[derive(Debug, Serialize)]
pub(super) struct Verified {
    /// Orders of this run that are booked.
    pub(super) booked: usize,
    /// Acknowledged, but not booked.
    pub(super) lost: Vec<String>,
    /// Booked more than once.
    pub(super) doubled: Vec<String>,
    /// Booked although their acknowledgement never arrived. No fault: the client could not know.
    pub(super) booked_unanswered: usize,
    /// The shop's own audit over all orders.
    pub(super) audit: Audit,
}

/// What the shop's auditor says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Audit {
    pub(super) orders: i64,
    pub(super) duplicates: i64,
    pub(super) ledger_sum_cents: i64,
    pub(super) unbalanced: i64,
    pub(super) in_order: bool,
}

#[derive(Debug, Deserialize)]
struct Order {
    id: i64,
    key: String,
}

/// Reads back every order of the run.
pub(super) async fn verify(client: &Client, placed: &Placed) -> Result<Verified, String> {
    let mut booked: HashMap<String, usize> = HashMap::new();
    let mut after = 0;
    loop {
        let path = format!("/api/orders?prefix={}&after={after}&limit={PAGE}", placed.prefix);
        let page: Vec<Order> = client.get(&path, PATIENCE).await?;
        after = page.last().map_or(after, |order| order.id);
        let whole = page.len() == PAGE;
        for order in page {
            *booked.entry(order.key).or_default() += 1;
        }
        if !whole {
            break;
        }
    }
    let audit = client.get("/api/audit", PATIENCE).await?;
    let count = |key: &String| booked.get(key).copied().unwrap_or(0);
    let mut doubled: Vec<String> =
        booked.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key.clone()).collect();
    doubled.sort();
    Ok(Verified {
        booked: booked.values().sum(),
        lost: placed.acknowledged.iter().filter(|key| count(key) == 0).cloned().collect(),
        doubled,
        booked_unanswered: placed.unanswered.iter().filter(|key| count(key) > 0).count(),
        audit,
    })
}
