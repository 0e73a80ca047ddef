//! What was committed survives.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coordination::embedded::{self, Embedded};
use coordination::{Coordinator, Txn};
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
    tokio::time::timeout(PATIENCE, caught_up).await.expect("it catches up");
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

/// Set for the copy of this test binary that is to be killed; holds its directory.
const VICTIM: &str = "COORDINATION_TEST_VICTIM";

/// Kills a process of its own with SIGKILL in the midst of writing, and demands every write that it had reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_keeps_what_it_acknowledged() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        write_until_killed(directory.as_ref()).await;
    }
    let directory = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..5 {
        let mut victim = Victim::start(directory.path());
        let lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
        let keys =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("key ").map(str::to_owned));
        acknowledged.extend(keys.take(30));
        victim.kill();
    }
    let node = open(&NodeName::new("a"), directory.path(), &Network::default()).await;
    let kept = node.list("write/", PATIENCE).await.unwrap().entries;
    let kept: BTreeSet<String> = kept.into_iter().map(|entry| entry.key).collect();
    assert!(acknowledged.len() >= 150, "{}", acknowledged.len());
    assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept).collect::<Vec<_>>());
}

async fn write_until_killed(directory: &std::path::Path) {
    let name = NodeName::new("a");
    let node: std::sync::Arc<Embedded> = open(&name, directory, &Network::default()).await;
    node.initialize(std::slice::from_ref(&name), PATIENCE).await.unwrap();
    for number in 0.. {
        let key = format!("write/{}-{number}", std::process::id());
        node.txn(Txn::new().put(key.clone(), "1"), PATIENCE).await.unwrap();
        println!("key {key}");
    }
}

struct Victim(Child);

impl Victim {
    fn start(directory: &std::path::Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["durability::a_killed_process_keeps_what_it_acknowledged", "--exact", "--nocapture"]);
        command.env(VICTIM, directory).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
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
