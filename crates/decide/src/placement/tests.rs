use super::*;

const NODES: [(&str, &str); 3] = [("e1", "east"), ("e2", "east"), ("w1", "west")];

/// A service with its nodes, and how its instances do: each ready as soon as it is placed, unless it is in `dead`.
#[derive(Default)]
struct World {
    placement: Placement,
    lost: Vec<&'static str>,
    drained: Vec<&'static str>,
    /// Instances that do not get ready.
    dead: BTreeSet<u32>,
    /// Leaving instances at which requests are under way.
    busy: BTreeSet<u32>,
    /// Ports that ending instances still have.
    held: Vec<(&'static str, u16)>,
    /// What shall run while a release takes over.
    rollout: Option<Vec<Group>>,
    expelled: Option<u64>,
}

impl World {
    fn wish(&mut self, instances: u32) -> Vec<String> {
        let service = ServiceName::from("web");
        let names: Vec<(NodeName, SiteName)> =
            NODES.iter().map(|(node, site)| (NodeName::from(*node), SiteName::from(*site))).collect();
        let out = |node: &str| self.lost.contains(&node) || self.drained.contains(&node);
        let allowed = names.iter().filter(|(node, _)| !out(node.as_str())).map(|(n, s)| (n, s)).collect();
        let groups = match &self.rollout {
            None => vec![Group { release: None, instances, share: None }],
            Some(groups) => groups.clone(),
        };
        let (expelled, ports) = (self.expelled, vec![9000, 9001, 9002]);
        let wish = Wish { service: &service, groups, need: instances, expelled, allowed, ports };
        let lost = self.lost.iter().map(|node| NodeName::from(*node)).collect();
        let now = self.placement.clone();
        let copy = |service: &ServiceName, number: u32, node: &NodeName| {
            let placed = now.get(service)?.get(&number)?;
            let copy = Copy { ready: !self.dead.contains(&number), outdated: false, gone: false };
            (placed.node == *node).then_some(copy)
        };
        let is_idle = |_: &ServiceName, number: u32, _: &Placed| !self.busy.contains(&number);
        let is_held = |node: &NodeName, port: u16| self.held.contains(&(node.as_str(), port));
        let facts = Facts { lost: &lost, copy: &copy, is_held: &is_held, is_idle: &is_idle };
        self.placement = decide(&[wish], &now, &facts);
        self.shown()
    }

    fn shown(&self) -> Vec<String> {
        let notes = |placed: &Placed| {
            let release = placed.release.as_ref().map(|of| format!(" r{}", of.number)).unwrap_or_default();
            let share = placed.share.map(|share| format!(" {share}")).unwrap_or_default();
            format!("{release}{share}{}", if placed.leaving { " leaves" } else { "" })
        };
        let all = self.placement["web"].iter();
        all.map(|(number, p)| format!("{number}@{}:{}{}", p.node, p.port, notes(p))).collect()
    }
}

#[test]
fn spreads_over_sites_first() {
    assert_eq!(World::default().wish(3), ["1@e1:9000", "2@w1:9000", "3@e2:9000"]);
}

#[test]
fn what_runs_stays_and_what_is_lost_moves() {
    let mut world = World::default();
    let all = world.wish(3);
    assert_eq!(world.wish(3), all);
    world.lost = vec!["w1"];
    assert_eq!(world.wish(3), ["1@e1:9000", "2@e1:9001", "3@e2:9000"]);
}

#[test]
fn a_drained_node_is_left_when_the_replacement_is_ready_and_no_request_is_left() {
    let mut world = World::default();
    world.wish(3);
    world.drained = vec!["w1"];
    world.dead = [4].into();
    world.busy = [2].into();
    let first = ["1@e1:9000", "2@w1:9000", "3@e2:9000", "4@e1:9001"];
    assert_eq!(world.wish(3), first);
    assert_eq!(world.wish(3), first, "the replacement is not ready");
    world.dead.clear();
    let leaves = ["1@e1:9000", "2@w1:9000 leaves", "3@e2:9000", "4@e1:9001"];
    assert_eq!(world.wish(3), leaves);
    assert_eq!(world.wish(3), leaves, "a request is under way");
    world.busy.clear();
    assert_eq!(world.wish(3), ["1@e1:9000", "3@e2:9000", "4@e1:9001"]);
}

#[test]
fn a_drain_taken_back_keeps_what_still_runs() {
    let mut world = World::default();
    world.wish(3);
    world.drained = vec!["w1"];
    world.wish(3);
    world.busy = [2].into();
    assert_eq!(world.wish(3)[1], "2@w1:9000 leaves");
    world.drained.clear();
    world.lost = vec!["e2"];
    world.wish(3);
    assert_eq!(world.shown(), ["1@e1:9000", "2@w1:9000", "4@e1:9001"]);
}

#[test]
fn scaling_down_ends_only_what_is_too_much() {
    let mut world = World::default();
    world.wish(3);
    world.wish(3);
    assert_eq!(world.wish(1), ["1@e1:9000", "2@w1:9000 leaves", "3@e2:9000 leaves"]);
    assert_eq!(world.wish(1), ["1@e1:9000"]);
    assert_eq!(world.wish(2), ["1@e1:9000", "2@w1:9000"]);
}

#[test]
fn the_instance_that_serves_stays_when_another_of_the_remaining_does_not() {
    let mut world = World::default();
    world.wish(3);
    world.dead = [1].into();
    assert_eq!(world.wish(2), ["1@e1:9000 leaves", "2@w1:9000", "3@e2:9000"]);
}

#[test]
fn a_node_stays_as_it_is_while_nothing_else_may_run_the_service() {
    let mut world = World { lost: vec!["e2", "w1"], ..World::default() };
    world.wish(2);
    world.drained = vec!["e1"];
    assert_eq!(world.wish(2), ["1@e1:9000", "2@e1:9001"]);
}

#[test]
fn a_port_is_not_given_away_before_its_last_bearer_has_ended() {
    let mut world = World { held: vec![("e1", 9000)], ..World::default() };
    assert_eq!(world.wish(1), ["1@e1:9001"]);
}

#[test]
fn places_nothing_where_no_port_is_free() {
    let mut world = World { lost: vec!["e2", "w1"], ..World::default() };
    assert_eq!(world.wish(9), ["1@e1:9000", "2@e1:9001", "3@e1:9002"]);
}

/// Whatever happens to nodes, numbers and requests: of the instances that serve, never so many are taken out of service
/// that fewer than wanted are left, and a leaving one with a request under way is not ended.
#[test]
fn no_step_of_a_random_life_takes_away_what_is_needed() {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..2000 {
        let mut world = World::default();
        for _ in 0..12 {
            let wanted = 1 + u32::try_from(draw(4)).unwrap();
            world.drained = NODES.iter().filter(|_| draw(4) == 0).map(|(node, _)| *node).collect();
            world.dead = (1..8).filter(|_| draw(4) == 0).collect();
            world.busy = (1..8).filter(|_| draw(2) == 0).collect();
            let before = world.placement.get("web").cloned().unwrap_or_default();
            let serving = |map: &Instances, world: &World| {
                map.iter()
                    .filter(|(n, p)| !p.leaving && before.contains_key(*n) && !world.dead.contains(*n))
                    .count()
            };
            let had = serving(&before, &world);
            world.wish(wanted);
            let after = &world.placement["web"];
            assert!(serving(after, &world) >= had.min(wanted as usize), "{before:?} {:?}", world.shown());
            for number in before.keys().filter(|number| !after.contains_key(*number)) {
                assert!(before[number].leaving && !world.busy.contains(number), "{before:?}");
            }
        }
    }
}

#[test]
fn one_instance_is_replaced_at_a_time_and_only_while_the_others_are_ready() {
    let new = Copy { ready: true, outdated: false, gone: false };
    let (old, gone) = (Copy { outdated: true, ..new }, Copy { ready: false, ..new });
    let turn = |placement: &Placement, copies: [Option<Copy>; 3]| {
        let copy = |_: &ServiceName, number: u32, _: &NodeName| copies[number as usize - 1];
        renew(placement, 7, copy).map(|(next, because)| {
            let turns = next["web"].iter().filter(|(_, placed)| placed.renew == 7);
            (turns.map(|(number, _)| *number).collect::<Vec<_>>(), because)
        })
    };
    let mut world = World::default();
    world.wish(3);
    let mut now = world.placement;
    let first = Some((vec![1], "web-1 on e1 is replaced, 3 of 3 wait".to_owned()));
    assert_eq!(turn(&now, [Some(old); 3]), first);
    now.get_mut("web").unwrap().get_mut(&1).unwrap().renew = 7;
    assert_eq!(turn(&now, [Some(old); 3]), None, "web-1 has its turn and has not ended yet");
    assert_eq!(turn(&now, [Some(gone), Some(old), Some(old)]), None);
    assert_eq!(turn(&now, [None, Some(old), Some(old)]), None);
    let second = Some((vec![1, 2], "web-2 on w1 is replaced, 2 of 3 wait".to_owned()));
    assert_eq!(turn(&now, [Some(new), Some(old), Some(old)]), second);
    assert_eq!(turn(&now, [Some(new); 3]), None);
}

fn group(number: u64, instances: u32, share: Option<u16>) -> Group {
    let digest = Digest::try_from(format!("{number:064}")).unwrap();
    Group { release: Some(Origin { number, digest }), instances, share }
}

/// Two instances of release 1, serving.
fn released() -> World {
    let mut world = World { rollout: Some(vec![group(1, 2, None)]), ..World::default() };
    assert_eq!(world.wish(2), ["1@e1:9000 r1", "2@w1:9000 r1"]);
    world
}

#[test]
fn a_rolling_release_takes_an_old_instance_out_when_a_new_one_serves() {
    let mut world = released();
    world.rollout = Some(vec![group(2, 1, None), group(1, 2, None)]);
    world.dead = [3].into();
    assert_eq!(world.wish(2), ["1@e1:9000 r1", "2@w1:9000 r1", "3@e1:9001 r2"]);
    world.rollout = Some(vec![group(2, 2, None), group(1, 1, None)]);
    world.wish(2);
    assert_eq!(world.shown(), ["1@e1:9000 r1", "2@w1:9000 r1", "3@e1:9001 r2", "4@w1:9001 r2"]);
    world.dead.clear();
    world.wish(2);
    assert_eq!(world.shown(), ["1@e1:9000 r1", "2@w1:9000 r1 leaves", "3@e1:9001 r2", "4@w1:9001 r2"]);
    world.rollout = Some(vec![group(2, 2, None)]);
    world.wish(2);
    world.wish(2);
    assert_eq!(world.shown(), ["3@e1:9001 r2", "4@w1:9001 r2"]);
}

#[test]
fn a_release_that_is_taken_back_gets_no_more_requests_at_once() {
    let mut world = released();
    world.rollout = Some(vec![group(2, 2, Some(1000)), group(1, 2, Some(0))]);
    world.wish(2);
    assert_eq!(world.shown()[0], "1@e1:9000 r1 0", "it runs on without requests");
    (world.rollout, world.expelled) = (Some(vec![group(1, 2, None)]), Some(2));
    world.busy = [3, 4].into();
    let back = ["1@e1:9000 r1", "2@w1:9000 r1", "3@e1:9001 r2 1000 leaves", "4@w1:9001 r2 1000 leaves"];
    assert_eq!(world.wish(2), back);
    world.busy.clear();
    assert_eq!(world.wish(2), ["1@e1:9000 r1", "2@w1:9000 r1"]);
}
