//! `mainstay job`: programs that run once in the whole system, when they are due or asked for.

use std::time::Duration;

use jiff::Timestamp;
use mainstay::api::{JobSummary, Reply, Request};
use model::JobName;
use model::jobs::{Cause, Run, RunState};

use super::columns::{Cell, table};
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Look, Output, note};
use super::target::Target;

/// How long an agent may take to answer: it asks a majority.
const LIMIT: Duration = Duration::from_secs(5);

/// How often a run that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// For how long nobody has to answer while a run is waited for.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// How many lines of a log are shown.
const LINES: usize = 1000;

/// List jobs, let one run now, and show how its runs ended
///
/// Each run is agreed on by a majority before it begins, so that it happens once in the whole system. When a node dies in the
/// middle of a run its outcome is unknown: it is said so, and repeated only if the file allows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay job list
  mainstay job run migrate
  mainstay job history migrate --json
  mainstay job logs migrate 7")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show every job with its next due time and its last run
    List(List),
    /// Let a job run now, and wait until it has ended
    Run(RunNow),
    /// Show the runs of a job, the newest last
    History(Of),
    /// Show what a run printed
    Logs(Logs),
}

#[derive(Debug, clap::Args)]
struct List {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Of {
    /// The job
    #[arg(value_name = "NAME")]
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct RunNow {
    /// Return as soon as the run is agreed on
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, clap::Args)]
struct Logs {
    #[command(flatten)]
    of: Of,
    /// The number of the run; without it the newest that has begun
    #[arg(value_name = "RUN")]
    run: Option<u64>,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::List(args) => list(args, output).await,
        Command::Run(args) => run_now(args, output).await,
        Command::History(args) => history(args, output).await,
        Command::Logs(args) => logs(args, output).await,
    }
}

async fn list(args: List, output: Output) -> Result<Exit, CliError> {
    let jobs = Jobs::open(&args.target).await?;
    let all = jobs.all().await?;
    if args.json {
        output.print(&in_json(&all)?)?;
    } else if all.is_empty() {
        output.print("the system file describes no job\n")?;
    } else {
        let rows: Vec<Vec<Cell>> = all.iter().map(row).collect();
        output.print(&table(&["job", "due", "next", "last run", "began", "state"], &rows, output))?;
    }
    Ok(Exit::Done)
}

async fn history(args: Of, output: Output) -> Result<Exit, CliError> {
    let runs = Jobs::open(&args.target).await?.one(&args.name).await?.runs;
    if args.json {
        output.print(&in_json(&runs)?)?;
    } else if runs.is_empty() {
        output.print(&format!("{} has not run yet\n", args.name))?;
    } else {
        let rows: Vec<Vec<Cell>> = runs.iter().map(run_row).collect();
        output.print(&table(&["run", "why", "node", "began", "took", "state"], &rows, output))?;
        if let Some(RunState::Failed { last_lines, .. }) = runs.last().map(|run| &run.state) {
            let lines: String = last_lines.iter().map(|line| format!("  | {line}\n")).collect();
            output.print(&lines)?;
        }
    }
    Ok(Exit::Done)
}

async fn run_now(args: RunNow, output: Output) -> Result<Exit, CliError> {
    let name = args.of.name.as_str();
    let jobs = Jobs::open(&args.of.target).await?;
    jobs.one(name).await?;
    let reply = jobs.ask(&Request::RunJob { job: JobName::new(name) }).await?;
    let Reply::JobRun(number) = reply else { return Err(unexpected()) };
    if args.no_wait {
        output.print(&format!("run {number} of {name} is agreed on\n"))?;
        return Ok(Exit::Done);
    }
    let run = jobs.wait_for(name, number).await?;
    if args.of.json {
        output.print(&in_json(&run)?)?;
    } else {
        output.print(&format!("run {number} of {name} {}\n", run.state))?;
    }
    Ok(match run.state {
        RunState::Succeeded(_) => Exit::Done,
        RunState::Failed { .. }
        | RunState::Unknown { .. }
        | RunState::Withdrawn { .. }
        | RunState::Waiting
        | RunState::Given { .. }
        | RunState::Running { .. } => {
            note(&format!("`mainstay job logs {name} {number}` shows what it printed\n"));
            Exit::Failed
        }
    })
}

async fn logs(args: Logs, output: Output) -> Result<Exit, CliError> {
    let name = args.of.name.as_str();
    let jobs = Jobs::open(&args.of.target).await?;
    let runs = jobs.one(name).await?.runs;
    let begun = |run: &&Run| run.state.times().0.is_some();
    let wanted = |run: &&Run| args.run.map_or_else(|| begun(run), |number| run.number == number);
    let run = runs.iter().rev().find(wanted);
    let Some((run, node)) = run.and_then(|run| Some((run, run.state.node()?))) else {
        let which =
            args.run.map_or("no run of it has begun".to_owned(), |run| format!("there is no run {run}"));
        let message = format!("{name} has nothing to show: {which}");
        return Err(CliError::with(Exit::Invalid, message)
            .hint(format!("`mainstay job history {name}` shows its runs")));
    };
    let request = Request::Logs { subject: format!("job/{name}/{}", run.number), lines: LINES };
    let Reply::Logs(lines) = jobs.connection.ask(node, &request, LIMIT).await? else {
        return Err(unexpected());
    };
    if args.of.json {
        output.print(&in_json(&lines)?)?;
    } else {
        output.print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    }
    Ok(Exit::Done)
}

/// The jobs of a running system.
struct Jobs {
    connection: Connection,
}

impl Jobs {
    async fn open(target: &Target) -> Result<Self, CliError> {
        let mut connection = Connection::open(target)?;
        // Says in words when nobody answers, and learns whose agents these are.
        connection.view().await?;
        Ok(Self { connection })
    }

    /// Asks whoever answers: all of them ask a majority, which one that is cut off does not reach.
    async fn ask(&self, request: &Request) -> Result<Reply, CliError> {
        let (mut last, only_asks) = (None, matches!(request, Request::Jobs));
        for node in self.connection.nodes() {
            match self.connection.ask(&node, request, LIMIT).await {
                Ok(reply) => return Ok(reply),
                Err(error) if only_asks || error.exit() == Exit::Unreachable => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| CliError::with(Exit::Unreachable, "no agent answers")))
    }

    async fn all(&self) -> Result<Vec<JobSummary>, CliError> {
        let Reply::Jobs(all) = self.ask(&Request::Jobs).await? else { return Err(unexpected()) };
        Ok(all)
    }

    async fn one(&self, name: &str) -> Result<JobSummary, CliError> {
        let all = self.all().await?;
        let names: Vec<String> = all.iter().map(|job| job.name.to_string()).collect();
        all.into_iter().find(|job| job.name.as_str() == name).ok_or_else(|| {
            let hint = match names.as_slice() {
                [] => "the system file describes no job: add a section `[jobs.NAME]`".to_owned(),
                names => format!("jobs are: {}", names.join(", ")),
            };
            CliError::with(Exit::Invalid, format!("there is no job {name}")).hint(hint)
        })
    }

    /// Looks at a run until it is over, telling each of its steps.
    async fn wait_for(&self, name: &str, number: u64) -> Result<Run, CliError> {
        let (mut told, mut heard) = (String::new(), tokio::time::Instant::now());
        loop {
            match self.one(name).await {
                Ok(job) => {
                    heard = tokio::time::Instant::now();
                    if let Some(run) = job.runs.into_iter().find(|run| run.number == number) {
                        if !run.state.is_open() {
                            return Ok(run);
                        }
                        let state = run.state.to_string();
                        if state != told {
                            note(&format!("run {number} of {name} {state}\n"));
                            told = state;
                        }
                    }
                }
                Err(error) if heard.elapsed() > SILENCE_LIMIT => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn unexpected() -> CliError {
    CliError::failed("the agent answered something else")
        .hint("use the same version of mainstay for the command and for the agents")
}

fn in_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| CliError::failed("the answer cannot be written as JSON").because(&error))
}

fn row(job: &JobSummary) -> Vec<Cell> {
    let due = match (&job.schedule, job.described) {
        (Some(schedule), _) => schedule.to_string(),
        (None, true) => "on demand".to_owned(),
        (None, false) => "not in the file any more".to_owned(),
    };
    let next = job.next.map_or("-".to_owned(), |next| at(next.saturating_mul(1_000_000)));
    let mut row: Vec<Cell> = vec![job.name.as_str().into(), due.into(), next.into()];
    match job.runs.last() {
        Some(run) => {
            let began = run.state.times().0.map_or("-".to_owned(), at);
            row.extend([run.number.to_string().into(), began.into(), state(run)]);
        }
        None => row.extend(["-", "-", "has not run yet"].map(Cell::from)),
    }
    row
}

fn run_row(run: &Run) -> Vec<Cell> {
    let (began, ended) = run.state.times();
    let took = began.zip(ended).map_or("-".to_owned(), |(began, ended)| length(ended - began));
    let why = match &run.cause {
        Cause::Due { at: due } => format!("due at {}", at(due.saturating_mul(1_000_000))),
        Cause::Asked { .. } | Cause::Repeat { .. } => run.cause.to_string(),
    };
    vec![
        run.number.to_string().into(),
        why.into(),
        run.state.node().map_or("-", |node| node.as_str()).into(),
        began.map_or("-".to_owned(), at).into(),
        took.into(),
        state(run),
    ]
}

fn state(run: &Run) -> Cell {
    let text = run.state.to_string();
    match &run.state {
        RunState::Succeeded(_) | RunState::Running { .. } | RunState::Given { .. } => text.into(),
        RunState::Waiting => Cell::new(Look::Warning, text),
        RunState::Failed { .. } | RunState::Unknown { .. } | RunState::Withdrawn { .. } => {
            Cell::new(Look::Error, text)
        }
    }
}

/// A moment in UTC, as schedules are.
fn at(micros: i64) -> String {
    Timestamp::from_microsecond(micros)
        .map_or_else(|_| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `340 ms`, `12.3 s`.
fn length(micros: i64) -> String {
    match micros / 1000 {
        millis if millis < 10_000 => format!("{millis} ms"),
        millis => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use model::jobs::Ended;

    use super::super::output::Color;
    use super::*;

    fn run(number: u64, cause: Cause, state: RunState) -> Run {
        Run { number, cause, state }
    }

    #[test]
    fn a_history_says_why_where_when_and_how() {
        const BEGAN: i64 = 1_795_466_800_000_000;
        let ended = Ended { node: "e1".into(), since_us: BEGAN, until_us: BEGAN + 340_000 };
        let failed = RunState::Failed {
            ended: ended.clone(),
            because: "ended with exit code 3".to_owned(),
            last_lines: vec![],
        };
        let unknown = RunState::Unknown {
            ended: Ended { until_us: BEGAN + 12_340_000, ..ended.clone() },
            because: "e1 was lost while it ran".to_owned(),
        };
        let by = "an operator".to_owned();
        let runs = [
            run(1, Cause::Due { at: 1_795_466_800 }, RunState::Succeeded(ended)),
            run(2, Cause::Asked { by }, failed),
            run(3, Cause::Due { at: 1_795_467_100 }, unknown),
            run(4, Cause::Repeat { of: 3 }, RunState::Waiting),
        ];
        let rows: Vec<Vec<Cell>> = runs.iter().map(run_row).collect();
        let text = table(&["run", "why", "node", "began", "took", "state"], &rows, Output::new(Color::Never));
        insta::assert_snapshot!(text);
    }
}
