//! Workloads: what applications do with a database, done through its route while faults happen, and recorded so that the
//! crate `checker` can say whether any promise was broken.
//!
//! ```text
//! Workloads::start -> several clients for each kind, at a steady rate, reconnecting as careful applications do
//!          ...faults...
//! Workloads::stop  -> everything is read once more -> histories -> judge, or a file for `mainstay drill check`
//! ```
//!
//! | kind | what clients do | isolation | what is claimed |
//! |---|---|---|---|
//! | set | the drill's own client adds rows | one statement each | every acknowledged row is there once |
//! | bank | transfers of two updates, reads of all balances | read committed: updates lock rows, a read is one statement | every read is a choice of transfers that may have happened by then |
//! | append | one to four appends and reads of lists | serializable | no cycle, in real time too |
//! | register | read, write, compare and set | one statement each | linearizable |
//!
//! These are claims that PostgreSQL's levels keep, so nothing has to be forgiven. Under read committed an application
//! that reads and writes in two statements loses updates; here it never does so, because updates are relative and
//! compare-and-set is one statement that looks again after it waited for a lock. Serializable transactions are
//! serializable in real time as well: whoever begins after an acknowledgement has a snapshot with it, and such a pair
//! counts in the proof of serializable snapshot isolation (Fekete et al. 2005) as any other dependency does.
//!
//! One thing is forgiven, and counted: a member that is a primary no longer may answer *reads* until its lease ends
//! (`leases bound stale reads, nothing else`). Such a read is judged as if it had begun when the leadership after it
//! was first heard of; what it says of that moment must still be true. See [`old_reads`].
//!
//! Outcomes: failed is only what was surely not done (never sent, refused, or never asked to commit); acknowledged is
//! only what was answered without a warning, because a cancelled wait for a standby answers with one.

mod append;
mod bank;
mod client;
mod judge;
mod kind;
mod old_reads;
mod random;
mod register;
mod transaction;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use checker::Operation;
use checker::file::History;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

use crate::drill::connector::Connector;
use crate::drill::{Deadlines, RunName};
use client::{Crew, Work};

pub use judge::{Finding, Judged};
pub use kind::{Kind, UnknownKind};

/// Where and how hard the clients work.
#[derive(Clone, Debug)]
pub struct Load {
    /// The route's address on every node; each client begins with another one.
    pub entries: Vec<SocketAddr>,
    /// Who logs in to which database; addresses in it are not used.
    pub login: Config,
    /// The name of this run's rows.
    pub run: RunName,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// How long a member may answer reads as primary without renewing its lease.
    pub lease: Duration,
    /// Clients of each kind.
    pub clients: u32,
    /// Operations per second of each kind, all its clients together.
    pub rate: u32,
}

/// Workloads at work. When dropped, the clients end by themselves.
#[derive(Debug)]
pub struct Workloads {
    stop: Arc<AtomicBool>,
    tasks: Vec<Task>,
}

/// The clients of one kind.
#[derive(Debug)]
struct Task {
    acknowledged: Arc<AtomicU64>,
    recorded: JoinHandle<Recorded>,
}

/// What the clients of one kind saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which kind.
    pub kind: Kind,
    /// All operations.
    pub history: History,
    /// Reads that a former primary answered within its lease; see the module's text.
    pub old_reads: u64,
}

impl Load {
    /// Four clients and 100 operations per second of each kind, 2 s of lease.
    pub fn new(entries: Vec<SocketAddr>, login: Config, run: RunName) -> Self {
        let (deadlines, lease) = (Deadlines::default(), Duration::from_secs(2));
        Self { entries, login, run, deadlines, lease, clients: 4, rate: 100 }
    }

    fn connector(&self, first: usize) -> Connector {
        let mut login = self.login.clone();
        // Our tables are small, and a serializable transaction that reads a whole table is in everybody's way.
        login.options("-c enable_seqscan=off");
        Connector::new(self.entries.clone(), first, login, self.deadlines)
    }
}

impl Workloads {
    /// Makes the tables and begins to work, on a runtime whose threads are where the clients stand. [`Kind::Set`] is what
    /// the drill's own client does and needs none here.
    ///
    /// # Errors
    /// When the tables cannot be made.
    pub async fn start(runtime: &Handle, load: Load, kinds: &[Kind]) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workloads = Self { stop: Arc::clone(&stop), tasks: Vec::new() };
        let ground = Ground { runtime, load: &load, stop: &stop };
        let (run, deadline) = (load.run.as_str(), load.deadlines.statement);
        for kind in kinds {
            workloads.tasks.push(match kind {
                Kind::Set => continue,
                Kind::Bank => {
                    let bank = bank::Bank::new(run, deadline);
                    ground.begin(*kind, bank, |seen| History::Bank(bank::claim(), seen)).await?
                }
                Kind::Append => {
                    let append = append::Append::new(run, deadline);
                    ground.begin(*kind, append, |seen| History::Append(append::CLAIM, seen)).await?
                }
                Kind::Register => {
                    let register = register::Register::new(run, deadline);
                    ground.begin(*kind, register, History::Register).await?
                }
            });
        }
        Ok(workloads)
    }

    /// How many operations were acknowledged so far, of the kind that has the fewest.
    pub fn acknowledged(&self) -> u64 {
        self.tasks.iter().map(|task| task.acknowledged.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Ends after the operations under way, reads everything once more, and hands over what was seen. The tables go with
    /// the drill's schema.
    ///
    /// # Errors
    /// When a client broke down.
    pub async fn stop(mut self) -> Result<Vec<Recorded>, String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut recorded = Vec::new();
        for task in std::mem::take(&mut self.tasks) {
            recorded.push(task.recorded.await.map_err(|e| format!("a workload broke down: {e}"))?);
        }
        Ok(recorded)
    }
}

impl Drop for Workloads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Where clients are sent to work.
struct Ground<'g> {
    runtime: &'g Handle,
    load: &'g Load,
    stop: &'g Arc<AtomicBool>,
}

impl Ground<'_> {
    /// Makes the table of a kind and sends its clients to work.
    async fn begin<W: Work>(
        &self,
        kind: Kind,
        work: W,
        to_history: fn(Vec<Operation<W::Action>>) -> History,
    ) -> Result<Task, String> {
        let (table, mut connector) = (work.table(), self.load.connector(0));
        let made = self.runtime.spawn(async move { client::make(&mut connector, &table).await }).await;
        made.map_err(|e| format!("a workload broke down: {e}"))??;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stop, lease) = (Arc::clone(self.stop), self.load.lease);
        let crew = Crew { work, load: self.load.clone(), stop, acknowledged: Arc::clone(&acknowledged) };
        let recorded = self.runtime.spawn(async move {
            let (operations, old_reads) = old_reads::allow(crew.work().await, lease);
            Recorded { kind, history: to_history(operations), old_reads }
        });
        Ok(Task { acknowledged, recorded })
    }
}

impl Recorded {
    /// Writes the history as JSON lines to `directory`, which must exist, and says where it lies.
    ///
    /// # Errors
    /// With the path in the text.
    pub fn save(&self, directory: &Path, name: &str) -> Result<PathBuf, String> {
        let path = directory.join(format!("{name}-{}.jsonl", self.kind));
        let written = effects::files::write_atomic(&path, self.history.to_text().as_bytes(), 0o644);
        written.map_err(|e| format!("the history cannot be saved: {e}"))?;
        Ok(path)
    }
}
