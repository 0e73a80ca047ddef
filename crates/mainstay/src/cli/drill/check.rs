//! `mainstay drill check`: what saved histories prove.

use std::path::{Path, PathBuf};

use ::lab::workload::{Finding, Judged};
use checker::file::History;
use serde::Serialize;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::Output;

/// The largest file that is read, in bytes: an hour of the busiest workload takes a tenth of it.
const MAX_FILE: u64 = 1 << 30;

/// Judge saved histories
///
/// Each file is a history as `mainstay drill run --history` saves it: one line that says which workload it is and what is
/// claimed of it, and one line for each operation, all JSON. Exit code 0 when all are valid, 4 when one is violated or
/// undecided, 2 when a file is no history. No system is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay drill check history/*.jsonl
  mainstay drill check history/node-kill-1-bank.jsonl --json | jq .[].because")]
pub(super) struct Args {
    /// The histories. The exit code is 4 when one of them is violated or undecided
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print the verdicts as JSON
    #[arg(long)]
    json: bool,
}

/// A verdict with its file.
#[derive(Serialize)]
struct Row<'f> {
    file: &'f Path,
    #[serde(flatten)]
    judged: Judged,
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let mut rows = Vec::new();
    for file in &args.files {
        rows.push(Row { file, judged: Judged::of(&read(file)?, 0) });
    }
    if args.json {
        output.print_json(&rows)?;
    } else {
        output.print(&rows.iter().map(text).collect::<String>())?;
    }
    let all_valid = rows.iter().all(|row| row.judged.verdict == Finding::Valid);
    Ok(if all_valid { Exit::Done } else { Exit::Degraded })
}

fn read(file: &Path) -> Result<History, CliError> {
    let invalid = || CliError::with(Exit::Invalid, format!("{} cannot be judged", file.display()));
    let length = std::fs::metadata(file).map_err(|error| invalid().because(&error))?.len();
    if length > MAX_FILE {
        let limit = MAX_FILE >> 20;
        return Err(CliError::with(
            Exit::Invalid,
            format!("{} cannot be judged: it has more than {limit} MiB", file.display()),
        ));
    }
    let text = std::fs::read_to_string(file).map_err(|error| invalid().because(&error))?;
    History::parse(&text).map_err(|error| invalid().because(&error))
}

fn text(row: &Row<'_>) -> String {
    let Judged { workload, counts, verdict, because, .. } = &row.judged;
    let mut text = format!(
        "{}: {workload}, {} operations ok, {} failed, {} unknown: {}\n",
        row.file.display(),
        counts.ok,
        counts.failed,
        counts.unknown,
        verdict.name()
    );
    text.extend(because.iter().map(|why| format!("  {why}\n")));
    text
}
