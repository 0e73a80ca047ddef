//! All kinds of faults, mixed by a seed, while clients work and contenders hold leases.

use std::sync::Arc;
use std::time::Duration;

use checker::Verdict;
use model::NodeName;

use crate::clients::{Reads, Run, start, stop};
use crate::group::{Group, PATIENCE};
use crate::leases::{Tenures, Trust};
use crate::medium::Dice;
use crate::network::Link;

/// Faults in one storm.
const FAULTS: usize = 14;

struct Storm {
    group: Group,
    run: Arc<Run>,
    dice: Dice,
    /// What lines are like when nothing else is wrong with them.
    lines: Link,
}

impl Storm {
    fn millis(&mut self, from: u64, to: usize) -> Duration {
        Duration::from_millis(from + self.dice.below(to) as u64)
    }

    fn any(&mut self) -> NodeName {
        self.group.names[self.dice.below(self.group.names.len())].clone()
    }

    async fn wait(&mut self, from: u64, to: usize) {
        let pause = self.millis(from, to);
        tokio::time::sleep(pause).await;
    }

    fn heal(&self) {
        self.group.network.set_all(&self.group.names, self.lines);
    }

    async fn fault(&mut self) {
        match self.dice.below(9) {
            0 => self.power_loss(400).await,
            // So short that it is back before it is missed.
            1 => self.power_loss(30).await,
            2 => {
                let (all, pause) = (self.group.names.clone(), self.millis(0, 100));
                self.group.power_loss(&self.run, &all, pause).await;
            }
            3 => {
                let node = self.any();
                self.group.network.isolate(&node, true);
                self.wait(200, 900).await;
            }
            4 => self.cut_one_way().await,
            5 => self.ring().await,
            6 => self.stall().await,
            7 => {
                let to = self.any();
                // Refused when the lead is changing by itself, which serves the purpose as well.
                drop(
                    tokio::time::timeout(
                        Duration::from_millis(300),
                        self.group.node(&to).transfer_leadership(&to, PATIENCE),
                    )
                    .await,
                );
            }
            _ => self.weather().await,
        }
        self.heal();
        self.wait(0, 300).await;
    }

    async fn power_loss(&mut self, most: usize) {
        let (node, pause) = (self.any(), self.millis(0, most));
        self.group.power_loss(&self.run, &[node], pause).await;
    }

    async fn cut_one_way(&mut self) {
        let (from, to) = (self.any(), self.any());
        self.group.network.set(&from, &to, Link { cut: true, ..Link::default() });
        self.wait(200, 900).await;
    }

    /// Everybody hears only one neighbour: each sees a majority, and no two the same.
    async fn ring(&mut self) {
        let names = self.group.names.clone();
        for (at, from) in names.iter().enumerate() {
            let to = &names[(at + 1) % names.len()];
            self.group.network.set(from, to, Link { cut: true, ..Link::default() });
        }
        self.wait(200, 500).await;
    }

    /// Raft's thread does not run for a while, as on a frozen machine.
    async fn stall(&mut self) {
        let (node, pause) = (self.any(), self.millis(150, 800));
        self.group.node(&node).runtime().spawn(async move { std::thread::sleep(pause) });
        self.wait(100, 500).await;
    }

    /// From now on lines are good, or lose, double and shuffle messages.
    async fn weather(&mut self) {
        let bad = Link { jitter: Duration::from_millis(40), lost: 60, doubled: 200, ..Link::default() };
        self.lines = if self.lines.lost > 0 { Link::default() } else { bad };
        self.heal();
        self.wait(300, 500).await;
    }
}

/// What came of a storm, and of the leases in it.
struct Outcome {
    verdict: Verdict,
    overlap: Option<String>,
    violations: Vec<String>,
}

impl Outcome {
    fn of(name: &str, group: &Group, run: &Run, tenures: &Tenures) -> Self {
        let verdict = run.judge(name);
        let violations = group.network.referee().violations();
        Self { verdict, overlap: tenures.overlap(), violations }
    }
}

async fn storm(seed: u64) {
    let group = Group::unfounded_on_media(3, seed).await;
    group.found(&group.names).await;
    let (run, clients) = start(&group, Reads::Linearizable).await;
    let tenures = Tenures::default();
    tenures.contend(&run, 3, Trust::Lease);
    let mut storm = Storm { group, run, dice: Dice::new(seed), lines: Link::default() };
    for fault in 0..FAULTS {
        storm.fault().await;
        if fault % 4 == 3 {
            storm.run.progress(20).await;
        }
    }
    storm.lines = Link::default();
    storm.heal();
    storm.run.progress(60).await;
    let term = storm.group.node(&storm.group.leader().await).status().term;
    stop(&storm.run, clients).await;
    let outcome = Outcome::of(&format!("storm-{seed}.jsonl"), &storm.group, &storm.run, &tenures);
    println!("seed {seed}: term {term}, {} tenures, {:?} entries", tenures.count(), referee(&storm.group));
    assert_eq!(outcome.verdict, Verdict::Valid, "seed {seed}: {}", outcome.verdict);
    assert_eq!(outcome.overlap, None, "seed {seed}");
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    assert!(tenures.count() > 0, "seed {seed}: leases were held");
}

fn referee(group: &Group) -> (usize, usize) {
    group.network.referee().counts()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_seen_out_of_order_in_a_storm() {
    storm(1).await;
    storm(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_seen_out_of_order_in_another_storm() {
    storm(3).await;
    storm(4).await;
}

/// The control: disks that report a flush and keep everything in their cache are found when all lose power.
#[tokio::test(flavor = "multi_thread")]
async fn disks_that_lie_are_found() {
    let mut group = Group::unfounded_on_media(3, 1).await;
    group.found(&group.names).await;
    group.disks_lie();
    let (run, clients) = start(&group, Reads::Linearizable).await;
    let all = group.names.clone();
    let mut outcome = None;
    for _ in 0..5 {
        group.power_loss(&run, &all, Duration::ZERO).await;
        run.progress(60).await;
        let found = Outcome::of("lying-disks.jsonl", &group, &run, &Tenures::default());
        if matches!(found.verdict, Verdict::Violated(_)) && !found.violations.is_empty() {
            outcome = Some(found);
            break;
        }
    }
    stop(&run, clients).await;
    let outcome = outcome.expect("what was lost is missed by the clients, and by who listens to the nodes");
    println!("{}\n{}", outcome.verdict, outcome.violations[0]);
}

/// The control: contenders that rely on a lease for longer than it lasts are found to hold it at one instant.
#[tokio::test(flavor = "multi_thread")]
async fn holders_that_trust_too_long_are_found() {
    let group = Group::of(3).await;
    let (run, clients) = start(&group, Reads::Linearizable).await;
    let tenures = Tenures::default();
    tenures.contend(&run, 3, Trust::Longer(Duration::from_secs(10)));
    // A lease ends late, never early: on a busy machine much later.
    for _ in 0..800 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if tenures.overlap().is_some() {
            break;
        }
    }
    stop(&run, clients).await;
    println!("{}", tenures.overlap().expect("two at one instant"));
}
