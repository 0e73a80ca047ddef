//! Limits of memory by control groups (cgroups(7)): of version 2 where its memory controller can be used, else of version 1.
//!
//! A group lies below our own one (version 1) or in `mainstay/` below the root (version 2, where a group with processes of
//! its own can hand nothing down). The kernel ends what needs more than its limit and counts that, by which it is told
//! from any other death. The files are the kernel's memory: reading and writing them waits for no disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A control group that limits the memory of the processes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGroup {
    path: PathBuf,
    version: Version,
    /// How often the kernel had ended something in it when we took it over.
    ended_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V1,
}

impl Version {
    const fn limit(self) -> &'static str {
        match self {
            Self::V2 => "memory.max",
            Self::V1 => "memory.limit_in_bytes",
        }
    }

    /// The file with a line `oom_kill COUNT`.
    const fn events(self) -> &'static str {
        match self {
            Self::V2 => "memory.events",
            Self::V1 => "memory.oom_control",
        }
    }

    /// What else makes the limit one: nothing may be swapped out instead, and the group ends as a whole. Not every kernel
    /// has these.
    fn further(self, bytes: u64) -> Vec<(&'static str, String)> {
        match self {
            Self::V2 => vec![("memory.swap.max", "0".to_owned()), ("memory.oom.group", "1".to_owned())],
            Self::V1 => vec![("memory.memsw.limit_in_bytes", bytes.to_string())],
        }
    }
}

impl MemoryGroup {
    /// Makes a group called `name` (safe as a file name) in which processes may use `bytes` of memory.
    ///
    /// # Errors
    /// One sentence for each version of the interface, why it cannot be used.
    pub fn create(name: &str, bytes: u64) -> Result<Self, String> {
        let v2 = match Self::create_v2(name, bytes) {
            Ok(group) => return Ok(group),
            Err(because) => because,
        };
        Self::create_v1(name, bytes).map_err(|v1| format!("{v2}; {v1}"))
    }

    /// The group at `path` with which an earlier run of the agent started a process, if it is still there.
    pub fn find(path: &Path) -> Option<Self> {
        let versions = [Version::V2, Version::V1];
        let version = versions.into_iter().find(|version| path.join(version.limit()).exists())?;
        Some(Self::taken_over(path.to_owned(), version))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file through which a process joins: it writes `0`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Whether the kernel has ended something in it for want of memory.
    pub fn ran_out(&self) -> bool {
        kills(&self.path, self.version) > self.ended_before
    }

    /// Removes it; one that still has processes stays, and is used again.
    pub fn remove(&self) {
        // Then the next start with the same name finds it.
        let _ = fs::remove_dir(&self.path);
    }

    fn taken_over(path: PathBuf, version: Version) -> Self {
        let ended_before = kills(&path, version);
        Self { path, version, ended_before }
    }

    fn create_v2(name: &str, bytes: u64) -> Result<Self, String> {
        let root = mounted("cgroup2", None).ok_or("control groups of version 2 are not mounted")?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return Err("version 2 of control groups has no memory controller here".to_owned());
        }
        let parent = root.join("mainstay");
        let made = hand_down(&root).and_then(|()| make(&parent)).and_then(|()| hand_down(&parent));
        made.map_err(|error| format!("no control group can be made in {}: {error}", root.display()))?;
        Self::at(parent.join(name), Version::V2, bytes)
    }

    fn create_v1(name: &str, bytes: u64) -> Result<Self, String> {
        let root = mounted("cgroup", Some("memory")).ok_or("version 1 has none either")?;
        let own = root.join(own_group().trim_start_matches('/'));
        // In a container the path of our own group may lie outside of what is mounted.
        let parent = if own.is_dir() { own } else { root };
        Self::at(parent.join(format!("mainstay.{name}")), Version::V1, bytes)
    }

    fn at(path: PathBuf, version: Version, bytes: u64) -> Result<Self, String> {
        let in_words = |error: io::Error| format!("{}: {error}", path.display());
        make(&path).map_err(in_words)?;
        let limited = fs::write(path.join(version.limit()), bytes.to_string());
        if let Err(error) = limited {
            let _ = fs::remove_dir(&path);
            return Err(in_words(error));
        }
        for (file, value) in version.further(bytes) {
            let _ = fs::write(path.join(file), value);
        }
        Ok(Self::taken_over(path, version))
    }
}

/// A group that is left from before is as good, once its limit is set.
fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lets the groups below `path` limit memory.
fn hand_down(path: &Path) -> io::Result<()> {
    let file = path.join("cgroup.subtree_control");
    let has = fs::read_to_string(&file)?.split_whitespace().any(|controller| controller == "memory");
    if has { Ok(()) } else { fs::write(file, "+memory") }
}

fn kills(path: &Path, version: Version) -> u64 {
    let text = fs::read_to_string(path.join(version.events())).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// Where a hierarchy is mounted (`/proc/self/mountinfo`, proc(5)): by type and, for version 1, by controller.
fn mounted(kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let is_kind = right.next()? == kind;
        let options = right.nth(1)?;
        let has = controller.is_none_or(|controller| options.split(',').any(|option| option == controller));
        (is_kind && has).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The group of this process in version 1's hierarchy for memory (`/proc/self/cgroup`, cgroups(7)).
fn own_group() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let is_memory = parts.next()?.split(',').any(|name| name == "memory");
        is_memory.then(|| parts.next().map(str::to_owned))?
    });
    own.unwrap_or_default()
}
