//! Services that others run: routed to, never placed.

use model::ServiceName;
use model::routes::{External, RouteTarget, ServiceTarget};

use super::*;
use crate::agent::commands::Value;
use crate::placement::Placed;

/// The system in which others run `web`.
fn external() -> System {
    let text = "[system]\nname = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
                [nodes.c]\naddress = \"10.0.0.3\"\n[services.own]\ncommand = [\"./own\"]\n\
                [services.web]\naddresses = [\"10.0.5.1:80\"]\nhealth.http = \"/alive\"\n\
                [routes.public]\nlisten = \":8080\"\nservice = \"web\"\n";
    parse("test.toml", text.as_bytes()).expect("the file of the test is valid").system
}

fn target(agent: &Agent) -> ServiceTarget {
    let found = agent.route_table().routes.iter().find_map(|route| match &route.target {
        RouteTarget::Service(target) => Some(ServiceTarget::clone(target)),
        RouteTarget::Database(_) => None,
    });
    found.expect("a table with the route")
}

#[test]
fn a_proxy_is_told_the_addresses_and_what_to_ask_and_of_no_instance() {
    let mut agent = Agent::new("a".into(), external(), 0, 1);
    agent.loaded = true;
    for node in ["b", "c"] {
        // An instance of the time before the file said `addresses` may not be gone yet.
        let instances = Some(vec![instance(node)]);
        let status = NodeStatus { instances, ..status_of(node, 1, MemberStatus::unknown()) };
        agent.handle(said(node, status), at(1));
    }
    agent.handle(Input::Instances(vec![]), at(2));
    let target = target(&agent);
    assert_eq!(target.instances, []);
    assert_eq!(target.health_path.as_deref(), Some("/alive"));
    let External { addresses, health } = target.external.expect("addresses");
    assert_eq!(addresses, external().services["web"].addresses);
    assert_eq!(health, external().services["web"].health);
}

#[test]
fn the_leader_places_nothing_of_it() {
    let mut agent = Agent::new("a".into(), external(), 0, 1);
    agent.loaded = true;
    let left =
        Placed { node: "a".into(), port: 20_000, renew: 0, leaving: false, release: None, share: None };
    let value = BTreeMap::from([("web".into(), BTreeMap::from([(1, left)]))]);
    let mut commands = agent.handle(Input::Placement(Stored { revision: 1, value }), at(1));
    commands.extend(agent.handle(Input::Leader(Some("a".into())), at(2)));
    commands.extend(agent.handle(Input::Tick, at(100)));
    let placed = commands.into_iter().find_map(|command| {
        if let Command::Commit { value: Value::Placement(next), .. } = command { Some(next) } else { None }
    });
    let services: Vec<ServiceName> = placed.expect("a placement").into_keys().collect();
    assert_eq!(services, [ServiceName::from("own")]);
}
