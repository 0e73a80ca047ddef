//! The clock that Raft lives by: on a slow network it runs slower than the world's.
//!
//! openraft takes its times once, at the start, and gives a heartbeat one interval to come back. Where a round trip takes
//! longer than that, a leader believes after a while that nobody answers it and refuses writes and reads, although all
//! of them do. So the times stay as they are, and what they are measured with follows the network: at double slowness
//! every wait, deadline and lease of Raft lasts twice as long, from now on and without a restart.
//!
//! Raft's safety rests on no clock, and two nodes may be of different slowness: nothing here reads through the leader's
//! lease.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use tokio::time::Instant;

/// How many times slower than the world a clock runs, in percent: 100 is as fast.
pub(crate) type Slowness = u32;

/// A clock as fast as the world's.
pub(crate) const FULL_SPEED: Slowness = 100;

thread_local! {
    /// Raft's functions of time take no argument that could say whose clock is meant; each node has its own thread.
    static OF_THIS_THREAD: Arc<Pace> = Arc::new(Pace::new());
}

/// One node's clock.
pub(crate) struct Pace(Mutex<Run>);

/// Since when the clock runs as it does.
#[derive(Clone, Copy)]
struct Run {
    since: Instant,
    /// What it showed then.
    showed: RaftInstant,
    slowness: Slowness,
}

/// A moment by Raft's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RaftInstant(Instant);

impl Pace {
    fn new() -> Self {
        let since = Instant::now();
        Self(Mutex::new(Run { since, showed: RaftInstant(since), slowness: FULL_SPEED }))
    }

    /// The clock of what runs in this thread. Where no node of ours runs, it is as fast as the world.
    pub(crate) fn of_this_thread() -> Arc<Self> {
        OF_THIS_THREAD.with(Arc::clone)
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the clock shows.
    pub(crate) fn now(&self) -> RaftInstant {
        self.run().at(Instant::now())
    }

    /// How slow it is.
    pub(crate) fn slowness(&self) -> Slowness {
        self.run().slowness
    }

    /// Lets it run so slow from now on; it never jumps.
    pub(crate) fn set(&self, slowness: Slowness) {
        let mut run = self.run();
        let since = Instant::now();
        *run = Run { since, showed: run.at(since), slowness: slowness.max(1) };
    }

    /// How long a time of Raft's lasts in the world.
    pub(crate) fn lasts(&self, raft: Duration) -> Duration {
        raft.saturating_mul(self.slowness()) / FULL_SPEED
    }

    /// How long ago a moment was, by this clock.
    pub(crate) fn since(&self, moment: RaftInstant) -> Duration {
        self.now().0.saturating_duration_since(moment.0)
    }

    /// When this clock will show `moment`.
    fn world(&self, moment: RaftInstant) -> Instant {
        Instant::now() + self.lasts(moment.0.saturating_duration_since(self.now().0))
    }
}

impl Run {
    fn at(&self, now: Instant) -> RaftInstant {
        let passed = now.saturating_duration_since(self.since);
        RaftInstant(self.showed.0 + passed.saturating_mul(FULL_SPEED) / self.slowness)
    }
}

impl openraft::Instant for RaftInstant {
    fn now() -> Self {
        OF_THIS_THREAD.with(|pace| pace.now())
    }
}

impl Add<Duration> for RaftInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for RaftInstant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for RaftInstant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl Sub<Self> for RaftInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for RaftInstant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

/// tokio, with the time of the thread's [`Pace`].
pub(crate) struct PacedRuntime(TokioRuntime);

impl fmt::Debug for PacedRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacedRuntime")
    }
}

impl AsyncRuntime for PacedRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = RaftInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(OF_THIS_THREAD.with(|pace| pace.lasts(duration)))
    }

    fn sleep_until(deadline: RaftInstant) -> Self::Sleep {
        tokio::time::sleep_until(OF_THIS_THREAD.with(|pace| pace.world(deadline)))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(OF_THIS_THREAD.with(|pace| pace.lasts(duration)), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: RaftInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(OF_THIS_THREAD.with(|pace| pace.world(deadline)), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_clock_stretches_what_comes_and_never_jumps() {
        let since = Instant::now();
        let slow = Run { since, showed: RaftInstant(since), slowness: 250 };
        assert_eq!(slow.at(since), RaftInstant(since));
        assert_eq!(slow.at(since + 5 * SECOND), RaftInstant(since + 2 * SECOND));
        let pace = Pace(Mutex::new(slow));
        let before = pace.now();
        pace.set(FULL_SPEED);
        assert!(pace.now() >= before && pace.since(before) < SECOND / 2);
        assert_eq!((pace.lasts(SECOND), pace.slowness()), (SECOND, FULL_SPEED));
    }

    #[tokio::test]
    async fn sleeps_and_deadlines_are_those_of_the_slow_clock() {
        const SHORT: Duration = Duration::from_millis(20);
        let pace = Pace::of_this_thread();
        pace.set(500);
        let never = std::future::pending::<()>;
        let begin = Instant::now();
        PacedRuntime::sleep(SHORT).await;
        assert!(begin.elapsed() >= 5 * SHORT);
        PacedRuntime::sleep_until(pace.now() + SHORT).await;
        assert!(begin.elapsed() >= 10 * SHORT);
        assert!(PacedRuntime::timeout(SHORT, never()).await.is_err());
        assert!(begin.elapsed() >= 15 * SHORT);
        assert!(PacedRuntime::timeout_at(pace.now() + SHORT, never()).await.is_err());
        assert!(begin.elapsed() >= 20 * SHORT);
    }
}
