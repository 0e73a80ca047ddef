//! What one node's mind commands, input by input.

mod external;
mod gate;
mod leading;
mod restarted;
mod silent;
mod upkeep;

use model::leadership::Term;
use model::postgres::{Lsn, Timeline};
use model::routes::{InstanceEndpoint, InstanceRouteState, RouteTarget};
use model::status::{Heartbeat, MemberStatus, NodeStatus, PeerMessage, Server, Tenure};
use model::system::{System, parse};
use model::{DatabaseName, NodeName};

use super::*;
use crate::member::Action;
use crate::testkit::{at, led, primary, revoking};

fn system() -> System {
    let text = "[system]\nname = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
                [nodes.c]\naddress = \"10.0.0.3\"\n[databases.orders]\nmembers = [\"a\", \"b\", \"c\"]\n\
                [services.web]\ncommand = [\"./web\"]\ninstances = 3\n[routes.public]\nlisten = \":8080\"\nservice = \"web\"\n";
    parse("test.toml", text.as_bytes()).expect("the file of the test is valid").system
}

fn orders() -> DatabaseName {
    "orders".into()
}

fn status_of(node: &str, incarnation: u64, member: MemberStatus) -> NodeStatus {
    NodeStatus {
        node: node.into(),
        incarnation,
        version: 1,
        members: [(orders(), member)].into(),
        services: ServicesState::default(),
        instances: Some(vec![]),
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
        generation: 0,
    }
}

fn said(node: &str, status: NodeStatus) -> Input {
    Input::Message { from: node.into(), message: PeerMessage::Status(Box::new(status)) }
}

fn record(revision: u64, value: Leadership) -> Input {
    Input::Record { database: orders(), stored: Stored { revision, value } }
}

fn actions(commands: Vec<Command>) -> Vec<Action> {
    let of = |command| if let Command::Member { action, .. } = command { Some(action) } else { None };
    commands.into_iter().filter_map(of).collect()
}

/// Node b, whose member is empty, while a leads term 1.
fn copying() -> Agent {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let observed = Input::Observed {
        database: orders(),
        asked: at(0),
        server: Server::Empty,
        system_identifier: None,
        trouble: None,
    };
    let durable = Durable { promised: Term(1), ..Durable::default() };
    for input in [
        Input::StoreLoaded,
        Input::Recovered { database: orders(), durable },
        observed,
        record(1, led(1, "a", &["c"])),
    ] {
        assert_eq!(actions(agent.handle(input, at(0))), []);
    }
    let begun = actions(agent.handle(said("a", status_of("a", 1, primary(1, 100, &[], 1))), at(0)));
    assert_eq!(begun, [Action::Clone { primary: "a".into(), term: Term(1) }]);
    agent
}

#[test]
fn a_copy_of_a_primary_whose_term_is_over_makes_way_for_the_new_term() {
    let mut agent = copying();
    assert_eq!(actions(agent.handle(Input::Tick, at(10))), []);
    assert_eq!(
        actions(agent.handle(record(2, revoking(2, "a", &["c"])), at(20))),
        [Action::Promise(Term(2))]
    );
    // The copy ended in the moment in which it was superseded: the promise is still under way.
    let late = Input::Done { database: orders(), outcome: Outcome::Rejoined(Term(1)), server: None };
    assert_eq!(actions(agent.handle(late, at(21))), []);
    let promised = Input::Done { database: orders(), outcome: Outcome::Promised(Term(2)), server: None };
    assert_eq!(actions(agent.handle(promised, at(25))), []);
    assert_eq!(actions(agent.handle(record(3, led(2, "c", &[])), at(30))), []);
    let new = MemberStatus {
        tenure: Some(Tenure {
            term: Term(2),
            timeline: Timeline(2),
            begins: Lsn(100),
            made_in: None,
            system_identifier: Some(1),
            sync_applied: None,
        }),
        ..primary(2, 100, &[], 1)
    };
    let begun = actions(agent.handle(said("c", status_of("c", 1, new)), at(40)));
    assert_eq!(begun, [Action::Clone { primary: "c".into(), term: Term(2) }]);
}

#[test]
fn an_agent_that_was_stopped_itself_takes_nobody_for_silent_before_it_has_listened() {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let heartbeat = |sequence| Heartbeat {
        incarnation: 1,
        sequence,
        echo: None,
        promises: BTreeMap::new(),
        status_version: 0,
    };
    for sequence in 0..20 {
        let message = PeerMessage::Heartbeat(heartbeat(sequence));
        agent.handle(Input::Message { from: "a".into(), message }, at(50 * sequence));
    }
    let mut is_silent = |ms| {
        agent.handle(Input::Tick, at(ms));
        agent.silent_peers().contains_key(&NodeName::new("a"))
    };
    assert!(!is_silent(1_000) && !is_silent(7_000), "it stood still for 6 s");
    assert!(!is_silent(7_200) && is_silent(7_300));
}

#[test]
fn a_copy_goes_on_while_its_term_lasts() {
    let mut agent = copying();
    assert_eq!(actions(agent.handle(record(2, led(1, "a", &["c", "b"])), at(20))), []);
}

#[test]
fn what_failed_is_no_trouble_any_more_once_nothing_is_left_to_do() {
    let mut agent = copying();
    let failed = Outcome::Failed {
        action: Action::Clone { primary: "a".into(), term: Term(1) },
        because: "replication slot does not exist".to_owned(),
    };
    agent.handle(Input::Done { database: orders(), outcome: failed, server: None }, at(10));
    let trouble =
        |agent: &Agent| agent.overview().members[&orders()][&NodeName::from("b")].status.trouble.clone();
    assert_eq!(trouble(&agent).as_deref(), Some("replication slot does not exist"));
    // The primary is gone: there is nobody to copy, so the failure says nothing any more.
    agent.handle(record(2, revoking(2, "a", &["c"])), at(20));
    agent.handle(
        Input::Done { database: orders(), outcome: Outcome::Promised(Term(2)), server: None },
        at(30),
    );
    assert_eq!(trouble(&agent), None);
}

/// Node b, a standby that follows a, of which no log comes; a said at 0 ms that it is `server`.
fn without_log(server: Server) -> Agent {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let durable = Durable { promised: Term(1), follows: Term(1), ..Durable::default() };
    for input in [
        Input::StoreLoaded,
        Input::Recovered { database: orders(), durable },
        record(1, led(1, "a", &["b", "c"])),
        said("a", status_of("a", 1, MemberStatus { server, ..primary(1, 100, &[], 1) })),
        observed(false),
    ] {
        agent.handle(input, at(0));
    }
    agent
}

fn observed(streaming: bool) -> Input {
    let Server::Standby(facts) = crate::testkit::standby(1, 100).server else { panic!("a standby") };
    Input::Observed {
        database: orders(),
        asked: at(0),
        server: Server::Standby(model::status::StandbyFacts { streaming, ..facts }),
        system_identifier: Some(1),
        trouble: None,
    }
}

/// What b does until `ms`, while it looks at its server, and hears a if `hears`.
fn goes_on(agent: &mut Agent, from: u64, ms: u64, hears: bool) -> Vec<Action> {
    let mut done = vec![];
    for now in (from..ms).step_by(100) {
        if hears {
            let peer = NodeName::from("a");
            let heard = Input::LineUp { peer, line: "main".into() };
            done.extend(actions(agent.handle(heard, at(now))));
        }
        done.extend(actions(agent.handle(observed(false), at(now))));
    }
    done
}

#[test]
fn a_standby_without_log_from_a_primary_that_works_is_copied_anew() {
    let mut agent = without_log(primary(1, 100, &[], 1).server);
    let done = goes_on(&mut agent, 100, 5000, true);
    assert!(matches!(&done[..], [Action::Rejoin { .. }]), "{done:?}");
}

#[test]
fn a_standby_that_is_cut_off_keeps_its_copy_and_gives_the_stream_time_when_it_is_back() {
    let mut agent = without_log(primary(1, 100, &[], 1).server);
    assert_eq!(goes_on(&mut agent, 100, 20_000, false), []);
    assert_eq!(goes_on(&mut agent, 20_000, 23_000, true), []);
}

#[test]
fn a_standby_keeps_its_copy_when_its_primary_has_stopped() {
    let mut agent = without_log(Server::Stopped { because: "killed".to_owned() });
    assert_eq!(goes_on(&mut agent, 100, 20_000, true), []);
}

fn instance(node: &str) -> InstanceEndpoint {
    InstanceEndpoint {
        id: format!("web-1@{node}"),
        node: node.into(),
        site: "default".into(),
        address: ([10, 0, 0, 1], 9000).into(),
        state: InstanceRouteState::Ready,
    }
}

#[test]
fn an_agent_that_restarts_takes_no_instance_out_of_the_routes() {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let mut status = status_of("a", 1, MemberStatus::unknown());
    status.instances = Some(vec![instance("a")]);
    agent.handle(said("a", status.clone()), at(0));
    let known = |agent: &Agent| agent.overview().nodes[&NodeName::from("a")].instances.len();
    assert_eq!(known(&agent), 1);
    let restarted = NodeStatus { incarnation: 2, instances: None, ..status };
    agent.handle(said("a", restarted.clone()), at(10));
    assert_eq!(known(&agent), 1, "it does not know yet what runs");
    let told = NodeStatus { version: 2, instances: Some(vec![]), ..restarted };
    agent.handle(said("a", told), at(20));
    assert_eq!(known(&agent), 0);
}

#[test]
fn a_restarted_agent_leaves_its_proxy_alone_until_it_sees_what_runs() {
    let routes =
        |commands: Vec<Command>| commands.iter().any(|command| matches!(command, Command::Routes(_)));
    let begin = || {
        let mut agent = Agent::new("b".into(), system(), 0, 1);
        assert!(!routes(agent.handle(record(1, led(1, "a", &["c"])), at(0))));
        assert!(!routes(agent.handle(Input::StoreLoaded, at(0))));
        agent
    };
    let mut agent = begin();
    for node in ["a", "c"] {
        assert!(!routes(agent.handle(said(node, status_of(node, 1, MemberStatus::unknown())), at(10))));
    }
    assert!(routes(agent.handle(Input::Instances(vec![instance("b")]), at(20))));
    // It does not wait for ever for a node that is gone.
    let mut agent = begin();
    assert!(!routes(agent.handle(Input::Instances(vec![instance("b")]), at(1400))));
    assert!(routes(agent.handle(Input::Tick, at(1500))));
}

#[test]
fn the_proxy_is_told_how_to_choose_and_which_page_says_that_an_instance_works() {
    let text = "[system]\nname = \"shop\"\n[nodes.b]\naddress = \"10.0.0.2\"\n[services.web]\ncommand = [\"./web\"]\n\
                health.http = \"/healthz\"\ntraffic = { limit = 7, sticky = \"seat\" }\n[services.api]\ncommand = [\"./api\"]\n\
                [routes.public]\nlisten = \":8080\"\nservice = \"web\"\n[routes.inner]\nlisten = \":8081\"\nservice = \"api\"\n";
    let described = parse("test.toml", text.as_bytes()).expect("the file of the test is valid").system;
    let mut agent = Agent::new("b".into(), described, 0, 1);
    agent.handle(Input::StoreLoaded, at(0));
    agent.handle(Input::Instances(vec![]), at(10));
    let targets: Vec<_> = agent.route_table().routes.iter().map(|route| &route.target).collect();
    let [RouteTarget::Service(api), RouteTarget::Service(web)] = targets.as_slice() else {
        panic!("{targets:?}")
    };
    assert_eq!((web.traffic.limit, web.traffic.sticky.as_deref()), (Some(7), Some("seat")));
    assert_eq!((web.health_path.as_deref(), api.health_path.as_deref()), (Some("/healthz"), None));
    assert_eq!(api.traffic, model::system::traffic::Traffic::default());
}
