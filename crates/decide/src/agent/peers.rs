//! The other nodes: who is heard, who is silent, what they said, and since when their word holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::leadership::Term;
use model::status::{Heartbeat, MemberStatus, NodeStatus, PeerMessage, Silence};
use model::time::Moment;
use model::{DatabaseName, LineName, NodeName};

use super::{Agent, Command};
use crate::lease::Confirmation;
use crate::silence::{Detector, HEARTBEAT, Hearing, LONGEST_LIMIT};
use crate::view::Reach;

/// How many of our own heartbeats are remembered, to date the echoes: more than a minute of them.
const REMEMBERED: usize = 2048;

/// How long a node may stay away that was never heard since this agent started. Afterwards it is silent like any other: a
/// primary that does not come back with the others, after a loss of power everywhere, would else be waited for for ever. Longer
/// than an agent takes to be heard, because which machine starts first is chance.
pub(super) const NEVER_HEARD_LIMIT: Duration = Duration::from_secs(5);

/// One other node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    detector: Detector,
    /// When a heartbeat was sent to it first, so that it could have answered.
    asked_since: Option<Moment>,
    lines: BTreeSet<LineName>,
    /// When the last connection ended because the other side's kernel closed it; cleared when one is established.
    closed_since: Option<Moment>,
    pub(super) status: Option<NodeStatus>,
    heard: Option<(u64, u64)>,
    confirmed: BTreeMap<DatabaseName, Confirmation>,
}

impl Peer {
    pub(super) fn lines_up(&self) -> &BTreeSet<LineName> {
        &self.lines
    }

    pub(super) fn confirmation(&self, database: &DatabaseName) -> Option<Confirmation> {
        self.confirmed.get(database).copied()
    }

    /// What its agent said last of its member of a database.
    pub(super) fn member(&self, database: &DatabaseName) -> Option<&MemberStatus> {
        self.status.as_ref()?.members.get(database)
    }

    /// How this node alone hears the peer.
    pub(super) fn silence(&self, now: Moment) -> Option<Silence> {
        match (self.detector.hearing(now), self.closed_since) {
            (Hearing::Never, _) => self.stayed_away(now).map(|_| Silence::Silent),
            (_, Some(_)) if self.lines.is_empty() => Some(Silence::Closed),
            (Hearing::Silent { .. }, _) => Some(Silence::Silent),
            (Hearing::Heard { .. }, _) => None,
        }
    }

    /// Since when it could have been heard, if it never was and that is long enough.
    fn stayed_away(&self, now: Moment) -> Option<Moment> {
        let never = self.detector.hearing(now) == Hearing::Never;
        self.asked_since.filter(|since| never && now.since(*since) >= NEVER_HEARD_LIMIT)
    }

    /// Whether it is heard and not missed.
    pub(super) fn is_heard(&self, now: Moment) -> bool {
        self.was_heard(now) && self.silence(now).is_none()
    }

    /// Whether it is far from being missed.
    pub(super) fn was_heard_of_late(&self, now: Moment) -> bool {
        match self.detector.hearing(now) {
            Hearing::Heard { until } => self.closed_since.is_none() && until.since(now) > 3 * HEARTBEAT,
            Hearing::Never | Hearing::Silent { .. } => false,
        }
    }

    pub(super) fn was_heard(&self, now: Moment) -> bool {
        self.detector.hearing(now) != Hearing::Never
    }
}

impl Agent {
    /// Time has passed in which this agent did not run. Longer than any silence that is tolerated it was stopped, or its
    /// machine was; less may be a machine with too much to do, and then a dead node must still be found.
    pub(super) fn note_standstill(&mut self, gap: Duration) {
        if gap > LONGEST_LIMIT {
            self.peers.values_mut().for_each(|peer| peer.detector.stood_still(gap));
        }
    }

    pub(super) fn line_up(&mut self, peer: &NodeName, line: LineName, commands: &mut Vec<Command>) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.lines.insert(line);
        known.closed_since = None;
        known.detector.connected(now);
        let status = PeerMessage::Status(Box::new(self.status.clone()));
        commands.push(Command::Send { to: peer.clone(), message: status });
    }

    pub(super) fn line_down(&mut self, peer: &NodeName, line: &LineName, closed: bool) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.lines.remove(line);
        if closed && known.lines.is_empty() {
            known.closed_since.get_or_insert(now);
        }
    }

    pub(super) fn hear(&mut self, from: &NodeName, message: PeerMessage) {
        let (now, incarnation) = (self.now, self.incarnation);
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.detector.heard(now);
        match message {
            PeerMessage::Heartbeat(heartbeat) => {
                let as_of = heartbeat
                    .echo
                    .filter(|(of, _)| *of == incarnation)
                    .and_then(|(_, sequence)| self.sent_at.get(&sequence).copied());
                peer.beat(&heartbeat, as_of);
            }
            PeerMessage::Status(status) => {
                let newer = |known: &NodeStatus| {
                    (status.incarnation, status.version) > (known.incarnation, known.version)
                };
                if status.node == *from && peer.status.as_ref().is_none_or(newer) {
                    let before = peer.status.take().and_then(|known| known.instances);
                    // An agent that has just started does not know yet what runs: what it said before still holds.
                    peer.status =
                        Some(NodeStatus { instances: status.instances.clone().or(before), ..*status });
                }
            }
        }
    }

    /// Sends the heartbeat when it is due.
    pub(super) fn beat(&mut self, commands: &mut Vec<Command>) {
        if self.now < self.next_heartbeat {
            return;
        }
        self.next_heartbeat = self.now + HEARTBEAT;
        self.sequence += 1;
        self.sent_at.insert(self.sequence, self.now);
        if self.sent_at.len() > REMEMBERED {
            self.sent_at.pop_first();
        }
        let promises: BTreeMap<DatabaseName, Term> = self
            .own
            .iter()
            .filter(|(_, own)| own.recovered)
            .map(|(name, own)| (name.clone(), own.durable.promised))
            .collect();
        for (name, peer) in &mut self.peers {
            peer.asked_since.get_or_insert(self.now);
            let heartbeat = Heartbeat {
                incarnation: self.incarnation,
                sequence: self.sequence,
                echo: peer.heard,
                promises: promises.clone(),
                status_version: self.status.version,
            };
            commands.push(Command::Send { to: name.clone(), message: PeerMessage::Heartbeat(heartbeat) });
        }
    }

    /// Whether `node` can be reached, by our own ears and those of the others that we hear.
    pub(super) fn reach(&self, node: &NodeName) -> Reach {
        if *node == self.me {
            return Reach::Alive;
        }
        let Some(peer) = self.peers.get(node) else { return Reach::NeverHeard };
        match (peer.detector.hearing(self.now), peer.silence(self.now)) {
            (Hearing::Never, _) => match peer.stayed_away(self.now) {
                Some(since) if self.others_agree(node) => Reach::Dead { since },
                Some(_) | None => Reach::NeverHeard,
            },
            (_, Some(Silence::Closed)) => Reach::AgentGone { since: peer.closed_since.unwrap_or(self.now) },
            (Hearing::Silent { since }, _) if self.others_agree(node) => Reach::Dead { since },
            (Hearing::Silent { since }, _) => Reach::Doubtful { since },
            (Hearing::Heard { .. }, _) => Reach::Alive,
        }
    }

    /// Whether most of those that can be asked, this node included, do not hear `node` either.
    fn others_agree(&self, node: &NodeName) -> bool {
        let observers =
            self.peers.iter().filter(|(name, peer)| *name != node && peer.silence(self.now).is_none());
        let words: Vec<bool> = observers
            .filter_map(|(_, peer)| peer.status.as_ref())
            .map(|status| status.silent.contains_key(node))
            .collect();
        let (asked, agree) = (words.len() + 1, words.iter().filter(|silent| **silent).count() + 1);
        agree * 2 > asked
    }

    /// Whom this node does not hear, for its status.
    pub(super) fn silent_peers(&self) -> BTreeMap<NodeName, Silence> {
        self.peers.iter().filter_map(|(name, peer)| Some((name.clone(), peer.silence(self.now)?))).collect()
    }
}

impl Peer {
    fn beat(&mut self, heartbeat: &Heartbeat, as_of: Option<Moment>) {
        let said = (heartbeat.incarnation, heartbeat.sequence);
        if self.heard.is_some_and(|heard| heard >= said) {
            return; // The same heartbeat over another line, or an older one that was delayed.
        }
        self.heard = Some(said);
        let Some(as_of) = as_of else { return };
        for (database, promised) in &heartbeat.promises {
            self.confirmed.insert(database.clone(), Confirmation { promised: *promised, as_of });
        }
    }
}
