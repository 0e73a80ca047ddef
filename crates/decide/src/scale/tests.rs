use super::*;

const NONE: [u32; 0] = [];

const RULE: Rule = Rule { least: 2, max: 12, requests: 10, cool_down: Duration::from_secs(60) };

/// One service under a leader, second by second.
struct Play {
    memory: Memory,
    now: u64,
    rule: Rule,
    /// How long instances take to get ready.
    slow: u64,
    ready: VecDeque<(u64, u32)>,
    is_complete: bool,
}

impl Play {
    fn new(placed: u32) -> Self {
        let now = 1000;
        let memory = Memory::new(&RULE, placed, Moment::from_millis(now * 1000));
        let ready = [(0, placed)].into();
        Self { memory, now, rule: RULE, slow: 2, ready, is_complete: true }
    }

    fn ready(&self) -> u32 {
        self.ready.iter().rev().find(|(at, _)| *at <= self.now).map_or(0, |(_, count)| *count)
    }

    /// Lets a load last for so many seconds; every number that was wanted meanwhile.
    fn under(&mut self, requests: u64, seconds: u64) -> Vec<u32> {
        let mut wanted = vec![];
        for _ in 0..seconds {
            self.now += 1;
            let before = self.memory.wanted();
            let seen =
                Seen { load: Load(requests * 1000), is_complete: self.is_complete, ready: self.ready() };
            let decision = decide(&self.rule, &mut self.memory, &seen, Moment::from_millis(self.now * 1000));
            assert!((self.rule.least..=self.rule.max).contains(&decision.wanted), "{decision:?}");
            if decision.wanted != before {
                wanted.push(decision.wanted);
                self.ready.push_back((self.now + self.slow, decision.wanted));
            }
        }
        wanted
    }
}

#[test]
fn the_number_rises_quickly_and_in_bounded_steps() {
    let mut play = Play::new(2);
    assert_eq!(play.under(15, 120), NONE);
    assert_eq!(play.under(90, 1), [4], "at once, and not to nine");
    assert_eq!(play.under(90, 4), NONE, "the next step waits for what the last one brings");
    assert_eq!(play.under(90, 10), [8, 9]);
    assert_eq!(play.under(500, 60), [12], "the file's most");
    let seen = Seen { load: Load(500_000), is_complete: true, ready: 12 };
    let told = decide(&RULE, &mut play.memory, &seen, Moment::from_millis(play.now * 1000 + 1)).because;
    assert_eq!(
        told,
        "500.0 requests are under way, more than 10 for each of 12 instances, which are the most that the file allows"
    );
}

#[test]
fn a_step_up_waits_for_instances_that_do_not_get_ready_but_not_for_ever() {
    let mut play = Play::new(2);
    play.slow = 1_000_000;
    assert_eq!(play.under(90, 29), [4]);
    assert_eq!(play.under(90, 3), [8]);
}

#[test]
fn the_number_falls_only_when_fewer_have_been_enough_for_the_whole_cool_down() {
    let mut play = Play::new(2);
    play.under(75, 30);
    assert_eq!(play.memory.wanted(), 8);
    assert_eq!(play.under(5, 55), NONE);
    assert_eq!(play.under(75, 1), NONE, "one busy second begins it anew");
    assert_eq!(play.under(5, 60), NONE);
    assert_eq!(play.under(5, 1), [4], "half of them");
    assert_eq!(play.under(5, 59), NONE);
    assert_eq!(play.under(5, 60), [2]);
    assert_eq!(play.under(0, 600), NONE, "never below the least");
}

#[test]
fn a_load_at_the_border_changes_nothing_again_and_again() {
    let mut play = Play::new(2);
    let mut changes = vec![];
    for round in 0..100 {
        changes.extend(play.under(if round % 2 == 0 { 29 } else { 31 }, 20));
    }
    assert_eq!(changes, [3, 4]);
    assert_eq!(play.under(25, 600), NONE, "three would have less than a fifth to spare in all");
    assert_eq!(play.under(24, 600), [3]);
}

#[test]
fn none_is_ended_while_a_proxy_is_not_heard() {
    let mut play = Play::new(6);
    play.is_complete = false;
    assert_eq!(play.under(0, 600), NONE);
    assert_eq!(play.under(70, 600), [7], "but more are started");
    play.is_complete = true;
    assert_eq!(play.under(0, 60), NONE);
    assert_eq!(play.under(0, 2), [4]);
}

#[test]
fn a_new_leader_begins_with_what_is_placed_and_ends_nothing_before_it_has_seen_a_cool_down() {
    let mut play = Play::new(9);
    assert_eq!(play.under(0, 59), NONE);
    assert_eq!(play.under(0, 1), [5]);
    assert_eq!(Memory::new(&RULE, 0, Moment::default()).wanted(), 2, "nothing is placed yet");
    assert_eq!(Memory::new(&RULE, 50, Moment::default()).wanted(), 12);
    assert_eq!(Play::new(2).under(90, 1), [4], "a new leader rises at once");
}

#[test]
fn a_changed_file_holds_at_once() {
    let mut play = Play::new(9);
    play.rule.max = 5;
    assert_eq!(play.under(90, 10), [5]);
    (play.rule.least, play.rule.max) = (7, 20);
    assert_eq!(play.under(0, 1), [7]);
}

/// Whatever the load does: within the bounds, steps bounded, and no fall within a cool-down of the last change.
#[test]
fn no_load_whatever_makes_it_leave_its_bounds_or_flap() {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut play = Play::new(u32::try_from(draw(15)).unwrap());
        let (mut last, mut changed) = (play.memory.wanted(), play.now);
        for _ in 0..200 {
            play.is_complete = draw(20) > 0;
            let load = draw(160);
            for _ in 0..draw(20) {
                for wanted in play.under(load, 1) {
                    assert!(wanted <= last * 2 && wanted >= last.div_ceil(2), "{last} -> {wanted}");
                    assert!(
                        wanted > last || play.now - changed >= 60,
                        "it fell after {} s",
                        play.now - changed
                    );
                    (last, changed) = (wanted, play.now);
                }
            }
        }
    }
}
