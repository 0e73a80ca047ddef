//! Threads that may hang: work that touches a disk which may never answer runs on one and is abandoned at its deadline.
//!
//! Tokio's blocking pool is the wrong place for such work: a thread in D state would hold a pool slot for ever and
//! would keep the runtime from shutting down.
//!
//! A thread in D state outlives a kill of the agent and keeps all its descriptors open, locks and listeners included: so
//! threads are for the agent's own volume, and a database's volume is touched in a child process
//! ([`crate::process::run_tool`]).

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// The work did not end in time; its thread was left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not end within {after:?} and was abandoned")]
pub struct Abandoned {
    /// What was being done.
    pub what: String,
    /// How long it was waited for.
    pub after: Duration,
}

/// Runs `work` on a thread of its own. The result comes on the receiver, which may be dropped at any time.
///
/// `work` does not learn of that: where a late result must be undone, it needs a check of its own. The thread inherits
/// the caller's network namespace and is inside its runtime, if there is one.
///
/// # Errors
/// When the system gives no more threads.
pub fn start<T, F>(what: &str, work: F) -> std::io::Result<oneshot::Receiver<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Handle::try_current().ok();
    let run = move || {
        let _inside = runtime.as_ref().map(tokio::runtime::Handle::enter);
        // The receiver is gone when the caller gave up: nobody wants the result.
        let _ = sender.send(work());
    };
    // A thread's name holds at most 15 bytes (prctl(2), PR_SET_NAME).
    thread::Builder::new().name(what.chars().take(15).collect()).spawn(run)?;
    Ok(receiver)
}

/// Runs `work` on a thread of its own and waits at most `deadline` for it.
///
/// # Errors
/// [`Abandoned`] when it did not end in time (or panicked, or no thread could be had).
pub async fn run<T, F>(what: &str, deadline: Duration, work: F) -> Result<T, Abandoned>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let abandoned = || Abandoned { what: what.to_owned(), after: deadline };
    let receiver = start(what, work).map_err(|_| abandoned())?;
    match tokio::time::timeout(deadline, receiver).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) | Err(_) => Err(abandoned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_result_in_time_is_returned_and_a_late_one_abandoned() {
        assert_eq!(run("quick", Duration::from_secs(5), || 7).await, Ok(7));
        let hang = || thread::sleep(Duration::from_secs(2));
        let late = run("hang", Duration::from_millis(30), hang).await.unwrap_err();
        assert_eq!(late.to_string(), "hang did not end within 30ms and was abandoned");
    }
}
