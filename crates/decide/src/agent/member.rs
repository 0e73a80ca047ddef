//! This node's members: what they do, what they have promised, and what they do next.

use std::collections::BTreeMap;
use std::time::Duration;

use model::leadership::{Leadership, Term};
use model::status::{Holdings, MemberStatus, Report, Server, Tenure};
use model::time::Moment;
use model::{DatabaseName, NodeName};

use super::{Agent, Command, Durable, Outcome};
use crate::lease::{Received, StoreRead};
use crate::member::{self, Action, History};

/// How long to wait before an action that failed is decided anew.
const RETRY: Duration = Duration::from_millis(400);

/// A member on this node.
#[derive(Debug)]
pub(super) struct Own {
    /// Whether what was written down before a restart has been read: before that nothing is decided.
    pub(super) recovered: bool,
    pub(super) durable: Durable,
    server: Server,
    system_identifier: Option<u64>,
    trouble: Option<String>,
    failed: Option<String>,
    report: Option<Report>,
    running: Option<Action>,
    retry_at: Moment,
    unstreamed_since: Option<Moment>,
    pub(super) read: Option<StoreRead>,
    pub(super) received: Received,
    pub(super) gate_until: Option<Moment>,
    pub(super) gate_set_at: Moment,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            recovered: false,
            durable: Durable::default(),
            server: Server::Unknown,
            system_identifier: None,
            trouble: None,
            failed: None,
            report: None,
            running: None,
            retry_at: Moment::default(),
            unstreamed_since: None,
            read: None,
            received: Received::default(),
            gate_until: None,
            gate_set_at: Moment::default(),
        }
    }
}

impl Own {
    /// What the others are told.
    pub(super) fn status(&self) -> MemberStatus {
        MemberStatus {
            promised: self.durable.promised,
            server: self.visible_server(),
            led: self.durable.led,
            report: self.report.clone(),
            tenure: self.durable.tenure.clone(),
            trouble: self.trouble.clone().or_else(|| self.failed.clone()),
            disk: self.trouble.clone().filter(|_| !matches!(self.server, Server::Unknown)),
        }
    }

    /// Whether it has proved, since this agent started, that its sync set is in force.
    pub(super) fn has_proved_its_set(&self) -> bool {
        self.durable.tenure.as_ref().is_some_and(|tenure| tenure.sync_applied.is_some())
    }

    /// What the server does, where a slow action under way says more than the last look.
    fn visible_server(&self) -> Server {
        let busy = |doing: &str| Server::Busy { doing: doing.to_owned() };
        let mut server = match &self.running {
            Some(Action::Found { .. }) => busy("creating the database"),
            Some(Action::StartDetached) => busy("starting"),
            Some(Action::Rejoin { .. }) => busy("rejoining"),
            Some(Action::Clone { .. }) => busy("copying the primary"),
            Some(Action::Follow { .. }) if !matches!(self.server, Server::Standby(_)) => busy("starting"),
            Some(Action::Fence { .. }) => busy("being fenced"),
            Some(
                Action::Promise(_)
                | Action::Detach { .. }
                | Action::ReportStopped { .. }
                | Action::Promote { .. }
                | Action::ApplySync { .. }
                | Action::Follow { .. }
                | Action::HandOver { .. },
            )
            | None => self.server.clone(),
        };
        // The server does not know under which term it was told to follow; this node remembers.
        if let Server::Standby(facts) = &mut server {
            facts.follows = self.durable.follows;
        }
        server
    }

    /// Whether what is under way may make, or keep, this server a primary under a term that is over.
    fn is_overtaken(&self, record: &Leadership) -> bool {
        match &self.running {
            Some(
                Action::Found { term }
                | Action::Promote { term, .. }
                | Action::ApplySync { term, .. }
                | Action::HandOver { term },
            ) => *term < record.term && self.durable.promised <= record.term,
            Some(
                Action::Promise(_)
                | Action::Fence { .. }
                | Action::StartDetached
                | Action::Detach { .. }
                | Action::ReportStopped { .. }
                | Action::Follow { .. }
                | Action::Rejoin { .. }
                | Action::Clone { .. },
            )
            | None => false,
        }
    }

    fn set_server(&mut self, server: Server, now: Moment) {
        let streams = matches!(&server, Server::Standby(facts) if facts.streaming);
        if streams || !matches!(server, Server::Standby(_)) {
            self.unstreamed_since = None;
        } else {
            self.unstreamed_since.get_or_insert(now);
        }
        self.server = server;
    }

    fn leads(&mut self, tenure: Tenure) {
        self.durable.led = Some(tenure.term);
        self.durable.tainted_by = Some(tenure.term);
        self.durable.tenure = Some(tenure);
        self.durable.follows = Term(0);
        self.report = None;
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Promised(term) => self.durable.promised = self.durable.promised.max(term),
            Outcome::Fenced | Outcome::StartedDetached => self.durable.follows = Term(0),
            Outcome::Detached(term, position) => {
                self.durable.follows = Term(0);
                if let Server::Standby(facts) = &mut self.server {
                    facts.streaming = false;
                    facts.position = position;
                }
                self.report = Some(Report { term, holds: Holdings::Upto(position) });
            }
            Outcome::Stopped { term, led, clean_end } => {
                self.durable.promised = self.durable.promised.max(term);
                self.report = Some(Report { term, holds: Holdings::Everything { led, clean_end } });
            }
            Outcome::Leads { tenure } => self.leads(tenure),
            Outcome::SyncApplied { term, version, proved } => {
                if let Some(tenure) =
                    self.durable.tenure.as_mut().filter(|tenure| proved && tenure.term == term)
                {
                    tenure.sync_applied = Some(version);
                }
            }
            Outcome::Follows(term) => self.durable.follows = term,
            Outcome::Rejoined(term) => {
                self.durable.follows = term;
                self.durable.tainted_by = None;
            }
            Outcome::Failed { .. } => {}
        }
    }
}

impl Agent {
    pub(super) fn recovered(&mut self, database: &DatabaseName, durable: Durable) {
        if let Some(own) = self.own.get_mut(database) {
            own.durable = durable;
            // A proof of the sync set does not outlive the agent that made it: it is proved anew.
            if let Some(tenure) = &mut own.durable.tenure {
                tenure.sync_applied = None;
            }
            own.recovered = true;
        }
    }

    pub(super) fn observed(
        &mut self,
        database: &DatabaseName,
        asked: Moment,
        server: Server,
        system_identifier: Option<u64>,
        trouble: Option<String>,
    ) {
        let now = self.now;
        if let Some(own) = self.own.get_mut(database) {
            own.received.look(asked, &server);
            own.set_server(server, now);
            own.system_identifier = system_identifier.or(own.system_identifier);
            own.trouble = trouble;
        }
    }

    pub(super) fn read(&mut self, database: &DatabaseName, term: Term, as_of: Moment) {
        if let Some(own) = self.own.get_mut(database) {
            own.read = Some(StoreRead { term, as_of });
        }
    }

    pub(super) fn done(&mut self, database: &DatabaseName, outcome: Outcome, server: Option<Server>) {
        let (now, me) = (self.now, self.me.clone());
        let Some(own) = self.own.get_mut(database) else { return };
        let action = own.running.take();
        if let Some(server) = server {
            own.set_server(server, now);
        }
        let subject = format!("database/{database}");
        if let Outcome::Failed { action, because } = &outcome {
            own.retry_at = now + RETRY;
            own.failed = Some(because.clone());
            if self.said.sentence(format!("{subject} failure on {me}"), because) {
                self.said.warning(&subject, &me, &format!("{} failed", phrase(action)), because);
            }
            return;
        }
        own.failed = None;
        if matches!(outcome, Outcome::SyncApplied { proved: false, .. }) {
            own.retry_at = now + RETRY;
        }
        own.take_outcome(outcome);
        if let Some(action) = action.filter(is_worth_an_event) {
            self.said.info(
                &subject,
                &me,
                &format!("{me}: {} done", phrase(&action)),
                "it was decided and has succeeded",
                now,
            );
        }
    }

    /// Asks every member that is idle what to do next; fences one that must not go on.
    pub(super) fn decide_members(&mut self, commands: &mut Vec<Command>) {
        if !self.loaded {
            return;
        }
        let names: Vec<DatabaseName> = self.own.keys().cloned().collect();
        for name in names {
            if let Some(action) = self.next_action(&name) {
                commands.push(Command::Member { database: name, action });
            }
        }
    }

    fn next_action(&mut self, database: &DatabaseName) -> Option<Action> {
        let others = self.others(database);
        let record = self.records.get(database).map(|stored| &stored.value);
        let own = self.own.get_mut(database).filter(|own| own.recovered)?;
        if let Some(record) = record.filter(|record| own.is_overtaken(record)) {
            let because = format!("term {} has begun: {}", record.term, record.because);
            let action = Action::Fence { because };
            own.running = Some(action.clone());
            return Some(action);
        }
        if own.running.is_some() {
            return None;
        }
        let status = own.status();
        let question = member::Question {
            me: &self.me,
            record,
            own: &status,
            others: &others,
            history: History { system_identifier: own.system_identifier, tainted_by: own.durable.tainted_by },
            unstreamed_since: own.unstreamed_since,
            paused: self.paused.is_some(),
            now: self.now,
        };
        let decision = member::decide(&question);
        // What failed is not tried again at once; a promise or a fence never waits.
        if self.now < own.retry_at
            && !matches!(decision.action, Some(Action::Promise(_) | Action::Fence { .. }))
        {
            return None;
        }
        let subject = format!("database/{database}");
        let changed = self.said.sentence(format!("{subject} on {}", self.me), &decision.because);
        if let Some(action) = &decision.action
            && changed
            && is_worth_an_event(action)
        {
            let what = format!("{}: {}", self.me, phrase(action));
            self.said.info(&subject, &self.me, &what, &decision.because, self.now);
        }
        own.running.clone_from(&decision.action);
        decision.action
    }

    /// What the other members said last.
    pub(super) fn others(&self, database: &DatabaseName) -> BTreeMap<NodeName, MemberStatus> {
        let said = |peer: &super::Peer| peer.status.as_ref()?.members.get(database).cloned();
        self.peers.iter().filter_map(|(name, peer)| Some((name.clone(), said(peer)?))).collect()
    }
}

/// Whether an action is told to people; the rest is bookkeeping.
fn is_worth_an_event(action: &Action) -> bool {
    match action {
        Action::Promise(_)
        | Action::ApplySync { .. }
        | Action::ReportStopped { .. }
        | Action::StartDetached => false,
        Action::Found { .. }
        | Action::Fence { .. }
        | Action::Detach { .. }
        | Action::Promote { .. }
        | Action::Follow { .. }
        | Action::Rejoin { .. }
        | Action::Clone { .. }
        | Action::HandOver { .. } => true,
    }
}

fn phrase(action: &Action) -> String {
    match action {
        Action::Promise(term) => format!("promise of term {term}"),
        Action::Found { .. } => "creation of the database".to_owned(),
        Action::Fence { .. } => "fence".to_owned(),
        Action::StartDetached => "start".to_owned(),
        Action::Detach { .. } => "disconnection from the former primary".to_owned(),
        Action::ReportStopped { .. } => "report".to_owned(),
        Action::Promote { .. } => "promotion".to_owned(),
        Action::ApplySync { sync, .. } => format!("sync set {sync}"),
        Action::Follow { primary, .. } => format!("following {primary}"),
        Action::Rejoin { primary, .. } => format!("rejoin to {primary}"),
        Action::Clone { primary, .. } => format!("copy of {primary}"),
        Action::HandOver { .. } => "hand-over".to_owned(),
    }
}
