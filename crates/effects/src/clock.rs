//! The two clocks: boot time for everything that is compared or waited for, wall time only for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::time::Moment;

use crate::sys;

/// Now on `CLOCK_BOOTTIME`, which is monotonic and counts through suspend (`clock_gettime(2)`).
pub fn now() -> Moment {
    let time = sys::boot_time();
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment::from_micros(seconds * 1_000_000 + nanos / 1000)
}

/// Time left until `deadline`; zero when it has passed.
pub fn remaining(deadline: Moment) -> Duration {
    deadline.since(now())
}

/// Wall clock, microseconds since the Unix epoch. It may jump: for display and logs only.
pub fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The id of this boot (`/proc/sys/kernel/random/boot_id`): a [`Moment`] or a process identity means nothing in another.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_agrees_with_proc_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let ours = now().as_micros() as f64 / 1e6;
        assert!((ours - seconds).abs() < 1.0, "clock says {ours} s, /proc/uptime says {seconds} s");
    }

    #[test]
    fn remaining_is_zero_after_the_deadline() {
        assert_eq!(remaining(now() - Duration::from_secs(1)), Duration::ZERO);
        assert!(remaining(now() + Duration::from_secs(9)) > Duration::from_secs(8));
    }
}
