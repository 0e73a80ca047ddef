//! The processor time of a process whose few milliseconds decide how long a failover takes.

use std::io;

/// How much more than others, as a nice value (sched(7), "The autogroup feature").
const NICE: &str = "-10";

/// Lets this process's session go before the programs it supervises when the processor is scarce.
///
/// By the session's autogroup and not by `nice`, because everything that is started would inherit the latter: servers
/// and services run in sessions of their own and keep the normal share.
///
/// # Errors
/// When the kernel has no autogroups, or does not permit it (`CAP_SYS_NICE`); nothing depends on it but speed under load.
pub fn go_first() -> io::Result<()> {
    std::fs::write("/proc/self/autogroup", NICE)
}
