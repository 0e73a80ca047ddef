//! Whether almost all of a processor is withheld from a server: by the quota of a control group, or by the hypervisor of a
//! virtual machine. That is no load of its own, which would come along to whoever takes its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who may have less than this part of one processor gets next to nothing done.
const LITTLE: f64 = 0.2;
/// So many looks at a quota, at the least, the kernel must have had between two of ours.
const FEWEST_PERIODS: u64 = 3;
/// How much time, at the least, must be between two looks at the machine: it counts in hundredths of a second.
const SHORTEST_LOOK: Duration = Duration::from_millis(500);
/// The ticks of `/proc/stat` in a second (`USER_HZ`, 100 on every architecture that we build for).
const TICKS: f64 = 100.0;

/// What was seen of who withholds a processor.
#[derive(Debug, Default)]
pub struct Withheld {
    /// By control group with a small quota.
    quotas: BTreeMap<PathBuf, Quota>,
    /// Where hierarchies of control groups are mounted, once that was asked.
    mounts: Option<String>,
    machine: Option<(Instant, Machine)>,
    stolen: bool,
}

/// What the kernel has counted for a quota, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    periods: u64,
    throttled: u64,
    is_felt: bool,
}

/// What the machine's processors did since its start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    worked: u64,
    stolen: u64,
}

impl Withheld {
    /// Whether the process `pid` is kept from running most of the time, and gets less than a fifth of one processor. Compares
    /// with the call before, so the first one knows nothing.
    pub fn look(&mut self, pid: i32) -> bool {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts =
            self.mounts.get_or_insert_with(|| fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let mut seen = BTreeMap::new();
        for group in places(&groups, mounts) {
            if let Some(counted) = small_quota(&group) {
                let before = self.quotas.get(&group).copied();
                seen.insert(group, before.map_or(counted, |before| before.followed_by(counted)));
            }
        }
        self.quotas = seen;
        self.look_at_machine();
        self.stolen || self.quotas.values().any(|quota| quota.is_felt)
    }

    fn look_at_machine(&mut self) {
        let at = Instant::now();
        if self.machine.is_some_and(|(since, _)| at - since < SHORTEST_LOOK) {
            return;
        }
        let now = fs::read_to_string("/proc/stat").ok().and_then(|text| Machine::parse(&text));
        let Some(now) = now else { return };
        self.stolen = self.machine.is_some_and(|(since, before)| now.is_starved_since(before, at - since));
        self.machine = Some((at, now));
    }
}

impl Quota {
    fn followed_by(self, now: Self) -> Self {
        let periods = now.periods.saturating_sub(self.periods);
        if periods < FEWEST_PERIODS {
            return self;
        }
        Self { is_felt: 2 * now.throttled.saturating_sub(self.throttled) >= periods, ..now }
    }
}

impl Machine {
    /// The line `cpu` of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        match ticks[..] {
            [user, nice, system, _, _, irq, softirq, stolen, ..] => {
                Some(Self { worked: user + nice + system + irq + softirq, stolen })
            }
            _ => None,
        }
    }

    fn is_starved_since(self, before: Self, time: Duration) -> bool {
        let processors = |now: u64, before: u64| {
            f64::from(u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX))
                / TICKS
                / time.as_secs_f64()
        };
        let (worked, stolen) =
            (processors(self.worked, before.worked), processors(self.stolen, before.stolen));
        worked < LITTLE && stolen > 0.5 && stolen > worked
    }
}

/// The directories of the control groups that a process is in, upwards to the root of each hierarchy that gives out processor
/// time, from `/proc/PID/cgroup` and `/proc/self/mountinfo` (cgroups(7)). Nothing where none is mounted.
fn places(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let Some(root) = mounted(mounts, is_v2) else { continue };
        let below = Path::new(group.trim_start_matches('/'));
        places.extend(below.ancestors().filter(|part| *part != Path::new("")).map(|part| root.join(part)));
    }
    places
}

fn mounted(mounts: &str, is_v2: bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next()?;
        let is_ours = match is_v2 {
            true => kind == "cgroup2",
            false => kind == "cgroup" && right.nth(1)?.split(',').any(|option| option == "cpu"),
        };
        is_ours.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// What the kernel has counted for a group that may have less than [`LITTLE`] of a processor.
fn small_quota(group: &Path) -> Option<Quota> {
    let number =
        |file: &str| -> Option<f64> { fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() };
    let part = match fs::read_to_string(group.join("cpu.max")) {
        Ok(text) => share(&text)?,
        Err(_) => number("cpu.cfs_quota_us").filter(|quota| *quota > 0.0)? / number("cpu.cfs_period_us")?,
    };
    (part < LITTLE).then(|| counted(&fs::read_to_string(group.join("cpu.stat")).unwrap_or_default()))
}

/// `QUOTA PERIOD` of `cpu.max` as a part of one processor; nothing for `max`.
fn share(text: &str) -> Option<f64> {
    let mut fields = text.split_ascii_whitespace();
    let (quota, period): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(quota / period)
}

fn counted(stat: &str) -> Quota {
    let number = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Quota { periods: number("nr_periods"), throttled: number("nr_throttled"), is_felt: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n";
    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_groups_of_a_process_are_found_in_either_hierarchy() {
        let v1 = places("4:memory:/a\n2:cpuacct:/a\n1:cpu:/a/b\n0::/c\n", V1);
        assert_eq!(v1, ["/sys/fs/cgroup/cpu/a/b", "/sys/fs/cgroup/cpu/a"].map(PathBuf::from));
        let v2 = places("0::/system.slice/mainstay.service\n", V2);
        assert_eq!(
            v2,
            ["/sys/fs/cgroup/system.slice/mainstay.service", "/sys/fs/cgroup/system.slice"]
                .map(PathBuf::from)
        );
        assert!(places("1:cpu:/\n", V1).is_empty(), "nobody limits the root");
        assert!(places("nonsense", V2).is_empty() && places("0::/a", "").is_empty());
    }

    #[test]
    fn a_small_quota_counts_while_it_is_felt() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        let now = |periods: u64, throttled: u64| {
            write("cpu.stat", &format!("usage_usec 5\nnr_periods {periods}\nnr_throttled {throttled}\n"));
            small_quota(directory.path())
        };
        write("cpu.max", "5000 100000\n");
        let begun = now(100, 90).unwrap();
        assert!(!begun.is_felt, "what was before is not known");
        assert!(!begun.followed_by(now(102, 92).unwrap()).is_felt, "too early to tell");
        let felt = begun.followed_by(now(104, 92).unwrap());
        assert!(felt.is_felt);
        assert!(felt.followed_by(now(105, 92).unwrap()).is_felt, "too early to tell anything else");
        assert!(!felt.followed_by(now(108, 93).unwrap()).is_felt);
        for enough in ["max 100000\n", "50000 100000\n", "what\n"] {
            write("cpu.max", enough);
            assert!(now(9, 9).is_none(), "{enough}");
        }
        fs::remove_file(directory.path().join("cpu.max")).unwrap();
        assert!(now(9, 9).is_none(), "a group without a quota");
        write("cpu.cfs_period_us", "100000\n");
        for (quota, is_small) in [("-1", false), ("200000", false), ("5000", true)] {
            write("cpu.cfs_quota_us", quota);
            assert_eq!(now(9, 9).is_some(), is_small, "{quota}");
        }
    }

    #[test]
    fn a_virtual_machine_whose_time_is_stolen_is_starved_and_a_busy_or_idle_one_is_not() {
        let machine = |worked: u64, stolen: u64| Machine { worked, stolen };
        assert_eq!(Machine::parse("cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1"), Some(machine(19, 8)));
        assert_eq!(Machine::parse("cpu  1 2"), None);
        let starved = |worked: u64, stolen: u64| {
            machine(1000 + worked, 50 + stolen).is_starved_since(machine(1000, 50), Duration::from_secs(1))
        };
        assert!(starved(5, 95));
        assert!(!starved(0, 0) && !starved(50, 150) && !starved(200, 0) && !starved(5, 20));
    }

    #[test]
    fn this_process_may_run() {
        let mut withheld = Withheld::default();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(!withheld.look(pid));
    }
}
