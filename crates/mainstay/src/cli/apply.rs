//! `mainstay apply`: a changed file for a running system.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Lab, Mode, Options};
use mainstay::api::Request;
use mainstay::install;
use model::NodeName;
use model::status::SettingsState;
use model::system::{Change, Checked, Impact, System, difference, parse_change};

use super::columns::listed;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::load::{Loaded, load};
use super::output::{Look, Output, note};
use super::progress::Progress;
use super::render;
use super::status::verdict::{Trouble, Verdict};
use super::status::view::View;
use super::target::Target;

/// How long the agreement on the new file may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take until every node runs the new file.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take until everything the file demands works.
const WORKS_LIMIT: Duration = Duration::from_secs(180);

/// Change the running system to what a file describes
///
/// Shows every change with its consequence and asks before anything is touched. What cannot be changed while the system
/// runs is refused as a whole (exit code 3). On a system that `up` started, nodes that are new in the file are started.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay apply mainstay.toml --dry-run
  mainstay apply mainstay.toml --yes")]
pub(crate) struct Args {
    /// The changed system file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do not ask before the change
    #[arg(long)]
    yes: bool,
    /// Only show what would change and what follows from it
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let wanted = Wanted::read(&args.file, &view, connection.lab(), output)?;
    let changes = difference(&view.system, &wanted.system);
    output.print(&shown(&changes, view.overview.generation, output))?;
    output.print(&scaled(&view, &wanted.system))?;
    refuse(&changes)?;
    if changes.is_empty() || args.dry_run {
        return Ok(Exit::Done);
    }
    if !(args.yes || agreed()?) {
        note("nothing was changed\n");
        return Ok(Exit::Done);
    }
    let mut progress = Progress::begin(output);
    put_in_force(&mut connection, &mut progress, &view, &wanted).await?;
    works(&mut connection, &mut progress, &view, output).await
}

/// What shall run.
struct Wanted {
    /// The file.
    file: PathBuf,
    /// What it says, for what runs.
    system: System,
    /// What it says by itself. In a lab on loopback addresses the file's own addresses are not those that run.
    written: System,
}

impl Wanted {
    fn read(file: &Path, view: &View, lab: Option<&Lab>, output: Output) -> Result<Self, CliError> {
        let mut loaded = load(file, Some(&view.system))?;
        let mut written = None;
        if let Some(lab) = lab.filter(|lab| lab.mode() == Mode::Loopback) {
            let (plain, text) = load(file, None)?.valid()?;
            let text = lab.localize(&text, &plain.system);
            let checked = parse_change(&file.display().to_string(), text.as_bytes(), &view.system);
            loaded = Loaded { text, checked };
            written = Some(plain.system);
        }
        let (Checked { system, warnings }, text) = loaded.valid()?;
        note(&render::warnings(&warnings, &text, output));
        let written = written.unwrap_or_else(|| system.clone());
        Ok(Self { file: file.to_owned(), system, written })
    }
}

// ---- before ----

/// Every change and what follows, the gravest last, where a person looks first.
fn shown(changes: &[Change], generation: u64, output: Output) -> String {
    if changes.is_empty() {
        return format!("nothing changes: the file says what is in force (generation {generation})\n");
    }
    let mut sorted: Vec<&Change> = changes.iter().collect();
    sorted.sort_by_key(|change| change.impact);
    let mut out = String::new();
    for change in sorted {
        let (word, look) = impact(change.impact);
        let word = match look {
            Some(look) => output.on_stdout(look, &format!("{word:8}")),
            None => format!("{word:8}"),
        };
        out += &format!("{word} {change}\n");
    }
    out
}

fn impact(impact: Impact) -> (&'static str, Option<Look>) {
    match impact {
        Impact::None => ("nothing", None),
        Impact::Reload => ("reloads", None),
        Impact::Start => ("starts", Some(Look::Good)),
        Impact::Rolling => ("restarts", Some(Look::Warning)),
        Impact::Stop => ("stops", Some(Look::Error)),
        Impact::Refused => ("refused", Some(Look::Error)),
    }
}

/// Services of which another number of instances runs than the file says, whatever is applied.
fn scaled(view: &View, system: &System) -> String {
    let mut out = String::new();
    for (service, count) in &view.overview.upkeep.scaled {
        let Some(config) = system.services.get(service) else { continue };
        out += &format!(
            "{service} stays scaled to {count} instances instead of the file's {}: `mainstay scale {service} --undo` ends that\n",
            config.instances
        );
    }
    out
}

fn refuse(changes: &[Change]) -> Result<(), CliError> {
    let refused: Vec<&str> = changes
        .iter()
        .filter(|change| change.impact == Impact::Refused)
        .map(|change| change.path.as_str())
        .collect();
    match refused.as_slice() {
        [] => Ok(()),
        paths => {
            let message =
                format!("{} cannot be changed while the system runs; nothing was changed", listed(paths));
            Err(CliError::with(Exit::Refused, message)
                .hint("put them back as they were, then apply the rest"))
        }
    }
}

/// Asks the person.
fn agreed() -> Result<bool, CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::with(
            Exit::Invalid,
            "nobody can be asked, because the input is not a terminal",
        )
        .hint("add --yes to change it without asking, or --dry-run to see only what would change"));
    }
    note("change the running system? [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| CliError::failed("the answer cannot be read").because(&error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

// ---- the change ----

async fn put_in_force(
    connection: &mut Connection,
    progress: &mut Progress,
    view: &View,
    wanted: &Wanted,
) -> Result<(), CliError> {
    let system = &wanted.system;
    let replaces = view.overview.generation;
    let request = Request::Apply { system: Box::new(system.clone()), replaces };
    let told = connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
    progress.say(&told);
    start_new_nodes(connection, progress, wanted).await?;
    let missing =
        progress.until(connection, IN_FORCE_LIMIT, |view| behind(view, replaces + 1, system)).await?;
    if let Some(missing) = missing {
        return Err(CliError::with(
            Exit::Degraded,
            format!("generation {} is agreed on, but {missing}", replaces + 1),
        )
        .hint("a node that comes back follows by itself; `mainstay status` shows which do not"));
    }
    progress.say("every node runs the new file");
    remove_old_nodes(connection, progress, view, system).await
}

/// Who does not run `generation` yet.
fn behind(view: &View, generation: u64, system: &System) -> Option<String> {
    let own = |node: &NodeName| view.overview.nodes.get(node).map_or(0, |summary| summary.generation);
    let behind: Vec<&str> =
        system.nodes.keys().filter(|node| own(node) < generation).map(NodeName::as_str).collect();
    (!behind.is_empty()).then(|| {
        let does = if behind.len() == 1 { "does" } else { "do" };
        format!("{} {does} not run it yet", listed(behind))
    })
}

/// In a lab a new node is a machine that has to be switched on.
async fn start_new_nodes(
    connection: &mut Connection,
    progress: &mut Progress,
    wanted: &Wanted,
) -> Result<(), CliError> {
    let Some(lab) = connection.lab() else { return Ok(()) };
    let known: BTreeSet<&NodeName> = lab.nodes().map(|(name, _)| name).collect();
    if wanted.system.nodes.keys().all(|node| known.contains(node)) {
        return Ok(());
    }
    let (described, file, name) = (wanted.written.clone(), wanted.file.clone(), wanted.system.name.clone());
    let options = move || Options {
        prepare: vec![Box::new(move |ground| {
            let addresses: Vec<IpAddr> = ground.node.addresses.values().copied().collect();
            install::identity(ground.directory, &name, ground.name, &addresses, ground.root)
        })],
        ..Options::default()
    };
    let added = connection.change_lab(move |lab| lab.add_nodes(&described, &file, &options())).await?;
    let added = added.unwrap_or_default();
    progress.say(&format!("node {} is on", listed(added.iter().map(NodeName::as_str))));
    Ok(())
}

/// In a lab a node that has left is a machine that can be switched off.
async fn remove_old_nodes(
    connection: &mut Connection,
    progress: &mut Progress,
    view: &View,
    system: &System,
) -> Result<(), CliError> {
    let gone: Vec<NodeName> =
        view.system.nodes.keys().filter(|node| !system.nodes.contains_key(*node)).cloned().collect();
    for node in gone {
        if connection.lab().is_none_or(|lab| lab.node(&node).is_err()) {
            continue;
        }
        let leaving = node.clone();
        connection.change_lab(move |lab| lab.remove_node(&leaving)).await?;
        progress.say(&format!("node {node} is off and its files are removed"));
    }
    Ok(())
}

/// Waits until everything works that worked before or was added.
async fn works(
    connection: &mut Connection,
    progress: &mut Progress,
    before: &View,
    output: Output,
) -> Result<Exit, CliError> {
    let was = Verdict::of(before).troubles;
    let known = |trouble: &Trouble| {
        was.iter().any(|old| (&old.subject, &old.what) == (&trouble.subject, &trouble.what))
    };
    let mut left = String::new();
    let missing = progress.until(connection, WORKS_LIMIT, |view| {
        let troubles = Verdict::of(view).troubles;
        left = match troubles.first() {
            None => "and everything works".to_owned(),
            Some(old) => format!("and all works as before; what was wrong still is: {}", old.what),
        };
        troubles
            .into_iter()
            .find(|trouble| !known(trouble))
            .map(|trouble| trouble.what)
            .or_else(|| unread(view))
    });
    let missing = missing.await?;
    let took = progress.elapsed().as_millis();
    match missing {
        None => {
            output.print(&format!("the change is made {left} (after {took} ms)\n"))?;
            Ok(Exit::Done)
        }
        Some(missing) => {
            Err(CliError::with(Exit::Degraded, format!("the change is made, but after {took} ms {missing}"))
                .hint("`mainstay status --watch` shows how far it is"))
        }
    }
}

/// Who has not compared yet what runs with what the file says: what it means is not known before.
fn unread(view: &View) -> Option<String> {
    let compared = |node: &&NodeName| {
        let known = view.overview.nodes.get(*node);
        view.system.is_witness(node)
            || known.is_none_or(|known| known.services.generation >= known.generation)
    };
    let here = |node: &&NodeName| view.is_here(node);
    if let Some(node) = view.system.nodes.keys().filter(here).find(|node| !compared(node)) {
        return Some(format!("{node} has not compared its instances with the file yet"));
    }
    view.system.databases.keys().find_map(|database| {
        let unread = |node: &&NodeName| {
            let member = view.member(database, node);
            view.is_here(node) && member.is_some_and(|m| m.status.settings == SettingsState::Unread)
        };
        let node = view.members(database).iter().find(unread)?;
        Some(format!("{database} on {node} has not been asked for its settings yet"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::output::Color;
    use super::super::testkit::shop;
    use super::*;

    #[test]
    fn a_change_is_shown_with_its_consequence_the_gravest_last() {
        let (old, mut new) = (shop(), shop());
        let database = new.databases.get_mut("orders").unwrap();
        database.parameters.insert("work_mem".to_owned(), "8MB".to_owned());
        database.port += 1;
        new.services.get_mut("web").unwrap().instances = 4;
        let changes = difference(&old, &new);
        insta::assert_snapshot!(shown(&changes, 3, Output::new(Color::Never)));
        let refused = refuse(&changes).unwrap_err();
        assert_eq!(refused.exit(), Exit::Refused);
        assert_eq!(
            refused.sentence(),
            "databases.orders.port cannot be changed while the system runs; nothing was changed"
        );
    }

    #[test]
    fn no_change_is_said() {
        let text = shown(&difference(&shop(), &shop()), 3, Output::new(Color::Never));
        assert_eq!(text, "nothing changes: the file says what is in force (generation 3)\n");
    }
}
