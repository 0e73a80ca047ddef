//! What `/proc` tells about processes. Only files that answer without the process's help or its locks are read unasked
//! (`stat`); the others (`cmdline`, `environ`) can block while the process hangs in the kernel.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::ProcessId;

/// What the kernel says of one process (`proc(5)`, `/proc/PID/stat`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Pid and start time.
    pub id: ProcessId,
    /// The program's short name (15 bytes at most), or what the process calls itself.
    pub name: String,
    /// State letter: `R` running, `S` sleeping, `D` waiting for a disk and not killable, `T` stopped, `Z` zombie.
    pub state: char,
    /// Its parent's pid.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session: the pid of the process that called setsid.
    pub session: i32,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Processor time used, in clock ticks (user and system).
    pub cpu_ticks: u64,
}

impl ProcessFacts {
    /// Ended: a zombie that nobody has reaped yet, or about to vanish.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Waiting in the kernel for something that cannot be interrupted, usually a disk: a kill has no effect yet.
    pub fn is_uninterruptible(&self) -> bool {
        self.state == 'D'
    }

    /// The executable, when we may know it.
    pub fn executable(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.id.pid)).ok()
    }

    /// The working directory, when we may know it.
    pub fn working_directory(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.id.pid)).ok()
    }

    /// Program and arguments. May block while the process hangs in the kernel.
    pub fn command_line(&self) -> Vec<OsString> {
        read_strings(&format!("/proc/{}/cmdline", self.id.pid))
    }

    /// A variable of the environment it was started with. May block while the process hangs in the kernel.
    pub fn environment_variable(&self, name: &str) -> Option<OsString> {
        let prefix = format!("{name}=").into_bytes();
        let found = read_strings(&format!("/proc/{}/environ", self.id.pid))
            .into_iter()
            .find_map(|entry| entry.into_vec().strip_prefix(prefix.as_slice()).map(<[u8]>::to_vec));
        found.map(OsString::from_vec)
    }
}

/// What the kernel says of the process with this pid; `None` when there is none.
pub fn facts_of(pid: i32) -> Option<ProcessFacts> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&stat))
}

/// All processes that fulfil `wanted`.
pub fn processes_of(wanted: impl Fn(&ProcessFacts) -> bool) -> Vec<ProcessFacts> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(facts_of).filter(wanted).collect()
}

/// The direct children of `pid`.
pub fn children_of(pid: i32) -> Vec<ProcessFacts> {
    processes_of(|facts| facts.parent == pid)
}

/// The living members of the session that `leader` began with setsid, without `leader` itself. They are found also after
/// the leader's death: a session's number is not given away while it has members.
pub fn session_of(leader: ProcessId) -> Vec<ProcessId> {
    // Another process with the leader's pid would mean that the session is long gone.
    if ProcessId::of(leader.pid).is_some_and(|now| now != leader) {
        return Vec::new();
    }
    let member = |facts: &ProcessFacts| facts.session == leader.pid && facts.id != leader && !facts.is_dead();
    processes_of(member).into_iter().map(|facts| facts.id).collect()
}

/// Parses `/proc/PID/stat`. The name stands in parentheses and may hold anything, also parentheses and spaces.
fn parse(stat: &str) -> Option<ProcessFacts> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields are numbered from 1 in proc(5); the first one here is field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |index: usize| field(index)?.parse::<u64>().ok();
    let id = |index: usize| field(index)?.parse::<i32>().ok();
    Some(ProcessFacts {
        id: ProcessId { pid: pid.parse().ok()?, start_ticks: number(22)? },
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
        parent: id(4)?,
        group: id(5)?,
        session: id(6)?,
        cpu_ticks: number(14)? + number(15)?,
        resident_bytes: number(24)? * crate::sys::page_size(),
    })
}

fn read_strings(path: &str) -> Vec<OsString> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes
        .split(|&byte| byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "4711 (a) b (c) R) S 1 4711 4710 0 -1 4194560 9 0 0 0 3 4 0 0 20 0 1 0 987654 1000 12 18446744073709551615";
        let facts = parse(stat).unwrap();
        assert_eq!(facts.id, ProcessId { pid: 4711, start_ticks: 987_654 });
        assert_eq!(facts.name, "a) b (c) R");
        assert_eq!((facts.state, facts.parent, facts.group, facts.session), ('S', 1, 4711, 4710));
        assert_eq!((facts.cpu_ticks, facts.resident_bytes), (7, 12 * crate::sys::page_size()));
    }

    #[test]
    fn half_a_line_is_no_process() {
        assert_eq!(parse("4711 (sleep) S 1 4711"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn we_ourselves_are_among_the_processes() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = processes_of(|facts| facts.id.pid == own);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].executable(), std::env::current_exe().ok());
        assert!(!found[0].command_line().is_empty());
        assert!(!found[0].is_dead());
    }
}
