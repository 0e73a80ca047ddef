//! What is taken out of service ends only when every proxy obeys and carries nothing there any more.

use model::release::{Digest, Phase, Release, Rollout, Service, Strategy};
use model::routes::{InstanceReport, ProxyReport, RouteReport, RouteTarget};

use super::*;
use crate::placement::Placed;

const WEB: &str = "web-1@a";

fn placed(node: &str, leaving: bool) -> Placed {
    Placed { node: node.into(), port: 20_000, renew: 0, leaving, release: None, share: None }
}

/// Node a, which has heard all others and at whose proxy instance web-1 serves, with web-1 leaving in revision 2 of the
/// placement.
fn taking_out() -> Agent {
    let mut agent = Agent::new("a".into(), system(), 0, 1);
    agent.loaded = true;
    for node in ["b", "c"] {
        agent.handle(said(node, status_of(node, 0, MemberStatus::unknown())), at(1));
    }
    let serving = InstanceEndpoint {
        id: WEB.to_owned(),
        node: "a".into(),
        site: "s".into(),
        address: "10.0.0.1:20000".parse().unwrap(),
        state: InstanceRouteState::Ready,
    };
    for (revision, leaving) in [(1, false), (2, true)] {
        let value = BTreeMap::from([("web".into(), BTreeMap::from([(1, placed("a", leaving))]))]);
        agent.handle(Input::Placement(Stored { revision, value }), at(10 * revision));
        agent.handle(Input::Instances(vec![serving.clone()]), at(10 * revision + 1));
    }
    agent
}

fn counted(under_way: u64) -> Input {
    let instance = InstanceReport { id: WEB.to_owned(), under_way, ..InstanceReport::default() };
    let route = RouteReport {
        route: "public".into(),
        open: 0,
        parked: 0,
        accepted: 0,
        failed: 0,
        retried: 0,
        ejected: vec![],
        panic: false,
        troubles: vec![],
        certificate: None,
        instances: vec![instance],
    };
    Input::Counted(ProxyReport { routes: vec![route] })
}

fn state(agent: &Agent) -> Option<InstanceRouteState> {
    agent.route_table().routes.iter().find_map(|route| match &route.target {
        RouteTarget::Service(target) => target.instances.first().map(|instance| instance.state),
        RouteTarget::Database(_) => None,
    })
}

#[test]
fn a_node_says_that_it_obeys_when_its_proxy_has_and_has_counted_since() {
    let mut agent = taking_out();
    assert_eq!(state(&agent), Some(InstanceRouteState::Draining));
    let generation = agent.route_table().generation;
    let told = |agent: &Agent| (agent.status.routed, agent.status.carrying.contains(WEB));
    agent.handle(Input::RoutesApplied(generation - 1), at(100));
    agent.handle(counted(0), at(101));
    assert_eq!(told(&agent).0, 0, "an older table was applied, and counted under it");
    agent.handle(Input::RoutesApplied(generation), at(102));
    assert_eq!(told(&agent).0, 0, "what was counted before says nothing");
    agent.handle(counted(3), at(103));
    assert_eq!(told(&agent), (2, true));
    agent.handle(counted(0), at(104));
    assert_eq!(told(&agent), (2, false));
}

#[test]
fn an_instance_ends_when_every_node_obeys_and_carries_nothing_and_nobody_is_waited_for_for_ever() {
    let mut agent = taking_out();
    let generation = agent.route_table().generation;
    agent.handle(Input::RoutesApplied(generation), at(100));
    agent.handle(counted(0), at(101));
    let ends = |agent: &mut Agent, millis: u64| {
        agent.now = at(millis);
        agent.note_leaving();
        agent.is_idle(&"web".into(), 1, &placed("a", true))
    };
    let hear = |agent: &mut Agent, node: &str, version: u64, routed: u64, carries: bool, millis: u64| {
        let carrying = carries.then(|| WEB.to_owned()).into_iter().collect();
        let status = NodeStatus { version, routed, carrying, ..status_of(node, 1, MemberStatus::unknown()) };
        agent.handle(Input::LineUp { peer: node.into(), line: "main".into() }, at(millis));
        agent.handle(said(node, status), at(millis));
    };
    hear(&mut agent, "b", 1, 2, false, 110);
    hear(&mut agent, "c", 1, 1, false, 110);
    assert!(!ends(&mut agent, 120), "c does not obey");
    hear(&mut agent, "c", 2, 2, true, 130);
    assert!(!ends(&mut agent, 140), "c carries a request");
    hear(&mut agent, "c", 3, 2, false, 150);
    assert!(ends(&mut agent, 160));
    hear(&mut agent, "c", 4, 1, false, 170);
    assert!(!ends(&mut agent, 180));
    assert!(ends(&mut agent, 60_000), "c has been waited for");
}

/// Release 2 takes over from release 1, everything being ready.
#[test]
fn a_plan_hides_what_is_not_to_serve_and_expels_what_is_taken_back() {
    let mut agent = taking_out();
    let release = |number: u64| Release {
        number,
        digest: Digest::try_from(format!("{number:064}")).unwrap(),
        size: 1,
        from: String::new(),
        at_us: 0,
    };
    let mut plan = |phase: Phase, strategy: Strategy, ready_old: u32| {
        let rollout = Rollout {
            release: release(2),
            strategy,
            bake_ms: 0,
            ready_within_ms: 0,
            sample: 0,
            instances: None,
            before: None,
            phase,
            because: String::new(),
        };
        let service = Service { current: Some(release(1)), rollout: Some(rollout), history: vec![] };
        agent.releases.value.insert("web".into(), service);
        let config = agent.system.services["web"].clone();
        let plan = agent.plan(&"web".into(), &config, ready_old).unwrap();
        let shown = plan.groups.iter().map(|g| (g.release.as_ref().unwrap().number, g.instances, g.share));
        (shown.collect::<Vec<_>>(), plan.expelled)
    };
    assert_eq!(plan(Phase::Staging, Strategy::Rolling, 3), (vec![(1, 3, None)], None));
    assert_eq!(plan(Phase::Step(1), Strategy::Rolling, 2), (vec![(2, 2, None), (1, 2, None)], None));
    let green = Strategy::BlueGreen;
    assert_eq!(plan(Phase::Step(0), green.clone(), 3), (vec![(2, 3, Some(0)), (1, 3, None)], None));
    assert_eq!(plan(Phase::Step(1), green.clone(), 3), (vec![(2, 3, Some(1000)), (1, 3, Some(0))], None));
    assert_eq!(plan(Phase::RollingBack, green, 3), (vec![(1, 3, None)], Some(2)));
    assert_eq!(plan(Phase::RollingBack, Strategy::Rolling, 1), (vec![(1, 3, None)], None));
}
