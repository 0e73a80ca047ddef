//! The programs of Mainstay itself, where there is something to say of them.

use crate::cli::columns::Cell;
use crate::cli::output::Look;
use crate::cli::status::view::View;

/// A row for each node; none when all run the same one, proxies too.
pub(super) fn rows(view: &View) -> Vec<Vec<Cell>> {
    let nodes = || view.overview.nodes.iter().filter(|(_, node)| !node.program.digest.is_empty());
    let first = nodes().next().map(|(_, node)| node.program.digest.as_str());
    let is_plain = |note: &model::status::ProgramNote| {
        Some(note.digest.as_str()) == first
            && !note.on_trial
            && note.proxy != Some(false)
            && note.leaving == 0
    };
    if nodes().all(|(_, node)| is_plain(&node.program)) {
        return vec![];
    }
    let row = |(name, node): (&model::NodeName, &decide::agent::NodeSummary)| {
        let note = &node.program;
        let trial = if note.on_trial { ", on trial" } else { "" };
        let proxy = match (note.proxy, note.leaving) {
            (Some(false), _) => Cell::new(Look::Warning, "runs another program"),
            (_, 0) => "the same".into(),
            (_, 1) => "the same; a former one finishes its work".into(),
            (_, several) => format!("the same; {several} former ones finish their work").into(),
        };
        vec![
            name.as_str().into(),
            format!("{}{trial}", note.version).into(),
            format!("{:.12}", note.digest).into(),
            proxy,
        ]
    };
    nodes().map(row).collect()
}
