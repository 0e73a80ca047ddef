//! What the elected leader does for the whole system: leadership of databases, placement of instances.

use std::collections::BTreeSet;
use std::time::Duration;

use model::leadership::Leadership;
use model::routes::InstanceRouteState;
use model::{DatabaseName, NodeName, ServiceName, SiteName};

use super::commands::{Store, Value};
use super::{Agent, Command};
use crate::leadership::{self, Question, Refusal};
use crate::placement::{self, Copy, Wish};
use crate::view::{MemberView, Members, Reach, Rules};

/// How long a node must be dead before its instances are started elsewhere.
const INSTANCES_MOVE_AFTER: Duration = Duration::from_secs(5);

/// How long a leader leads before it hands the lead on, and how long it waits after an attempt.
pub(super) const LEAD_REST: Duration = Duration::from_secs(3);

/// After this long an answer to a commit does not come any more: effects give up after 2 s. A leader that waited for it for
/// ever would decide nothing for ever; that both commits take effect is what compare-and-set excludes.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(3);

impl Agent {
    /// Whether the answer to a commit is still to be expected.
    pub(super) fn awaits_commit(&self, store: &Store) -> bool {
        self.committing.get(store).is_some_and(|since| self.now.since(*since) < ANSWER_LIMIT)
    }

    /// Decides what only the leader may, and commits it. Compare-and-set keeps a leader that is not one any more from
    /// being obeyed.
    pub(super) fn lead(&mut self, commands: &mut Vec<Command>) {
        if self.leader.as_ref() != Some(&self.me) || !self.loaded {
            return;
        }
        let names: Vec<DatabaseName> = self.system.databases.keys().cloned().collect();
        for name in names {
            self.lead_database(&name, commands);
        }
        self.place(commands);
        self.lead_from_elsewhere(commands);
    }

    /// A leader beside a primary is handed on when all is calm: if that node died, an election would have to be waited for
    /// before anything could be decided about the primary.
    pub(super) fn lead_from_elsewhere(&mut self, commands: &mut Vec<Command>) {
        if self.now < self.lead_rests_until || !self.is_primary(&self.me) || self.is_under_way() {
            return;
        }
        let able = |node: &&NodeName| {
            self.peers.get(*node).is_some_and(|peer| peer.is_heard(self.now)) && !self.is_primary(node)
        };
        if let Some(to) = self.system.voters().find(able).cloned() {
            commands.push(Command::HandLead { to });
        }
        self.lead_rests_until = self.now + LEAD_REST;
    }

    fn is_primary(&self, node: &NodeName) -> bool {
        self.records.values().any(|stored| stored.value.primary() == Some(node))
    }

    fn lead_database(&mut self, database: &DatabaseName, commands: &mut Vec<Command>) {
        let store = Store::Leadership(database.clone());
        if self.awaits_commit(&store) {
            return;
        }
        let Some((rules, members)) = self.view(database) else { return };
        let stored = self.records.get(database);
        let question = Question {
            rules: &rules,
            record: stored.map(|stored| &stored.value),
            members: &members,
            paused: self.paused.is_some(),
            now: self.now,
        };
        let decision = leadership::decide(&question, self.memory.entry(database.clone()).or_default());
        let expected = stored.map_or(0, |stored| stored.revision);
        let subject = format!("database/{database}");
        let is_new = self.said.sentence(format!("{subject} leadership"), &decision.because);
        match decision.action {
            Some(next) => {
                self.committing.insert(store, self.now);
                commands.push(Command::Commit {
                    expected,
                    value: Value::Leadership(database.clone(), Box::new(next)),
                });
            }
            // A healthy leadership is no news; `mainstay why` still tells the sentence.
            None if is_new && !decision.is_routine => self.said.waits(&subject, &self.me, &decision.because),
            None => {}
        }
    }

    /// The rules of a database and everything known of its members.
    fn view(&self, database: &DatabaseName) -> Option<(Rules, Members)> {
        let rules = Rules::of(self.system.databases.get(database)?);
        let members =
            rules.members.iter().map(|node| (node.clone(), self.member_view(database, node))).collect();
        Some((rules, members))
    }

    fn member_view(&self, database: &DatabaseName, node: &NodeName) -> MemberView {
        let status = if *node == self.me {
            self.own.get(database).map(|own| own.status())
        } else {
            self.peers.get(node).and_then(|peer| peer.member(database).cloned())
        };
        let reach = self.reach(node);
        match status {
            Some(status) => MemberView { reach, status },
            None => MemberView { reach, ..MemberView::never_heard() },
        }
    }

    /// An operator's request, checked against what is known: the record to commit and the revision it replaces.
    pub fn request(
        &self,
        database: &DatabaseName,
        ask: impl FnOnce(&Question<'_>) -> Result<Leadership, Refusal>,
    ) -> Result<Command, Refusal> {
        let Some((rules, members)) = self.view(database) else {
            return Err(Refusal {
                because: format!("there is no database {database}"),
                hint: "`mainstay status` lists the databases".to_owned(),
            });
        };
        let stored = self.records.get(database);
        let question = Question {
            rules: &rules,
            record: stored.map(|stored| &stored.value),
            members: &members,
            paused: self.paused.is_some(),
            now: self.now,
        };
        let next = ask(&question)?;
        let expected = stored.map_or(0, |stored| stored.revision);
        Ok(Command::Commit { expected, value: Value::Leadership(database.clone(), Box::new(next)) })
    }

    fn place(&mut self, commands: &mut Vec<Command>) {
        if self.awaits_commit(&Store::Placement) || self.paused.is_some() {
            return;
        }
        let nodes: Vec<(&NodeName, &SiteName)> =
            self.system.workers().map(|(name, node)| (name, &node.site)).collect();
        let lost: BTreeSet<NodeName> =
            nodes.iter().filter(|(node, _)| self.is_lost(node)).map(|(n, _)| (*n).clone()).collect();
        let wishes: Vec<Wish<'_>> = self
            .system
            .services
            .iter()
            .map(|(name, service)| Wish {
                service: name,
                instances: service.instances,
                allowed: nodes
                    .iter()
                    .filter(|(node, site)| service.placement.allows(node, site))
                    .copied()
                    .collect(),
                ports: service.ports.iter().collect(),
            })
            .collect();
        let mut next = placement::decide(&wishes, &self.placement.value, &lost);
        if next == self.placement.value
            && let Some((renewed, because)) =
                placement::renew(&next, self.generation, |service, number, placed| {
                    self.copy_of(service, number, &placed.node)
                })
        {
            self.said.info("system", &self.me, "instances are replaced one after another", &because);
            next = renewed;
        }
        if next != self.placement.value {
            self.committing.insert(Store::Placement, self.now);
            commands
                .push(Command::Commit { expected: self.placement.revision, value: Value::Placement(next) });
        }
    }

    /// How an instance does; `None` when it does not run, or its node is not heard.
    fn copy_of(&self, service: &ServiceName, number: u32, node: &NodeName) -> Option<Copy> {
        let id = format!("{service}-{number}@{node}");
        let (instances, services) = if *node == self.me {
            (&self.instances, &self.services)
        } else {
            let peer = self.peers.get(node).filter(|peer| peer.silence(self.now).is_none())?;
            let status = peer.status.as_ref()?;
            (&status.instances, &status.services)
        };
        let instance = instances.iter().flatten().find(|instance| instance.id == id)?;
        Some(Copy {
            ready: instance.state == InstanceRouteState::Ready,
            outdated: services.outdated.contains(&id),
        })
    }

    /// The nodes that are dead by the word of a majority for so long that what ran there counts as ended.
    pub fn lost_nodes(&self) -> BTreeSet<NodeName> {
        self.system.nodes.keys().filter(|node| self.is_lost(node)).cloned().collect()
    }

    fn is_lost(&self, node: &NodeName) -> bool {
        match self.reach(node) {
            Reach::Dead { since } => self.now.since(since) >= INSTANCES_MOVE_AFTER,
            Reach::Alive | Reach::Doubtful { .. } | Reach::AgentGone { .. } | Reach::NeverHeard => false,
        }
    }
}
