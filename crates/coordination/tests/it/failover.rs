//! The leader dies, is cut off, comes back.

use std::time::{Duration, Instant};

use coordination::{Error, Txn};

use crate::group::{Group, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced() {
    let mut group = Group::of(3).await;
    let mut new_leader = Vec::new();
    let mut first_write = Vec::new();
    for round in 0..10 {
        let old = group.leader().await;
        let survivor = group.others(&old)[0].clone();
        let mut hint = group.store(&survivor).leader();
        let since = Instant::now();
        group.kill(&old).await;
        let write = async {
            group.put(&survivor, "round", &round.to_string()).await;
            since.elapsed()
        };
        let elected = async {
            hint.wait_for(|hint| hint.leader.as_ref().is_some_and(|leader| *leader != old)).await.unwrap();
            since.elapsed()
        };
        let (write, elected) = tokio::join!(write, elected);
        assert!(write < PATIENCE, "{write:?}");
        new_leader.push(elected.as_millis());
        first_write.push(write.as_millis());
        group.restart(&old).await;
        assert_eq!(group.get(&old, "round").await, Some(round.to_string()));
    }
    println!("new leader known after kill, ms: {new_leader:?}; first accepted write, ms: {first_write:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_leader_answers_nothing_and_says_so_in_time() {
    let group = Group::of(3).await;
    group.put(&group.names[0], "key", "1").await;
    let old = group.leader().await;
    let others = group.others(&old);
    group.network.isolate(&old, true);
    group.put(&others[0], "key", "2").await;

    let within = Duration::from_millis(700);
    let bound = within + Duration::from_millis(500);
    let since = Instant::now();
    let read = group.store(&old).get("key", within).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    let list = group.store(&old).list("", within).await;
    assert!(matches!(list, Err(Error::Unavailable(_))), "{list:?}");
    assert!(since.elapsed() < 2 * bound, "{:?}", since.elapsed());
    // On a slow machine Raft's clock goes more slowly, the lease with it: until its end a write enters the log.
    let mut hint = group.store(&old).leader();
    let knows = tokio::time::timeout(PATIENCE, hint.wait_for(|hint| hint.leader.is_none())).await;
    assert!(knows.is_ok_and(|hint| hint.is_ok()), "it knows that nobody answers it");
    let since = Instant::now();
    let write = group.store(&old).txn(Txn::new().put("key", "3"), within).await;
    assert!(matches!(write, Err(Error::Unavailable(_))), "it was refused, not lost sight of: {write:?}");
    assert!(since.elapsed() < bound, "{:?}", since.elapsed());

    group.network.isolate(&old, false);
    assert_eq!(group.get(&old, "key").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_flight_at_the_cut_is_reported_as_unknown() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    group.network.isolate(&leader, true);
    // The leader's own lease has not run out yet, so it still takes the write into its log.
    let write = group.store(&leader).txn(Txn::new().put("key", "1"), Duration::from_millis(600)).await;
    assert!(matches!(write, Err(Error::OutcomeUnknown(_))), "{write:?}");
    group.network.isolate(&leader, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_follower_answers_unavailable_in_time() {
    let group = Group::of(3).await;
    let follower = group.others(&group.leader().await)[0].clone();
    group.network.isolate(&follower, true);
    let within = Duration::from_millis(500);
    let since = Instant::now();
    let read = group.store(&follower).get("key", within).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(since.elapsed() < within + Duration::from_millis(500), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn healing_does_not_depose_the_leader() {
    let group = Group::of(3).await;
    for _ in 0..20 {
        let leader = group.leader().await;
        let term = group.node(&leader).status().term;
        let follower = group.others(&leader)[0].clone();
        group.network.isolate(&follower, true);
        tokio::time::sleep(Duration::from_millis(600)).await;
        group.network.isolate(&follower, false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = group.node(&leader).status();
        assert_eq!((group.leader().await, status.term), (leader, term), "the healed node raised the term");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_fails_one_way_leaves_the_group_working() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    let follower = group.others(&leader)[0].clone();
    let cut = crate::network::Link { cut: true, ..Default::default() };
    group.network.set(&leader, &follower, cut);
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The follower cannot hear the leader but reaches everybody: pre-vote keeps it from deposing the leader.
    let third = group.others(&leader)[1].clone();
    group.put(&third, "key", "1").await;
    assert_eq!(group.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let group = Group::of(3).await;
    for _ in 0..3 {
        let old = group.leader().await;
        let new = group.others(&old)[0].clone();
        let since = Instant::now();
        group.node(&group.others(&old)[1]).transfer_leadership(&new, PATIENCE).await.unwrap();
        assert_eq!(group.leader().await, new);
        group.put(&old, "key", "1").await;
        println!("leadership handed over and first write after {:?}", since.elapsed());
    }
}
