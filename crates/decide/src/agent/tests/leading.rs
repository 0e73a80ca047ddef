//! When a leader beside a primary hands the coordination's lead on, and to whom.

use model::leadership::RestartTurn;
use model::status::{MemberStatus, Silence};

use super::*;
use crate::testkit::{any_one, standby};

/// Node a, leader and primary of term 1, which has heard `peers` a moment ago.
fn leader_beside_the_primary(peers: &[&str], record: Leadership) -> Agent {
    let mut agent = Agent::new("a".into(), system(), 0, 1);
    agent.leader = Some("a".into());
    agent.loaded = true;
    agent.records.insert(orders(), Stored { revision: 1, value: record });
    for peer in peers {
        agent.hear(&NodeName::from(*peer), heartbeat());
    }
    agent
}

fn heartbeat() -> PeerMessage {
    PeerMessage::Heartbeat(Heartbeat {
        incarnation: 1,
        sequence: 1,
        echo: None,
        promises: BTreeMap::new(),
        status_version: 0,
    })
}

fn handed_to(agent: &mut Agent) -> Option<NodeName> {
    let mut commands = Vec::new();
    agent.lead_from_elsewhere(&mut commands);
    commands
        .into_iter()
        .find_map(|command| if let Command::HandLead { to } = command { Some(to) } else { None })
}

#[test]
fn the_lead_goes_to_a_voter_that_is_heard_and_then_rests() {
    let calm = || led(1, "a", &["b", "c"]);
    assert_eq!(handed_to(&mut leader_beside_the_primary(&["b", "c"], calm())), Some("b".into()));
    let mut agent = leader_beside_the_primary(&["c"], calm());
    assert_eq!(handed_to(&mut agent), Some("c".into()), "b is not heard");
    assert_eq!(handed_to(&mut agent), None, "an attempt has just been made");
    agent.now = agent.now + lead::LEAD_REST;
    agent.hear(&"c".into(), heartbeat());
    assert_eq!(handed_to(&mut agent), Some("c".into()));
    assert_eq!(handed_to(&mut leader_beside_the_primary(&[], calm())), None);
}

#[test]
fn the_lead_stays_where_no_primary_is() {
    let mut agent = leader_beside_the_primary(&["b", "c"], led(1, "b", &["a", "c"]));
    assert_eq!(handed_to(&mut agent), None);
}

#[test]
fn the_lead_stays_while_anything_is_under_way() {
    let calm = led(1, "a", &["b", "c"]);
    let turn = RestartTurn {
        member: "b".into(),
        server: 1,
        what_for: "for a test".into(),
        number: 1,
        of: 1,
        forced: false,
    };
    for busy in [
        revoking(2, "a", &["b", "c"]),
        Leadership { previous_sync: vec![any_one(&["b"])], ..calm.clone() },
        Leadership { restart: Some(turn), ..calm.clone() },
    ] {
        assert_eq!(handed_to(&mut leader_beside_the_primary(&["b", "c"], busy)), None);
    }
    let mut agent = leader_beside_the_primary(&["b", "c"], calm);
    agent.committing.insert(Store::Placement, at(0));
    assert_eq!(handed_to(&mut agent), None);
}

#[test]
fn another_sign_of_life_can_wait_for_the_tick_and_the_first_one_cannot() {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let beat = || Input::Message { from: "a".into(), message: heartbeat() };
    assert!(!agent.can_wait(&beat()), "a peer that was missed is news");
    agent.handle(beat(), at(0));
    assert!(agent.can_wait(&beat()));
    agent.now = at(5000);
    assert!(!agent.can_wait(&beat()), "it was silent for long");
    assert!(!agent.can_wait(&said("a", status_of("a", 1, MemberStatus::unknown()))));
}

#[test]
fn a_tick_can_wait_while_all_is_calm_and_not_for_long() {
    let calm = || {
        let mut agent = leader_beside_the_primary(&["b", "c"], led(1, "b", &["a", "c"]));
        agent.passed_at = at(0);
        agent
    };
    let mut agent = calm();
    assert!(agent.can_wait(&Input::Tick));
    agent.now = at(60);
    assert!(!agent.can_wait(&Input::Tick), "it was looked long ago");
    agent.now = at(200);
    agent.passed_at = at(190);
    assert!(!agent.can_wait(&Input::Tick), "b and c are about to be missed");
    let mut agent = calm();
    agent.committing.insert(Store::Placement, at(0));
    assert!(!agent.can_wait(&Input::Tick), "something is under way");
    let mut agent = leader_beside_the_primary(&["c"], led(1, "b", &["a", "c"]));
    agent.passed_at = at(0);
    assert!(!agent.can_wait(&Input::Tick), "b was never heard");
}

#[test]
fn a_second_reading_of_a_term_can_wait_and_a_new_term_cannot() {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let read = |term| Input::Read { database: orders(), term: Term(term), as_of: at(0) };
    assert!(!agent.can_wait(&read(1)));
    agent.handle(read(1), at(0));
    assert!(agent.can_wait(&read(1)));
    assert!(!agent.can_wait(&read(2)));
    agent.handle(record(7, led(1, "a", &["c"])), at(0));
    assert!(agent.can_wait(&record(7, led(1, "a", &["c"]))), "it was read to renew a lease");
    assert!(!agent.can_wait(&record(8, led(2, "c", &["a"]))));
}

#[test]
fn a_commit_whose_answer_never_comes_is_tried_again() {
    let mut agent = leader_beside_the_primary(&["b", "c"], led(1, "b", &["a", "c"]));
    let stopped =
        MemberStatus { server: Server::Stopped { because: "killed".to_owned() }, ..primary(1, 100, &[], 1) };
    let commits = |commands: Vec<Command>| {
        let of_record =
            |command: &Command| matches!(command, Command::Commit { value: Value::Leadership(..), .. });
        commands.iter().filter(|command| of_record(command)).count()
    };
    let says = |run| said("b", status_of("b", run, stopped.clone()));
    assert_eq!(commits(agent.handle(says(1), at(10))), 1);
    for ms in (20..3000).step_by(20) {
        assert_eq!(commits(agent.handle(Input::Tick, at(ms))), 0, "its answer is still to be expected");
    }
    assert_eq!(commits(agent.handle(says(2), at(3010))), 1);
}

/// When node c, which leads after a loss of power everywhere and hears b alone, first takes the lead from primary a; b says
/// that it does or does not hear a.
fn revoked_after_ms(b_hears_a: bool) -> Option<u64> {
    let mut agent = Agent::new("c".into(), system(), 0, 1);
    agent.handle(record(1, led(1, "a", &["b"])), at(0));
    agent.handle(Input::StoreLoaded, at(0));
    agent.handle(Input::Leader(Some("c".into())), at(0));
    (1..=1000).map(|beat| beat * 10).find(|ms| {
        agent.hear(&"b".into(), heartbeat());
        let mut status = status_of("b", 1, standby(1, 100));
        status.version = *ms;
        if !b_hears_a && *ms >= 5000 {
            status.silent.insert("a".into(), Silence::Silent);
        }
        let commands = agent.handle(said("b", status), at(*ms));
        commands.iter().any(|command| {
            matches!(command, Command::Commit { value: Value::Leadership(_, next), .. } if next.term == Term(2))
        })
    })
}

#[test]
fn a_primary_that_does_not_come_back_with_the_others_is_not_waited_for_for_ever() {
    let after = revoked_after_ms(false).unwrap();
    assert!((5000..5500).contains(&after), "{after}");
    assert_eq!(revoked_after_ms(true), None, "somebody hears it");
}
