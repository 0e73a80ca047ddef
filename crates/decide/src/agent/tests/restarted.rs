//! What one agent tells its proxy while an agent is restarted.

use std::collections::{BTreeMap, BTreeSet};

use model::leadership::{Leadership, Term};
use model::routes::{DatabaseRouteState, RouteTable, RouteTarget};
use model::status::{MemberStatus, NodeStatus, PeerMessage, ServicesState};
use model::system::System;

use super::super::*;
use crate::testkit::{at, led, primary, standby, streams};

const FILE: &str = r#"
[system]
name = "shop"
[sites.s]
[sites.t]
[sites.u]
[nodes.a]
site = "s"
address = "10.0.0.1"
[nodes.b]
site = "t"
address = "10.0.0.2"
[nodes.c]
site = "u"
address = "10.0.0.3"
[databases.orders]
members = ["a", "b", "c"]
[routes.rw]
listen = ":5432"
database = "orders"
target = "primary"
"#;

fn system() -> System {
    model::system::parse("mainstay.toml", FILE.as_bytes()).unwrap().system
}

fn agent(me: &str, record: &Leadership) -> Agent {
    let mut agent = Agent::new(me.into(), system(), 1, 100);
    let stored = Stored { revision: 1, value: record.clone() };
    agent.handle(Input::Record { database: "orders".into(), stored }, at(1000));
    agent.handle(Input::StoreLoaded, at(1000));
    for peer in ["b", "c"].into_iter().filter(|peer| *peer != me) {
        agent.handle(status_of(peer, 1, standby(5, 100)), at(1000));
    }
    agent
}

fn status(incarnation: u64, member: MemberStatus) -> Input {
    status_of("a", incarnation, member)
}

fn status_of(node: &str, incarnation: u64, member: MemberStatus) -> Input {
    let status = NodeStatus {
        node: node.into(),
        incarnation,
        version: 1,
        members: BTreeMap::from([("orders".into(), member)]),
        instances: Some(vec![]),
        services: ServicesState::default(),
        silent: BTreeMap::new(),
        missing: vec![],
        routes_applied: 0,
        drained: BTreeMap::new(),
        routed: 0,
        carrying: BTreeSet::new(),
        load: BTreeMap::new(),
        artefacts: BTreeSet::new(),
        program: Default::default(),
        traffic: BTreeMap::new(),
        generation: 1,
    };
    Input::Message { from: node.into(), message: PeerMessage::Status(Box::new(status)) }
}

fn tables(commands: Vec<Command>) -> Vec<RouteTable> {
    let table = |command| if let Command::Routes(table) = command { Some(table) } else { None };
    commands.into_iter().filter_map(table).collect()
}

fn leads_to(table: &RouteTable) -> Vec<&str> {
    let targets = table.routes.iter().filter_map(|route| match &route.target {
        RouteTarget::Database(target) => Some(&target.state),
        RouteTarget::Service(_) => None,
    });
    let open = targets.filter_map(|state| match state {
        DatabaseRouteState::Open { members } => Some(members),
        DatabaseRouteState::Parked { .. } | DatabaseRouteState::Draining { .. } => None,
    });
    open.flatten().map(|member| member.node.as_str()).collect()
}

#[test]
fn a_primarys_agent_that_is_restarted_closes_no_connection_elsewhere() {
    let record = led(5, "a", &["b", "c"]);
    let mut agent = agent("b", &record);
    let links = [("b", streams(100)), ("c", streams(100))];
    let opened = tables(agent.handle(status(1, primary(5, 100, &links, 1)), at(1100)));
    assert_eq!(leads_to(&opened[0]), ["a"]);
    // Its next run has not looked at its server yet, and then has not proved the sync set again.
    let blank = tables(agent.handle(status(2, MemberStatus::unknown()), at(1200)));
    assert_eq!(blank, []);
    let next = led(6, "c", &["a", "b"]);
    let stored = Stored { revision: 2, value: next };
    let parked = tables(agent.handle(Input::Record { database: "orders".into(), stored }, at(1300)));
    assert!(leads_to(&parked[0]).is_empty(), "a new term ends what was proved in the old one");
}

#[test]
fn a_restarted_agent_lets_its_proxy_serve_what_it_served_until_it_knows_better() {
    let record = led(5, "a", &["b", "c"]);
    let mut agent = agent("a", &record);
    let status = primary(5, 100, &[], 1);
    let durable = Durable {
        promised: Term(5),
        led: Some(Term(5)),
        tenure: status.tenure,
        tainted_by: Some(Term(5)),
        follows: Term(0),
        taken_from: Some(Term(5)),
    };
    let early = tables(agent.handle(Input::Recovered { database: "orders".into(), durable }, at(1100)));
    assert_eq!(early, [], "the proxy keeps its table while the agent finds out");
    assert_eq!(tables(agent.handle(Input::Tick, at(3900))), []);
    let late = tables(agent.handle(Input::Tick, at(4100)));
    assert!(
        leads_to(&late[0]).is_empty(),
        "without a proof the route closes when the lease has surely ended"
    );
}

#[test]
fn a_restarted_agent_of_a_standby_has_nothing_to_wait_for() {
    let mut agent = agent("b", &led(5, "a", &["b", "c"]));
    agent.handle(status(1, MemberStatus::unknown()), at(1000));
    let own = Input::Observed {
        database: "orders".into(),
        asked: at(1000),
        server: standby(5, 100).server,
        system_identifier: Some(1),
        trouble: None,
    };
    agent.handle(own, at(1050));
    assert_eq!(agent.route_table().routes.len(), 1);
}
