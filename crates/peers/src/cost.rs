//! What a node costs at rest: processor time of everything in it, memory of everything beside PostgreSQL.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::Lab;
use serde::Serialize;

use crate::layout::members;

/// How long a system rests before, and how long it is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Clock ticks in a second, as the kernel tells users on every architecture that Debian has (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Of one node on average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Percent of one processor, PostgreSQL's part included: some ask it often.
    pub(crate) cpu_percent: f64,
    /// Megabytes (10^6) of all processes but PostgreSQL's and the lab's own: their private memory, and each program's
    /// files once. Not the proportional set size: the nodes share this machine's copy of a program, real ones do not.
    pub(crate) memory_mb: f64,
}

/// Watches the members' nodes of a system that rests.
pub(crate) async fn at_rest(namespaces: &[PathBuf]) -> Option<Cost> {
    tokio::time::sleep(WATCHED / 2).await;
    let (before, begun) = (ticks(namespaces), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let (after, seconds) = (ticks(namespaces), begun.elapsed().as_secs_f64());
    let nodes = u32::try_from(namespaces.len()).ok().filter(|nodes| *nodes > 0)?;
    let spent = u32::try_from(after.saturating_sub(before)).ok()?;
    let each = namespaces.iter().map(|namespace| memory(std::slice::from_ref(namespace)));
    let kilobytes = u32::try_from(each.sum::<u64>()).ok()?;
    Some(Cost {
        cpu_percent: f64::from(spent) / TICKS / seconds * 100.0 / f64::from(nodes),
        memory_mb: f64::from(kilobytes) * 1.024 / 1000.0 / f64::from(nodes),
    })
}

/// The process namespaces of the members' nodes; a process belongs to the node whose it has.
pub(crate) fn namespaces(lab: &Lab) -> Vec<PathBuf> {
    let inits = members().filter_map(|(node, _)| lab.node(&node).ok()?.init);
    inits.filter_map(|init| fs::read_link(format!("/proc/{}/ns/pid", init.pid)).ok()).collect()
}

fn processes(namespaces: &[PathBuf]) -> impl Iterator<Item = PathBuf> + '_ {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| fs::read_link(path.join("ns/pid")).is_ok_and(|its| namespaces.contains(&its)))
}

/// Clock ticks used by processes and by their children that have ended (proc_pid_stat(5), fields 14 to 17).
fn ticks(namespaces: &[PathBuf]) -> u64 {
    let of = |path: PathBuf| {
        let text = fs::read_to_string(path.join("stat")).ok()?;
        // The name in brackets may hold anything; the fields after it begin with the third.
        let fields = text.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
        Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
    };
    processes(namespaces).filter_map(of).sum()
}

/// Kilobytes of everything in a node that belongs neither to PostgreSQL nor to the lab.
fn memory(node: &[PathBuf]) -> u64 {
    let (mut private, mut files) = (0, BTreeMap::<PathBuf, u64>::new());
    for path in processes(node).filter(|path| counts(path)) {
        let (Ok(program), Ok(text)) =
            (fs::read_link(path.join("exe")), fs::read_to_string(path.join("smaps_rollup")))
        else {
            continue;
        };
        let (own, of_files) = split(&text);
        private += own;
        let most = files.entry(program).or_default();
        *most = of_files.max(*most);
    }
    private + files.values().sum::<u64>()
}

fn counts(path: &Path) -> bool {
    let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
    let line = fs::read(path.join("cmdline")).unwrap_or_default();
    let of_the_lab = name.trim() == "peers" || line.split(|byte| *byte == 0).any(|word| word == b"lab-node");
    name.trim() != "postgres" && !of_the_lab
}

/// A process's private memory (shared with its own forks alone) and what it has of files, in kilobytes, from
/// `smaps_rollup` (proc_pid_smaps(5)).
fn split(rollup: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    };
    (field("Pss_Anon"), u64::saturating_sub(field("Rss"), field("Anonymous")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_and_files_are_told_apart() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss:   4000 kB\n\
                      Pss_Anon:    2500 kB\nAnonymous:   3000 kB\n";
        assert_eq!(split(rollup), (2500, 6000));
        let ourselves = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let (private, files) = split(&ourselves);
        assert!(private > 0 && files > 0, "{ourselves}");
    }
}
