//! `mainstay release`: a new release of a service, watched while it takes over.

pub(super) mod source;

use std::fmt::Write as _;
use std::time::Duration;

use clap::Subcommand;
use mainstay::api::{ReleaseOrder, Request, hex};
use model::ServiceName;
use model::release::{FailedRun, Past, Phase, Release, Rollout, Service, Strategy};
use serde::Serialize;

use super::columns::section;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::status::view::View;
use super::target::Target;
use source::Source;

/// How long one request may take; the last piece is answered when the artefact is unpacked.
const REQUEST_LIMIT: Duration = Duration::from_secs(300);

/// How long a release may take until the command gives up watching it.
const LIMIT: Duration = Duration::from_secs(3600);

/// How long it may take until every agent knows of a release.
const KNOWN_LIMIT: Duration = Duration::from_secs(10);

/// Let a new release of a service take over, and take it back if it is worse
///
/// The artefact is copied to every node before anything changes. New instances are started beside the old ones; an old one
/// stops when every proxy has acknowledged that it gets no new requests, and none is left. A release whose instances do not
/// become ready, end by themselves, fail more requests or answer much slower than the old ones is taken back by itself
/// (exit code 1). Where the file names a job in `release.before`, one run of it from the new release must succeed first,
/// else nothing is begun.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  mainstay release web --from ./build
  mainstay release web --from web-1.4.tar.gz --canary 10%,50%
  mainstay release web --from https://example.org/web.tar.gz@SHA256 --blue-green
  mainstay release status
  mainstay release history web
  mainstay release rollback web")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The service
    #[arg(value_name = "SERVICE", required = true)]
    service: Option<String>,
    /// A directory, a tar archive (plain or gzip), or the address of one with its SHA-256
    #[arg(long, value_name = "DIR|TARBALL|URL@SHA256", required = true)]
    from: Option<String>,
    /// Give the new release these parts of the requests one after another, while all old instances stay
    #[arg(long, value_name = "PERCENT,...", conflicts_with = "blue_green", value_delimiter = ',', value_parser = percent)]
    canary: Vec<u8>,
    /// Start all new instances beside the old ones, then let all requests go to them at once
    #[arg(long)]
    blue_green: bool,
    /// How long new instances must have worked before the next step
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = duration)]
    bake: Duration,
    /// How long new instances may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    ready_within: Duration,
    /// How many requests of each release are compared at least
    #[arg(long, value_name = "REQUESTS", default_value_t = 100)]
    sample: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show which releases serve and which are on their way
    Status(Asked),
    /// Show the releases of a service, the newest first
    History(AskedOf),
    /// Take the release on its way back, or go back to the one before
    Rollback(AskedOf),
}

#[derive(Debug, clap::Args)]
struct Asked {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct AskedOf {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn percent(text: &str) -> Result<u8, String> {
    let value: Option<u8> = text.trim().trim_end_matches('%').parse().ok();
    value.filter(|value| (1..=99).contains(value)).ok_or_else(|| "a part is 1% to 99%".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "write for example 6s or 2m".to_owned())?;
    Duration::try_from(span).map_err(|_| "a duration is not negative".to_owned())
}

/// What `--json` prints of a release.
#[derive(Serialize)]
struct Report<'r> {
    service: &'r ServiceName,
    release: &'r Release,
    serves: bool,
    because: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_run: Option<&'r FailedRun>,
    took_ms: u128,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.what {
        None => begin(args, output).await,
        Some(What::Status(asked)) => {
            let view = Connection::open(&asked.target)?.view().await?;
            match asked.json {
                true => output.print_json(&view.overview.releases)?,
                false => output.print(&status(&view, output))?,
            }
            Ok(Exit::Done)
        }
        Some(What::History(asked)) => {
            let view = Connection::open(&asked.target)?.view().await?;
            let name = known(&view, &asked.service)?;
            let service = view.overview.releases.get(&name).cloned().unwrap_or_default();
            match asked.json {
                true => output.print_json(&service)?,
                false => output.print(&history(&service, output))?,
            }
            Ok(Exit::Done)
        }
        Some(What::Rollback(asked)) => {
            let mut connection = Connection::open(&asked.target)?;
            let view = connection.view().await?;
            let name = known(&view, &asked.service)?;
            let mut progress = Progress::begin(output);
            let request = Request::ReleaseBack { service: name.clone() };
            let told = connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
            progress.say(&told);
            let wanted = rollout(&view, &name).is_none();
            watch(&mut connection, &mut progress, &view, &name, wanted, asked.json, output).await
        }
    }
}

fn known(view: &View, service: &str) -> Result<ServiceName, CliError> {
    let name = ServiceName::new(service);
    if view.system.services.contains_key(&name) {
        return Ok(name);
    }
    let names: Vec<&str> = view.system.services.keys().map(ServiceName::as_str).collect();
    Err(CliError::with(Exit::Invalid, format!("there is no service {service}")).hint(format!(
        "services of {} are: {}",
        view.system.name,
        names.join(", ")
    )))
}

fn rollout<'v>(view: &'v View, name: &ServiceName) -> Option<&'v Rollout> {
    view.overview.releases.get(name)?.rollout.as_ref()
}

async fn begin(args: Args, output: Output) -> Result<Exit, CliError> {
    let (Some(service), Some(from)) = (&args.service, &args.from) else {
        return Err(CliError::with(Exit::Invalid, "a release needs a service and --from"));
    };
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let name = known(&view, service)?;
    let mut progress = Progress::begin(output);
    let source = Source::find(from, &mut progress).await?;
    send(&mut connection, &mut progress, &view, &source).await?;
    let strategy = match (args.canary.is_empty(), args.blue_green) {
        (false, _) => Strategy::Canary(args.canary.clone()),
        (true, true) => Strategy::BlueGreen,
        (true, false) => Strategy::Rolling,
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let order = ReleaseOrder {
        digest: source.digest.clone(),
        size: source.size,
        from: from.clone(),
        strategy,
        bake_ms: ms(args.bake),
        ready_within_ms: ms(args.ready_within),
        sample: args.sample,
    };
    let request = Request::Release { service: name.clone(), order };
    let told = connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
    progress.say(&told);
    watch(&mut connection, &mut progress, &view, &name, true, args.json, output).await
}

/// Sends the artefact to the agent that is asked; the others copy it from there.
async fn send(
    connection: &mut Connection,
    progress: &mut Progress,
    view: &View,
    source: &Source,
) -> Result<(), CliError> {
    let node = &view.overview.node;
    progress.say(&format!(
        "sending {} ({} KiB) to {node}",
        source.digest.short(),
        source.size.div_ceil(1024)
    ));
    let mut offset = 0;
    loop {
        let piece = source.piece(offset)?;
        let request = Request::ArtefactTake { digest: source.digest.clone(), offset, piece: hex(&piece) };
        let answer = connection.done(node, &request, REQUEST_LIMIT).await?;
        if piece.is_empty() || answer == "complete" {
            return Ok(());
        }
        offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
}

/// Tells every step until the release serves or has been taken back. `wanted`: whether it is to serve.
async fn watch(
    connection: &mut Connection,
    progress: &mut Progress,
    before: &View,
    name: &ServiceName,
    wanted: bool,
    json: bool,
    output: Output,
) -> Result<Exit, CliError> {
    let number = match rollout(before, name).filter(|_| !wanted) {
        Some(rollout) => rollout.release.number,
        None => before.overview.releases.get(name).map_or(1, Service::next_number),
    };
    let unknown = |view: &View| {
        let service = view.overview.releases.get(name);
        service
            .is_none_or(|service| service.find(number).is_none())
            .then(|| "waiting for the agents".to_owned())
    };
    progress.until(connection, KNOWN_LIMIT, unknown).await?;
    // An agent that does not lead does not know what is waited for: then what the leader said last still holds.
    let (mut last, mut ending) = ((String::new(), None), None);
    let missing = progress.until(connection, limit(before, name), |view| {
        ending = view.overview.releases.get(name).and_then(|service| Ending::of(service, number));
        if ending.is_some() {
            return None;
        }
        // One that has just started knows nothing of it yet.
        let Some((place, waits)) = under_way(view, name) else {
            return Some("waiting for the agents".to_owned());
        };
        if place != last.0 || waits.is_some() {
            last = (place, waits);
        }
        Some(sentence(&last))
    });
    let missing = missing.await?;
    let Some(ending) = ending else {
        let missing = missing.unwrap_or_default();
        return Err(CliError::with(Exit::Degraded, format!("release {number} is not over yet: {missing}"))
            .hint("it goes on; `mainstay release status` shows how far it is"));
    };
    let took_ms = progress.elapsed().as_millis();
    if json {
        let Ending { release, serves, because, failed_run } = &ending;
        let (serves, failed_run) = (*serves, failed_run.as_ref());
        output.print_json(&Report { service: name, release, serves, because, failed_run, took_ms })?;
    }
    match (ending.serves, wanted) {
        (true, _) if !json => {
            output.print(&format!("release {number} of {name} serves (after {took_ms} ms)\n"))?
        }
        (false, false) if !json => {
            output.print(&format!("release {number} of {name} has been taken back\n"))?
        }
        (false, true) => return Err(ending.error(name)),
        (true, _) | (false, false) => {}
    }
    Ok(Exit::Done)
}

/// How long a release is watched: the job that it needs may take its time.
fn limit(view: &View, name: &ServiceName) -> Duration {
    let before = view.system.services.get(name).and_then(|service| service.release.before.as_ref());
    let job = before.and_then(|job| view.system.jobs.get(job));
    LIMIT + job.map_or(Duration::ZERO, |job| job.timeout)
}

/// How a release ended.
#[derive(Debug, PartialEq)]
struct Ending {
    release: Release,
    /// Whether it took over; the next one may have followed since.
    serves: bool,
    because: String,
    /// The run because of which it was not begun.
    failed_run: Option<FailedRun>,
}

impl Ending {
    /// `None` while it is on its way, or not known.
    fn of(service: &Service, number: u64) -> Option<Self> {
        if let Some(release) = service.current.as_ref().filter(|current| current.number == number) {
            let because = "every step went well".to_owned();
            return Some(Self { release: release.clone(), serves: true, because, failed_run: None });
        }
        let past = service.history.iter().find(|past| past.release.number == number)?.clone();
        let Past { release, served, because, failed_run } = past;
        Some(Self { release, serves: served, because, failed_run })
    }
}

impl Ending {
    /// What a person is told who wanted it to serve.
    fn error(&self, name: &ServiceName) -> CliError {
        let (number, because) = (self.release.number, &self.because);
        match &self.failed_run {
            Some(run) => {
                let lines: String = run.last_lines.iter().map(|line| format!("\n  | {line}")).collect();
                let message = format!("release {number} of {name} was not begun: {because}{lines}");
                CliError::failed(message)
                    .hint(format!("`mainstay job logs {} {}` shows what it printed", run.job, run.number))
            }
            None => CliError::failed(format!("release {number} of {name} was taken back: {because}"))
                .hint(format!("`mainstay logs {name}` shows what its instances said")),
        }
    }
}

/// Where the release on its way is, and what it waits for; `None` when there is none.
fn under_way(view: &View, name: &ServiceName) -> Option<(String, Option<String>)> {
    let rollout = rollout(view, name)?;
    if let Some(reason) = &view.overview.paused {
        return Some((format!("nothing goes on while the automation is paused: {reason}"), None));
    }
    let waits = view.because(&format!("service/{name} release"));
    Some((place(rollout, view, name), waits.map(str::to_owned)))
}

fn sentence((place, waits): &(String, Option<String>)) -> String {
    match waits {
        Some(waits) => format!("{place}: {waits}"),
        None => place.clone(),
    }
}

fn place(rollout: &Rollout, view: &View, name: &ServiceName) -> String {
    let all = decide::release::steps(&rollout.strategy, view.wanted(name)).len();
    match &rollout.phase {
        Phase::Staging => "copying".to_owned(),
        Phase::Before => "before it begins".to_owned(),
        Phase::Step(step) => format!("step {} of {all}", step + 1),
        Phase::RollingBack => "taking it back".to_owned(),
    }
}

fn status(view: &View, output: Output) -> String {
    let row = |name: &ServiceName| {
        let service = view.overview.releases.get(name).cloned().unwrap_or_default();
        let serves = service.current.as_ref().map_or("-".to_owned(), shown);
        let next = service.rollout.as_ref().map_or("-".to_owned(), |rollout| shown(&rollout.release));
        let far = under_way(view, name).as_ref().map(sentence).or_else(|| not_serving(&service));
        vec![name.as_str().into(), serves.into(), next.into(), far.unwrap_or_default().into()]
    };
    let rows: Vec<_> = view.system.services.keys().map(row).collect();
    section("Releases", &["service", "serves", "on its way", "how far"], &rows, output)
}

/// The releases that are on their way, for the status; nothing when there is none.
pub(super) fn under_way_table(view: &View, output: Output) -> String {
    let all = view.system.services.keys().filter_map(|name| Some((name, rollout(view, name)?)));
    let row = |(name, rollout): (&ServiceName, &Rollout)| {
        let far = under_way(view, name).as_ref().map(sentence).unwrap_or_default();
        vec![name.as_str().into(), shown(&rollout.release).into(), far.into()]
    };
    let rows: Vec<_> = all.map(row).collect();
    section("Releases", &["service", "on its way", "how far"], &rows, output)
}

/// What came of the newest release, where it does not serve and none is on its way.
pub(super) fn not_serving(service: &Service) -> Option<String> {
    let past = service.history.first().filter(|past| !past.served && service.rollout.is_none())?;
    if service.current.as_ref().is_some_and(|current| current.number > past.release.number) {
        return None;
    }
    let end = if past.failed_run.is_some() { "not begun" } else { "taken back" };
    Some(format!("release {} was {end}: {}", past.release.number, past.because))
}

fn shown(release: &Release) -> String {
    format!("{} ({})", release.number, release.digest.short())
}

fn history(service: &Service, output: Output) -> String {
    let when = |release: &Release| {
        jiff::Timestamp::from_microsecond(release.at_us)
            .map_or_else(|_| "-".to_owned(), |at| format!("{at:.0}"))
    };
    let row = |release: &Release, what: String| {
        vec![
            release.number.to_string().into(),
            when(release).into(),
            release.digest.short().into(),
            release.from.clone().into(),
            what.into(),
        ]
    };
    let mut rows = vec![];
    if let Some(rollout) = &service.rollout {
        rows.push(row(&rollout.release, format!("on its way: {}", rollout.because)));
    }
    if let Some(current) = &service.current {
        rows.push(row(current, "serves".to_owned()));
    }
    for past in &service.history {
        let end = match (past.served, past.failed_run.is_some()) {
            (true, _) => "served until ",
            (false, true) => "not begun: ",
            (false, false) => "taken back: ",
        };
        rows.push(row(&past.release, format!("{end}{}", past.because)));
    }
    let mut out =
        section("Releases", &["release", "asked for", "artefact", "from", "what came of it"], &rows, output);
    if rows.is_empty() {
        let _ = writeln!(out, "  none yet");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_over_when_it_serves_or_is_history_and_not_when_nothing_is_known_of_it() {
        let release = |number: u64| Release {
            number,
            digest: format!("{number:064}").try_into().unwrap(),
            size: 1,
            from: String::new(),
            at_us: 0,
        };
        let past = |number, served| model::release::Past {
            release: release(number),
            served,
            because: "it is slow".to_owned(),
            failed_run: None,
        };
        let service = Service {
            current: Some(release(4)),
            rollout: None,
            history: vec![past(3, false), past(2, true)],
        };
        let serves = |number| Ending::of(&service, number).map(|ending| ending.serves);
        assert_eq!([2, 3, 4, 5].map(serves), [Some(true), Some(false), Some(true), None]);
        assert_eq!(Ending::of(&service, 3).unwrap().because, "it is slow");
        assert_eq!(Ending::of(&Service::default(), 1), None, "an agent that has just started");
    }

    #[test]
    fn parts_and_durations_are_read_or_refused() {
        assert_eq!(percent("10%"), Ok(10));
        assert_eq!(percent(" 50 "), Ok(50));
        for bad in ["0", "100%", "-1", "ten"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        for bad in ["-2s", "soon", "2"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
