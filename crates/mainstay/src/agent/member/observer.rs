//! Looks at a member's server: its process by the kernel's word, its state by asking, its work by a write that must
//! reach the disk.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::agent::Input;
use decide::patience::Patience;
use effects::clock;
use effects::postgres::{Facts, Postmaster, ProbeError, Probed, Prober};
use effects::process::{Signal, Turns, Withheld};
use model::NodeName;
use model::status::{PrimaryFacts, Server, StandbyFacts, StandbyLink};
use model::time::Moment;
use tokio::task::JoinHandle;

use super::stalls::{Got, Stalls};
use super::{Ground, settings};

/// How often the server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a new connection is made and, on a primary, a write flushed; whether or not the one before has been answered.
/// How long an answer may take is for [`Patience`] to say.
const PROBE_EVERY: Duration = Duration::from_millis(400);
/// How long an answer is listened for at all.
const PROBE_FORGOTTEN: Duration = Duration::from_secs(60);
/// So many probes in a row must fail before the server counts as sick.
const PROBES_TO_FAIL: u32 = 2;
/// How long the data directory may take to be looked at.
const DISK_LIMIT: Duration = Duration::from_secs(1);
/// Below this much free space, in bytes, a member cannot do its part; twice as much must be free before it can again.
const LITTLE_SPACE: u64 = 24 << 20;
/// How often the replication slots of the other members are looked after.
const SLOTS_EVERY: Duration = Duration::from_secs(2);
/// How often free space is measured, and looked whether a running server's files are still there.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// Looks, for ever.
pub(super) async fn observe(ground: Ground) {
    let mut watch = Watch::new(ground.clone());
    tokio::spawn(keep_slots(ground.clone()));
    tokio::spawn(settings::follow(ground.clone()));
    tokio::spawn(watch_exits(ground));
    loop {
        watch.round().await;
        let begun = clock::now();
        tokio::time::sleep(LOOK_EVERY).await;
        watch.patience.feel(clock::now().since(begun).saturating_sub(LOOK_EVERY));
    }
}

/// Keeps the replication slots of the other members, for ever.
async fn keep_slots(ground: Ground) {
    loop {
        tokio::time::sleep(SLOTS_EVERY).await;
        if let Err(error) = ground.keep_slots().await {
            tracing::debug!(%error, "replication slots could not be looked after");
        }
    }
}

/// Tells the end of a server in the moment it happens.
async fn watch_exits(ground: Ground) {
    loop {
        let Some(postmaster) = ground.postmaster() else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let exit = postmaster.process().exited().await;
        let ours = ground.postmaster().is_some_and(|now| now.process().id() == postmaster.process().id());
        if ours {
            ground.set_postmaster(None);
            let because = format!("it ended with {exit}");
            let server = Server::Stopped { because };
            tell(&ground, clock::now(), server, None, None);
        }
    }
}

fn tell(
    ground: &Ground,
    asked: Moment,
    server: Server,
    system_identifier: Option<u64>,
    trouble: Option<String>,
) {
    let database = ground.database.clone();
    ground.shared.inputs.send(Input::Observed { database, asked, server, system_identifier, trouble });
}

/// One look without memory, for the moment after an action: the server, and the system identifier of its data.
pub(super) async fn look(ground: &Ground) -> (Server, Option<u64>) {
    Watch::new(ground.clone()).server().await
}

/// A probe that has not been answered yet.
struct Pending {
    begun: Moment,
    answer: JoinHandle<Result<Probed, ProbeError>>,
}

struct Watch {
    ground: Ground,
    prober: Prober,
    probed_at: Moment,
    pending: Vec<Pending>,
    /// Probes in a row that were answered with an error, and the last of these.
    refused: u32,
    refusal: String,
    patience: Patience,
    turns: Turns,
    withheld: Withheld,
    /// Looks in a row that were not answered.
    failures: u32,
    stalls: Stalls,
    was_primary: bool,
    disk_at: Moment,
    space: Option<String>,
}

impl Watch {
    fn new(ground: Ground) -> Self {
        let prober = Prober::new(&ground.member);
        Self {
            ground,
            prober,
            probed_at: Moment::default(),
            pending: Vec::new(),
            refused: 0,
            refusal: String::new(),
            patience: Patience::default(),
            turns: Turns::default(),
            withheld: Withheld::default(),
            failures: 0,
            stalls: Stalls::default(),
            was_primary: false,
            disk_at: Moment::default(),
            space: None,
        }
    }

    /// Looks once and tells; what was seen across a change is not told.
    async fn round(&mut self) {
        let (epoch, asked) = (self.ground.epoch(), clock::now());
        let (server, system_identifier) = self.server().await;
        let server = self.probed(server).await;
        self.look_at_disk().await;
        if epoch == self.ground.epoch() {
            tell(&self.ground, asked, server, system_identifier, self.space.clone());
        }
    }

    async fn server(&mut self) -> (Server, Option<u64>) {
        let Some(postmaster) = self.ground.postmaster() else {
            return self.stopped().await;
        };
        let begun = clock::now();
        let observed = postmaster.member().observer().observe(self.patience.answer_limit()).await;
        self.patience.feel(clock::now().since(begun));
        match observed {
            Ok(facts) => {
                self.failures = 0;
                self.ground.note_server(&facts);
                let identifier = facts.system_identifier.parse().ok();
                (self.running(&facts), identifier)
            }
            Err(error) => (self.unanswered(&postmaster, error.to_string()), None),
        }
    }

    /// A server that does not answer its oldest connection: starting, or sick.
    fn unanswered(&mut self, postmaster: &Postmaster, because: String) -> Server {
        if !postmaster.process().is_alive() {
            return Server::Stopped { because: "its process is gone".to_owned() };
        }
        self.failures += 1;
        if self.failures < PROBES_TO_FAIL {
            return Server::Unknown;
        }
        Server::Sick { primary: self.was_primary, because: format!("it does not answer: {because}") }
    }

    fn running(&mut self, facts: &Facts) -> Server {
        if !facts.in_recovery && !self.was_primary {
            self.patience.expect_a_rush();
        }
        self.was_primary = !facts.in_recovery;
        if facts.in_recovery {
            self.stalls = Stalls::default();
            let streaming = facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
            return Server::Standby(StandbyFacts {
                position: facts.position,
                replayed: facts.replayed.unwrap_or(facts.position.lsn),
                streaming,
                follows: Default::default(),
                started_us: facts.started_us,
            });
        }
        let links = facts.senders.iter().map(|sender| {
            let (node, flushed) = (NodeName::new(&sender.name), sender.flushed.unwrap_or_default());
            let streaming = sender.state == "streaming";
            let got = Got { flushed, written: sender.written.unwrap_or_default() };
            let stalled_ms = self.stalls.look(&node, got, facts.position.lsn, clock::now());
            (node, StandbyLink { streaming, flushed, stalled_ms })
        });
        let standbys: BTreeMap<NodeName, StandbyLink> = links.collect();
        Server::Primary(PrimaryFacts {
            position: facts.position,
            standbys,
            waiting_commits: facts.sync_waiting,
            started_us: facts.started_us,
        })
    }

    /// No process of ours: is there data?
    async fn stopped(&mut self) -> (Server, Option<u64>) {
        self.failures = 0;
        self.refused = 0;
        self.pending.clear();
        match self.has_files().await {
            Some(false) => (Server::Empty, None),
            Some(true) => {
                let control = self.ground.member.control_data(DISK_LIMIT).await;
                let identifier = control.as_ref().ok().map(|control| control.system_identifier);
                let because = match control {
                    Ok(control) if control.state.is_clean() => "it was shut down".to_owned(),
                    Ok(_) => "it was not shut down cleanly".to_owned(),
                    Err(error) => error.to_string(),
                };
                (Server::Stopped { because }, identifier)
            }
            None => (Server::Unknown, None),
        }
    }

    /// Health is a new connection that works and, on a primary, a write that reaches the disk.
    async fn probed(&mut self, server: Server) -> Server {
        let primary = match &server {
            Server::Primary(_) => true,
            Server::Standby(_) => false,
            Server::Unknown
            | Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Sick { .. } => {
                return server;
            }
        };
        let now = clock::now();
        let is_due = now.since(self.probed_at) >= PROBE_EVERY;
        // While an answer is waited for, every look tells how crowded the machine has become meanwhile.
        if is_due || !self.pending.is_empty() {
            self.look_at_turns();
        }
        if is_due {
            self.probed_at = now;
            self.pending.push(self.probe(primary, now));
        }
        self.take_answers().await;
        match self.probes_fail(now) {
            Some(because) => Server::Sick { primary, because },
            None => server,
        }
    }

    fn look_at_turns(&mut self) {
        if let Some(postmaster) = self.ground.postmaster() {
            let pid = postmaster.process().id().pid;
            let (ran, waited) = self.turns.since_last(pid);
            self.patience.take_turns(ran, waited);
            self.patience.note_withheld(self.withheld.look(pid));
        }
    }

    fn probe(&self, primary: bool, begun: Moment) -> Pending {
        let prober = self.prober.clone();
        let answer = tokio::spawn(async move {
            match primary {
                true => prober.write(PROBE_FORGOTTEN).await,
                false => prober.answer(PROBE_FORGOTTEN).await,
            }
        });
        Pending { begun, answer }
    }

    /// Notes what has been answered meanwhile. A good answer also stands for the questions asked before.
    async fn take_answers(&mut self) {
        let mut unanswered = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if !pending.answer.is_finished() {
                unanswered.push(pending);
                continue;
            }
            match pending.answer.await {
                Ok(Ok(probed)) => {
                    self.refused = 0;
                    self.patience.answered(probed.took);
                    unanswered.clear();
                }
                Ok(Err(error)) => {
                    self.refused += 1;
                    self.refusal = error.to_string();
                }
                // The runtime ends.
                Err(_) => {}
            }
        }
        self.pending = unanswered;
    }

    /// Why the server does not do its work, if probes say so: two in a row were answered with an error, or one has waited
    /// for too long and the next one waits too.
    fn probes_fail(&self, now: Moment) -> Option<String> {
        if self.refused >= PROBES_TO_FAIL {
            return Some(self.refusal.clone());
        }
        let waits = self.pending.first().map_or(Duration::ZERO, |first| now.since(first.begun));
        let all_wait = self.pending.len() >= usize::try_from(PROBES_TO_FAIL).unwrap_or(usize::MAX);
        let limit = self.patience.limit();
        (all_wait && waits >= limit).then(|| {
            format!(
                "{PROBES_TO_FAIL} new connections in a row got no answer, the first for {} ms",
                limit.as_millis()
            )
        })
    }

    async fn look_at_disk(&mut self) {
        let now = clock::now();
        if now.since(self.disk_at) < DISK_EVERY {
            return;
        }
        self.disk_at = now;
        // A volume that hangs keeps every thread that looks at it: one at a time is enough.
        if self.measure_space().await {
            self.end_without_files().await;
        }
    }

    /// Ends a server whose files are gone, as PostgreSQL does itself once a minute ("data directory lock file is invalid"):
    /// until then it confirms what it writes to files that nobody can ever open again.
    async fn end_without_files(&self) {
        let Some(postmaster) = self.ground.postmaster() else { return };
        if self.has_files().await == Some(false) {
            tracing::error!("the files of the running PostgreSQL have been removed; it is ended");
            // Its exit is told as any other is; an error means that it has ended already.
            let _ = postmaster.process().signal(Signal::QUIT);
        }
    }

    /// Whether there is data; `None` when the volume does not say so in time.
    async fn has_files(&self) -> Option<bool> {
        let marker = self.ground.member.paths().data.join("PG_VERSION");
        let exists = effects::disposable::start("look for data", move || marker.try_exists()).ok()?;
        tokio::time::timeout(DISK_LIMIT, exists).await.ok()?.ok()?.ok()
    }

    /// Measures free space; says whether the volume answered.
    async fn measure_space(&mut self) -> bool {
        let path = self.ground.member.paths().database.clone();
        let measured = effects::disposable::start("measure space", move || rustix::fs::statvfs(&path));
        let Ok(answer) = measured else { return false };
        let answered = tokio::time::timeout(DISK_LIMIT, answer).await;
        let answers = answered.is_ok();
        self.space = match answered {
            Ok(Ok(Ok(volume))) => {
                let free = volume.f_bavail * volume.f_frsize;
                let enough = if self.space.is_some() { 2 * LITTLE_SPACE } else { LITTLE_SPACE };
                (free < enough).then(|| format!("only {} MB are left on the database's volume", free >> 20))
            }
            Ok(Ok(Err(error))) => Some(format!("the database's volume cannot be looked at: {error}")),
            Ok(Err(_)) => None,
            Err(_) => Some("the database's volume does not answer".to_owned()),
        };
        answers
    }
}
