//! The simulated world: nodes with their minds and members, and everything that happens to them.

mod acting;
mod chronicle;
mod event;
mod flow;
mod lines;
mod machine;
mod report;
mod settings;
mod storing;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use decide::agent::{Agent, Command, Input};
use model::NodeName;
use model::leadership::Term;
use model::routes::{DatabaseRouteState, RouteTarget};
use model::script::{Script, Shape};
use model::status::{PeerMessage, PrimaryFacts, Server, StandbyLink};
use model::time::Moment;

use crate::client::Client;
use crate::clock::Agenda;
use crate::invariants::{self, Broken};
use crate::network::Network;
use crate::postgres::Process;
use crate::random::{Random, mix};
use crate::script::SAFETY_PHASE;
use crate::store::Store;
use crate::system;
use chronicle::Chronicle;

pub use chronicle::Told;
pub(crate) use event::Event;
pub(crate) use machine::Machine;
pub use report::{Report, Violation};

/// How often an agent looks at its member; an end of the server's process is seen at once.
const OBSERVE: Duration = Duration::from_millis(100);
/// How often the agent's time passes.
const TICK: Duration = Duration::from_millis(20);
/// How often log is sent.
const STEP: Duration = Duration::from_millis(2);
/// How often a client writes.
const WRITE: Duration = Duration::from_millis(7);
/// A primary on a volume that hangs counts as sick after this long: its probe has missed the deadline.
const PROBE_DEADLINE: Duration = Duration::from_millis(900);
/// How long after healing writes must flow at the latest, and how long they are watched then.
const LIVENESS: Duration = Duration::from_secs(30);

/// One run of the simulation.
pub struct World {
    pub(crate) script: Script,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) machines: Vec<Machine>,
    pub(crate) members: usize,
    pub(crate) k: u32,
    pub(crate) linked: BTreeMap<(usize, usize), Moment>,
    /// What was said over such a connection while the network did not carry it, from whom to whom: the kernel repeats it.
    pub(crate) unheard: BTreeMap<(usize, usize), Vec<PeerMessage>>,
    pub(crate) client: Client,
    pub(crate) histories: u64,
    pub(crate) healed: bool,
    /// How many faults last now.
    pub(crate) lasting: usize,
    /// When each term got its primary.
    pub(crate) elected_at: BTreeMap<Term, Moment>,
    pub(crate) trace: VecDeque<String>,
    /// Of every event and every note so far, with their moments.
    digest: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// How many acknowledgements the invariants have seen.
    pub(crate) judged: usize,
    /// How many connections the system file wants.
    pub(crate) wanted: u32,
    /// How often a standby restarted for that, and a primary in place.
    pub(crate) restarts: (u64, u64),
    /// What is told of the run, when somebody wants to read it.
    chronicle: Option<Box<Chronicle>>,
}

/// So many notes a violation tells.
const LAST_NOTES: usize = 120;
/// How late a message may be while the network is slow, in microseconds.
const MOST_LATE: u64 = 300_000;
pub(crate) const START: Moment = Moment::from_millis(1_000_000);

impl World {
    /// The world of a script: three or five nodes, a database of three or five members.
    pub fn new(script: &Script) -> Self {
        let mut random = Random::new(script.seed);
        let count = if random.once_in(3) { 5 } else { 3 };
        let members = if count == 5 && random.once_in(2) { 5 } else { 3 };
        let k = if members == 5 && random.once_in(2) { 2 } else { 1 };
        let shape = script.shape.unwrap_or(Shape { nodes: count, members, confirm: k });
        let Shape { nodes: count, members, confirm: k } = shape;
        Self {
            script: script.clone(),
            agenda: Agenda::new(),
            machines: (0..count).map(|index| Machine::new(index, &mut random)).collect(),
            random,
            network: Network::default(),
            store: Store::new(),
            members,
            k,
            linked: BTreeMap::new(),
            unheard: BTreeMap::new(),
            client: Client::default(),
            histories: 0,
            healed: false,
            lasting: 0,
            elected_at: BTreeMap::new(),
            trace: VecDeque::new(),
            digest: 0,
            faults: BTreeMap::new(),
            judged: 0,
            wanted: 100,
            restarts: (0, 0),
            chronicle: None,
        }
    }

    /// Runs to the end, or to the first violation.
    ///
    /// # Errors
    /// The violation.
    pub fn run(mut self) -> Result<Report, Violation> {
        self.play()
    }

    fn play(&mut self) -> Result<Report, Violation> {
        for node in 0..self.machines.len() {
            self.boot(node);
        }
        for (delay, event) in [(3, Event::Lines), (1, Event::Store), (2, Event::Step), (3000, Event::Write)] {
            self.agenda.after(Duration::from_millis(delay), event);
        }
        for (number, step) in self.script.steps.iter().enumerate() {
            self.agenda.after(step.at, Event::Fault(number));
        }
        self.agenda.after(SAFETY_PHASE, Event::Heal);
        while let Some(event) = self.agenda.pop() {
            if matches!(event, Event::End) {
                break;
            }
            self.remember(event.number());
            let is_judged = event.changes_what_is_judged();
            self.happen(event);
            if is_judged && let Some(broken) = invariants::broken(self) {
                return Err(self.violation(broken));
            }
            self.judged = self.client.acknowledged.len();
        }
        match invariants::not_alive(self) {
            Some(broken) => Err(self.violation(broken)),
            None => Ok(self.report()),
        }
    }

    fn report(&self) -> Report {
        Report {
            simulated: self.agenda.now().since(START),
            acknowledged: u64::try_from(self.client.acknowledged.len()).unwrap_or(u64::MAX),
            terms: self.store.leadership.as_ref().map_or(0, |stored| stored.value.term.0),
            faults: self.faults.clone(),
            restarts: self.restarts,
            outage: self.script.single.then_some(self.client.longest_gap),
            digest: self.digest,
        }
    }

    fn violation(&self, broken: Broken) -> Violation {
        Violation {
            seed: self.script.seed,
            at: self.agenda.now().since(START),
            invariant: broken.invariant,
            what: broken.what,
            trace: self.trace.iter().cloned().collect(),
            digest: self.digest,
        }
    }

    fn remember(&mut self, what: u64) {
        self.digest = mix(self.digest ^ self.agenda.now().as_micros() ^ (what << 48));
    }

    /// Something that a person who looks for a fault wants to read.
    pub(crate) fn note(&mut self, text: String) {
        let at = self.agenda.now().since(START).as_micros();
        let of_text = text.bytes().fold(0, |digest: u64, byte| digest.rotate_left(9) ^ u64::from(byte));
        self.digest = mix(self.digest ^ mix(of_text));
        if self.trace.len() == LAST_NOTES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9}.{:03} {text}", at / 1000, at % 1000));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, run } => {
                if self.is_current(node, run) {
                    self.agenda.after(TICK, Event::Tick { node, run });
                    self.feed(node, Input::Tick);
                }
            }
            Event::Observe { node, run } => self.observe(node, run),
            Event::Deliver { to, input, run } => {
                if run.is_none_or(|run| self.machines[to].run == run) {
                    self.feed(to, *input);
                }
            }
            Event::Commit { node, run, expected, value } => self.commit(node, run, expected, *value),
            Event::Read { node, run, asked } => self.read(node, run, asked),
            Event::Midway { node, run } => self.midway(node, run),
            Event::Done { node, run } => self.done(node, run),
            Event::Lines => self.keep_lines(),
            Event::Store => self.keep_store(),
            Event::Step => self.step(),
            Event::Write => self.write(),
            Event::Fault(number) => self.next_fault(number),
            Event::Undo { fault, node } => self.undo(fault, node),
            Event::Heal => self.heal(),
            Event::End => {}
        }
    }

    pub(crate) fn is_current(&self, node: usize, run: u64) -> bool {
        self.machines[node].up && self.machines[node].run == run && self.machines[node].agent.is_some()
    }

    /// Starts a machine's agent; its member's server does not start by itself.
    pub(crate) fn boot(&mut self, node: usize) {
        let description = system::system(self.machines.len(), self.members, self.k);
        self.forget_lines(node);
        let machine = &mut self.machines[node];
        machine.up = true;
        machine.stalled = false;
        machine.run += 1;
        machine.action = None;
        machine.seen_revision = 0;
        machine.seen_placement = 0;
        machine.seen_paused = None;
        machine.backlog.clear();
        let run = machine.run;
        machine.agent = Some(Agent::new(machine.name.clone(), description, 1, run));
        let durable = machine.durable.clone();
        self.note(format!("{} starts its agent, run {run}", system::node_name(node)));
        if node < self.members {
            self.feed(node, Input::Recovered { database: system::database(), durable });
            self.agenda.after(Duration::from_millis(5), Event::Observe { node, run });
        }
        self.agenda.after(Duration::from_millis(1), Event::Tick { node, run });
        let asked = self.agenda.now();
        self.agenda.after(Duration::from_millis(40), Event::Read { node, run, asked });
    }

    /// Lets a machine's mind take something in, and carries out what it commands.
    pub(crate) fn feed(&mut self, node: usize, input: Input) {
        let now = self.shown(node, self.agenda.now());
        let machine = &mut self.machines[node];
        if !machine.up {
            return;
        }
        if machine.is_deaf() {
            if !matches!(input, Input::Tick) {
                machine.backlog.push(input);
            }
            return;
        }
        let Some(agent) = &mut machine.agent else { return };
        let commands = agent.handle(input, now);
        self.hear_of(node);
        for command in commands {
            self.carry_out(node, command);
        }
    }

    pub(crate) fn carry_out(&mut self, node: usize, command: Command) {
        let run = self.machines[node].run;
        match command {
            Command::Send { to, message } => {
                let Some(to) = self.machines.iter().position(|machine| machine.name == to) else { return };
                self.say(node, to, message);
            }
            Command::Commit { expected, value } => {
                let delay = self.random.between(500, 4000);
                self.agenda.after(delay, Event::Commit { node, run, expected, value: Box::new(value) });
            }
            Command::Member { action, .. } => self.begin(node, action),
            Command::Flush { database, server } => {
                let delay = self.random.between(5_000, 400_000);
                let input = Box::new(Input::Flushed { database, server });
                self.agenda.after(delay, Event::Deliver { to: node, input, run: Some(run) });
            }
            Command::Gate { until, .. } => self.machines[node].gate_until = until,
            Command::Event(event) => {
                self.note(format!("{}: {} [{}]", event.node, event.what, event.because));
                self.tell(event);
            }
            // The model's coordination elects whom the seed chooses.
            Command::Routes(_)
            | Command::Services(_)
            | Command::Releases(_)
            | Command::System { .. }
            | Command::HandLead { .. } => {}
        }
    }

    fn send(&mut self, from: NodeName, to: usize, message: PeerMessage) {
        let run = Some(self.machines[to].run);
        let is_slow = self.network.is_slow();
        if is_slow && self.random.once_in(4) {
            let delay = self.random.between(200, MOST_LATE);
            let input = Box::new(Input::Message { from: from.clone(), message: message.clone() });
            self.agenda.after(delay, Event::Deliver { to, input, run });
        }
        let delay = self.random.between(200, if is_slow { MOST_LATE } else { 2500 });
        self.agenda
            .after(delay, Event::Deliver { to, input: Box::new(Input::Message { from, message }), run });
    }

    /// What a node's own clock shows.
    pub(crate) fn shown(&self, node: usize, at: Moment) -> Moment {
        self.machines[node].clock.shows(START, at)
    }

    fn observe(&mut self, node: usize, run: u64) {
        if !self.is_current(node, run) {
            return;
        }
        self.agenda.after(OBSERVE, Event::Observe { node, run });
        self.look(node);
    }

    /// The agent is told what its member's server does.
    pub(crate) fn look(&mut self, node: usize) {
        let server = self.server(node);
        let system_identifier = self.machines[node].postgres.identifier;
        let input = Input::Observed {
            database: system::database(),
            asked: self.shown(node, self.agenda.now()),
            server,
            system_identifier,
            trouble: None,
        };
        if !self.machines[node].is_deaf() {
            self.feed(node, input);
            self.ask_for_settings(node);
        }
    }

    /// What the agent sees of its member's server.
    pub(crate) fn server(&self, node: usize) -> Server {
        let machine = &self.machines[node];
        machine.postgres.as_server().unwrap_or_else(|| {
            let now = self.agenda.now();
            if machine.disk_hangs_since.is_some_and(|since| now.since(since) >= PROBE_DEADLINE) {
                let because = "a write was not flushed in time".to_owned();
                return Server::Sick { primary: true, because };
            }
            let link = |other: usize| {
                let flushed = self.machines[other].postgres.lsn();
                let lacks = flushed < machine.postgres.lsn();
                let narrow = machine.narrow_since.or(self.machines[other].narrow_since);
                let hangs = self.machines[other].disk_hangs_since.or(narrow).filter(|_| lacks);
                let stalled = hangs.map_or(Duration::ZERO, |since| now.since(since));
                let stalled_ms = u32::try_from(stalled.as_millis()).unwrap_or(u32::MAX);
                (self.machines[other].name.clone(), StandbyLink { streaming: true, flushed, stalled_ms })
            };
            Server::Primary(PrimaryFacts {
                position: machine.postgres.position(),
                standbys: (0..self.members).filter(|other| self.streams(node, *other)).map(link).collect(),
                waiting_commits: self.client.waiting_at(node, machine.postgres.history),
                started_us: machine.postgres.started_us,
            })
        })
    }

    /// Whether `standby` receives log from `primary` now, which need not be promoted yet.
    pub(crate) fn streams(&self, primary: usize, standby: usize) -> bool {
        self.is_connected(primary, standby)
            && self.machines[primary].postgres.extends(&self.machines[standby].postgres.log)
    }

    /// Whether `standby` has a connection for log to `primary` now.
    pub(crate) fn is_connected(&self, primary: usize, standby: usize) -> bool {
        let (from, to) = (&self.machines[primary], &self.machines[standby]);
        primary != standby
            && from.up
            && to.up
            && !from.frozen
            && !to.frozen
            && matches!(from.postgres.process, Process::Primary | Process::Standby { .. })
            && matches!(&to.postgres.process, Process::Standby { follows: Some(of), .. } if *of == primary)
            && self.network.connects(primary, standby)
            && self.gate_is_open(primary)
            && !to.postgres.log_gone
            && from.postgres.identifier == to.postgres.identifier
    }

    pub(crate) fn gate_is_open(&self, node: usize) -> bool {
        let now = self.shown(node, self.agenda.now());
        self.machines[node].gate_until.is_some_and(|until| until > now)
    }

    fn write(&mut self) {
        self.agenda.after(WRITE, Event::Write);
        let entry = self.random.below(self.machines.len());
        let Some(agent) = self.machines[entry]
            .agent
            .as_ref()
            .filter(|_| self.machines[entry].up && !self.machines[entry].frozen)
        else {
            return;
        };
        let open = agent.route_table().routes.iter().find_map(|route| match &route.target {
            RouteTarget::Database(target) => match &target.state {
                DatabaseRouteState::Open { members } => members.first().map(|member| member.node.clone()),
                DatabaseRouteState::Parked { .. } | DatabaseRouteState::Draining { .. } => None,
            },
            RouteTarget::Service(_) => None,
        });
        let Some(node) = open.and_then(|name| self.machines.iter().position(|machine| machine.name == name))
        else {
            return;
        };
        let reachable = self.network.connects(entry, node) && self.gate_is_open(node);
        let machine = &mut self.machines[node];
        if reachable && machine.up && !machine.frozen && machine.postgres.process == Process::Primary {
            let write = self.client.next_write();
            machine.postgres.append(Some(write));
            let (length, history) = (machine.postgres.log.len(), machine.postgres.history);
            self.client.pending(write, node, history, length);
        }
    }

    fn heal(&mut self) {
        self.note("everything is healed".to_owned());
        if self.lasting > 0 {
            self.begin_chapter("everything is healed".to_owned());
        }
        self.healed = true;
        self.network.heal();
        self.store.cannot_elect = false;
        for node in 0..self.machines.len() {
            self.machines[node].frozen = false;
            self.machines[node].stalled = false;
            self.machines[node].disk_hangs_since = None;
            self.machines[node].narrow_since = None;
            let backlog = std::mem::take(&mut self.machines[node].backlog);
            if self.machines[node].up && self.machines[node].agent.is_some() {
                for input in backlog {
                    self.feed(node, input);
                }
            } else {
                self.boot(node);
            }
        }
        self.client.healed_at = Some(self.agenda.now());
        self.agenda.after(LIVENESS, Event::End);
    }
}
