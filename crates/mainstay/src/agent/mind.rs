//! The loop around the agent's mind: waits in one place, lets the mind change in one synchronous call, hands out what it
//! commands.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::agent::{Agent, Command, Input};
use model::DatabaseName;
use model::system::System;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use transport::{Identity, RpcPool};

use super::artefacts::Artefacts;
use super::data_plane::DataPlane;
use super::gate::GateKeeper;
use super::instances::Instances;
use super::member::{self, Member};
use super::peers::Peers;
use super::{Shared, remember_system, store};

/// How often the mind looks at the time: the resolution of everything it decides by silence.
const TICK: Duration = Duration::from_millis(20);

/// A question for the mind.
type Question = Box<dyn FnOnce(&Agent) + Send>;

/// Something the loop waits for.
pub(super) enum Happening {
    /// For the mind.
    Input(Box<Input>),
    /// About the mind.
    Question(Question),
}

/// What carries out commands.
pub(super) struct Hands {
    shared: Shared,
    peers: Peers,
    rpc: RpcPool,
    identity: Identity,
    system_changed: watch::Sender<System>,
    dialers: Vec<tokio::task::AbortHandle>,
    members: BTreeMap<DatabaseName, Member>,
    gate: GateKeeper,
    data_plane: DataPlane,
    instances: Instances,
    artefacts: Artefacts,
}

impl Hands {
    pub(super) async fn new(
        shared: Shared,
        peers: Peers,
        rpc: RpcPool,
        identity: Identity,
        system_changed: watch::Sender<System>,
        generation: u64,
    ) -> Self {
        let system = shared.system.borrow().clone();
        let gate = GateKeeper::start(&shared, &system).await;
        let data_plane = DataPlane::start(&shared, shared.programs.drain(), shared.programs.stand());
        let instances = Instances::start(&shared, generation);
        let artefacts = Artefacts::start(&shared, &rpc);
        let dialers = peers.dial_all(&system, &shared.me, &identity);
        let mut hands = Self {
            shared,
            peers,
            rpc,
            identity,
            system_changed,
            dialers,
            members: BTreeMap::new(),
            gate,
            data_plane,
            instances,
            artefacts,
        };
        hands.start_members(&system);
        hands
    }

    /// Starts what is missing and tells the rest what has changed.
    fn start_members(&mut self, system: &System) {
        for (name, database) in system.databases_on(&self.shared.me) {
            match self.members.get(name) {
                Some(member) => member.reconfigure(database.clone()),
                None => {
                    let member = Member::start(&self.shared, name, database.clone());
                    self.members.insert(name.clone(), member);
                }
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send { to, message } => self.peers.send(&to, &message),
            Command::Commit { expected, value } => {
                let store = self.shared.store.clone();
                tokio::spawn(async move { store.commit(expected, value).await });
            }
            Command::HandLead { to } => {
                let store = self.shared.store.clone();
                tokio::spawn(async move { store.hand_lead(&to).await });
            }
            Command::Member { database, action } => {
                if let Some(member) = self.members.get(&database) {
                    member.act(action);
                }
            }
            Command::Flush { database, server } => {
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    if let Err(because) = member::checkpoint(&shared, &database).await {
                        tracing::warn!(%because, "dirty pages could not be flushed before the restart");
                    }
                    shared.inputs.send(Input::Flushed { database, server });
                });
            }
            Command::Gate { database, until } => self.gate.set(&database, until),
            Command::Routes(table) => self.data_plane.serve(table),
            Command::Releases(releases) => self.artefacts.keep(releases),
            Command::Services(placement) => self.instances.place(placement),
            Command::System { system, generation } => self.new_system(*system, generation),
            Command::Event(event) => self.shared.journal.add(event),
        }
    }

    fn new_system(&mut self, system: System, generation: u64) {
        remember_system(&self.shared.places.state("system.json"), &system, generation);
        self.shared.store.retarget(&system, &self.shared.me);
        self.rpc.set_targets(store::rpc_targets(&system, &self.shared.me));
        let before = self.system_changed.send_replace(system.clone());
        if before.nodes != system.nodes {
            for dialer in self.dialers.drain(..) {
                dialer.abort();
            }
            self.dialers = self.peers.dial_all(&system, &self.shared.me, &self.identity);
        }
        self.gate.cover(&system);
        self.start_members(&system);
        self.instances.reconfigure(generation);
    }
}

/// Runs until the process ends.
pub(super) async fn run(
    mut agent: Agent,
    mut hands: Hands,
    mut happenings: mpsc::UnboundedReceiver<Happening>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let happening = tokio::select! {
            biased;
            _ = ticks.tick() => Happening::Input(Box::new(Input::Tick)),
            happening = happenings.recv() => match happening {
                Some(happening) => happening,
                None => return,
            },
        };
        match happening {
            Happening::Input(input) => {
                for command in agent.handle(*input, effects::clock::now()) {
                    hands.carry_out(command);
                }
            }
            Happening::Question(question) => question(&agent),
        }
    }
}
