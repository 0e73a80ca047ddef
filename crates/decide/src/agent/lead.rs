//! What the elected leader does for the whole system: leadership of databases, placement of instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::leadership::Leadership;
use model::routes::{InstanceEndpoint, InstanceRouteState};
use model::status::ServicesState;
use model::{DatabaseName, NodeName, ServiceName, SiteName};

use super::commands::{Store, Value};
use super::{Agent, Command};
use crate::leadership::{self, Question, Refusal};
use crate::placement::{self, Copy, Facts, Placement, Wish};
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
        self.vacate(commands);
        self.scale();
        self.release(commands);
        self.place(commands);
        self.lead_from_elsewhere(commands);
    }

    /// Who is to lead while this agent, which leads, is away for a moment: one beside no primary rather than another.
    pub fn heir_of_lead(&self) -> Option<NodeName> {
        if self.leader.as_ref() != Some(&self.me) {
            return None;
        }
        let heard = |node: &&NodeName| self.peers.get(*node).is_some_and(|peer| peer.is_heard(self.now));
        let heirs: Vec<&NodeName> = self.system.voters().filter(heard).collect();
        heirs.iter().find(|node| !self.is_primary(node)).or(heirs.first()).map(|node| (*node).clone())
    }

    /// A leader beside a primary is handed on when all is calm: if that node died, an election would have to be waited for
    /// before anything could be decided about the primary.
    pub(super) fn lead_from_elsewhere(&mut self, commands: &mut Vec<Command>) {
        let should_not = |node: &NodeName| self.is_primary(node) || self.upkeep.is_drained(node);
        if self.now < self.lead_rests_until || !should_not(&self.me) || self.is_under_way() {
            return;
        }
        let able = |node: &&NodeName| {
            self.peers.get(*node).is_some_and(|peer| peer.is_heard(self.now)) && !should_not(node)
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
    pub(super) fn view(&self, database: &DatabaseName) -> Option<(Rules, Members)> {
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
            return Err(Refusal::new(
                format!("there is no database {database}"),
                "`mainstay status` lists the databases",
            ));
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
        self.note_leaving();
        let mut next = self.placed();
        if next == self.placement.value
            && let Some((renewed, because)) =
                placement::renew(&next, self.generation, |service, number, node| {
                    self.copy_of(service, number, node)
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

    /// Where all instances should be now.
    fn placed(&self) -> Placement {
        let nodes: Vec<(&NodeName, &SiteName)> =
            self.system.workers().map(|(name, node)| (name, &node.site)).collect();
        // A node that the file does not have any more has nothing of ours.
        let known: BTreeSet<&NodeName> = nodes.iter().map(|(node, _)| *node).collect();
        let placed = self.placement.value.values().flat_map(BTreeMap::values).map(|placed| &placed.node);
        let former = placed.filter(|node| !known.contains(node));
        let lost: BTreeSet<NodeName> =
            known.iter().copied().filter(|node| self.is_lost(node)).chain(former).cloned().collect();
        let usable = |node: &NodeName| !lost.contains(node) && !self.upkeep.is_drained(node);
        let (mut wishes, mut waiting) = (vec![], vec![]);
        for (name, service) in self.system.services.iter().filter(|(_, service)| !service.is_external()) {
            let may_run =
                |(node, site): &&(&NodeName, &SiteName)| usable(node) && service.placement.allows(node, site);
            let need = self.instances_of(name);
            let Some(plan) = self.plan(name, service, self.ready_old(name)) else {
                waiting.push(name);
                continue;
            };
            wishes.push(Wish {
                service: name,
                groups: plan.groups,
                need,
                expelled: plan.expelled,
                allowed: nodes.iter().filter(may_run).copied().collect(),
                ports: service.ports.iter().collect(),
            });
        }
        let facts = Facts {
            lost: &lost,
            copy: &|service, number, node| self.copy_of(service, number, node),
            is_held: &|node, port| self.is_held(node, port),
            is_idle: &|service, number, placed| self.is_idle(service, number, placed),
        };
        let mut next = placement::decide(&wishes, &self.placement.value, &facts);
        // What runs without a release goes on until there is one.
        for name in waiting {
            let running = self.placement.value.get(name).cloned().unwrap_or_default();
            next.insert(name.clone(), running);
        }
        next
    }

    /// What runs on a node, and how far it is with the file; `None` when the node is not heard.
    fn instances_on(&self, node: &NodeName) -> Option<(&[InstanceEndpoint], &ServicesState)> {
        if *node == self.me {
            return Some((self.instances.as_deref().unwrap_or_default(), &self.services));
        }
        let peer = self.peers.get(node).filter(|peer| peer.silence(self.now).is_none())?;
        let status = peer.status.as_ref()?;
        Some((status.instances.as_deref().unwrap_or_default(), &status.services))
    }

    /// Whether an instance that runs on the node has the port.
    fn is_held(&self, node: &NodeName, port: u16) -> bool {
        let instances = self.instances_on(node).map(|(instances, _)| instances).unwrap_or_default();
        instances.iter().any(|instance| instance.address.port() == port)
    }

    /// How an instance does; `None` when it does not run, or its node is not heard.
    pub(super) fn copy_of(&self, service: &ServiceName, number: u32, node: &NodeName) -> Option<Copy> {
        let id = format!("{service}-{number}@{node}");
        let (instances, services) = self.instances_on(node)?;
        let instance = instances.iter().find(|instance| instance.id == id)?;
        Some(Copy {
            ready: instance.state == InstanceRouteState::Ready,
            gone: instance.state == InstanceRouteState::Gone,
            outdated: services.outdated.contains(&id),
        })
    }

    /// The nodes that are dead by the word of a majority for so long that what ran there counts as ended.
    pub fn lost_nodes(&self) -> BTreeSet<NodeName> {
        self.system.nodes.keys().filter(|node| self.is_lost(node)).cloned().collect()
    }

    pub(super) fn is_lost(&self, node: &NodeName) -> bool {
        match self.reach(node) {
            Reach::Dead { since } => self.now.since(since) >= INSTANCES_MOVE_AFTER,
            Reach::Alive | Reach::Doubtful { .. } | Reach::AgentGone { .. } | Reach::NeverHeard => false,
        }
    }
}
