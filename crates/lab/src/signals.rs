//! Signals that are blocked and taken one by one.

use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset then changes it; the numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Keeps these signals from interrupting this thread: they wait for [`next`].
pub(crate) fn block(signals: &[libc::c_int]) {
    let set = set_of(signals);
    // SAFETY: the set is initialised and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// Lets every signal through.
pub(crate) fn unblock() {
    let none = set_of(&[]);
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}

/// The next of these signals, or `None` after the time.
pub(crate) fn next(signals: &[libc::c_int], patience: Duration) -> Option<libc::c_int> {
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let time = libc::timespec { tv_sec: seconds, tv_nsec: i64::from(patience.subsec_nanos()) };
    let set = set_of(signals);
    // SAFETY: the set and the time are initialised; details of the signal are not asked for.
    let signal = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const time) };
    (signal > 0).then_some(signal)
}
