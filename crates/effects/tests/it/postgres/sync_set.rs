//! The sync set in force, and its proof.

use std::time::Duration;

use effects::postgres::{NOBODY, ProbeError, Prober, SyncSetError};
use effects::process::{ProcessId, Signal, signal_process};
use model::leadership::SyncSet;

use super::cluster::{Cluster, SOON, kill, make_table, observe, wait_until_streaming, write};

const NAMES: [&str; 3] = ["e1", "e2", "w1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_proved_by_a_write_that_its_members_hold() {
    let (_cluster, servers) = Cluster::streaming(&NAMES).await;
    for (k, members) in [(1, &NAMES[1..2]), (2, &NAMES[1..]), (1, &NAMES[1..]), (1, &NAMES[2..])] {
        let set = SyncSet { k, members: members.iter().map(|name| (*name).into()).collect() };
        let applied = servers[0].apply_sync_set(&set, SOON).await.unwrap();
        println!("{set}: proved in {:?}", applied.took);
        let confirmed = applied.confirmed.expect("a satisfiable set");
        let senders = observe(&servers[0]).await.senders;
        let holders =
            senders.iter().filter(|s| members.contains(&s.name.as_str()) && s.flushed >= Some(confirmed));
        assert!(holders.count() >= k as usize, "{senders:?}");
        for sender in senders {
            assert_eq!(sender.sync_priority > 0, members.contains(&sender.name.as_str()), "{sender:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_no_set_to_a_set_no_write_slips_through() {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    let nobody_waits = servers[0].apply_sync_set(&SyncSet::default(), SOON).await.unwrap();
    assert_eq!(nobody_waits.confirmed, None);
    kill(&servers[1]).await;
    write(&client, "asynchronous").await.unwrap();
    let set = cluster.any_one_of(&["e2"]);
    let error = servers[0].apply_sync_set(&set, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, SyncSetError::NotConfirmed { .. }), "{error}");
    let waits = tokio::time::timeout(Duration::from_millis(300), write(&client, "waits")).await;
    assert!(waits.is_err(), "a write was acknowledged that no member of the set holds");
    let standby = cluster.start_standby(1).await;
    standby.follow(&cluster.source(0)).await.unwrap();
    let applied = servers[0].apply_sync_set(&set, SOON).await.unwrap();
    println!("from nobody to {set}: {:?}", applied.took);
    assert_eq!(observe(&servers[0]).await.sync_waiting, 0, "the waiting write and old proofs are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_set_under_zero_loss_lets_every_write_wait() {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let client = cluster.client(0).await.unwrap();
    let applied = servers[0].apply_sync_set(&SyncSet { k: 1, members: [].into() }, SOON).await.unwrap();
    assert_eq!(applied.confirmed, None);
    let shown = servers[0].member().control().text("SHOW synchronous_standby_names", SOON).await.unwrap();
    assert_eq!(shown, NOBODY);
    let waits =
        tokio::time::timeout(Duration::from_millis(300), client.batch_execute("CREATE TABLE t ()")).await;
    assert!(waits.is_err());
    // The agent's own writes and probes do not wait.
    Prober::new(servers[0].member()).write(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_does_not_show_the_new_set_is_terminated() {
    let (cluster, servers) = Cluster::streaming(&NAMES).await;
    let frozen = ProcessId::of(observe(&servers[2]).await.receiver.unwrap().pid).unwrap();
    signal_process(frozen, Signal::STOP);
    // Both members stay in the set, only k changes: nothing but replies tells that a sender uses it.
    let both = SyncSet { k: 2, members: [NAMES[1].into(), NAMES[2].into()].into() };
    let error = servers[0].apply_sync_set(&both, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, SyncSetError::NotConfirmed { .. }), "{error}");
    let applied = servers[0].apply_sync_set(&cluster.any_one_of(&NAMES[1..]), SOON).await.unwrap();
    println!("with a frozen standby: {:?}", applied.took);
    assert!(applied.confirmed.is_some());
    let senders = observe(&servers[0]).await.senders;
    assert!(!senders.iter().any(|sender| sender.name == NAMES[2]), "{senders:?}");
    signal_process(frozen, Signal::CONT);
    wait_until_streaming(&servers[0], cluster.members[2].node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_postmaster_is_seen_by_new_connections_only() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let prober = Prober::new(&cluster.members[0]);
    let probed = prober.write(SOON).await.unwrap();
    println!("write probe: {:?}", probed.took);
    prober.answer(SOON).await.unwrap();
    observe(&primary).await;
    primary.process().signal(Signal::STOP).unwrap();
    // The session that is open already notices nothing.
    observe(&primary).await;
    let short = Duration::from_millis(100);
    for _ in 0..4 {
        let error = prober.write(short).await.unwrap_err();
        assert_eq!(error, ProbeError::Deadline { after: short, write: true });
    }
    assert_eq!(prober.answer(short).await.unwrap_err(), ProbeError::Backlog { hanging: 4 });
    primary.process().signal(Signal::CONT).unwrap();
    let begin = std::time::Instant::now();
    while let Err(error) = prober.write(SOON).await {
        assert!(begin.elapsed() < SOON, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
