//! Choices over the life of a service.

use proptest::prelude::*;

use super::*;

const NOW: Moment = Moment::from_millis(1000);

fn instance(number: u16, state: InstanceRouteState) -> InstanceEndpoint {
    let address = ([127, 0, 0, 1], 8000 + number).into();
    InstanceEndpoint { id: format!("web-{number}"), node: "e1".into(), site: "east".into(), address, state }
}

fn target(states: &[InstanceRouteState]) -> ServiceTarget {
    let instances = states.iter().zip(1..).map(|(state, number)| instance(number, *state)).collect();
    ServiceTarget { service: "web".into(), instances }
}

use InstanceRouteState::{Draining, Gone, NotReady, Ready};

fn name(balancer: &Balancer, pick: Option<Pick>) -> Option<String> {
    let key = pick?.key;
    balancer.instances().find(|(other, _)| *other == key).map(|(_, endpoint)| endpoint.id.clone())
}

#[test]
fn the_one_with_less_to_do_is_chosen() {
    let mut balancer = Balancer::new(&target(&[Ready, Ready, Gone, Draining]));
    let mut chosen: Vec<_> = (0..4).map(|_| balancer.choose(&[], false, NOW, 0).unwrap().key).collect();
    chosen.sort();
    assert_eq!(chosen, [Key(0), Key(0), Key(1), Key(1)]);
    balancer.ended(Key(1), NOW);
    let pick = balancer.choose(&[], false, NOW, 0);
    assert_eq!(name(&balancer, pick).as_deref(), Some("web-2"));
}

#[test]
fn unfit_ones_are_used_when_there_is_nobody_else_and_it_is_said() {
    let mut balancer = Balancer::new(&target(&[Ready, NotReady]));
    balancer.failed(Key(0), Failure::Unreachable, NOW);
    assert_eq!(balancer.ejected(), ["web-1"]);
    let pick = balancer.choose(&[], false, NOW, 0);
    assert_eq!(name(&balancer, pick).as_deref(), Some("web-1"));
    assert!(balancer.is_in_panic());
    let pick = balancer.choose(&[Key(0)], false, NOW, 0);
    assert_eq!(name(&balancer, pick).as_deref(), Some("web-2"), "not ready is better than nothing");
    assert_eq!(balancer.choose(&[Key(0), Key(1)], false, NOW, 0), None);
    balancer.succeeded(Key(0), Duration::from_millis(1));
    balancer.choose(&[], false, NOW, 0);
    assert!(!balancer.is_in_panic());
}

#[test]
fn an_ejected_one_is_tried_with_one_repeatable_request() {
    let mut balancer = Balancer::new(&target(&[Ready, Ready]));
    balancer.failed(Key(0), Failure::Unreachable, NOW);
    let later = Moment::from_millis(2000);
    assert_eq!(balancer.choose(&[], false, later, 0).map(|pick| pick.key), Some(Key(1)), "not with a POST");
    assert_eq!(balancer.choose(&[], true, later, 0).map(|pick| pick.key), Some(Key(0)));
    assert_eq!(balancer.choose(&[], true, later, 0).map(|pick| pick.key), Some(Key(1)));
    balancer.ended(Key(0), later);
    assert_eq!(
        balancer.choose(&[], true, later, 0).map(|pick| pick.key),
        Some(Key(0)),
        "it was given up: once more"
    );
}

#[test]
fn a_table_keeps_what_is_known_unless_the_instance_is_new_or_ready_again() {
    let mut balancer = Balancer::new(&target(&[Ready, Ready]));
    balancer.failed(Key(0), Failure::Unreachable, NOW);
    balancer.swap(&target(&[Ready, Ready, Ready]));
    assert_eq!(balancer.ejected(), ["web-1"]);
    balancer.swap(&target(&[NotReady, Ready]));
    balancer.swap(&target(&[Ready, Ready]));
    assert_eq!(balancer.ejected(), [""; 0], "its supervisor has seen it answer");
    let mut moved = target(&[Ready]);
    moved.instances[0].address = ([127, 0, 0, 1], 9).into();
    balancer.swap(&moved);
    assert_eq!(balancer.instances().map(|(key, _)| key).collect::<Vec<_>>(), [Key(3)]);
}

#[test]
fn nobody_is_explained() {
    let balancer = Balancer::new(&target(&[Ready, NotReady, Draining, Gone]));
    let text = "web-1 does not answer, web-2 is not ready, web-3 is stopping, web-4 is gone";
    assert_eq!(balancer.why_nobody(), text);
    assert_eq!(Balancer::new(&target(&[])).why_nobody(), "it has no instance");
}

proptest! {
    /// Whatever happens: nothing that drains, is gone or was to be avoided is ever chosen, and somebody is chosen
    /// whenever there is anybody.
    #[test]
    fn choices_obey_the_table(
        states in proptest::collection::vec(prop_oneof![Just(Ready), Just(NotReady), Just(Draining), Just(Gone)], 0..6),
        steps in proptest::collection::vec((0_u64..6, 0_u8..5, any::<u64>()), 0..60),
    ) {
        let mut balancer = Balancer::new(&target(&states));
        for (place, what, draw) in steps {
            let now = Moment::from_micros(draw % 100_000_000);
            let key = Key(place);
            match what {
                0 => balancer.failed(key, Failure::Unreachable, now),
                1 => balancer.failed(key, Failure::Late, now),
                2 => balancer.succeeded(key, Duration::from_micros(draw % 1000)),
                _ => balancer.ended(key, now),
            }
            let pick = balancer.choose(&[key], draw % 2 == 0, now, draw);
            let usable = |(number, state): (u64, &InstanceRouteState)| number != place && matches!(state, Ready | NotReady);
            prop_assert_eq!(pick.is_some(), (0..).zip(&states).any(usable));
            if let Some(pick) = pick {
                prop_assert!(usable((pick.key.0, &states[usize::try_from(pick.key.0).unwrap()])));
            }
        }
    }
}
