//! Founding, and who votes.

use std::time::Duration;

use coordination::{Error, Reason, Txn};
use model::NodeName;

use crate::group::{Group, PATIENCE};

fn names(text: &[&str]) -> Vec<NodeName> {
    text.iter().map(|name| NodeName::new(*name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_founded_once() {
    let group = Group::unfounded(3).await;
    let founder = group.node(&group.names[0]);
    let before = group.store(&group.names[0]).get("key", PATIENCE).await;
    assert_eq!(before, Err(Error::Unavailable(Reason::NotInitialised)));
    let without_me = founder.initialize(&names(&["b", "c"]), PATIENCE).await;
    assert!(matches!(without_me, Err(Error::Invalid(_))), "{without_me:?}");

    founder.initialize(&group.names, PATIENCE).await.unwrap();
    founder.initialize(&group.names, PATIENCE).await.unwrap();
    let other = founder.initialize(&names(&["a"]), PATIENCE).await;
    assert!(matches!(&other, Err(Error::Invalid(text)) if text.contains("a, b, c")), "{other:?}");
    group.put(&group.names[1], "key", "1").await;
    let second = group.node(&group.names[1]).initialize(&names(&["b"]), PATIENCE).await;
    assert!(matches!(second, Err(Error::Invalid(_))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn founding_waits_for_every_voter_and_else_founds_nothing() {
    let group = Group::unfounded(3).await;
    group.network.isolate(&group.names[2], true);
    let founder = group.node(&group.names[0]);
    let failed = founder.initialize(&group.names, Duration::from_millis(300)).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!(founder.status().voters.is_empty());
    group.network.isolate(&group.names[2], false);
    founder.initialize(&group.names, PATIENCE).await.unwrap();
    group.put(&group.names[0], "key", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_with_a_lost_disk_returns_as_somebody_new() {
    let mut group = Group::of(3).await;
    for round in 0..3 {
        let lost = group.names[round].clone();
        let before = group.node(&lost).status().incarnation;
        group.kill(&lost).await;
        group.wipe(&lost);
        let survivor = group.others(&lost)[0].clone();
        group.put(&survivor, &format!("round/{round}"), "1").await;
        group.restart(&lost).await;
        assert_ne!(group.node(&lost).status().incarnation, before);
        // Alone it is nobody: the group does not take it for the voter it was.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(group.node(&lost).status().voters.is_empty());

        let survivor = group.node(&survivor);
        survivor.add_learner(&lost, PATIENCE).await.unwrap();
        survivor.add_learner(&lost, PATIENCE).await.unwrap();
        survivor.promote_to_voter(&lost, PATIENCE).await.unwrap();
        survivor.promote_to_voter(&lost, PATIENCE).await.unwrap();
        let status = survivor.status();
        assert_eq!((status.voters.len(), status.learners.len()), (3, 0), "{status:?}");
        let seen = group.store(&lost).list("round/", PATIENCE).await.unwrap().entries.len();
        assert_eq!(seen, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_come_and_go() {
    let group = Group::unfounded(5).await;
    let founder = group.node(&group.names[0]);
    founder.initialize(&names(&["a"]), PATIENCE).await.unwrap();
    for name in &group.names[1..] {
        founder.add_learner(name, PATIENCE).await.unwrap();
        founder.promote_to_voter(name, PATIENCE).await.unwrap();
    }
    assert_eq!(founder.status().voters.len(), 5);
    group.put(&group.names[4], "key", "1").await;
    // The leader itself goes too.
    let leader = group.leader().await;
    for name in [leader.clone(), group.others(&leader)[0].clone()] {
        let asked = group.others(&leader)[3].clone();
        group.node(&asked).remove(&name, PATIENCE).await.unwrap();
        assert_eq!(group.get(&asked, "key").await.as_deref(), Some("1"));
    }
    let rest = group.node(&group.others(&leader)[3]).status();
    assert_eq!(rest.voters.len(), 3, "{rest:?}");
    assert!(!rest.voters.contains(&leader), "{rest:?}");
    let nobody =
        group.node(&group.others(&leader)[3]).promote_to_voter(&leader, Duration::from_millis(500)).await;
    assert!(nobody.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_stays() {
    let group = Group::of(1).await;
    let refused = group.node(&group.names[0]).remove(&group.names[0], PATIENCE).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

/// Two of three are gone and one of them comes back with an empty disk: with the third it would be a majority, of which
/// one half remembers nothing. Nothing is decided until the other one with its memory is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_voter_cannot_outvote_those_who_remember() {
    let mut group = Group::unfounded_on_media(3, 1).await;
    group.found(&group.names).await;
    let [behind, wiped, ahead] = [0, 1, 2].map(|at: usize| group.names[at].clone());
    // `behind` misses what the other two commit.
    group.network.isolate(&behind, true);
    group.put(&ahead, "key", "committed").await;
    group.kill(&ahead).await;
    group.kill(&wiped).await;
    group.wipe(&wiped);
    group.restart(&wiped).await;
    group.network.isolate(&behind, false);
    group.network.isolate(&ahead, true);

    let alone = group.store(&behind).txn(Txn::new().put("key", "forgotten"), 2 * DECIDED).await;
    assert!(alone.is_err(), "{alone:?}");
    let founded = group.node(&wiped).initialize(&group.names, DECIDED).await;
    assert!(founded.is_err(), "an empty node founds nothing beside a group");
    let remarks = group.node(&wiped).status().remarks();
    assert!(remarks.iter().any(|remark| remark.contains("belongs to no group")), "{remarks:?}");

    group.restart(&ahead).await;
    assert_eq!(group.get(&behind, "key").await.as_deref(), Some("committed"));
    group.node(&behind).add_learner(&wiped, PATIENCE).await.unwrap();
    let remarks = group.node(&group.leader().await).status().remarks();
    assert!(remarks.iter().any(|remark| remark.contains("b has lost its store")), "{remarks:?}");
    group.node(&behind).promote_to_voter(&wiped, PATIENCE).await.unwrap();
    assert_eq!(group.node(&group.leader().await).status().remarks(), Vec::<String>::new());
    // Its vote counts again: the other two can lose a member.
    group.kill(&ahead).await;
    assert_eq!(group.get(&wiped, "key").await.as_deref(), Some("committed"));
    assert_eq!(group.network.referee().violations(), Vec::<String>::new());
}

/// Longer than an election takes.
const DECIDED: Duration = Duration::from_millis(1200);
