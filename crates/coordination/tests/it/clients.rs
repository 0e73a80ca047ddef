//! Clients that read, write and swap a few keys, and remember what they saw.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checker::file::History;
use checker::register::{self, Action, Answer, Bounds, What};
use checker::{Operation, Outcome, Verdict};
use coordination::embedded::Embedded;
use coordination::{Change, Coordinator, Entry, Error, Revision, Txn, TxnOutcome};
use model::NodeName;
use model::time::Moment;
use tokio::task::JoinSet;

use crate::group::{Group, PATIENCE};
use crate::medium::Dice;

/// How long a client waits for one answer: shorter than an election under load, so that some outcomes stay unknown.
pub(crate) const WITHIN: Duration = Duration::from_millis(400);

const CLIENTS: u32 = 6;
const KEYS: [&str; 3] = ["register/a", "register/b", "register/c"];

/// Where a client reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// As the product does.
    Linearizable,
    /// From what the node itself has seen so far (its watch), which the product never takes for a read.
    Local,
}

/// What one node has seen through its own watch.
pub(crate) type Local = Arc<Mutex<BTreeMap<String, u64>>>;

/// What clients share.
pub(crate) struct Run {
    began: Instant,
    reads: Reads,
    next_value: AtomicU64,
    acknowledged: AtomicU64,
    pub(crate) stop: AtomicBool,
    history: Mutex<Vec<Operation<Action>>>,
    nodes: Mutex<BTreeMap<NodeName, (Arc<Embedded>, Local)>>,
}

impl Run {
    pub(crate) fn new(reads: Reads) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            reads,
            next_value: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            nodes: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap())
    }

    /// Each value is written once, so that "still the same revision" is "still the same value".
    fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self, client: u32, invoked: Moment, outcome: Outcome, key: &str, what: What) {
        if matches!(outcome, Outcome::Ok(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let action = Action { key: key.to_owned(), what };
        self.history.lock().unwrap().push(Operation { client, invoked, outcome, action });
    }

    /// Lets clients use a node from now on.
    pub(crate) fn open(&self, name: &NodeName, node: &Arc<Embedded>) {
        let local = Local::default();
        if self.reads == Reads::Local {
            tokio::spawn(follow(node.watch("register/", Revision(1)), local.clone()));
        }
        self.nodes.lock().unwrap().insert(name.clone(), (node.clone(), local));
    }

    pub(crate) fn close(&self, name: &NodeName) {
        self.nodes.lock().unwrap().remove(name);
    }

    pub(crate) fn pick(&self, dice: &mut Dice) -> Option<(Arc<Embedded>, Local)> {
        let nodes = self.nodes.lock().unwrap();
        nodes.values().nth(dice.below(nodes.len())).cloned()
    }

    /// Waits until the clients have got on by so many acknowledged operations.
    pub(crate) async fn progress(&self, by: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + by;
        let since = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < goal {
            assert!(since.elapsed() < 8 * PATIENCE, "clients get on no more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn judge(&self, name: &str) -> Verdict {
        let history = self.history.lock().unwrap().clone();
        let count = |holds: fn(&Outcome) -> bool| history.iter().filter(|o| holds(&o.outcome)).count();
        println!(
            "{} operations: {} acknowledged, {} failed, {} unknown",
            history.len(),
            count(|outcome| matches!(outcome, Outcome::Ok(_))),
            count(|outcome| matches!(outcome, Outcome::Failed)),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
        );
        let verdict = register::check(&history, Bounds::default());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&kept, History::Register(history).to_text()).unwrap();
        println!("kept as {}", kept.display());
        verdict
    }
}

async fn follow(mut watch: coordination::Watch, local: Local) {
    while let Ok(changes) = watch.next().await {
        for change in changes.changes {
            if let Change::Put(entry) = change {
                local.lock().unwrap().insert(entry.key.clone(), number(&entry));
            }
        }
    }
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

async fn client(run: Arc<Run>, number: u32) {
    let mut dice = Dice::new(u64::from(number) + 1);
    while !run.stop.load(Ordering::Relaxed) {
        let key = KEYS[dice.below(KEYS.len())];
        match (run.pick(&mut dice), dice.below(10)) {
            (None, _) => {}
            (Some((_, local)), 0..4) if run.reads == Reads::Local => read_locally(&run, number, &local, key),
            (Some((node, _)), 0..4) => drop(read(&run, number, &node, key).await),
            (Some((node, _)), 4..7) => write(&run, number, &node, key).await,
            (Some((node, _)), _) => swap(&run, number, &node, key).await,
        }
        tokio::time::sleep(Duration::from_millis(1 + dice.below(4) as u64)).await;
    }
}

/// Reads, and returns what a swap must compare with.
async fn read(run: &Run, client: u32, node: &Embedded, key: &str) -> Option<(Option<u64>, Revision)> {
    let invoked = run.now();
    let entry = node.get(key, WITHIN).await.ok()?;
    let value = entry.as_ref().map(number);
    let what = What::Read(value.map_or(Answer::Absent, Answer::Value));
    run.record(client, invoked, Outcome::Ok(run.now()), key, what);
    Some((value, entry.map_or(Revision(0), |entry| entry.modified)))
}

fn read_locally(run: &Run, client: u32, local: &Local, key: &str) {
    let invoked = run.now();
    let Some(value) = local.lock().unwrap().get(key).copied() else { return };
    run.record(client, invoked, Outcome::Ok(run.now()), key, What::Read(Answer::Value(value)));
}

async fn write(run: &Run, client: u32, node: &Embedded, key: &str) {
    let (value, invoked) = (run.value(), run.now());
    let outcome = match node.txn(Txn::new().put(key, value.to_string()), WITHIN).await {
        Ok(TxnOutcome::Committed(_)) => Outcome::Ok(run.now()),
        Ok(TxnOutcome::Conflict { .. }) => panic!("there was no condition"),
        Err(error) => not_ok(&error),
    };
    run.record(client, invoked, outcome, key, What::Write(value));
}

async fn swap(run: &Run, client: u32, node: &Embedded, key: &str) {
    let Some((from, revision)) = read(run, client, node, key).await else { return };
    let (to, invoked) = (run.value(), run.now());
    let txn = Txn::new().compare(key, revision).put(key, to.to_string());
    let (outcome, done) = match node.txn(txn, WITHIN).await {
        Ok(TxnOutcome::Committed(_)) => (Outcome::Ok(run.now()), Some(true)),
        Ok(TxnOutcome::Conflict { .. }) => (Outcome::Ok(run.now()), Some(false)),
        Err(error) => (not_ok(&error), None),
    };
    run.record(client, invoked, outcome, key, What::Swap { from, to, done });
}

/// What the error promises is held against it: what it calls not done must never be seen.
fn not_ok(error: &Error) -> Outcome {
    match error {
        Error::Unavailable(_) => Outcome::Failed,
        Error::OutcomeUnknown(_) => Outcome::Unknown,
        Error::LeaseEnded(_) | Error::TooLarge { .. } | Error::Invalid(_) | Error::Malformed { .. } => {
            panic!("{error}")
        }
    }
}

/// Sets clients to work on a group.
pub(crate) async fn start(group: &Group, reads: Reads) -> (Arc<Run>, JoinSet<()>) {
    let run = Run::new(reads);
    for name in &group.names {
        run.open(name, group.node(name));
    }
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(run.clone(), number));
    }
    run.progress(100).await;
    (run, clients)
}

pub(crate) async fn stop(run: &Run, clients: JoinSet<()>) {
    run.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
}
