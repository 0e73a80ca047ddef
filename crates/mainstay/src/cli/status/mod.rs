//! `mainstay status`: what is up, where the primary is, what is protected and what is wrong.

mod certificates;
mod external;
mod text;
pub(crate) mod verdict;
pub(crate) mod view;

use std::io::IsTerminal;
use std::time::Duration;

use decide::agent::Overview;
use serde::Serialize;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;
use verdict::{Level, Verdict};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Show what is up, where each primary is, what is protected and what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay status
  mainstay status --watch
  mainstay status --json | jq '.databases'
  mainstay status --check || page-someone")]
pub(crate) struct Args {
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show it again whenever it changes, until interrupted
    #[arg(long, conflicts_with_all = ["json", "check"])]
    watch: bool,
    /// End with exit code 4 when the system is degraded or down
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    target: Target,
}

/// What `--json` prints: everything the agents say, and what follows from it.
#[derive(Serialize)]
struct Report<'r> {
    verdict: &'r Verdict,
    #[serde(flatten)]
    overview: &'r Overview,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    if args.watch {
        return watch(&mut connection, output).await;
    }
    let view = connection.view().await?;
    let verdict = Verdict::of(&view);
    match args.json {
        true => output.print_json(&Report { verdict: &verdict, overview: &view.overview })?,
        false => output.print(&text::text(&view, &verdict, output))?,
    }
    Ok(if args.check && verdict.level != Level::Healthy { Exit::Degraded } else { Exit::Done })
}

/// Shows the status whenever it changes, for ever.
async fn watch(connection: &mut Connection, output: Output) -> Result<Exit, CliError> {
    let terminal = std::io::stdout().is_terminal();
    let mut shown = String::new();
    loop {
        let text = match connection.view().await {
            Ok(view) => text::text(&view, &Verdict::of(&view), output),
            // Before the first answer it is an error; later it is something that happens to a system.
            Err(error) if shown.is_empty() => return Err(error),
            Err(error) => format!("{}\n", error.sentence()),
        };
        if text != shown {
            output.print(&if terminal { redrawn(&text) } else { format!("{text}\n") })?;
            shown = text;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The text over what the terminal shows: from the top, each line and then the rest of the screen erased (ECMA-48 CUP, EL,
/// ED), so that nothing flickers.
fn redrawn(text: &str) -> String {
    let lines = text.lines().fold(String::new(), |out, line| out + line + "\u{1b}[K\n");
    format!("\u{1b}[H{lines}\u{1b}[J")
}
