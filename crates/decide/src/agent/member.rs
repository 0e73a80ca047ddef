//! This node's members: what they do, what they have promised, and what they do next.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use model::leadership::{Leadership, Term};
use model::postgres::Lsn;
use model::status::{Holdings, MemberStatus, Report, Server, SettingsState, StandbyFacts, Tenure};
use model::system::System;
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
    /// What the server that was started then said of its settings.
    settings: Option<(i64, SettingsState)>,
    flush_asked: Option<i64>,
    flushed_for: Option<i64>,
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
            settings: None,
            flush_asked: None,
            flushed_for: None,
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
            server: self.visible_server().into_owned(),
            led: self.durable.led,
            report: self.report.clone(),
            tenure: self.durable.tenure.clone(),
            trouble: self.trouble.clone().or_else(|| self.failed.clone()),
            settings: self.settings_state(),
            flushed_for: self.flushed_for,
            disk: self.trouble.clone().filter(|_| !matches!(self.server, Server::Unknown)),
        }
    }

    /// What was said by a server that has ended says nothing about the next one.
    fn settings_state(&self) -> SettingsState {
        let said = self.settings.as_ref().filter(|(server, _)| self.server.started_us() == Some(*server));
        said.map_or(SettingsState::Unread, |(_, state)| state.clone())
    }

    /// Whether it has proved, since this agent started, that its sync set is in force.
    pub(super) fn has_proved_its_set(&self) -> bool {
        self.durable.tenure.as_ref().is_some_and(|tenure| tenure.sync_applied.is_some())
    }

    /// What the server does, where a slow action under way says more than the last look.
    pub(super) fn visible_server(&self) -> Cow<'_, Server> {
        let busy = |doing: &str| Cow::Owned(Server::Busy { doing: doing.to_owned() });
        match &self.running {
            Some(Action::Found { .. }) => busy("creating the database"),
            Some(Action::StartDetached) => busy("starting"),
            Some(Action::Restart { .. }) => busy("restarting"),
            Some(Action::StartPrimary { .. }) => busy("starting"),
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
            | None => self.last_seen(),
        }
    }

    /// The server as it was seen last. It does not know under which term it was told to follow; this node remembers.
    fn last_seen(&self) -> Cow<'_, Server> {
        match &self.server {
            Server::Standby(facts) if facts.follows != self.durable.follows => {
                Cow::Owned(Server::Standby(StandbyFacts { follows: self.durable.follows, ..facts.clone() }))
            }
            Server::Standby(_)
            | Server::Unknown
            | Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Primary(_)
            | Server::Sick { .. } => Cow::Borrowed(&self.server),
        }
    }

    /// Whether it may be a primary already, although it was a standby when it was looked at last.
    pub(super) fn is_being_promoted(&self) -> bool {
        matches!(self.running, Some(Action::Promote { .. }))
    }

    /// Whether what is under way may make, or keep, this server a primary under a term that is over.
    fn is_overtaken(&self, record: &Leadership) -> bool {
        match &self.running {
            Some(
                Action::Found { term }
                | Action::Promote { term, .. }
                | Action::StartPrimary { term, .. }
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
                | Action::Restart { .. }
                | Action::Rejoin { .. }
                | Action::Clone { .. },
            )
            | None => false,
        }
    }

    /// Whether what is under way makes this copy follow the primary of a term that is over: a tool that waits for it
    /// would only end at its own limit.
    fn is_superseded(&self, record: &Leadership) -> bool {
        match &self.running {
            Some(
                Action::Follow { term, .. }
                | Action::Restart { term, .. }
                | Action::Rejoin { term, .. }
                | Action::Clone { term, .. },
            ) => *term < record.term,
            Some(
                Action::Found { .. }
                | Action::Promote { .. }
                | Action::StartPrimary { .. }
                | Action::ApplySync { .. }
                | Action::HandOver { .. }
                | Action::Promise(_)
                | Action::Fence { .. }
                | Action::StartDetached
                | Action::Detach { .. }
                | Action::ReportStopped { .. },
            )
            | None => false,
        }
    }

    /// What is remembered of this copy.
    fn history(&self) -> History {
        History {
            system_identifier: self.system_identifier,
            tainted_by: self.durable.tainted_by,
            follows: self.durable.follows,
            taken_from: self.durable.taken_from,
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
        self.durable.is_elected(tenure.term);
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
                let how =
                    if clean_end.is_some() { "it was shut down" } else { "it was not shut down cleanly" };
                self.server = Server::Stopped { because: how.to_owned() };
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
            Outcome::Follows(term) | Outcome::Rejoined(term) => {
                self.durable.follows(term);
                self.durable.forget_leading();
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

    pub(super) fn settings(
        &mut self,
        database: &DatabaseName,
        server: i64,
        parameters: &BTreeMap<String, String>,
        state: SettingsState,
    ) {
        // An answer to a question about settings that have changed since is none.
        let in_force = self.system.databases.get(database).map(|config| &config.parameters);
        if in_force == Some(parameters)
            && let Some(own) = self.own.get_mut(database)
        {
            own.settings = Some((server, state));
        }
    }

    /// A new file with other parameters: how the servers stand to it is not known.
    pub(super) fn forget_settings(&mut self, next: &System) {
        for (name, own) in &mut self.own {
            let of = |system: &System| system.databases.get(name).map(|config| config.parameters.clone());
            if of(&self.system) != of(next) {
                own.settings = None;
            }
        }
    }

    pub(super) fn flushed(&mut self, database: &DatabaseName, server: i64) {
        if let Some(own) = self.own.get_mut(database) {
            own.flushed_for = Some(server);
        }
    }

    /// A primary whose turn it is to restart flushes its dirty pages while it serves: its shutdown is short then.
    pub(super) fn flush_members(&mut self, commands: &mut Vec<Command>) {
        for (name, own) in &mut self.own {
            let record = self.records.get(name).map(|stored| &stored.value);
            let turn = record.and_then(|record| {
                let turn = record.restart.as_ref().filter(|turn| turn.member == self.me);
                turn.filter(|_| record.primary() == Some(&self.me))
            });
            let Some(server) = turn.map(|turn| turn.server) else { continue };
            if own.server.started_us() == Some(server) && own.flush_asked != Some(server) {
                own.flush_asked = Some(server);
                commands.push(Command::Flush { database: name.clone(), server });
            }
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
        // The end of something that was superseded in the meantime: what it says is true, but another action runs.
        let action = own.running.take_if(|running| outcome.answers(running));
        // The time without a stream before it was told whom to follow says nothing about that primary.
        if matches!(outcome, Outcome::Follows(_) | Outcome::Rejoined(_)) {
            own.unstreamed_since = None;
        }
        if let Some(server) = server {
            own.set_server(server, now);
        }
        let subject = format!("database/{database}");
        if let Outcome::Failed { action: failed, because } = &outcome {
            if action.is_none() {
                return; // It was superseded; that it did not end well was to be expected.
            }
            own.retry_at = now + RETRY;
            own.failed = Some(because.clone());
            if self.said.sentence(format!("{subject} failure on {me}"), because) {
                self.said.warning(&subject, &me, &format!("{} failed", phrase(failed)), because);
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
        let record = self.records.get(database).map(|stored| &stored.value);
        let own = self.own.get_mut(database).filter(|own| own.recovered)?;
        if let Some(record) = record.filter(|record| own.is_overtaken(record)) {
            let because = format!("term {} has begun: {}", record.term, record.because);
            own.running = Some(Action::Fence { because });
            return own.running.clone();
        }
        // What is superseded makes way for the first thing that the new term demands.
        let superseded = match record {
            Some(record) if own.is_superseded(record) => own.running.take(),
            Some(_) | None => None,
        };
        if own.running.is_some() {
            return None;
        }
        // The time without a stream says something only about a primary that is heard and works: whoever is cut off, or
        // follows one that has died, would throw its copy away for nothing, and cannot report while it does.
        if !primary_works(record, &self.peers, database, self.now) {
            own.unstreamed_since = own.unstreamed_since.map(|_| self.now);
        }
        let status = own.status();
        let others = said(&self.peers, database).collect();
        let question = member::Question {
            me: &self.me,
            record,
            own: &status,
            others: &others,
            history: own.history(),
            unstreamed_since: own.unstreamed_since,
            paused: self.paused.is_some(),
            now: self.now,
        };
        let decision = member::decide(&question);
        if decision.action.is_none() {
            if superseded.is_some() {
                own.running = superseded;
                return None;
            }
            // Nothing is left of what failed.
            own.failed = None;
        }
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
            self.said.info(&subject, &self.me, &what, &decision.because);
        }
        if let Some(Action::Promote { term, .. } | Action::StartPrimary { term, .. }) = &decision.action {
            own.durable.is_elected(*term);
        }
        own.running.clone_from(&decision.action);
        decision.action
    }

    /// How far the other members' copies reach that are standbys and follow the term in force, as they said last: log
    /// before that is not needed for them.
    pub fn standby_positions(&self, database: &DatabaseName) -> BTreeMap<NodeName, Lsn> {
        let Some(record) = self.records.get(database) else { return BTreeMap::new() };
        let position = |status: &MemberStatus| match &status.server {
            Server::Standby(facts) if facts.follows == record.value.term => Some(facts.position.lsn),
            Server::Standby(_)
            | Server::Unknown
            | Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Primary(_)
            | Server::Sick { .. } => None,
        };
        let others = said(&self.peers, database);
        others.filter_map(|(node, status)| Some((node.clone(), position(status)?))).collect()
    }
}

/// Whether the primary is heard and said last that it is one.
fn primary_works(
    record: Option<&Leadership>,
    peers: &BTreeMap<NodeName, super::Peer>,
    database: &DatabaseName,
    now: Moment,
) -> bool {
    let primary = record.and_then(Leadership::primary).and_then(|primary| peers.get(primary));
    let said = primary.filter(|peer| peer.is_heard(now)).and_then(|peer| peer.member(database));
    said.is_some_and(|status| matches!(status.server, Server::Primary(_)))
}

/// What the other members said last.
pub(super) fn said<'a>(
    peers: &'a BTreeMap<NodeName, super::Peer>,
    database: &DatabaseName,
) -> impl Iterator<Item = (&'a NodeName, &'a MemberStatus)> {
    peers.iter().filter_map(move |(name, peer)| Some((name, peer.member(database)?)))
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
        | Action::Restart { .. }
        | Action::StartPrimary { .. }
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
        Action::Restart { .. } => "restart".to_owned(),
        Action::StartPrimary { .. } => "start as the primary".to_owned(),
        Action::Rejoin { primary, .. } => format!("rejoin to {primary}"),
        Action::Clone { primary, .. } => format!("copy of {primary}"),
        Action::HandOver { .. } => "hand-over".to_owned(),
    }
}
