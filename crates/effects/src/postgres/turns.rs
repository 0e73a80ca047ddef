//! Changes of a member's files in the order in which they were asked for.
//!
//! A change runs on a thread that may be abandoned while its volume hangs. Should it wake up later, it must not undo what
//! was asked for after it: a standby that has promised to follow nobody must not be told to follow by an old request.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Hands out turns and lets nobody in who comes after a later one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    asked: AtomicU64,
    /// The latest turn that was let in; locked while a change is under way.
    admitted: Mutex<u64>,
}

impl Turns {
    /// A turn, later than all before. Take it when the change is asked for, not when it is carried out.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Carries `change` out, alone, unless a later turn has been let in already. Blocks.
    pub(super) fn take<T>(&self, turn: u64, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if turn < *admitted {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "a later change has overtaken this one"));
        }
        *admitted = turn;
        change()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_comes_late_is_not_carried_out() {
        let turns = Turns::default();
        let (early, late) = (turns.ask(), turns.ask());
        assert_eq!(turns.take(late, || Ok("disconnected")).unwrap(), "disconnected");
        let error = turns.take(early, || Ok("connected")).unwrap_err();
        assert_eq!(error.to_string(), "a later change has overtaken this one");
        assert!(turns.take(turns.ask(), || Ok(())).is_ok());
    }
}
