//! What was committed survives.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coordination::embedded::{self, Embedded};
use coordination::{Coordinator, Error, Reason, Txn};
use model::NodeName;
use tempfile::TempDir;

use crate::group::{Group, PATIENCE, open};
use crate::network::Network;

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_restarted_keep_every_write() {
    let mut group = Group::of(3).await;
    for round in 0..3 {
        for write in 0..20 {
            let at = group.names[write % 3].clone();
            group.put(&at, &format!("write/{round}-{write}"), "1").await;
        }
        for name in group.names.clone() {
            group.kill(&name).await;
        }
        for name in group.names.clone().into_iter().rev() {
            group.restart(&name).await;
        }
        let kept = group.store(&group.names[round]).list("write/", PATIENCE).await.unwrap();
        assert_eq!(kept.entries.len(), 20 * (round + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_much_catches_up_by_snapshot() {
    let mut group = Group::of(3).await;
    let leader = group.leader().await;
    let late = group.others(&leader)[0].clone();
    group.kill(&late).await;
    let store = group.store(&leader);
    let big = "x".repeat(2_000);
    let writes: Vec<_> =
        (0..3_000).map(|write| (store.clone(), format!("key/{}", write % 600), big.clone())).collect();
    for batch in writes.chunks(100) {
        let batch = batch.iter().cloned().map(|(store, key, value)| {
            tokio::spawn(async move { store.txn(Txn::new().put(key, value), PATIENCE).await.unwrap() })
        });
        for write in batch.collect::<Vec<_>>() {
            write.await.unwrap();
        }
    }
    let revision = store.list("key/0", PATIENCE).await.unwrap().revision;
    group.restart(&late).await;
    let caught_up = async {
        while group.node(&late).status().revision < revision {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let since = Instant::now();
    let caught_up = tokio::time::timeout(2 * PATIENCE, caught_up).await;
    assert!(
        caught_up.is_ok(),
        "it catches up: {:?}, {:?}",
        group.node(&late).status(),
        group.node(&leader).status()
    );
    println!("caught up by snapshot and log after {:?}", since.elapsed());
    assert_eq!(group.store(&late).list("key/", PATIENCE).await.unwrap().entries.len(), 600);
    group.kill(&late).await;
    group.restart(&late).await;
    assert_eq!(group.store(&late).list("key/", PATIENCE).await.unwrap().entries.len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_and_import_keep_everything() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let name = NodeName::new("a");
    let network = Network::default();
    let node = open(&name, from.path(), &network).await;
    node.initialize(std::slice::from_ref(&name), PATIENCE).await.unwrap();
    node.txn(Txn::new().put("key", r#"{"a":1}"#), PATIENCE).await.unwrap();
    let before = node.list("", PATIENCE).await.unwrap();
    node.shutdown().await;

    let mut document = Vec::new();
    embedded::export(from.path(), &mut document).unwrap();
    embedded::import(&mut document.as_slice(), to.path()).unwrap();
    assert!(embedded::import(&mut document.as_slice(), to.path()).is_err(), "never over an existing store");

    let copy = open(&name, to.path(), &network).await;
    assert_eq!(copy.list("", PATIENCE).await.unwrap(), before);
    assert_eq!(copy.status().incarnation, node.status().incarnation);
}

/// Set for the copy of this test binary that is to come to harm; holds its directory.
const VICTIM: &str = "COORDINATION_TEST_VICTIM";

/// Kills a process of its own with SIGKILL in the midst of writing, and demands every write that it had reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_keeps_what_it_acknowledged() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        let node = founded(directory.as_ref()).await;
        loop {
            write(&node, "1").await.unwrap();
        }
    }
    let directory = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..5 {
        let mut victim = Victim::start(directory.path(), "a_killed_process_keeps_what_it_acknowledged", "");
        acknowledged.extend(victim.acknowledged().take(30));
        victim.kill();
    }
    assert!(acknowledged.len() >= 150, "{}", acknowledged.len());
    demand(directory.path(), &acknowledged).await;
}

/// Lets a process of its own run into the limit of a file's size, as into a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_node_in_words_and_loses_nothing() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        let node = founded(directory.as_ref()).await;
        fill_disk(&node).await;
        return;
    }
    let directory = TempDir::new().unwrap();
    // In blocks of 512 bytes; the signal that would kill is ignored, so that the write fails.
    let limit = "trap '' XFSZ; ulimit -f 16384;";
    let mut victim =
        Victim::start(directory.path(), "a_full_disk_stops_the_node_in_words_and_loses_nothing", limit);
    let acknowledged: BTreeSet<String> = victim.acknowledged().collect();
    assert!(victim.0.wait().unwrap().success(), "the node stopped as it should");
    assert!(!acknowledged.is_empty());
    demand(directory.path(), &acknowledged).await;
}

async fn fill_disk(node: &Embedded) {
    let value = "x".repeat(100_000);
    let first = loop {
        if let Err(error) = write(node, &value).await {
            break error;
        }
    };
    assert!(matches!(first, Error::OutcomeUnknown(_)), "{first:?}");
    let since = Instant::now();
    let next = write(node, &value).await.unwrap_err();
    assert!(matches!(next, Error::Unavailable(Reason::Stopped(_))), "{next:?}");
    assert!(since.elapsed() < Duration::from_secs(1), "it says so at once: {:?}", since.elapsed());
    let failure = node.status().failure.expect("it says why");
    assert!(failure.contains("File too large"), "{failure}");
}

async fn founded(directory: &Path) -> Arc<Embedded> {
    let name = NodeName::new("a");
    let node = open(&name, directory, &Network::default()).await;
    node.initialize(std::slice::from_ref(&name), PATIENCE).await.unwrap();
    node
}

/// Writes a new key and reports it once it is acknowledged.
async fn write(node: &Embedded, value: &str) -> Result<(), Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let key = format!("write/{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    node.txn(Txn::new().put(key.clone(), value.to_owned()), PATIENCE).await?;
    println!("key {key}");
    Ok(())
}

/// Demands every key from the store in the directory.
async fn demand(directory: &Path, acknowledged: &BTreeSet<String>) {
    let node = open(&NodeName::new("a"), directory, &Network::default()).await;
    for key in acknowledged {
        assert!(node.get(key, PATIENCE).await.unwrap().is_some(), "{key} is lost");
    }
}

struct Victim(Child);

impl Victim {
    /// Starts this test binary again for one test, after some shell commands.
    fn start(directory: &Path, test: &str, before: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
        command.args([&format!("durability::{test}"), "--exact", "--nocapture"]);
        command.env(VICTIM, directory).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self(command.spawn().unwrap())
    }

    /// The keys that it reports, until it ends.
    fn acknowledged(&mut self) -> impl Iterator<Item = String> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("key ").map(str::to_owned))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
