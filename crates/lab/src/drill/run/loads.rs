//! The workloads beside the drill's client.

use std::path::PathBuf;

use checker::file::History as Saved;

use super::super::checker::set_history;
use super::super::history::{Copy, History};
use super::super::plan::Plan;
use super::super::table::RunName;
use super::{Options, SystemView, entries};
use crate::workload::{Judged, Kind, Load, Recorded, Workloads};

/// Begins what was asked for.
pub(super) async fn start(
    options: &Options,
    view: &SystemView,
    plan: &Plan,
    run: &RunName,
) -> Result<Workloads, String> {
    let load = Load::new(entries(view, plan), options.login.clone(), run.clone());
    let load = Load { lease: options.lease, ..load };
    Workloads::start(&options.runtime, load, &options.workloads).await
}

/// The set as the client and the prober saw it, and as it was found afterwards.
pub(super) fn set(history: &History, copies: &[Copy]) -> Recorded {
    Recorded { kind: Kind::Set, history: Saved::Set(set_history(history, copies)), old_reads: 0 }
}

/// Saves what was seen, where that is wanted, and judges it.
pub(super) async fn judge(
    options: &Options,
    drill: &str,
    number: usize,
    mut recorded: Vec<Recorded>,
) -> Result<Vec<Judged>, String> {
    recorded.retain(|recorded| options.workloads.contains(&recorded.kind));
    recorded.sort_by_key(|recorded| recorded.kind);
    let (directory, name) = (options.history.clone(), format!("{drill}-{number}"));
    // Both take their time, which nobody else should wait for.
    let judged = tokio::task::spawn_blocking(move || all(&recorded, directory, &name)).await;
    judged.map_err(|e| format!("a checker broke down: {e}"))?
}

fn all(recorded: &[Recorded], directory: Option<PathBuf>, name: &str) -> Result<Vec<Judged>, String> {
    if let Some(directory) = directory {
        for recorded in recorded {
            recorded.save(&directory, name)?;
        }
    }
    Ok(recorded.iter().map(Recorded::judge).collect())
}
