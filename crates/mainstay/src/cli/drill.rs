//! `mainstay drill`: rehearsed faults with a measured outage.

mod check;
mod explain;
mod replay;
mod soak;
mod stage;

use std::path::{Path, PathBuf};

use ::lab::drill::{self, Control, Drill, DrillError, Options, Report, Sabotage, Step, UnknownSabotage};
use ::lab::fault::TakenBack;
use ::lab::workload::{Kind, UnknownKind};
use clap::Subcommand;
use effects::files::Lock;
use lab::Lab;
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, note};
use super::target::Target;
use super::up::in_words;
use stage::Stage;

/// Rehearse a fault and measure the outage as a client sees it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay drill list
  mainstay drill explain disk-hang-primary
  mainstay drill run node-kill
  mainstay drill run switchover --runs 10 --json
  mainstay drill run node-kill --sabotage
  mainstay drill run node-kill --workload all --history history
  mainstay drill check history/*.jsonl
  mainstay drill soak --for 60m
  mainstay drill replay crates/simulation/scripts/node-dies.script
  mainstay drill undo")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every drill and what it expects
    List,
    /// Show what a drill does, what must come of it, and how it is taken back
    Explain(ExplainArgs),
    /// Run a drill
    Run(RunArgs),
    /// Take back what an interrupted drill has left
    Undo(UndoArgs),
    /// Play a script of the simulator and compare what comes of it
    Replay(replay::Args),
    /// Run drills one after another for a long time
    Soak(soak::Args),
    /// Judge saved histories
    Check(check::Args),
}

/// Show what a drill does, what must come of it, and how it is taken back
#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// The drill, as `mainstay drill list` names it
    #[arg(value_name = "NAME")]
    name: String,
}

/// Run a drill
///
/// A client outside the system writes every 10 ms through a route and checks afterwards that each acknowledged write is
/// there exactly once. A drill is refused while redundancy is lost (exit code 3). Whatever interrupts it, its fault is taken
/// back.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The drill, as `mainstay drill list` names it
    #[arg(value_name = "NAME")]
    name: String,
    /// How often
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Run the drill's own controls instead: runs that are spoiled on purpose, each of which must be red. HOW is
    /// pretended-fault, lost-write or doubled-write; all that suit the drill when it is left out
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "all", conflicts_with = "runs")]
    sabotage: Option<String>,
    /// The database to hurt; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Also write report.md, report.json and timeline.svg into this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "sabotage")]
    report: Option<PathBuf>,
    /// What clients do while the fault lasts, and is checked afterwards: set, bank, append, register, or all. The client
    /// that measures the outage is always there; it is the set
    #[arg(long, value_name = "KIND,...", default_value = "set", value_parser = workloads, conflicts_with = "sabotage")]
    workload: Workloads,
    /// Save what each workload saw in each run into this directory, for `mainstay drill check`
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "sabotage")]
    history: Option<PathBuf>,
    /// Print the measured figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What `--workload` means.
#[derive(Clone, Debug)]
struct Workloads(Vec<Kind>);

fn workloads(text: &str) -> Result<Workloads, UnknownKind> {
    let mut kinds = match text {
        "all" => Kind::ALL.to_vec(),
        names => names.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<Kind>, _>>()?,
    };
    kinds.sort_unstable();
    kinds.dedup();
    Ok(Workloads(kinds))
}

/// Take back what an interrupted drill has left
///
/// A fault ends by itself a few minutes after its drill was killed; this ends it now.
#[derive(Debug, clap::Args)]
struct UndoArgs {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::List => {
            output.print(&explain::list())?;
            Ok(Exit::Done)
        }
        Command::Explain(ExplainArgs { name }) => {
            output.print(&explain::text(named(&name)?))?;
            Ok(Exit::Done)
        }
        Command::Undo(UndoArgs { target }) => undo(running_lab(target.system.as_deref())?, output).await,
        Command::Replay(args) => replay::run(args, output).await,
        Command::Soak(args) => soak::run(args, output).await,
        Command::Check(args) => check::run(&args, output),
        Command::Run(run) => {
            let controls = run.sabotage.as_deref().map(|how| sabotages(&run.name, how)).transpose()?;
            let lab = running_lab(run.target.system.as_deref())?;
            let rehearsed = rehearse(lab, &run, controls.as_deref()).await?;
            output.print(&rehearsed.text(run.json))?;
            if let (Some(directory), Rehearsed::Drill(report)) = (&run.report, &rehearsed) {
                write_report(directory, named(&run.name)?, report)?;
            }
            Ok(if rehearsed.is_good() { Exit::Done } else { Exit::Degraded })
        }
    }
}

async fn undo(mut lab: Lab, output: Output) -> Result<Exit, CliError> {
    let _alone = take_stage(&lab)?;
    let done = tokio::task::spawn_blocking(move || lab.take_back()).await;
    let done = done.map_err(|error| CliError::failed("nothing was taken back").because(&error))?;
    let taken = done.map_err(|error| in_words(&error))?;
    let line = |taken: &TakenBack| match &taken.because {
        None => format!("  {}: done\n", taken.step),
        Some(because) => format!("  {}: {because}\n", taken.step),
    };
    output.print(&if taken.is_empty() {
        "No drill has left anything.\n".to_owned()
    } else {
        format!(
            "What an interrupted drill has left is taken back:\n{}",
            taken.iter().map(line).collect::<String>()
        )
    })?;
    Ok(Exit::Done)
}

/// What came of `drill run`.
enum Rehearsed {
    /// The drill itself.
    Drill(Report),
    /// Its controls.
    Controls(Vec<Control>),
}

impl Rehearsed {
    fn is_good(&self) -> bool {
        match self {
            Self::Drill(report) => report.passed,
            Self::Controls(controls) => controls.iter().all(|control| control.caught),
        }
    }

    fn text(&self, json: bool) -> String {
        match (self, json) {
            (Self::Drill(report), true) => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
            (Self::Drill(report), false) => format!("{report}\n"),
            (Self::Controls(controls), true) => {
                serde_json::to_string_pretty(controls).unwrap_or_default() + "\n"
            }
            (Self::Controls(controls), false) => {
                controls.iter().map(|control| format!("{control}\n")).collect()
            }
        }
    }
}

/// Writes the page, the figures and the picture of a drill.
fn write_report(directory: &Path, drill: &'static Drill, report: &Report) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("the report cannot be written to {}", directory.display())).because(&error)
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let title = report.worst().and_then(|run| run.outage_ms).map_or_else(
        || format!("drill {drill}: writes never came back"),
        |outage| format!("drill {drill}: {outage} ms without an acknowledged write"),
    );
    let picture = report.worst().map(|run| drill::svg(&title, &run.timeline)).unwrap_or_default();
    let files = [
        ("report.md", drill::markdown(drill, report, "timeline.svg")),
        ("report.json", serde_json::to_string_pretty(report).unwrap_or_default() + "\n"),
        ("timeline.svg", picture),
    ];
    for (name, text) in files {
        effects::files::write_atomic(&directory.join(name), text.as_bytes(), 0o644).map_err(failed)?;
    }
    note(&format!("the report is {}\n", directory.join("report.md").display()));
    Ok(())
}

/// The ways to spoil a drill that `--sabotage HOW` means.
fn sabotages(drill: &str, how: &str) -> Result<Vec<Sabotage>, CliError> {
    let drill = named(drill)?;
    if how == "all" {
        return Ok(Sabotage::ALL.into_iter().filter(|sabotage| sabotage.suits(drill)).collect());
    }
    let sabotage: Sabotage = how.parse().map_err(|error: UnknownSabotage| {
        CliError::with(Exit::Invalid, "there is no such sabotage").because(&error)
    })?;
    match sabotage.suits(drill) {
        true => Ok(vec![sabotage]),
        false => Err(CliError::with(Exit::Refused, format!("{drill} cannot tell {sabotage}"))
            .hint(format!("mainstay drill run {drill} --sabotage"))),
    }
}

fn running_lab(name: Option<&str>) -> Result<Lab, CliError> {
    let running = Lab::list();
    let mut wanted = running.iter().filter(|lab| name.is_none_or(|name| name == lab.system.as_str()));
    match (wanted.next(), wanted.next()) {
        (Some(one), None) => Lab::open(&one.system).map_err(|error| in_words(&error)),
        (None, _) => {
            Err(CliError::with(Exit::Unreachable, "no such system runs on this machine")
                .hint("mainstay up FILE"))
        }
        (Some(_), Some(_)) => {
            Err(CliError::with(Exit::Invalid, "several systems run on this machine").hint("--system NAME"))
        }
    }
}

fn named(name: &str) -> Result<&'static Drill, CliError> {
    name.parse().map_err(|error| {
        CliError::with(Exit::Invalid, "there is no such drill").because(&error).hint("mainstay drill list")
    })
}

async fn rehearse(lab: Lab, args: &RunArgs, controls: Option<&[Sabotage]>) -> Result<Rehearsed, CliError> {
    let drill = named(&args.name)?;
    if let Some(directory) = &args.history {
        std::fs::create_dir_all(directory).map_err(|error| {
            let what = format!("no histories can be saved in {}", directory.display());
            CliError::with(Exit::Invalid, what).because(&error)
        })?;
    }
    let count = usize::try_from(args.runs).unwrap_or(1);
    on_stage(lab, args.database.as_deref(), &args.target, async |stage: &Stage, options: &Options| {
        stage.is_suitable(drill)?;
        let (view, apply) = (async || stage.view().await, async |step: &Step| stage.apply(step).await);
        let Some(controls) = controls else {
            let options = &Options {
                workloads: args.workload.0.clone(),
                history: args.history.clone(),
                ..options.clone()
            };
            let mut report = drill::run(drill, count, options, view, apply).await.map_err(unfinished)?;
            if let Some(run) = report.worst_mut() {
                run.timeline.add_events(stage.events(run.timeline.begun_us).await);
            }
            return Ok(Rehearsed::Drill(report));
        };
        let mut done = Vec::new();
        for sabotage in controls {
            done.push(drill::control(drill, *sabotage, options, view, apply).await.map_err(unfinished)?);
        }
        Ok(Rehearsed::Controls(done))
    })
    .await
}

/// Does `work` on a system, with the outside clients' runtime and login. What was done and lasts is taken back, also when a
/// signal interrupts it.
async fn on_stage<T>(
    mut lab: Lab,
    database: Option<&str>,
    target: &Target,
    work: impl AsyncFnOnce(&Stage, &Options) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let _alone = take_stage(&lab)?;
    refuse_where_faults_last(&mut lab)?;
    let stage = Stage::open(lab, database, target).await?;
    let login = stage.login().await?;
    let runtime = stage.client_runtime().await?;
    let options =
        Options { tell: |text| note(&format!("{text}\n")), ..Options::new(runtime.handle().clone(), login) };
    let done = tokio::select! {
        done = work(&stage, &options) => done,
        name = interrupted() => {
            Err(CliError::failed(format!("{name} interrupted the drill; its fault has been taken back")))
        }
    };
    // Nothing is left of a drill that ended early; after one that ran to its end there is nothing to take back.
    stage.take_back().await;
    // A runtime may not be ended inside another one.
    let _ = tokio::task::spawn_blocking(move || runtime.shutdown()).await;
    done
}

fn refuse_where_faults_last(lab: &mut Lab) -> Result<(), CliError> {
    let lasting = lab.lasting().map_err(|error| in_words(&error))?;
    let Some((_, first)) = lasting.first() else { return Ok(()) };
    let words = format!(
        "the drill is refused: the fault of a drill that was killed still lasts (missing: {first}); it ends by itself within \
         minutes"
    );
    Err(CliError::with(Exit::Refused, words).hint("mainstay drill undo"))
}

fn unfinished(error: DrillError) -> CliError {
    match error {
        DrillError::Refused(_) => CliError::with(Exit::Refused, error.to_string())
            .hint("`mainstay status` says what is missing; drills wait until all of it is back"),
        DrillError::NoView(_) | DrillError::NoLoad(_) | DrillError::Step { .. } => {
            CliError::failed(error.to_string())
        }
    }
}

/// One drill at a time: two would measure each other. Held until it is dropped, whatever becomes of this process.
fn take_stage(lab: &Lab) -> Result<Lock, CliError> {
    let refused = |because: String| CliError::with(Exit::Refused, format!("the drill is refused: {because}"));
    match Lock::try_take(&lab.directory().join("drill.lock")) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => {
            Err(refused(format!("another drill runs on {}", lab.system())).hint("wait until it has ended"))
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Waits for a signal that asks this process to end.
async fn interrupted() -> &'static str {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "an interrupt",
        _ = terminate.recv() => "a request to end",
    }
}
