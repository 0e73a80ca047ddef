//! Voters come and go while nodes die, are cut off and the lead changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checker::Verdict;
use coordination::{Error, Txn};
use model::NodeName;

use crate::clients::{Reads, Run, start, stop};
use crate::group::{Group, PATIENCE};
use crate::medium::Dice;

/// How long one step of a change may take before it is asked for again.
const STEP: Duration = Duration::from_millis(1500);

/// A leader dies as soon as two sets of voters are in force; nobody asks for the change again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_left_half_way_is_finished_or_undone_by_the_next_leader() {
    for round in 0..4 {
        let mut group = Group::unfounded_on_media(4, round).await;
        let (old, new) = (group.names[..3].to_vec(), group.names[3].clone());
        group.found(&old).await;
        let leader = group.leader().await;
        group.node(&leader).add_learner(&new, PATIENCE).await.unwrap();
        let (node, promoted) = (group.node(&leader).clone(), new.clone());
        let change = tokio::spawn(async move { node.promote_to_voter(&promoted, PATIENCE).await });
        while group.network.referee().take_joint().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(5 * round)).await;
        group.kill(&leader).await;
        change.abort();
        let next = settled(&group, &leader).await;
        let voters = group.node(&next).status().voters;
        let undone: BTreeSet<NodeName> = old.into_iter().collect();
        let finished: BTreeSet<NodeName> = group.names.iter().cloned().collect();
        println!("round {round}: {}", if voters == undone { "undone" } else { "finished" });
        assert!(voters == undone || voters == finished, "{voters:?}");
        group.put(&next, "key", "1").await;
        assert_eq!(group.network.referee().violations(), Vec::<String>::new());
    }
}

/// A node other than the dead one that leads one set of voters only.
async fn settled(group: &Group, dead: &NodeName) -> NodeName {
    let since = Instant::now();
    loop {
        for name in group.others(dead) {
            let status = group.node(&name).status();
            let led = status.leader.as_ref() == Some(&name);
            if led && !status.changing && group.store(&name).get("founded", STEP).await.is_ok() {
                return name;
            }
        }
        let all: Vec<_> = group.others(dead).iter().map(|name| group.node(name).status()).collect();
        assert!(since.elapsed() < 4 * PATIENCE, "the change is still half-way: {all:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Changes {
    group: Group,
    run: Arc<Run>,
    dice: Dice,
    /// Removed for good: to come back they need an empty store.
    removed: BTreeSet<NodeName>,
}

impl Changes {
    fn any(&mut self) -> NodeName {
        self.group.names[self.dice.below(self.group.names.len())].clone()
    }

    /// A node dies or is cut off, the lead changes, or nothing happens.
    async fn fault(&mut self) {
        let node = self.any();
        match self.dice.below(4) {
            0 => self.group.power_loss(&self.run, &[node], Duration::from_millis(100)).await,
            1 => {
                self.group.network.isolate(&node, true);
                tokio::time::sleep(Duration::from_millis(300 + self.dice.below(500) as u64)).await;
                self.group.network.isolate(&node, false);
            }
            2 => drop(self.group.node(&node).transfer_leadership(&node, Duration::from_millis(300)).await),
            _ => {}
        }
    }

    /// Brings the voters to these, through whichever node; every step may fail and is then done again.
    async fn change_to(&mut self, wanted: &BTreeSet<NodeName>, faults: bool) {
        let since = Instant::now();
        loop {
            let node = self.any();
            let done = self.steps(&node, wanted);
            if done.await {
                return;
            }
            assert!(since.elapsed() < 10 * PATIENCE, "{wanted:?}: {:#?}", self.group.node(&node).status());
            if faults {
                self.fault().await;
            }
        }
    }

    async fn steps(&mut self, node: &NodeName, wanted: &BTreeSet<NodeName>) -> bool {
        for name in wanted {
            if self.removed.remove(name) {
                self.run.close(name);
                self.group.kill(name).await;
                self.group.wipe(name);
                self.group.restart(name).await;
                self.run.open(name, self.group.node(name));
            }
        }
        let asked = self.group.node(node).clone();
        for name in wanted {
            if failed(asked.add_learner(name, STEP).await) || failed(asked.promote_to_voter(name, STEP).await)
            {
                return false;
            }
        }
        for name in self.group.names.clone() {
            if !wanted.contains(&name) {
                self.removed.insert(name.clone());
                if failed(asked.remove(&name, STEP).await) {
                    return false;
                }
            }
        }
        true
    }
}

fn failed(result: Result<(), Error>) -> bool {
    if let Err(error) = &result {
        println!("again, because: {error}");
    }
    result.is_err()
}

async fn voters_change(seed: u64) {
    let group = Group::unfounded_on_media(5, seed).await;
    group.found(&group.names[..3]).await;
    let (run, clients) = start(&group, Reads::Linearizable).await;
    let mut changes = Changes { group, run, dice: Dice::new(seed), removed: BTreeSet::new() };
    for _ in 0..4 {
        let first = changes.dice.below(5);
        let wanted: BTreeSet<NodeName> =
            (first..first + 3).map(|at| changes.group.names[at % 5].clone()).collect();
        let fault = changes.fault();
        fault.await;
        changes.change_to(&wanted, true).await;
        println!("seed {seed}: {wanted:?}");
    }
    let last: BTreeSet<NodeName> = changes.group.names[..3].iter().cloned().collect();
    changes.change_to(&last, false).await;
    changes.run.progress(30).await;
    let Changes { group, run, .. } = changes;
    stop(&run, clients).await;
    let asked = group.names[0].clone();
    group.store(&asked).txn(Txn::new().put("last", "1"), PATIENCE).await.unwrap();
    let (entries, memberships) = group.network.referee().counts();
    println!("seed {seed}: {entries} entries seen, {memberships} of them changed the membership");
    assert!(memberships >= 4, "seed {seed}: {memberships}");
    assert_eq!(group.node(&asked).status().voters, last);
    let verdict = run.judge(&format!("membership-{seed}.jsonl"));
    assert_eq!(verdict, Verdict::Valid, "seed {seed}: {verdict}");
    assert_eq!(group.network.referee().violations(), Vec::<String>::new(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_change_under_faults() {
    voters_change(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_change_under_other_faults() {
    voters_change(2).await;
}
