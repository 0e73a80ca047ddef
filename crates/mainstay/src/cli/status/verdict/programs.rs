//! Which program of Mainstay itself the nodes run.

use std::collections::BTreeMap;

use super::troubles::trouble;
use super::{Level, Trouble};
use crate::cli::columns::listed;
use crate::cli::status::view::View;

/// What it is about when nodes run different programs.
pub(crate) const PROGRAMS: &str = "programs";

/// Nodes that run different programs, and proxies that could not be replaced.
pub(super) fn all(view: &View) -> Vec<Trouble> {
    differ(view).into_iter().chain(proxies(view)).collect()
}

fn differ(view: &View) -> Option<Trouble> {
    let mut nodes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (name, node) in view.overview.nodes.iter().filter(|(name, _)| view.is_here(name)) {
        if !node.program.digest.is_empty() {
            let program = (node.program.version.as_str(), node.program.digest.as_str());
            nodes.entry(program).or_default().push(name.as_str());
        }
    }
    if nodes.len() < 2 {
        return None;
    }
    let each = nodes.iter().map(|((version, digest), nodes)| {
        let run = if nodes.len() == 1 { "runs" } else { "run" };
        format!("{} {run} {version} ({digest:.12})", listed(nodes))
    });
    let what = format!("nodes run different programs of Mainstay: {}", each.collect::<Vec<_>>().join(", "));
    let help = "`mainstay upgrade --binary FILE` goes on with an upgrade that was broken off, `--undo` takes it back";
    Some(trouble(Level::Degraded, PROGRAMS.to_owned(), what).unblock(Some(help)))
}

fn proxies(view: &View) -> Vec<Trouble> {
    let here = view.overview.nodes.iter().filter(|(name, _)| view.is_here(name));
    let stuck = here.filter_map(|(name, node)| {
        let because = node.program.proxy_trouble.as_ref().filter(|_| node.program.proxy == Some(false))?;
        let what = format!("the proxy of {name} runs another program than its agent: {because}");
        let doing = "it serves as before, and its replacement is tried again";
        Some(trouble(Level::Degraded, format!("node/{name}"), what).doing(Some(doing)))
    });
    stuck.collect()
}
