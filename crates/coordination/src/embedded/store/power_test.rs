//! Power losses at any moment of what Raft does with its store, on a disk that forgets what was not flushed.
//!
//! A seed makes lives: the store is opened on what the life before left, does what Raft would do (appends, votes,
//! truncations, snapshots, purges, changed memberships), and loses power. What is found then must be exactly what stood
//! after some change at or behind the last acknowledged one: nothing acknowledged is gone, nothing is there in part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log_id;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use openraft::{EntryPayload, Membership};

use super::{Opened, Place, State};
use crate::embedded::raft_types::{
    Command, LogEntry, LogId, LoggedPut, Peer, SnapshotMeta, StoredMembership, TypeConfig, Vote, index_of,
};
use crate::embedded::{EmbeddedConfig, RaftTransport, Timings, start};
use medium::{Dice, LOSSES, Medium, Step, Word, left};

#[path = "../../../tests/it/medium.rs"]
mod medium;

/// What is broken on purpose, to see that the test finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    None,
    /// A change counts as acknowledged once it is handed over, before it is flushed.
    AckBeforeFlush,
    /// A vote is answered and never written.
    VoteInMemory,
    /// The log is purged up to what is applied, not up to the snapshot.
    PurgeWithoutSnapshot,
    /// The disk says that it has flushed, and has not.
    FlushIsALie,
}

/// What the store should hold after some change.
#[derive(Clone, Debug, Default)]
struct Model {
    vote: Option<Vote>,
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    snapshot: Option<(SnapshotMeta, Vec<u8>)>,
    committed: Option<LogId>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(RaftEntry::log_id).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    /// All but the committed index, which may lag.
    fn same(&self, other: &Self) -> bool {
        self.vote == other.vote
            && self.entries == other.entries
            && self.purged == other.purged
            && self.snapshot == other.snapshot
    }

    /// What must hold of any store, whatever was done before.
    fn check(&self) -> Result<(), String> {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        let expected: Vec<u64> = (first..first + self.entries.len() as u64).collect();
        let indices: Vec<u64> = self.entries.keys().copied().collect();
        let snapshot = self.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if indices != expected {
            return Err(format!("the log has holes: {indices:?} behind {:?}", self.purged));
        }
        if self.purged > snapshot {
            return Err(format!("purged up to {:?}, the snapshot ends at {snapshot:?}", self.purged));
        }
        if self.committed > self.last().max(snapshot) {
            return Err(format!("committed {:?} lies behind the end {:?}", self.committed, self.last()));
        }
        Ok(())
    }
}

/// What all nodes agree on, of which this store holds a part.
#[derive(Clone, Debug, Default)]
struct World {
    /// The state after each committed entry.
    states: BTreeMap<u64, (LogId, State, StoredMembership)>,
}

impl World {
    fn commit(&mut self, entry: &LogEntry) {
        let before = self.states.values().next_back().cloned();
        let (mut state, mut membership) =
            before.map_or_else(Default::default, |(_, state, membership)| (state, membership));
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => drop(state.apply(command)),
            EntryPayload::Membership(new) => {
                membership = StoredMembership::new(Some(entry.log_id()), new.clone());
            }
        }
        self.states.insert(index_of(entry), (entry.log_id(), state, membership));
    }

    fn snapshot(&self, upto: u64) -> (SnapshotMeta, Vec<u8>) {
        let (log_id, state, membership) = &self.states[&upto];
        let meta = SnapshotMeta { last_log_id: Some(*log_id), last_membership: membership.clone() };
        (meta, state.to_json().unwrap())
    }
}

/// One life of a store, from opening to power loss.
struct Life {
    medium: Medium,
    opened: Opened,
    dice: Dice,
    sabotage: Sabotage,
    world: World,
    /// After each change, the first one before any.
    models: Vec<Model>,
    applied: Option<u64>,
    /// Appends that are not acknowledged yet, with the number of the change.
    flushing: Vec<(usize, Flushed)>,
    /// The last change that was acknowledged.
    awaited: usize,
}

type Flushed = OneshotReceiverOf<TypeConfig, std::io::Result<()>>;

impl Life {
    fn now(&self) -> &Model {
        self.models.last().unwrap()
    }

    /// Notes that the next change is on its way.
    fn submit(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.models.push(next);
        let number = self.models.len() as u64 - 1;
        self.medium.note(2 * number);
        if self.sabotage == Sabotage::AckBeforeFlush {
            self.medium.note(2 * number + 1);
        }
    }

    /// Notes that all changes so far were acknowledged.
    fn acknowledged(&mut self) {
        self.flushing.clear();
        self.awaited = self.models.len() - 1;
        self.medium.note(2 * self.awaited as u64 + 1);
    }

    /// Waits for the appends under way. (Nobody ever waits for a purge or a committed index.)
    async fn settle(&mut self) {
        for (number, flushed) in std::mem::take(&mut self.flushing) {
            flushed.await.unwrap().unwrap();
            self.awaited = self.awaited.max(number);
        }
        self.medium.note(2 * self.awaited as u64 + 1);
    }

    async fn act(&mut self) {
        match self.dice.below(12) {
            0..4 => self.append().await,
            4 => self.settle().await,
            5 | 6 => self.vote().await,
            7 => self.truncate().await,
            8 | 9 => self.apply().await,
            10 => self.snapshot().await,
            _ => self.install().await,
        }
    }

    fn entry(&mut self, term: u64, index: u64) -> LogEntry {
        let id = log_id::<TypeConfig>(term, 1, index);
        match self.dice.below(8) {
            0 => LogEntry::new_blank(id),
            1 => {
                let voters: BTreeSet<u64> = (0..3).map(|_| 100 + self.dice.below(9) as u64).collect();
                let nodes: BTreeMap<u64, Peer> = voters.iter().map(|id| (*id, Peer::default())).collect();
                LogEntry::new_membership(id, Membership::new(vec![voters], nodes).unwrap())
            }
            _ => {
                let value = format!("{term}-{index}-{}", "x".repeat(self.dice.below(900)));
                let key = format!("key/{}", self.dice.below(20));
                let put = LoggedPut { key, value, lease: None };
                LogEntry::new_normal(id, Command::Txn { compares: vec![], puts: vec![put], deletes: vec![] })
            }
        }
    }

    fn term(&self) -> u64 {
        self.now().vote.map_or(0, |vote| vote.leader_id.term)
    }

    async fn append(&mut self) {
        let (term, first) = (self.term(), self.now().next_index());
        let entries: Vec<LogEntry> =
            (first..=first + self.dice.below(4) as u64).map(|index| self.entry(term, index)).collect();
        let added = entries.clone();
        self.submit(|model| model.entries.extend(added.into_iter().map(|entry| (index_of(&entry), entry))));
        let (sender, flushed) = TypeConfig::oneshot();
        self.opened.log.append(entries, IOFlushed::signal(sender)).await.unwrap();
        self.flushing.push((self.models.len() - 1, flushed));
    }

    async fn vote(&mut self) {
        let vote = Vote::new(self.term() + 1, self.dice.below(3) as u64);
        self.submit(|model| model.vote = Some(vote));
        if self.sabotage != Sabotage::VoteInMemory {
            self.opened.log.save_vote(&vote).await.unwrap();
        }
        self.acknowledged();
    }

    async fn truncate(&mut self) {
        let first = self.now().committed.or(self.now().purged).map_or(0, |kept| kept.index + 1);
        let from = first + self.dice.below(usize::try_from(self.now().next_index() - first).unwrap()) as u64;
        let last = self.now().entries.get(&from.wrapping_sub(1)).map(RaftEntry::log_id).or(self.now().purged);
        if from >= self.now().next_index() || last.map_or(0, |last| last.index + 1) != from {
            return;
        }
        self.submit(|model| drop(model.entries.split_off(&from)));
        self.opened.log.truncate_after(last).await.unwrap();
        self.acknowledged();
    }

    /// Commits and applies some of the log.
    async fn apply(&mut self) {
        let first = self.applied.map_or(0, |applied| applied + 1);
        let count = 1 + self.dice.below(6);
        let entries: Vec<LogEntry> =
            self.now().entries.range(first..).take(count).map(|(_, entry)| entry.clone()).collect();
        let Some(last) = entries.last().map(RaftEntry::log_id) else { return };
        entries.iter().for_each(|entry| self.world.commit(entry));
        self.submit(|model| model.committed = Some(last));
        self.opened.log.save_committed(Some(last)).await.unwrap();
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        self.opened.machine.apply(stream::iter(entries)).await.unwrap();
        self.applied = Some(last.index);
    }

    async fn snapshot(&mut self) {
        let Some(applied) = self.applied else { return };
        if self.sabotage != Sabotage::PurgeWithoutSnapshot {
            let expected = self.world.snapshot(applied);
            self.submit(|model| model.snapshot = Some(expected));
            let mut builder = self.opened.machine.get_snapshot_builder().await;
            builder.build_snapshot().await.unwrap();
            self.acknowledged();
        }
        let upto = log_id_before(&self.world, applied.saturating_sub(self.dice.below(3) as u64));
        self.purge(upto).await;
    }

    async fn purge(&mut self, upto: LogId) {
        if self.now().purged >= Some(upto) {
            return;
        }
        self.submit(|model| {
            model.entries = model.entries.split_off(&(upto.index + 1));
            model.purged = Some(upto);
        });
        self.opened.log.purge(upto).await.unwrap();
    }

    /// A leader's snapshot that reaches behind the end of the log.
    async fn install(&mut self) {
        self.settle().await;
        if self.applied.map_or(0, |applied| applied + 1) < self.now().next_index() {
            return;
        }
        let (term, first) = (self.term(), self.now().next_index());
        let last = first + self.dice.below(5) as u64;
        for index in first..=last {
            let entry = self.entry(term, index);
            self.world.commit(&entry);
        }
        let (meta, data) = self.world.snapshot(last);
        let upto = meta.last_log_id.unwrap();
        let expected = (meta.clone(), data.clone());
        self.submit(|model| model.snapshot = Some(expected));
        self.opened.machine.install_snapshot(&meta, data).await.unwrap();
        self.acknowledged();
        self.applied = Some(last);
        self.submit(|model| model.committed = Some(upto));
        self.opened.log.save_committed(Some(upto)).await.unwrap();
        self.purge(upto).await;
    }
}

fn log_id_before(world: &World, index: u64) -> LogId {
    world.states[&index].0
}

/// Reads all that a store holds.
async fn contents(opened: &mut Opened) -> Model {
    let entries = opened.log.try_get_log_entries(..).await.unwrap();
    let snapshot = opened.machine.get_current_snapshot().await.unwrap();
    Model {
        vote: opened.log.read_vote().await.unwrap(),
        entries: entries.into_iter().map(|entry| (index_of(&entry), entry)).collect(),
        purged: opened.log.get_log_state().await.unwrap().last_purged_log_id,
        snapshot: snapshot.map(|snapshot| (snapshot.meta, snapshot.snapshot)),
        committed: opened.log.read_committed().await.unwrap(),
    }
}

fn close(opened: Opened) {
    let Opened { log, machine, writer, .. } = opened;
    drop((log, machine));
    writer.join().unwrap();
}

/// Which of the changes the store found stands behind.
fn judge(found: &Model, models: &[Model], before: &[Step]) -> Result<usize, String> {
    found.check()?;
    let noted = |parity: u64| {
        let notes = before.iter().filter_map(|step| match step {
            Step::Note(note) if note % 2 == parity => usize::try_from(note / 2).ok(),
            Step::Note(_) | Step::Write { .. } | Step::Length(_) | Step::Flushed => None,
        });
        notes.max().unwrap_or(0)
    };
    let (submitted, acknowledged) = (noted(0), noted(1));
    let fits = |at: &usize| found.same(&models[*at]) && found.committed <= models[*at].committed;
    (acknowledged..=submitted.max(acknowledged)).rev().find(fits).ok_or_else(|| {
        format!(
            "{acknowledged} changes were acknowledged, {submitted} handed over; found is none of them:\n{}\nafter the \
             acknowledged one:\n{}",
            sketch(found),
            sketch(&models[acknowledged])
        )
    })
}

fn sketch(model: &Model) -> String {
    let snapshot = model.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
    let keys = (model.entries.keys().next(), model.entries.keys().next_back());
    format!(
        "vote {:?}, log {keys:?}, purged {:?}, snapshot {snapshot:?}, committed {:?}",
        model.vote, model.purged, model.committed
    )
}

/// How many lives a store has, and how much it does in each.
const LIVES: usize = 4;
const ACTS: usize = 14;
/// Moments of each life at which the power is lost, beside the one that the next life follows.
const OTHER_MOMENTS: usize = 6;

async fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let word = if sabotage == Sabotage::FlushIsALie { Word::FlushIsALie } else { Word::Kept };
    let (mut content, mut model, mut world, mut id) = (Vec::new(), Model::default(), World::default(), None);
    for _ in 0..LIVES {
        let medium = Medium::traced(content, word);
        let opened = super::open(Place::medium(medium.clone())).map_err(|error| error.to_string())?;
        if id.is_some_and(|id| id != opened.id) {
            return Err("the node has become another one".to_owned());
        }
        id = Some(opened.id);
        medium.note(1);
        let mut life = begin(medium, opened, dice.clone(), sabotage, world, model).await;
        for _ in 0..ACTS {
            life.act().await;
        }
        (dice, world) = (life.dice.clone(), life.world.clone());
        let (base, steps) = life.medium.trace();
        // Not before the store was whole for the first time: a file is made under another name.
        let whole = steps.iter().position(|step| matches!(step, Step::Note(1))).unwrap();
        for _ in 0..OTHER_MOMENTS {
            let moment = whole + 1 + dice.below(steps.len() - whole);
            let loss = LOSSES[dice.below(LOSSES.len())];
            let left = twice(left(&base, &steps[..moment], loss, &mut dice), &mut dice)?;
            found(left, &life.models, &steps[..moment]).await?;
        }
        let moment = whole + 1 + dice.below(steps.len() - whole);
        content = left(&base, &steps[..moment], LOSSES[dice.below(LOSSES.len())], &mut dice);
        model = found(content.clone(), &life.models, &steps[..moment]).await?;
        let Life { opened, .. } = life;
        close(opened);
    }
    starts(content, &model, &world).await
}

/// Raft reads back what it finds, so that the machine stands where the snapshot or the committed index says.
async fn begin(
    medium: Medium,
    opened: Opened,
    dice: Dice,
    sabotage: Sabotage,
    world: World,
    model: Model,
) -> Life {
    let models = vec![model.clone()];
    let mut life = Life {
        medium,
        opened,
        dice,
        sabotage,
        world,
        models,
        applied: None,
        flushing: Vec::new(),
        awaited: 0,
    };
    let snapshot = life.opened.machine.get_current_snapshot().await.unwrap();
    if let Some(snapshot) = snapshot {
        let upto = snapshot.meta.last_log_id.unwrap();
        life.opened.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        life.applied = Some(upto.index);
        if model.last() < Some(upto) {
            life.submit(|model| model.committed = model.committed.max(Some(upto)));
            life.opened.log.save_committed(life.now().committed).await.unwrap();
            life.purge(upto).await;
        }
    }
    let first = life.applied.map_or(0, |applied| applied + 1);
    if let Some(committed) = life.now().committed.filter(|committed| first <= committed.index) {
        let entries = life.opened.log.try_get_log_entries(first..=committed.index).await.unwrap();
        life.applied = Some(committed.index);
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        life.opened.machine.apply(stream::iter(entries)).await.unwrap();
    }
    // What this node had applied behind that is not known to it any more: the world may have gone on differently.
    let applied = life.applied;
    life.world.states.retain(|index, _| applied.is_some_and(|applied| *index <= applied));
    life
}

/// Loses power once more while the store is being opened, in some cases.
fn twice(content: Vec<u8>, dice: &mut Dice) -> Result<Vec<u8>, String> {
    if dice.below(3) > 0 {
        return Ok(content);
    }
    let medium = Medium::traced(content, Word::Kept);
    close(super::open(Place::medium(medium.clone())).map_err(|error| error.to_string())?);
    let (base, steps) = medium.trace();
    let loss = LOSSES[dice.below(LOSSES.len())];
    Ok(left(&base, &steps[..dice.below(steps.len() + 1)], loss, dice))
}

async fn found(content: Vec<u8>, models: &[Model], before: &[Step]) -> Result<Model, String> {
    let opened = super::open(Place::medium(Medium::new(content, Word::Kept)));
    let mut opened = opened.map_err(|error| format!("the store does not open: {error}"))?;
    let found = contents(&mut opened).await;
    close(opened);
    judge(&found, models, before)?;
    Ok(found)
}

struct Nobody;

impl RaftTransport for Nobody {
    fn call(
        &self,
        _: &model::NodeName,
        _: bytes::Bytes,
        _: Duration,
    ) -> crate::BoxFuture<'static, std::io::Result<bytes::Bytes>> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }
}

/// Raft itself starts from what is left, and comes to the state that the world had at that entry.
async fn starts(content: Vec<u8>, found: &Model, world: &World) -> Result<(), String> {
    let opened = super::open(Place::medium(Medium::new(content, Word::Kept)));
    let Opened { id, log, machine, writer } = opened.map_err(|error| error.to_string())?;
    let config = EmbeddedConfig {
        node: model::NodeName::new("a"),
        directory: "the medium".into(),
        timings: Timings::default(),
    };
    let node = start(config, Arc::new(Nobody), id, log, machine).await.map_err(|error| error.to_string())?;
    let expected = found.committed.max(found.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id));
    let wait = node.raft.wait(Some(Duration::from_secs(20)));
    let metrics = wait.metrics(|metrics| metrics.last_applied >= expected, "applied").await;
    let applied = metrics.map_err(|error| error.to_string())?.last_applied;
    let state = node.shared.read(Clone::clone);
    let expected = applied.map_or_else(State::default, |applied| world.states[&applied.index].1.clone());
    node.raft.shutdown().await.unwrap();
    drop(node);
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    if state == expected {
        return Ok(());
    }
    Err(format!("at {applied:?} the state is\n{state:?}\nand should be\n{expected:?}"))
}

fn run(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run_seed(seed, sabotage))
}

#[test]
fn power_losses_at_any_moment_lose_nothing_acknowledged() {
    for seed in 0..100 {
        if let Err(problem) = run(seed, Sabotage::None) {
            panic!("seed {seed}: {problem}");
        }
    }
}

/// The controls: each broken store is found, and by a handful of seeds.
#[test]
fn broken_stores_are_found() {
    for sabotage in [
        Sabotage::AckBeforeFlush,
        Sabotage::VoteInMemory,
        Sabotage::PurgeWithoutSnapshot,
        Sabotage::FlushIsALie,
    ] {
        let problem = (0..10).find_map(|seed| run(seed, sabotage).err());
        assert!(problem.is_some(), "{sabotage:?} was not found");
    }
}

/// Power lost while a node makes its first store: on a bare medium such a store may be beyond use, and says so; in a
/// directory the next start makes another one, because the file gets its name when it is whole.
#[test]
fn a_store_whose_making_was_interrupted_is_made_anew() {
    let medium = Medium::traced(Vec::new(), Word::Kept);
    close(super::open(Place::medium(medium.clone())).unwrap());
    let (base, steps) = medium.trace();
    let (mut dice, mut refused) = (Dice::new(1), 0);
    for moment in 0..=steps.len() {
        let content = left(&base, &steps[..moment], LOSSES[moment % LOSSES.len()], &mut dice);
        match super::open(Place::medium(Medium::new(content.clone(), Word::Kept))) {
            Ok(opened) => close(opened),
            Err(error) => {
                assert!(error.to_string().contains("database"), "{error}");
                refused += 1;
                let directory = tempfile::TempDir::new().unwrap();
                std::fs::write(directory.path().join(super::file::UNFINISHED), &content).unwrap();
                close(super::open(Place::Directory(directory.path().to_owned())).unwrap());
            }
        }
    }
    assert!(refused > 0, "a file made in place would have been beyond use");
}
