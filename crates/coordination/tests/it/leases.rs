//! A lease that has a holder has one: contenders for one key, each relying on its lease for as long as it may.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordination::{Coordinator, Error, HeldLease, LeaseId, Revision, Txn, TxnOutcome};
use model::NodeName;
use tokio::time::Instant;

use crate::clients::{Run, WITHIN};
use crate::group::{Group, PATIENCE};
use crate::medium::Dice;
use crate::network::Link;

const TTL: Duration = Duration::from_millis(500);
const KEY: &str = "holder";

/// A time in which somebody relied on holding the key.
#[derive(Clone, Debug)]
struct Tenure {
    contender: u32,
    from: Instant,
    until: Instant,
}

/// All such times.
#[derive(Clone, Default)]
pub(crate) struct Tenures(Arc<Mutex<Vec<Tenure>>>);

/// How contenders judge their leases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// As the product does.
    Lease,
    /// The control: without renewals, and for longer than the lease lasts.
    Longer(Duration),
}

impl Tenures {
    /// Sets contenders to work until the run ends.
    pub(crate) fn contend(&self, run: &Arc<Run>, contenders: u32, trust: Trust) {
        for contender in 0..contenders {
            tokio::spawn(contend(run.clone(), self.clone(), contender, trust));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Two contenders that relied on holding the key at one instant.
    pub(crate) fn overlap(&self) -> Option<String> {
        let mut tenures = self.0.lock().unwrap().clone();
        tenures.sort_by_key(|tenure| tenure.from);
        let pair = tenures.windows(2).find(|pair| pair[1].from <= pair[0].until)?;
        let [one, other] = [&pair[0], &pair[1]];
        let by = one.until - other.from;
        Some(format!("{} still held for {by:?} when {} held already", one.contender, other.contender))
    }
}

async fn contend(run: Arc<Run>, tenures: Tenures, contender: u32, trust: Trust) {
    let mut dice = Dice::new(1_000 + u64::from(contender));
    while !run.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5 + dice.below(20) as u64)).await;
        let Some((node, _)) = run.pick(&mut dice) else { continue };
        let Ok(held) = HeldLease::grant(node.clone(), TTL, WITHIN).await else { continue };
        let take = Txn::new().compare(KEY, Revision(0)).put_leased(KEY, contender.to_string(), held.id());
        if let Ok(TxnOutcome::Committed(_)) = node.txn(take, WITHIN).await {
            hold(&tenures, contender, held, trust, 50 + 100 * dice.below(6) as u64).await;
        } else {
            let _ = node.revoke_lease(held.id(), WITHIN).await;
        }
    }
}

/// Relies on the key until the lease ends or enough time has passed, and then lets it run out.
async fn hold(tenures: &Tenures, contender: u32, held: HeldLease, trust: Trust, millis: u64) {
    let from = Instant::now();
    let place = {
        let mut tenures = tenures.0.lock().unwrap();
        tenures.push(Tenure { contender, from, until: from });
        tenures.len() - 1
    };
    let (held, most) = match trust {
        Trust::Lease => (Some(held), Duration::from_millis(millis)),
        Trust::Longer(by) => {
            // Nobody renews it any more.
            drop(held);
            (None, by)
        }
    };
    loop {
        let now = Instant::now();
        if now > from + most || held.as_ref().is_some_and(|held| !held.is_valid()) {
            return;
        }
        tenures.0.lock().unwrap()[place].until = now;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A voter that has just restarted remembers no leader's lease and may elect another one at once. The old leader, which
/// has not noticed, must not go on renewing leases that the new one has already ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_renews_nothing() {
    let mut overtaken = 0;
    for _ in 0..3 {
        // Slow elections, so that even on a busy machine a restart is short against the old leader's own lease.
        let mut group = Group::slow(3, 6).await;
        let old = group.leader().await;
        let (next, between) = (group.others(&old)[0].clone(), group.others(&old)[1].clone());
        let lease = group.store(&old).grant_lease(Duration::from_secs(60), PATIENCE).await.unwrap();
        both(&group, &old, &next, Link { cut: true, ..Link::default() });
        // It gives up its leader, and asks `between` again and again, which still hears that leader.
        tokio::time::sleep(Duration::from_millis(5000)).await;
        group.kill(&between).await;
        group.start(&between).await;
        both(&group, &between, &next, Link::default());
        overtaken += usize::from(renews_after_the_end(&group, &old, &next, lease).await);
    }
    assert_eq!(overtaken, 0, "a lease was renewed after its end");
}

fn both(group: &Group, one: &NodeName, other: &NodeName, link: Link) {
    group.network.set(one, other, link);
    group.network.set(other, one, link);
}

/// Ends a lease at the new leader as soon as there is one, and asks the old one to renew it.
async fn renews_after_the_end(group: &Group, old: &NodeName, next: &NodeName, lease: LeaseId) -> bool {
    group.store(next).revoke_lease(lease, 4 * PATIENCE).await.unwrap();
    let renewed = group.store(old).keep_alive(lease, Duration::from_millis(300)).await;
    println!("{renewed:?}");
    match renewed {
        Ok(_) => true,
        Err(Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::LeaseEnded(_)) => false,
        Err(error) => panic!("{error}"),
    }
}
