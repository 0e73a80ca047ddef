//! Connections that wait for their clients: when there are too many, the longest unused ones go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::time::Moment;
use tokio::sync::Notify;

use crate::clock;

/// How many are sent away at once: a flood is not worth a look at all connections for each of its own.
const AT_ONCE: usize = 64;

/// Connections of one kind.
#[derive(Debug)]
pub(crate) struct Crowd {
    limit: usize,
    next: AtomicU64,
    members: Mutex<HashMap<u64, Arc<Member>>>,
}

/// One connection.
#[derive(Debug)]
struct Member {
    /// Requests under way.
    busy: AtomicU32,
    /// When the last one ended, or the connection came; in microseconds.
    since: AtomicU64,
    evicted: Notify,
}

/// A connection's place in the crowd, left when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    member: Arc<Member>,
}

/// A request under way; as long as it lives, its connection is not sent away.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Member>);

impl Crowd {
    /// At most `limit` connections.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, next: AtomicU64::new(0), members: Mutex::default() })
    }

    /// Takes a connection in; beyond the limit others go.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = AtomicU64::new(clock::now().as_micros());
        let member = Arc::new(Member { busy: AtomicU32::new(0), since, evicted: Notify::new() });
        let mut members = self.lock();
        members.insert(number, member.clone());
        if members.len() > self.limit {
            send_away(&mut members, number);
        }
        drop(members);
        Place { crowd: self.clone(), number, member }
    }

    /// Sends some of the longest unused away; whether there were any.
    pub(crate) fn make_room(&self) -> bool {
        send_away(&mut self.lock(), u64::MAX)
    }

    /// How many are in it.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_away(members: &mut HashMap<u64, Arc<Member>>, but: u64) -> bool {
    let unused = |(number, member): (&u64, &Arc<Member>)| {
        let idle = *number != but && member.busy.load(Ordering::Relaxed) == 0;
        idle.then(|| (member.since.load(Ordering::Relaxed), *number))
    };
    let mut unused: Vec<_> = members.iter().filter_map(unused).collect();
    // At least an eighth stays for each look, so that a handful of newcomers does not empty a small crowd.
    let count = AT_ONCE.min(unused.len().div_ceil(8));
    if count > 0 && count < unused.len() {
        unused.select_nth_unstable(count);
    }
    for (_, number) in unused.iter().take(count) {
        if let Some(member) = members.remove(number) {
            member.evicted.notify_one();
        }
    }
    count > 0
}

impl Place {
    /// Returns when the connection has to go.
    pub(crate) async fn evicted(&self) {
        self.member.evicted.notified().await;
    }

    /// Makes the connection go, whatever is under way.
    pub(crate) fn evict(&self) {
        self.member.evicted.notify_one();
    }

    /// A request begins.
    pub(crate) fn busy(&self) -> Busy {
        self.member.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.member.clone())
    }

    /// How long no request has been under way.
    pub(crate) fn unused_for(&self) -> Duration {
        if self.member.busy.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        clock::now().since(Moment::from_micros(self.member.since.load(Ordering::Relaxed)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.since.store(clock::now().as_micros(), Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_the_busy_stay() {
        let crowd = Crowd::new(3);
        let places: Vec<Place> = (0..3).map(|_| crowd.enter()).collect();
        let busy = places[0].busy();
        assert_eq!(places[0].unused_for(), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        drop(places[1].busy());
        let _fourth = crowd.enter();
        places[2].evicted().await;
        let _fifth = crowd.enter();
        let _sixth = crowd.enter();
        places[1].evicted().await;
        drop(busy);
        (0..3).for_each(|_| assert!(crowd.make_room()));
        places[0].evicted().await;
        assert!(!Crowd::new(1).make_room(), "nobody is there");
    }
}
