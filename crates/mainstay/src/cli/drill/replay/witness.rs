//! What the agents of a system say of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::agent::Overview;
use decide::story::Rest;
use mainstay::api::client::ask;
use mainstay::api::{Reply, Request};
use model::event::Event;
use model::leadership::Leadership;
use model::{DatabaseName, NodeName};
use tokio::task::JoinSet;

/// How long an agent may take to say what it knows.
const LIMIT: Duration = Duration::from_millis(500);

/// Asks all agents again and again.
pub(super) struct Witness {
    database: DatabaseName,
    sockets: BTreeMap<NodeName, PathBuf>,
    since_us: i64,
    /// What each node has written down since, as it told it last: one that has ended is asked no more.
    events: BTreeMap<NodeName, Vec<Event>>,
    overviews: BTreeMap<NodeName, Overview>,
    /// The newest record that anybody has told.
    record: Option<Leadership>,
}

impl Witness {
    /// `since_us`: when it begins, in microseconds since the Unix epoch.
    pub(super) fn new(database: DatabaseName, sockets: BTreeMap<NodeName, PathBuf>, since_us: i64) -> Self {
        let (events, overviews) = (BTreeMap::new(), BTreeMap::new());
        Self { database, sockets, since_us, events, overviews, record: None }
    }

    /// Asks everybody.
    pub(super) async fn look(&mut self) {
        let mut asked = JoinSet::new();
        for (node, socket) in self.sockets.clone() {
            let since_us = self.since_us;
            asked.spawn(async move { (node, overview(&socket).await, events(&socket, since_us).await) });
        }
        self.overviews.clear();
        for (node, overview, events) in asked.join_all().await {
            if let Some(events) = events {
                self.events.insert(node.clone(), events);
            }
            if let Some(overview) = overview {
                self.overviews.insert(node, overview);
            }
        }
        if let Some(record) = self.teller().and_then(|teller| teller.databases.get(&self.database)) {
            self.record = Some(record.clone());
        }
    }

    /// All events since the beginning, by their times.
    pub(super) fn events(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self.events.values().flatten().collect();
        events.sort_by_key(|event| event.at_us);
        events
    }

    /// The primary that the newest record names.
    pub(super) fn primary(&self) -> Option<NodeName> {
        self.record.as_ref()?.primary().cloned()
    }

    /// The first member that confirms commits.
    pub(super) fn confirming(&self) -> Option<NodeName> {
        self.record.as_ref()?.sync.members.first().cloned()
    }

    /// How things stand, by what was said last.
    pub(super) fn rest(&self, writes: bool) -> Rest {
        self.teller().map_or_else(Rest::default, |overview| Rest::of(overview, &self.database, writes))
    }

    /// The leader, or without one whoever knows the newest record. A leader that does not hear most nodes is none.
    fn teller(&self) -> Option<&Overview> {
        let hears_most = |overview: &Overview| {
            let heard = overview.nodes.values().filter(|node| node.heard && node.silent.is_none()).count();
            heard * 2 > overview.nodes.len()
        };
        let leads =
            |overview: &Overview| overview.leader.as_ref() == Some(&overview.node) && hears_most(overview);
        let term = |overview: &Overview| overview.databases.get(&self.database).map(|record| record.term);
        self.overviews.values().max_by_key(|overview| (leads(overview), term(overview)))
    }
}

async fn overview(socket: &Path) -> Option<Overview> {
    match ask(socket, &Request::Overview, LIMIT).await {
        Ok(Reply::Overview(overview)) => Some(*overview),
        Ok(_) | Err(_) => None,
    }
}

async fn events(socket: &Path, since_us: i64) -> Option<Vec<Event>> {
    match ask(socket, &Request::Events { since_us, everywhere: false }, LIMIT).await {
        Ok(Reply::Events(events)) => Some(events),
        Ok(_) | Err(_) => None,
    }
}
