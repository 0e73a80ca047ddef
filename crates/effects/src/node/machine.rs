//! The machine: kernel, processors, memory, load, rights, control groups. All read from `/proc` and `/sys`, which never
//! touch a disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

/// What does not change while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Whether we run as root.
    pub root: bool,
    /// The kernel's release, e.g. `6.1.0-18-amd64`.
    pub kernel: String,
    /// Processors that we may use.
    pub processors: usize,
    /// Which control groups we can make.
    pub cgroups: Cgroups,
}

/// Which control groups (cgroups(7)) can be made for what we run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cgroups")]
pub enum Cgroups {
    /// The unified hierarchy (version 2), and we may make groups in ours.
    Unified,
    /// Separate hierarchies (version 1), and we may make groups at least for freezing.
    Separate,
    /// None that we may use.
    Missing {
        /// Why not.
        because: String,
    },
}

/// Memory of the node in bytes (`proc(5)`, `/proc/meminfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All there is.
    pub total_bytes: u64,
    /// What programs can still get without swapping.
    pub available_bytes: u64,
}

/// How many processes wanted to run on average, in hundredths (`/proc/loadavg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Over one minute.
    pub one_minute: u32,
    /// Over five minutes.
    pub five_minutes: u32,
}

impl NodeFacts {
    /// Looks at the machine.
    pub fn read() -> Self {
        Self {
            root: rustix::process::geteuid().is_root(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            cgroups: Cgroups::read(Path::new("/sys/fs/cgroup"), &own_groups()),
        }
    }
}

impl Cgroups {
    /// Judges by the mounted hierarchies and by our own groups as in `/proc/self/cgroup`.
    fn read(mounted: &Path, own: &str) -> Self {
        let group_of = |controller: &str| {
            let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
            Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned())
        };
        if mounted.join("cgroup.controllers").exists() {
            let group = group_of("").unwrap_or_default();
            return Self::judge(&mounted.join(group), Self::Unified);
        }
        match group_of("freezer") {
            Some(group) => Self::judge(&mounted.join("freezer").join(group), Self::Separate),
            None => {
                Self::Missing { because: format!("no control groups are mounted on {}", mounted.display()) }
            }
        }
    }

    fn judge(group: &Path, usable: Self) -> Self {
        match access(group, Access::WRITE_OK) {
            Ok(()) => usable,
            Err(error) => Self::Missing { because: format!("{} is not writable: {error}", group.display()) },
        }
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unified => f.write_str("control groups version 2"),
            Self::Separate => f.write_str("control groups version 1"),
            Self::Missing { because } => write!(f, "no control groups: {because}"),
        }
    }
}

impl Memory {
    /// Reads it now.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        Self::parse(&text).ok_or_else(|| io::Error::other("/proc/meminfo lacks MemTotal or MemAvailable"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
    }
}

impl Load {
    /// Reads it now.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/loadavg")?;
        Self::parse(&text).ok_or_else(|| io::Error::other("/proc/loadavg is not understood"))
    }

    /// The kernel prints exactly two decimals.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(|word| word.replace('.', "").parse::<u32>().ok());
        Some(Self { one_minute: words.next()??, five_minutes: words.next()?? })
    }
}

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let facts = NodeFacts::read();
        assert!(
            facts.kernel.split('.').next().is_some_and(|major| major.parse::<u32>().is_ok()),
            "{}",
            facts.kernel
        );
        assert!(facts.processors >= 1);
        let memory = Memory::read().unwrap();
        assert!(memory.available_bytes <= memory.total_bytes && memory.total_bytes > 64 << 20, "{memory:?}");
        Load::read().unwrap();
    }

    #[test]
    fn numbers_of_proc_are_understood() {
        let memory =
            Memory::parse("MemTotal:       24684400 kB\nMemFree: 1 kB\nMemAvailable:   12 kB\n").unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (24_684_400 * 1024, 12 * 1024));
        assert_eq!(Memory::parse("MemTotal: 5 kB\n"), None);
        let load = Load::parse("1.05 12.30 0.01 2/345 6789\n").unwrap();
        assert_eq!((load.one_minute, load.five_minutes), (105, 1230));
    }

    #[test]
    fn hierarchies_are_told_apart() {
        let mounted = tempfile::tempdir().unwrap();
        let read = |own: &str| Cgroups::read(mounted.path(), own);
        assert!(read("").to_string().starts_with("no control groups: no control groups are mounted on"));
        assert!(read("6:freezer:/a\n").to_string().contains("freezer/a is not writable"));
        fs::create_dir_all(mounted.path().join("freezer/a")).unwrap();
        assert_eq!(read("7:cpu:/\n6:freezer:/a\n0::/\n"), Cgroups::Separate);
        fs::write(mounted.path().join("cgroup.controllers"), "cpu\n").unwrap();
        fs::create_dir_all(mounted.path().join("system.slice/x")).unwrap();
        assert_eq!(read("0::/system.slice/x\n"), Cgroups::Unified);
    }
}
