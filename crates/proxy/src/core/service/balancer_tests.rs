//! Choices over the life of a service.

use std::collections::BTreeMap;

use proptest::prelude::*;

use model::routes::{Answering, External, InstanceEndpoint};
use model::system::ExternalAddress;

use super::*;

use InstanceRouteState::{Draining, Gone, NotReady, Ready};

const NOW: Moment = Moment::from_millis(1000);

fn instance(number: u16, state: InstanceRouteState) -> InstanceEndpoint {
    let address = ([127, 0, 0, 1], 8000 + number).into();
    let (node, site) = (format!("n{number}"), if number < 3 { "east" } else { "west" });
    InstanceEndpoint {
        id: format!("web-{number}"),
        node: node.as_str().into(),
        site: site.into(),
        address,
        state,
    }
}

/// Instances web-1, web-2 and so on, each on a node of its own: the first two in the site east, the others in west.
fn target(states: &[InstanceRouteState]) -> ServiceTarget {
    let instances = states.iter().zip(1..).map(|(state, number)| instance(number, *state)).collect();
    let traffic = Traffic { slow_start: Duration::ZERO, ..Traffic::default() };
    ServiceTarget {
        service: "web".into(),
        instances,
        traffic,
        health_path: None,
        trial: None,
        external: None,
        protocol: Default::default(),
        send_proxy_protocol: false,
        tls: None,
        carriage: Default::default(),
    }
}

fn with(states: &[InstanceRouteState], change: impl FnOnce(&mut Traffic)) -> ServiceTarget {
    let mut target = target(states);
    change(&mut target.traffic);
    target
}

fn balancer(target: &ServiceTarget) -> Balancer {
    Balancer::new(target, None, NOW)
}

fn choose(balancer: &mut Balancer, wish: Wish<'_>, now: Moment, draw: u64) -> Option<Key> {
    match balancer.choose(&wish, now, draw) {
        Choice::Instance(pick) => Some(pick.key),
        Choice::Full | Choice::Nobody => None,
    }
}

const POST: Wish<'static> = Wish { avoid: &[], repeatable: false, stay: None, first: false };
const GET: Wish<'static> = Wish { repeatable: true, ..POST };

/// How many of `requests`, each ended before the next, every instance got. Draws go evenly over all there are.
fn spread(balancer: &mut Balancer, requests: u64, now: Moment) -> BTreeMap<Key, u64> {
    let mut counts = BTreeMap::new();
    for request in 0..requests {
        let draw = request.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = choose(balancer, GET, now, draw).expect("somebody");
        balancer.ended(key, false);
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn eject(balancer: &mut Balancer, place: u64) {
    assert!(balancer.failed(Key(place), Failure::Unreachable, NOW));
}

#[test]
fn the_one_with_less_to_do_is_chosen() {
    let mut balancer = balancer(&target(&[Ready, Ready, Gone, Draining]));
    let mut chosen: Vec<_> = (0..4).map(|_| choose(&mut balancer, POST, NOW, 0).unwrap()).collect();
    chosen.sort();
    assert_eq!(chosen, [Key(0), Key(0), Key(1), Key(1)]);
    balancer.ended(Key(1), false);
    assert_eq!(choose(&mut balancer, POST, NOW, 0), Some(Key(1)));
}

#[test]
fn traffic_follows_the_weights_with_little_and_with_much_to_do() {
    let weighted = with(&[Ready, Ready, Ready], |traffic| {
        traffic.weights = [("n1".into(), 4), ("n2".into(), 2)].into();
    });
    let mut balancer = balancer(&weighted);
    let counts: Vec<u64> = spread(&mut balancer, 7000, NOW).into_values().collect();
    for (count, expected) in counts.iter().zip([4000, 2000, 1000]) {
        assert!(count.abs_diff(expected) < 150, "{counts:?}");
    }
    // None of these ends: what is under way is spread alike.
    for request in 0..700_u64 {
        choose(&mut balancer, GET, NOW, request.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let under_way: Vec<u64> = balancer.instances.iter().map(|instance| instance.under_way).collect();
    for (count, expected) in under_way.iter().zip([400, 200, 100]) {
        assert!(count.abs_diff(expected) <= 10, "{under_way:?}");
    }
}

#[test]
fn a_new_instance_is_spared_at_first() {
    let slow_start =
        |states: &[InstanceRouteState]| with(states, |traffic| traffic.slow_start = Duration::from_secs(10));
    let mut balancer = balancer(&slow_start(&[Ready, Ready]));
    let later = NOW + Duration::from_secs(60);
    balancer.swap(&slow_start(&[Ready, Ready, Ready]), None, later);
    let share = |balancer: &mut Balancer, millis| {
        spread(balancer, 10_000, later + Duration::from_millis(millis))[&Key(2)]
    };
    assert!(share(&mut balancer, 0).abs_diff(10_000 / 21) < 100, "a tenth beside two wholes");
    assert!(share(&mut balancer, 5000).abs_diff(55 * 10_000 / 255) < 200);
    assert!(share(&mut balancer, 10_000).abs_diff(3333) < 200);
    // The same when it comes back.
    let back = later + Duration::from_secs(60);
    balancer.swap(&slow_start(&[Ready, Ready, NotReady]), None, back);
    balancer.swap(&slow_start(&[Ready, Ready, Ready]), None, back);
    assert!(spread(&mut balancer, 10_000, back)[&Key(2)] < 600);
}

#[test]
fn an_instance_that_answers_slowly_gets_less_until_it_is_fast_again() {
    let mut balancer = balancer(&target(&[Ready, Ready, Ready]));
    let answer = |balancer: &mut Balancer, slow: u64| {
        for _ in 0..200 {
            for (place, millis) in [(0, 10), (1, slow), (2, 11)] {
                balancer.succeeded(Key(place), Duration::from_millis(millis), NOW);
            }
        }
    };
    answer(&mut balancer, 88);
    let slow = spread(&mut balancer, 9000, NOW)[&Key(1)];
    assert!((800..1200).contains(&slow), "a quarter of a share: {slow}");
    answer(&mut balancer, 10);
    assert!(spread(&mut balancer, 9000, NOW)[&Key(1)].abs_diff(3000) < 200);
}

#[test]
fn the_own_site_comes_first_until_it_is_loaded() {
    let mut balancer = balancer(&target(&[Ready, Ready, Ready, Ready]));
    let site = |name: &str| Some(SiteName::from(name));
    balancer.swap(&target(&[Ready, Ready, Ready, Ready]), site("west").as_ref(), NOW);
    let places: Vec<_> = spread(&mut balancer, 1000, NOW).into_keys().collect();
    assert_eq!(places, [Key(2), Key(3)], "the own site's");
    // Requests pile up: 8 at each of the own ones, then the others take a part.
    let mut seen = [0_u64; 4];
    for request in 0..120_u64 {
        let draw = request.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(Key(place)) = choose(&mut balancer, GET, NOW, draw) else { panic!("somebody") };
        seen[usize::try_from(place).unwrap()] += 1;
        assert!(request >= 16 || place >= 2, "not while the own ones have little to do");
    }
    assert!(seen[0] + seen[1] > 20 && seen[2] + seen[3] > seen[0] + seen[1], "{seen:?}");
}

#[test]
fn another_site_helps_when_the_own_one_fails() {
    let mut balancer = Balancer::new(&target(&[Ready, Ready, Ready]), Some(&"west".into()), NOW);
    assert_eq!(spread(&mut balancer, 100, NOW).into_keys().collect::<Vec<_>>(), [Key(2)]);
    eject(&mut balancer, 2);
    assert_eq!(spread(&mut balancer, 100, NOW).into_keys().collect::<Vec<_>>(), [Key(0), Key(1)]);
    let asked = with(&[Ready, Ready, Ready], |traffic| traffic.prefer_site = false);
    let mut anywhere = Balancer::new(&asked, Some(&"west".into()), NOW);
    assert_eq!(spread(&mut anywhere, 100, NOW).len(), 3, "unless the file says otherwise");
}

#[test]
fn a_client_stays_where_it_has_been_unless_that_cannot_be() {
    let limited = with(&[Ready, Ready, Ready], |traffic| traffic.limit = Some(2));
    let mut balancer = balancer(&limited);
    let stay = Wish { stay: Some(Key(1)), ..GET };
    for draw in [0, u64::MAX] {
        assert_eq!(choose(&mut balancer, stay, NOW, draw), Some(Key(1)));
    }
    assert_ne!(choose(&mut balancer, stay, NOW, 0), Some(Key(1)), "it is full");
    balancer.ended(Key(1), false);
    balancer.swap(&with(&[Ready, Draining, Ready], |_| {}), None, NOW);
    assert_ne!(choose(&mut balancer, stay, NOW, 0), Some(Key(1)), "it is stopping");
    balancer.swap(&limited, None, NOW);
    eject(&mut balancer, 1);
    assert_ne!(choose(&mut balancer, stay, NOW, 0), Some(Key(1)), "it is ejected");
    assert!(choose(&mut balancer, Wish { stay: Some(Key(77)), ..GET }, NOW, 0).is_some(), "it is long gone");
}

#[test]
fn beyond_the_limit_requests_wait_in_turn_and_beyond_the_queue_they_are_refused() {
    let mut balancer = balancer(&with(&[Ready, Ready], |traffic| {
        (traffic.limit, traffic.queue) = (Some(3), 2);
    }));
    for _ in 0..6 {
        assert!(choose(&mut balancer, POST, NOW, 0).is_some());
    }
    assert_eq!(balancer.choose(&POST, NOW, 0), Choice::Full);
    assert_eq!([balancer.enter_queue(), balancer.enter_queue(), balancer.enter_queue()], [true, true, false]);
    balancer.ended(Key(0), false);
    assert_eq!(balancer.choose(&POST, NOW, 0), Choice::Full, "others were here before");
    assert_eq!(choose(&mut balancer, Wish { first: true, ..POST }, NOW, 0), Some(Key(0)));
    balancer.leave_queue();
    balancer.leave_queue();
    assert_eq!(balancer.choose(&POST, NOW, 0), Choice::Full, "nobody waits, but there is no room");
    // An upgraded connection may last for ever and takes no place.
    balancer.becomes_tunnel(Key(1));
    assert_eq!(choose(&mut balancer, POST, NOW, 0), Some(Key(1)));
    balancer.ended(Key(1), true);
    assert_eq!(balancer.instances[1].under_way, 3);
}

#[test]
fn unfit_ones_are_used_when_there_is_nobody_else_and_it_is_said() {
    let mut balancer = balancer(&target(&[Ready, NotReady]));
    eject(&mut balancer, 0);
    assert_eq!(balancer.ejected().collect::<Vec<_>>(), ["web-1"]);
    assert!(balancer.is_in_panic());
    assert_eq!(choose(&mut balancer, POST, NOW, 0), Some(Key(0)));
    let rest = Wish { avoid: &[Key(0)], ..POST };
    assert_eq!(choose(&mut balancer, rest, NOW, 0), Some(Key(1)), "not ready is better than nothing");
    assert_eq!(balancer.choose(&Wish { avoid: &[Key(0), Key(1)], ..POST }, NOW, 0), Choice::Nobody);
    balancer.succeeded(Key(0), Duration::from_millis(1), NOW);
    assert_eq!(choose(&mut balancer, GET, NOW, 0), Some(Key(0)), "its trial");
    balancer.succeeded(Key(0), Duration::from_millis(1), NOW);
    assert!(!balancer.is_in_panic());
}

#[test]
fn when_most_are_ejected_those_left_take_what_they_can_and_the_others_the_rest() {
    let mut balancer = balancer(&with(&[Ready, Ready, Ready], |traffic| traffic.limit = Some(2)));
    eject(&mut balancer, 0);
    assert!(!balancer.is_in_panic(), "one of three");
    let two: Vec<_> = (0..4).filter_map(|_| choose(&mut balancer, POST, NOW, 0)).collect();
    assert!(!two.contains(&Key(0)));
    assert_eq!(balancer.choose(&POST, NOW, 0), Choice::Full, "two of three are enough to be waited for");
    eject(&mut balancer, 1);
    assert!(balancer.is_in_panic());
    assert_ne!(choose(&mut balancer, POST, NOW, 0), Some(Key(2)), "the last one is full");
    balancer.ended(Key(2), false);
    assert_eq!(choose(&mut balancer, POST, NOW, 0), Some(Key(2)), "it comes first where it can");
}

/// A single late answer once made the report speak of panic.
#[test]
fn one_late_answer_alone_is_no_panic() {
    for states in [&[Ready][..], &[Ready, Ready], &[Ready, Ready, Ready]] {
        let mut balancer = balancer(&target(states));
        choose(&mut balancer, GET, NOW, 0);
        balancer.failed(Key(0), Failure::Late, NOW);
        choose(&mut balancer, Wish { avoid: &[Key(0)], first: true, ..GET }, NOW, 0);
        choose(&mut balancer, GET, NOW, 0);
        assert!(!balancer.is_in_panic(), "{} instances", states.len());
        assert_eq!(balancer.ejected().count(), 0);
    }
}

#[test]
fn an_ejected_one_answers_a_probe_before_it_is_tried_with_one_repeatable_request() {
    let mut balancer = balancer(&target(&[Ready, Ready]));
    eject(&mut balancer, 0);
    let due = balancer.probe_at(Key(0)).expect("a probe is due some time");
    let mut stopping = self::balancer(&target(&[Ready, Ready]));
    eject(&mut stopping, 0);
    stopping.swap(&target(&[Draining, Ready]), None, NOW);
    assert_eq!(stopping.probe_at(Key(0)), None, "it is not to come back");
    assert_eq!(choose(&mut balancer, GET, due, 0), Some(Key(1)), "nobody's request finds out");
    assert!(balancer.begin_probe(Key(0), due));
    balancer.probed(Key(0), true, due);
    assert_eq!(balancer.ejected().count(), 0, "without traffic nobody would ever find it fit");
    assert_eq!(choose(&mut balancer, POST, due, 0), Some(Key(1)), "rather with what can be repeated");
    assert_eq!(choose(&mut balancer, GET, due, 0), Some(Key(0)));
    assert_eq!(choose(&mut balancer, GET, due, 0), Some(Key(1)));
    balancer.ended(Key(0), false);
    assert_eq!(choose(&mut balancer, GET, due, 0), Some(Key(0)), "it was given up: once more");
}

#[test]
fn leaving_an_ejected_one_is_never_denied_and_everything_else_is_beyond_a_fifth() {
    let mut balancer = balancer(&target(&[Ready, Ready, Ready]));
    (0..1000).for_each(|_| balancer.request(NOW));
    eject(&mut balancer, 0);
    assert!((0..50).all(|_| balancer.repeat(Key(0), &[Key(0)], NOW)));
    let granted = (0..5000).filter(|_| balancer.repeat(Key(1), &[Key(1)], NOW)).count();
    assert_eq!(granted, 150, "a fifth of the requests, with those that left");
    assert!((0..5000).all(|_| balancer.repeat(Key(0), &[Key(0)], NOW)), "that only moves load");
    let mut alone = self::balancer(&target(&[Ready]));
    assert!(!alone.repeat(Key(0), &[Key(0)], NOW), "there is no other one, so nothing is taken");
    eject(&mut balancer, 1);
    eject(&mut balancer, 2);
    assert!(!balancer.repeat(Key(0), &[Key(0)], NOW), "there is nobody to move it to");
}

#[test]
fn a_table_keeps_what_is_known_unless_the_instance_is_new_or_ready_again() {
    let mut balancer = balancer(&target(&[Ready, Ready]));
    eject(&mut balancer, 0);
    balancer.swap(&target(&[Ready, Ready, Ready]), None, NOW);
    assert_eq!(balancer.ejected().collect::<Vec<_>>(), ["web-1"]);
    balancer.swap(&target(&[NotReady, Ready]), None, NOW);
    balancer.swap(&target(&[Ready, Ready]), None, NOW);
    assert_eq!(balancer.ejected().count(), 0, "its supervisor has seen it answer");
    let mut moved = target(&[Ready]);
    moved.instances[0].address = ([127, 0, 0, 1], 9).into();
    balancer.swap(&moved, None, NOW);
    assert_eq!(balancer.instances().map(|(key, _)| key).collect::<Vec<_>>(), [Key(3)]);
}

#[test]
fn nobody_is_explained() {
    let mut balancer = balancer(&target(&[Ready, NotReady, Draining, Gone]));
    eject(&mut balancer, 0);
    let text = "web-1 does not answer, web-2 is not ready, web-3 is stopping, web-4 is gone";
    assert_eq!(balancer.why_nobody(), text);
    assert_eq!(self::balancer(&target(&[])).why_nobody(), "it has no instance");
}

proptest! {
    /// Whatever happens: nothing that drains, is gone, was to be avoided or is at its limit is ever chosen, and somebody is
    /// chosen whenever there is anybody that the rules let in.
    #[test]
    fn choices_obey_the_table(
        states in proptest::collection::vec(prop_oneof![Just(Ready), Just(NotReady), Just(Draining), Just(Gone)], 0..6),
        limit in proptest::option::of(1_u32..4),
        west in any::<bool>(),
        steps in proptest::collection::vec((0_u64..6, 0_u8..8, any::<u64>()), 0..80),
    ) {
        let site = west.then(|| SiteName::from("west"));
        let mut balancer = Balancer::new(&with(&states, |traffic| traffic.limit = limit), site.as_ref(), NOW);
        let mut under_way = [0_u32; 6];
        for (place, what, draw) in steps {
            let now = Moment::from_micros(draw % 100_000_000);
            let (key, at) = (Key(place), usize::try_from(place).unwrap());
            match what {
                0 => _ = balancer.failed(key, Failure::Unreachable, now),
                1 => _ = balancer.failed(key, Failure::Late, now),
                2 => balancer.succeeded(key, Duration::from_micros(draw % 1000), now),
                3 => _ = balancer.begin_probe(key, now),
                4 => balancer.probed(key, draw % 3 == 0, now),
                _ if under_way[at] > 0 => {
                    balancer.ended(key, false);
                    under_way[at] -= 1;
                }
                _ => {}
            }
            let repeatable = draw % 2 == 0;
            let avoid = [key];
            let choice = balancer.choose(&Wish { avoid: &avoid, repeatable, ..POST }, now, draw);
            let there = |other: usize, state: &InstanceRouteState| other != at && matches!(state, Ready | NotReady);
            let any = states.iter().enumerate().any(|(other, state)| there(other, state));
            let room = |other: usize| limit.is_none_or(|limit| under_way[other] < limit);
            match choice {
                Choice::Instance(pick) => {
                    let chosen = usize::try_from(pick.key.0).unwrap();
                    prop_assert!(there(chosen, &states[chosen]));
                    prop_assert!(room(chosen), "at its limit");
                    under_way[chosen] += 1;
                }
                Choice::Full => prop_assert!(any && limit.is_some()),
                Choice::Nobody => prop_assert!(!any),
            }
        }
    }
}

proptest! {
    // Each of them makes 40,000 choices.
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Every instance that may take requests gets some, whatever the weights and latencies: none is starved.
    #[test]
    fn nobody_is_starved(
        weights in proptest::collection::vec(1_u32..=100, 2..5),
        millis in proptest::collection::vec(1_u64..5000, 5),
    ) {
        let target = with(&vec![Ready; weights.len()], |traffic| {
            traffic.weights = (1..).zip(&weights).map(|(n, w)| (format!("n{n}").as_str().into(), *w)).collect();
        });
        let mut balancer = balancer(&target);
        for _ in 0..64 {
            for (place, millis) in (0..).zip(&millis) {
                balancer.succeeded(Key(place), Duration::from_millis(*millis), NOW);
            }
        }
        prop_assert_eq!(spread(&mut balancer, 40_000, NOW).len(), weights.len());
    }
}

/// A service of others at two addresses, the first near to the site east, the second to all.
fn of_others() -> ServiceTarget {
    let listed = |port: u16, site: Option<&str>| ExternalAddress {
        address: ([10, 0, 5, 1], port).into(),
        site: site.map(SiteName::from),
    };
    let health = system::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(1),
        healthy_after: 1,
        unhealthy_after: 2,
        restart_after: Duration::from_secs(10),
    };
    let addresses = vec![listed(1, Some("east")), listed(2, None)];
    ServiceTarget { external: Some(External { addresses, health }), ..target(&[]) }
}

#[test]
fn an_address_of_others_takes_requests_once_it_has_answered_and_for_as_long_as_it_does() {
    let mut balancer = balancer(&of_others());
    let keys = balancer.unattended();
    assert_eq!((keys.len(), balancer.unattended()), (2, vec![]), "each is asked by one");
    assert!(balancer.question(keys[0]).is_some());
    assert!(choose(&mut balancer, GET, NOW, 7).is_some(), "unknown is better than nobody");
    balancer.answered(keys[1], Ok(()), NOW);
    for draw in 0..20 {
        assert_eq!(choose(&mut balancer, GET, NOW, draw << 60), Some(keys[1]), "it alone has answered");
    }
    balancer.answered(keys[0], Ok(()), NOW);
    balancer.answered(keys[1], Err("is late".to_owned()), NOW);
    assert!(balancer.is_fit(keys[1]), "one bad answer is none");
    balancer.answered(keys[1], Err("is late".to_owned()), NOW);
    assert!(!balancer.is_fit(keys[1]));
    assert_eq!(choose(&mut balancer, GET, NOW, 7), Some(keys[0]));
    let told: Vec<_> = balancer.tallies().into_iter().map(|report| report.answering).collect();
    assert_eq!(told, [Some(Answering::Good), Some(Answering::Bad { because: "is late".to_owned() })]);

    // What is thought of it stays through a new table; what is not in it any more is asked no more.
    let mut fewer = of_others();
    fewer.external.as_mut().unwrap().addresses.remove(0);
    balancer.swap(&fewer, None, NOW);
    assert_eq!((balancer.question(keys[0]), balancer.is_fit(keys[1])), (None, false));
    assert_eq!(balancer.unattended(), []);
}

#[test]
fn an_address_that_live_traffic_has_ejected_is_believed_when_its_page_is_good_again() {
    let mut balancer = balancer(&of_others());
    let key = balancer.unattended()[0];
    balancer.answered(key, Ok(()), NOW);
    assert!(balancer.failed(key, Failure::Unreachable, NOW));
    assert!(!balancer.is_fit(key));
    balancer.answered(key, Ok(()), NOW);
    assert!(!balancer.is_fit(key), "its page was good all the time, so that it says nothing new");
    for _ in 0..2 {
        balancer.answered(key, Err("is gone".to_owned()), NOW);
    }
    assert_eq!(balancer.probe_at(key), None, "it is asked already");
    balancer.answered(key, Ok(()), NOW);
    assert!(balancer.is_fit(key));
}

#[test]
fn an_address_that_is_near_to_all_counts_as_near() {
    let mut balancer = Balancer::new(&of_others(), Some(&SiteName::from("west")), NOW);
    for key in balancer.unattended() {
        balancer.answered(key, Ok(()), NOW);
    }
    let keys: Vec<Key> = balancer.instances().map(|(key, _)| key).collect();
    for draw in 0..8 {
        assert_eq!(
            choose(&mut balancer, GET, NOW, draw << 60),
            Some(keys[1]),
            "the other one is near to east"
        );
    }
}
