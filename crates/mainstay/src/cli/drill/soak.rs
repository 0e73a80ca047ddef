//! `mainstay drill soak`.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use ::lab::drill::{self, Drill, Mix, Options, Step, Tally, Writes};
use ::lab::workload::Kind;
use model::system::duration;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::{Output, note};
use super::super::target::Target;
use super::stage::Stage;
use super::{on_stage, running_lab, unfinished};

/// Run drills one after another for a long time, several faults at once
///
/// Every drill that suits the system, and that it claims to survive without writes having to wait, has its turn, in an
/// order that the seed gives; faults that cost no member go on beside it. Each run is measured and checked as by `drill
/// run`, and by what holds whatever happens when others go on beside it: nothing lost or doubled, one primary, redundancy
/// at the end, and writes never stand still for longer than the file's objective (rto). At the end, also when it is
/// interrupted, a table says what came of all of them; `--resume` goes on where the last one ended.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long in all; the last drill is brought to its end
    #[arg(long = "for", value_name = "DURATION", default_value = "60m", value_parser = duration::parse)]
    length: Duration,
    /// The seed of the order; by the clock when it is left out
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Go on with the soak that was interrupted last
    #[arg(long, conflicts_with = "seed")]
    resume: bool,
    /// Only these drills, separated by commas; also those that writes have to wait for
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// The database to hurt; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let only = args.only.iter().map(|name| super::named(name)).collect::<Result<Vec<_>, _>>()?;
    let lab = running_lab(args.target.system.as_deref())?;
    let kept = lab.directory().join("soak.json");
    let seed = args.seed.unwrap_or_else(|| effects::clock::now().as_micros() % 1_000_000);
    let tally = if args.resume { read(&kept)? } else { Tally::new(seed) };
    if args.resume {
        note(&format!("going on after {} runs with seed {}\n", tally.runs, tally.seed));
    }
    let tally = RefCell::new(tally);
    let soaked =
        on_stage(lab, args.database.as_deref(), &args.target, async |stage: &Stage, options: &Options| {
            let drills = suitable(stage, &only)?;
            let (order, before) = {
                let tally = tally.borrow();
                let spent = Duration::from_secs_f64(tally.seconds);
                let done = usize::try_from(tally.runs).unwrap_or(usize::MAX);
                (drill::Order::new(tally.seed, drills, Some(stage.rto())), (args.length, spent, done))
            };
            let options = &Options { workloads: Kind::ALL.to_vec(), ..options.clone() };
            let (view, apply) = (async || stage.view().await, async |step: &Step| stage.apply(step).await);
            let add = |mix: &Mix, run: &drill::Run, spent| {
                let mut tally = tally.borrow_mut();
                tally.add(mix, run, spent);
                keep(&kept, &tally);
            };
            drill::soak(order, before, options, view, apply, add).await.map_err(unfinished)
        })
        .await;
    let tally = tally.into_inner();
    // What was found before an end that nobody wanted counts as well.
    output.print(&match args.json {
        true => serde_json::to_string_pretty(&tally).unwrap_or_default() + "\n",
        false => tally.to_string(),
    })?;
    soaked.map_err(|error| error.hint("mainstay drill soak --resume goes on where it ended"))?;
    Ok(if tally.passed() { Exit::Done } else { Exit::Degraded })
}

/// The drills that were asked for, or all that the system claims to survive without writes having to wait.
fn suitable(stage: &Stage, only: &[&'static Drill]) -> Result<Vec<&'static Drill>, CliError> {
    for drill in only {
        stage.is_suitable(drill)?;
    }
    if !only.is_empty() {
        return Ok(only.to_vec());
    }
    let goes_on = |drill: &&Drill| drill.expectation().writes == Writes::GoOn;
    Ok(Drill::all().filter(goes_on).filter(|drill| stage.is_suitable(drill).is_ok()).collect())
}

fn read(kept: &Path) -> Result<Tally, CliError> {
    let failed = || {
        CliError::with(Exit::Invalid, "there is no soak to go on with").hint("mainstay drill soak --for 60m")
    };
    let text = std::fs::read(kept).map_err(|error| failed().because(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed().because(&error))
}

/// Keeps what is known so far; a soak goes on also when that does not work, but cannot be resumed.
fn keep(kept: &Path, tally: &Tally) {
    let text = serde_json::to_vec(tally).unwrap_or_default();
    if let Err(error) = effects::files::write_atomic(kept, &text, 0o644) {
        note(&format!("what is known so far could not be kept: {error}\n"));
    }
}
