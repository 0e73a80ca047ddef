//! What a dead server leaves behind.

use std::time::Duration;

use effects::postgres::{Application, StartRole};
use effects::process::{ProcessId, Signal, facts_of, signal_process};
use model::leadership::SyncSet;

use super::cluster::{Cluster, SOON, kill, observe};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_pid_file_that_names_a_living_stranger_is_seen_through() {
    let (cluster, primary) = Cluster::founded(&["e1", "e2"]).await;
    let pid_file = cluster.members[0].paths().data.join("postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    kill(&primary).await;
    // After a reboot the pid belongs to another server of the same user: PostgreSQL itself would refuse to start.
    cluster.members[1]
        .found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON)
        .await
        .unwrap();
    let stranger = cluster.start_primary(1, SyncSet::default()).await;
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&pid_file, format!("{}\n{rest}", stranger.process().id().pid)).unwrap();
    let started = cluster.start_primary(0, SyncSet::default()).await;
    assert!(!observe(&started).await.in_recovery);
    assert!(stranger.process().is_alive(), "the stranger was hurt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_outlive_their_postmaster_are_ended_before_a_new_one_starts() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let client = cluster.client(0).await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let orphan = ProcessId::of(pid).unwrap();
    // A stopped backend does not notice that its postmaster is dead, as one in a long computation would not.
    signal_process(orphan, Signal::STOP);
    primary.process().signal(Signal::KILL).unwrap();
    primary.process().exited().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let remains = cluster.members[0].is_really_gone().await.unwrap_err();
    assert!(remains.processes.iter().any(|(id, _)| *id == orphan), "{remains}");
    assert!(cluster.members[0].running().await.is_none(), "an orphan is no server");
    let started = cluster.start_primary(0, SyncSet::default()).await;
    assert!(facts_of(pid).is_none_or(|facts| facts.id != orphan || facts.is_dead()));
    assert!(!observe(&started).await.in_recovery);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_provably_gone() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    assert!(cluster.members[0].is_really_gone().await.is_err());
    let begin = std::time::Instant::now();
    primary.kill(SOON).await.unwrap();
    println!("killed with all children in {:?}", begin.elapsed());
    cluster.members[0].is_really_gone().await.unwrap();
    // A crashed primary starts as a standby, and says what it holds.
    let standby = cluster.start_standby(0).await;
    let held = standby.disconnect_receiver(SOON).await.unwrap();
    assert!(held.position.lsn.0 > 0 && held.position.lsn == held.replayed, "{held:?}");
    drop(standby.member().start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err());
}
