//! A network as between continents.

use std::time::{Duration, Instant};

use coordination::Txn;

use crate::group::{Group, PATIENCE};
use crate::network::Link;

/// What an agent gives one operation.
const WITHIN: Duration = Duration::from_secs(2);

/// 110 to 130 ms for a round trip.
const FAR: Link = Link {
    cut: false,
    delay: Duration::from_millis(55),
    jitter: Duration::from_millis(10),
    lost: 0,
    doubled: 0,
};

/// How long the clocks take to follow.
const NOTICED: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn on_a_slow_network_the_leader_stays_and_everything_gets_done() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    group.network.set_all(&group.names, FAR);
    tokio::time::sleep(NOTICED).await;
    let term = group.node(&leader).status().term;
    let mut hints: Vec<_> = group.names.iter().map(|name| group.store(name).leader()).collect();
    hints.iter_mut().for_each(|hint| drop(hint.borrow_and_update()));
    for round in 0..30 {
        let at = group.store(&group.names[round % 3]);
        let written = at.txn(Txn::new().put("round", round.to_string()), WITHIN).await;
        assert!(written.is_ok(), "round {round}: {written:?}");
        let read = at.get("round", WITHIN).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(read.map(|entry| entry.value.to_vec()), Some(round.to_string().into_bytes()));
    }
    let status = group.node(&leader).status();
    assert_eq!((group.leader().await, status.term), (leader, term));
    assert!(hints.iter().all(|hint| !hint.has_changed().unwrap()), "somebody doubted the leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_slow_network_a_dead_leader_is_replaced_and_the_lead_is_handed_over() {
    let mut group = Group::unfounded(3).await;
    group.network.set_all(&group.names, FAR);
    group.found(&group.names).await;
    tokio::time::sleep(NOTICED).await;
    let old = group.leader().await;
    let next = group.others(&old)[0].clone();
    group.node(&old).transfer_leadership(&next, Duration::from_secs(2)).await.unwrap();
    group.put(&old, "key", "1").await;

    let survivor = group.others(&next)[0].clone();
    let since = Instant::now();
    group.kill(&next).await;
    group.put(&survivor, "key", "2").await;
    println!("first write after the leader's death: {:?}", since.elapsed());
    assert!(since.elapsed() < PATIENCE);
}
