//! The verdict on systems in every state a person may find them in.

use model::leadership::{Phase, Term};
use model::routes::{InstanceRouteState, RouteReport};
use model::status::{InstanceNote, Server, Silence};
use model::system::System;

use super::protection::Effect;
use super::*;
use crate::cli::testkit::{described, healthy, member, seen, set, shop, silence, view};

fn verdict(change: impl FnOnce(&mut decide::agent::Overview)) -> Verdict {
    of(shop(), change)
}

fn of(system: System, change: impl FnOnce(&mut decide::agent::Overview)) -> Verdict {
    let me = system.voters().next().expect("a voter").to_string();
    let mut overview = healthy(&system, &me);
    change(&mut overview);
    Verdict::of(&seen(system, overview))
}

/// Five voters in three sites, with members on `members`.
fn five(members: &str) -> System {
    described(&format!(
        "[system]\nname = \"five\"\n[sites.a]\n[sites.b]\n[sites.c]\n\
         [nodes.a1]\nsite = \"a\"\naddress = \"10.1.0.1\"\n[nodes.a2]\nsite = \"a\"\naddress = \"10.1.0.2\"\n\
         [nodes.b1]\nsite = \"b\"\naddress = \"10.1.0.3\"\n[nodes.b2]\nsite = \"b\"\naddress = \"10.1.0.4\"\n\
         [nodes.c1]\nsite = \"c\"\naddress = \"10.1.0.5\"\n[databases.db]\nmembers = [{members}]\n"
    ))
}

#[test]
fn a_healthy_system_may_lose_any_one_node() {
    let verdict = verdict(|_| {});
    assert_eq!(verdict.level, Level::Healthy);
    assert_eq!(verdict.sentence, "everything works, and any one node may be lost");
    assert_eq!(
        verdict.protection.sentences[0],
        "any one node may be lost; writes would wait if two of e1, n1, w1 were lost"
    );
    assert_eq!(verdict.protection.survives_nodes, 1);
    assert_eq!(verdict.protection.loss_of["e1"], Effect::FailOver);
    assert_eq!(verdict.protection.loss_of["w1"], Effect::GoOn);
    assert_eq!(verdict.writes["orders"], Writes::Flow);
}

#[test]
fn with_one_standby_silent_the_next_loss_is_too_much_and_it_says_why() {
    let verdict = verdict(|overview| {
        silence(overview, "n1");
        overview.databases.get_mut("orders").unwrap().sync = set(1, &["w1"]);
    });
    assert_eq!(verdict.level, Level::Degraded);
    assert_eq!(verdict.protection.survives_nodes, 0);
    assert!(
        verdict.protection.sentences[0]
            .starts_with("writes would wait if e1 or w1 were lost: no failover of orders"),
        "{:?}",
        verdict.protection.sentences
    );
    assert_eq!(verdict.writes["orders"], Writes::Flow);
}

#[test]
fn both_standbys_gone_blocks_writes_and_says_what_unblocks_them() {
    let verdict = verdict(|overview| {
        silence(overview, "n1");
        silence(overview, "w1");
    });
    assert_eq!(verdict.level, Level::Down);
    let first = &verdict.troubles[0];
    assert_eq!(first.what, "writes to orders wait: no standby confirms them: w1 and n1 are silent");
    assert_eq!(first.unblock.as_deref(), Some("start node w1 or n1: writes wait for one of them"));
    let system = verdict.troubles.iter().find(|trouble| trouble.subject == "system").unwrap();
    assert_eq!(system.what, "nothing can be decided: only 1 of 3 voters is heard");
    assert_eq!(verdict.protection.sentences[0], "writes wait already; see above what would help");
}

#[test]
fn a_silent_primary_is_being_replaced() {
    let system = shop();
    let mut overview = healthy(&system, "w1");
    overview.leader = Some("w1".into());
    overview.because.insert(
        "database/orders leadership".to_owned(),
        "e1 has been silent on every line for 320 ms".to_owned(),
    );
    silence(&mut overview, "e1");
    let verdict = Verdict::of(&seen(system, overview));
    assert_eq!(verdict.level, Level::Down);
    assert_eq!(verdict.troubles[0].what, "writes to orders wait: its primary's node e1 is silent");
    assert_eq!(verdict.troubles[0].doing.as_deref(), Some("e1 has been silent on every line for 320 ms"));
    assert_eq!(verdict.troubles[0].unblock, None, "two members can report: nobody has to help");
}

/// `w1` was the primary with `e1` and `n1` in its sync set, and is silent.
fn revoking(overview: &mut decide::agent::Overview, set_of: &[&str]) {
    let record = overview.databases.get_mut("orders").unwrap();
    record.term = Term(2);
    record.phase = Phase::Revoking { former: "w1".into(), prefer: None, forced: None };
    record.sync = set(1, set_of);
    silence(overview, "w1");
}

fn unblock(change: impl FnOnce(&mut decide::agent::Overview)) -> Option<String> {
    let verdict = verdict(change);
    assert_eq!(verdict.level, Level::Down);
    verdict.troubles[0].unblock.clone()
}

#[test]
fn a_revocation_that_goes_on_needs_nobody() {
    // e1 is the testkit's primary; as a standby of w1 it reports like n1.
    assert_eq!(unblock(|overview| revoking(overview, &["e1", "n1"])), None);
}

#[test]
fn a_revocation_without_enough_reports_names_those_whose_return_suffices() {
    let told = unblock(|overview| {
        revoking(overview, &["e1", "n1"]);
        member(overview, "orders", "n1").server = Server::Unknown;
    });
    assert!(
        told.unwrap().starts_with("start node w1 or n1: any of them tells which writes were acknowledged")
    );
}

#[test]
fn while_paused_a_failover_waits_for_the_operator() {
    let told = unblock(|overview| {
        overview.paused = Some("new switch".to_owned());
        member(overview, "orders", "e1").server = Server::Stopped { because: "it was killed".to_owned() };
    });
    assert_eq!(told.unwrap(), "`mainstay resume`: nothing fails over while the automation is paused");
}

#[test]
fn a_standby_on_its_way_back_is_waited_for() {
    let told = unblock(|overview| {
        silence(overview, "n1");
        silence(overview, "w1");
        overview.nodes.get_mut("n1").unwrap().silent = None;
        member(overview, "orders", "n1").server = Server::Busy { doing: "rejoining".to_owned() };
    });
    assert_eq!(told.unwrap(), "wait for n1 to come back, or start node w1");
}

#[test]
fn a_set_that_is_being_changed_counts_with_the_sets_before() {
    let verdict = verdict(|overview| {
        let record = overview.databases.get_mut("orders").unwrap();
        record.previous_sync = vec![set(1, &["n1", "w1"])];
        record.sync = set(1, &["w1"]);
        member(overview, "orders", "n1").trouble = Some("its disk is full".to_owned());
    });
    assert_eq!(verdict.level, Level::Degraded);
    let Effect::Wait { because } = &verdict.protection.loss_of["e1"] else {
        panic!("{:?}", verdict.protection.loss_of)
    };
    assert_eq!(because, "nobody left surely holds every acknowledged write of orders");
}

#[test]
fn an_agent_that_ended_does_not_stop_writes() {
    let verdict = verdict(|overview| {
        overview.nodes.get_mut("w1").unwrap().silent = Some(Silence::Closed);
    });
    assert_eq!(verdict.level, Level::Degraded);
    assert_eq!(verdict.writes["orders"], Writes::Flow);
    assert_eq!(verdict.sentence, "the agent of node w1 has ended; the node itself may live");
}

#[test]
fn five_voters_and_a_member_in_each_site_survive_a_site() {
    let verdict = of(five("\"a1\", \"b1\", \"c1\""), |_| {});
    assert_eq!(verdict.level, Level::Healthy);
    assert!(verdict.protection.sentences.contains(&"any one site may be lost".to_owned()), "{verdict:#?}");
}

#[test]
fn the_loss_of_a_site_that_holds_primary_and_standby_is_told() {
    let verdict = of(five("\"a1\", \"a2\", \"b1\", \"b2\""), |_| {});
    assert_eq!(verdict.protection.survives_nodes, 1);
    assert_eq!(
        verdict.protection.sentences[..2],
        [
            "any one node may be lost; writes would wait if a1 and a2, or a1 and b1, or a1 and b2 were lost at once",
            "writes would wait if site a were lost: nobody left surely holds every acknowledged write of db",
        ]
    );
}

#[test]
fn a_pause_a_missing_gate_and_an_instance_are_degradations() {
    let verdict = verdict(|overview| {
        overview.paused = Some("new switch in rack 4".to_owned());
        overview.nodes.get_mut("n1").unwrap().missing = vec!["no gate".to_owned()];
        overview.nodes.get_mut("e1").unwrap().instances[0].state = InstanceRouteState::NotReady;
    });
    let told: Vec<&str> = verdict.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "2 of 3 instances of web are ready: web-1@e1 is not healthy",
            "the automation is paused, so nothing would be repaired: new switch in rack 4",
            "node n1 is less protected: no gate",
        ]
    );
    assert_eq!(verdict.sentence, "2 of 3 instances of web are ready: web-1@e1 is not healthy (and 2 more)");
}

#[test]
fn no_ready_instance_is_down() {
    let verdict = verdict(|overview| {
        for node in overview.nodes.values_mut() {
            node.instances.clear();
        }
    });
    assert_eq!(verdict.level, Level::Down);
    assert_eq!(verdict.sentence, "no instance of web is ready");
}

#[test]
fn the_answer_of_a_node_that_was_cut_off_does_not_count() {
    let system = shop();
    let mut isolated = healthy(&system, "e1");
    silence(&mut isolated, "w1");
    silence(&mut isolated, "n1");
    let mut majority = healthy(&system, "w1");
    majority.leader = Some("w1".into());
    let record = majority.databases.get_mut("orders").unwrap();
    record.term = Term(2);
    record.phase = Phase::Led { primary: "w1".into() };
    silence(&mut majority, "e1");
    let view = view(system, [isolated, majority]);
    assert_eq!(view.overview.node.as_str(), "w1");
    let verdict = Verdict::of(&view);
    let told: Vec<&str> = verdict.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
    assert!(told.contains(&"node e1 runs, but the others do not hear it: its network is cut"), "{told:?}");
}

#[test]
fn instances_that_fail_clients_although_they_are_ready_are_told() {
    let report = |panic| RouteReport {
        certificate: None,
        route: "public".into(),
        open: 0,
        parked: 0,
        accepted: 9,
        failed: 0,
        retried: 2,
        ejected: vec!["web-2@w1".to_owned()],
        panic,
        troubles: vec![],
        instances: vec![],
    };
    let with = |panic| verdict(|overview| overview.traffic.routes.push(report(panic)));
    let told = |verdict: &Verdict| verdict.troubles[0].what.clone();
    assert_eq!(with(false).level, Level::Degraded);
    assert_eq!(told(&with(false)), "web-2@w1 fails the requests of the route public, as e1 sees it");
    assert!(told(&with(true)).ends_with("these are most of its instances"));
}

#[test]
fn a_crash_loop_is_told_with_its_end_and_its_last_words() {
    let note = InstanceNote {
        state: "ended with exit code 3, waits for its next start (7 crashes in a row)".to_owned(),
        crash_loop: true,
        last_lines: vec!["cannot open /srv/shop".to_owned(), "giving up".to_owned()],
        unlimited: Some("version 1 has none either".to_owned()),
    };
    let verdict = verdict(|overview| {
        let node = overview.nodes.get_mut("e1").unwrap();
        node.instances[0].state = InstanceRouteState::Gone;
        node.services.notes.insert(node.instances[0].id.clone(), note);
    });
    let told: Vec<&str> = verdict.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "2 of 3 instances of web are ready: web-1@e1 ended with exit code 3, waits for its next start (7 crashes in a row)",
            "web-1@e1 is in a crash loop: it ended with exit code 3, waits for its next start (7 crashes in a row); it said last: cannot open /srv/shop | giving up",
            "the memory of web-1@e1 is not limited: version 1 has none either",
        ]
    );
}
