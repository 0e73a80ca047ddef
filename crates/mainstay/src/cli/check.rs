//! `mainstay check`: what a system file says, and what is wrong with it.

use std::path::PathBuf;

use model::system::{Checked, Invalid, Problem, System};
use serde::Serialize;

use super::error::CliError;
use super::exit::Exit;
use super::load::{Loaded, load};
use super::output::{Output, note};
use super::{overview, render};

/// Check a system file and show what was understood
///
/// Every mistake is named at once, with its place, its reason and a text to paste. Nothing is started or changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay check mainstay.toml
  mainstay check mainstay.toml --json | jq .system.routes")]
pub(crate) struct Args {
    /// The system file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the description, errors and warnings as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    valid: bool,
    system: Option<&'r System>,
    errors: &'r [Problem],
    errors_not_shown: usize,
    warnings: &'r [Problem],
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let loaded = load(&args.file, None)?;
    if args.json {
        return as_json(&loaded, output);
    }
    let (Checked { system, warnings }, text) = loaded.valid()?;
    output.print(&overview::overview(&system, output))?;
    let file = args.file.display();
    let questionable = match warnings.len() {
        0 => String::new(),
        some => format!(", with {}", render::count(some, "warning")),
    };
    let shown = render::warnings(&warnings, &text, output);
    let gap = if shown.is_empty() { "" } else { "\n" };
    note(&format!("{gap}{shown}"));
    output.print(&format!("\n{file} is valid{questionable}.\n"))?;
    Ok(Exit::Done)
}

fn as_json(loaded: &Loaded, output: Output) -> Result<Exit, CliError> {
    let (report, exit) = match &loaded.checked {
        Ok(Checked { system, warnings }) => {
            let report =
                Report { valid: true, system: Some(system), errors: &[], errors_not_shown: 0, warnings };
            (report, Exit::Done)
        }
        Err(Invalid { problems, warnings, left_out }) => {
            let report = Report {
                valid: false,
                system: None,
                errors: problems,
                errors_not_shown: *left_out,
                warnings,
            };
            (report, Exit::Invalid)
        }
    };
    output.print_json(&report)?;
    Ok(exit)
}
