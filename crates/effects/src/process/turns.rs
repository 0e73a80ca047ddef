//! How long a server waits for a processor: what an overcommitted machine does to everybody who has to run now.
//!
//! Told by the kernel's scheduler (`/proc/PID/schedstat`) of the server's own processes, so it knows weights and control
//! groups: compilers at the lowest priority do not count, as they do not slow the server down either.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What the processes of a server did since they were looked at last.
#[derive(Debug, Default)]
pub struct Turns {
    /// Nanoseconds run and waited by each process, since it was started.
    processes: BTreeMap<i32, (u64, u64)>,
}

impl Turns {
    /// For how long the process `parent` and its children ran, and waited for a processor although they had something to do,
    /// since the last call; nothing of a process that was not there then. Both are zero where the kernel keeps no such
    /// accounts, and where nobody had anything to do.
    pub fn since_last(&mut self, parent: i32) -> (Duration, Duration) {
        let now = accounts(parent);
        let (mut ran, mut waited) = (0, 0);
        for (id, (runs, waits)) in &now {
            if let Some((ran_before, waited_before)) = self.processes.get(id) {
                ran += runs.saturating_sub(*ran_before);
                waited += waits.saturating_sub(*waited_before);
            }
        }
        self.processes = now;
        (Duration::from_nanos(ran), Duration::from_nanos(waited))
    }
}

fn accounts(parent: i32) -> BTreeMap<i32, (u64, u64)> {
    // Without this file (CONFIG_PROC_CHILDREN) the parent alone has to tell.
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let ids = children.split_ascii_whitespace().filter_map(|id| id.parse().ok());
    ids.chain([parent])
        .filter_map(|id| {
            let text = fs::read_to_string(format!("/proc/{id}/schedstat")).ok()?;
            Some((id, parse(&text)?))
        })
        .collect()
}

/// `ran waited slices`, the first two in nanoseconds (`Documentation/scheduler/sched-stats.rst`).
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use rustix::process::Pid;

    use super::*;

    #[test]
    fn the_work_of_children_is_counted_once_and_sleep_is_not() {
        // It waits, and its child works; asked to end it ends its child as well, and unasked after 20 s.
        let spin = "while :; do :; done";
        let mut parent = Command::new("timeout").args(["20", "sh", "-c", spin]).spawn().unwrap();
        let id = i32::try_from(parent.id()).unwrap();
        let mut turns = Turns::default();
        while accounts(id).len() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        turns.since_last(id);
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
        let (ran, waited) = turns.since_last(id);
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), rustix::process::Signal::TERM).unwrap();
        parent.wait().unwrap();
        // Whatever else runs: who does nothing but work either runs or waits for its turn.
        assert!(ran + waited >= Duration::from_millis(60), "ran {ran:?}, waited {waited:?}");
        assert!(ran <= 2 * begun.elapsed(), "what was told already is not told again: {ran:?}");
        assert_eq!(turns.since_last(id), (Duration::ZERO, Duration::ZERO), "nobody works any more");
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(parse("1264325 75917 2\n"), Some((1_264_325, 75_917)));
        assert_eq!(parse(""), None);
    }
}
