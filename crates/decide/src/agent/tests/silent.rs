//! What becomes of instances whose node falls silent.

use model::routes::{InstanceRouteState, RouteTarget};

use super::*;

fn on_b(state: InstanceRouteState) -> InstanceEndpoint {
    InstanceEndpoint {
        id: "web-1@b".to_owned(),
        node: "b".into(),
        site: "s".into(),
        address: "10.0.0.2:20000".parse().unwrap(),
        state,
    }
}

/// Node a, which has heard of an instance on b at 10 ms, and hears c at `millis`, to which b is silent.
fn hears_of(state: InstanceRouteState, millis: u64) -> Option<InstanceRouteState> {
    let mut agent = Agent::new("a".into(), system(), 0, 1);
    agent.loaded = true;
    agent.handle(Input::Instances(vec![]), at(1));
    let status =
        NodeStatus { instances: Some(vec![on_b(state)]), ..status_of("b", 1, MemberStatus::unknown()) };
    agent.handle(Input::LineUp { peer: "b".into(), line: "main".into() }, at(10));
    agent.handle(said("b", status), at(10));
    for (version, now) in (11..=millis).step_by(100).chain([millis]).zip(1..).map(|(now, n)| (n, now)) {
        let status = NodeStatus {
            version,
            silent: [("b".into(), model::status::Silence::Silent)].into(),
            ..status_of("c", 1, MemberStatus::unknown())
        };
        agent.handle(Input::LineUp { peer: "c".into(), line: "main".into() }, at(now));
        agent.handle(said("c", status), at(now));
    }
    agent.route_table().routes.iter().find_map(|route| match &route.target {
        RouteTarget::Service(target) => target.instances.first().map(|instance| instance.state),
        RouteTarget::Database(_) => None,
    })
}

#[test]
fn silence_takes_new_requests_away_and_breaks_off_those_under_way_only_when_the_node_is_lost() {
    use InstanceRouteState::{Draining, Gone, NotReady, Ready};
    assert_eq!(hears_of(Ready, 20), Some(Ready));
    assert_eq!(hears_of(Ready, 4_000), Some(NotReady), "its agent may have got no processor");
    assert_eq!(hears_of(Draining, 4_000), Some(Draining), "it comes back to nothing by that");
    assert_eq!(hears_of(Ready, 20_000), Some(Gone));
    assert_eq!(hears_of(Draining, 20_000), Some(Gone));
}
