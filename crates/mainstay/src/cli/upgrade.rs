//! `mainstay upgrade`: Mainstay itself, node by node, while everything goes on.

mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mainstay::api::{DRAIN_S, Reply, Request, hex};
use mainstay::program::Facts;
use model::NodeName;
use model::release::Digest;
use model::status::Program;
use serde::Serialize;

use super::columns::listed;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::release::duration;
use super::release::source::Source;
use super::status::verdict::{Level, PROGRAMS, Verdict};
use super::status::view::View;
use super::target::Target;

/// How long one request may take: a node checks and copies programs.
const REQUEST_LIMIT: Duration = Duration::from_secs(120);

/// How long a program may take to say what it is.
const FACTS_LIMIT: Duration = Duration::from_secs(10);

/// How long a node may take until all is well with its new program; it goes back by itself before.
const NODE_LIMIT: Duration = Duration::from_secs(180);

/// How long a system that is just coming back to full health is waited for at the beginning.
const CALM_LIMIT: Duration = Duration::from_secs(30);

/// The most bytes of a program that travel at once.
const PIECE: usize = 256 << 10;

/// Replace Mainstay's own program on all nodes, one after another, while everything goes on
///
/// The program is copied to every node and looked at there before anything changes. Each node's agent becomes it without
/// ending, sees that it works, and has the proxy replaced: the new one takes over the listening sockets, the former one
/// answers what is under way and keeps sessions until they end. The next node follows when all is well again, those with a
/// primary last. A program that does not work is taken back by the node itself, and the command ends. Interrupted, it leaves
/// a system that works; the same command goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay upgrade --binary ./mainstay
  mainstay upgrade --binary ./mainstay --drain 10m
  mainstay upgrade --undo")]
pub(crate) struct Args {
    /// The new program
    #[arg(long, value_name = "PATH", required_unless_present = "undo", conflicts_with = "undo")]
    binary: Option<PathBuf>,
    /// Go back to the program that each node ran before
    #[arg(long)]
    undo: bool,
    /// How long sessions and other long connections may stay with the former proxies
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain: Option<Duration>,
    /// Begin although the system is not healthy
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    nodes: Vec<NodeReport>,
    /// Nodes that ran the program already.
    unchanged: Vec<NodeName>,
    took_ms: u128,
}

/// One node that was changed.
#[derive(Serialize)]
struct NodeReport {
    node: NodeName,
    from: String,
    to: Program,
    took_ms: u128,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let mut progress = Progress::begin(output);
    let view = connection.view().await?;
    all_are_here(&view)?;
    let wanted = match &args.binary {
        Some(path) => brought(&view, path, &connection, &mut progress).await?,
        None => before(&view)?,
    };
    let drain_s = args.drain.map_or(DRAIN_S, |drain| drain.as_secs());
    let mut work = Work {
        connection: &mut connection,
        progress,
        wanted,
        drain_s,
        known: BTreeSet::new(),
        nodes: vec![],
    };
    work.begin(args.force).await?;
    work.all().await?;
    let unchanged = work.wanted.keys().filter(|node| !work.nodes.iter().any(|done| done.node == **node));
    let report = Report {
        unchanged: unchanged.cloned().collect(),
        took_ms: work.progress.elapsed().as_millis(),
        nodes: work.nodes,
    };
    match args.json {
        true => output.print_json(&report)?,
        false => output.print(&in_words(&report))?,
    }
    Ok(Exit::Done)
}

fn in_words(report: &Report) -> String {
    let Some(last) = report.nodes.last() else {
        return "every node runs it already\n".to_owned();
    };
    let nodes = listed(report.nodes.iter().map(|done| done.node.as_str()));
    let run = if report.nodes.len() == 1 { "runs" } else { "run" };
    format!("{nodes} {run} the program {} (after {} ms)\n", last.to, report.took_ms)
}

/// A node that does not answer would be left behind.
fn all_are_here(view: &View) -> Result<(), CliError> {
    let away: Vec<&str> =
        view.system.nodes.keys().filter(|node| !view.is_here(node)).map(NodeName::as_str).collect();
    if away.is_empty() {
        return Ok(());
    }
    let verb = if away.len() == 1 { "is" } else { "are" };
    Err(CliError::with(Exit::Refused, format!("{} {verb} not heard, and would be left behind", listed(away)))
        .hint(
            "start what is missing, or take it out of the system file; `mainstay status` shows what is wrong",
        ))
}

// ---- which program ----

/// A new program lies on every node from then on, and every node says that it could run it.
async fn brought(
    view: &View,
    path: &Path,
    connection: &Connection,
    progress: &mut Progress,
) -> Result<BTreeMap<NodeName, Program>, CliError> {
    let facts = facts(path).await?;
    let cannot =
        |because| CliError::with(Exit::Refused, format!("this is no program to upgrade to: {because}"));
    Facts::own().can_become(&facts).map_err(cannot)?;
    let source = Source::file(path)?;
    let program = Program { version: facts.version, digest: source.digest.clone() };
    progress.say(&format!("the program is {program}"));
    let others: Vec<&NodeName> =
        view.system.nodes.keys().filter(|node| runs(view, node) != Some(program.digest.as_str())).collect();
    for node in &others {
        send(node, &source, connection, progress).await?;
    }
    for node in others {
        let request = Request::ProgramCheck { digest: program.digest.clone() };
        let reply = connection.ask(node, &request, REQUEST_LIMIT).await?;
        if !matches!(reply, Reply::Program(said) if said.version == program.version) {
            return Err(CliError::failed(format!("{node} finds another program than was sent")));
        }
    }
    Ok(view.system.nodes.keys().map(|node| (node.clone(), program.clone())).collect())
}

/// What the program says of itself.
async fn facts(path: &Path) -> Result<Facts, CliError> {
    let wrong = |because: String| {
        CliError::with(Exit::Invalid, format!("{} is no program to upgrade to: {because}", path.display()))
            .hint("name the file of another version of mainstay; `FILE --version` has to work here")
    };
    let path = path.canonicalize().map_err(|error| wrong(error.to_string()))?;
    let mut command = tokio::process::Command::new(&path);
    command.arg("program").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(FACTS_LIMIT, command.output()).await {
        Ok(output) => output.map_err(|error| wrong(error.to_string()))?,
        Err(_) => return Err(wrong(format!("it says nothing within {} s", FACTS_LIMIT.as_secs()))),
    };
    serde_json::from_slice(&output.stdout)
        .map_err(|_| wrong("it does not know `mainstay program`".to_owned()))
}

/// The program that each node ran before.
fn before(view: &View) -> Result<BTreeMap<NodeName, Program>, CliError> {
    let former = |node: &NodeName| view.overview.nodes.get(node)?.program.former.clone();
    let nodes = view.system.nodes.keys();
    let all: BTreeMap<NodeName, Program> =
        nodes.filter_map(|node| Some((node.clone(), former(node)?))).collect();
    // Interrupted in the middle, some run the former one already: what most go back to is the one meant.
    let mut counts: BTreeMap<&Digest, usize> = BTreeMap::new();
    all.values().for_each(|program| *counts.entry(&program.digest).or_default() += 1);
    let Some(meant) = counts.into_iter().max_by_key(|(_, count)| *count).map(|(digest, _)| digest.clone())
    else {
        return Err(CliError::with(Exit::Refused, "no node has a program to go back to")
            .hint("`mainstay upgrade --binary PATH` brings any version"));
    };
    Ok(all.into_iter().filter(|(_, program)| program.digest == meant).collect())
}

async fn send(
    node: &NodeName,
    source: &Source,
    connection: &Connection,
    progress: &mut Progress,
) -> Result<(), CliError> {
    let mut offset = 0;
    loop {
        let mut piece = source.piece(offset)?;
        piece.truncate(PIECE);
        let length = u64::try_from(piece.len()).unwrap_or(0);
        let request = Request::ProgramTake { digest: source.digest.clone(), offset, piece: hex(&piece) };
        let told = connection.done(node, &request, REQUEST_LIMIT).await?;
        if told == "complete" || piece.is_empty() {
            return Ok(());
        }
        offset += length;
        progress.say(&format!("copying to {node}: {} %", offset * 100 / source.size.max(1)));
    }
}

/// The digest of what a node runs, if it has said it.
fn runs<'v>(view: &'v View, node: &NodeName) -> Option<&'v str> {
    let digest = view.overview.nodes.get(node).map(|summary| summary.program.digest.as_str());
    digest.filter(|digest| !digest.is_empty())
}

// ---- node by node ----

struct Work<'c> {
    connection: &'c mut Connection,
    progress: Progress,
    wanted: BTreeMap<NodeName, Program>,
    drain_s: u64,
    /// What was not well at the beginning.
    known: BTreeSet<String>,
    nodes: Vec<NodeReport>,
}

impl Work<'_> {
    /// Waits for a system that works, and remembers what is not well and has nothing to do with this.
    async fn begin(&mut self, force: bool) -> Result<(), CliError> {
        let known = &self.known;
        let troubles = |view: &View| troubles(view, known);
        let missing = self.progress.until(self.connection, CALM_LIMIT, troubles).await?;
        if let Some(missing) = missing {
            if !force {
                return Err(CliError::with(Exit::Refused, format!("the system is not healthy: {missing}"))
                    .hint("`mainstay status` shows what is wrong; --force begins all the same"));
            }
            let view = self.connection.view().await?;
            self.known = Verdict::of(&view).troubles.into_iter().map(|trouble| trouble.what).collect();
        }
        Ok(())
    }

    async fn all(&mut self) -> Result<(), CliError> {
        loop {
            let view = self.connection.view().await?;
            let is_left =
                |node: &NodeName| self.wanted.get(node).is_some_and(|program| !is_done(&view, node, program));
            let Some(node) = order::next(&view, is_left) else { return Ok(()) };
            self.one(&view, &node).await?;
        }
    }

    async fn one(&mut self, view: &View, node: &NodeName) -> Result<(), CliError> {
        let Some(program) = self.wanted.get(node).cloned() else { return Ok(()) };
        let begun = self.progress.elapsed();
        let from = view.overview.nodes.get(node).map(|summary| summary.program.version.clone());
        let from = format!("{} ({:.12})", from.unwrap_or_default(), runs(view, node).unwrap_or_default());
        if runs(view, node) != Some(program.digest.as_str()) {
            let request = Request::ProgramUse { digest: program.digest.clone(), drain_s: self.drain_s };
            let told = self.connection.done(node, &request, REQUEST_LIMIT).await?;
            self.progress.say(&told);
        }
        self.wait(node, &program).await?;
        let took_ms = (self.progress.elapsed() - begun).as_millis();
        self.progress.say(&format!("{node} runs {program}, and all is well (after {took_ms} ms)"));
        self.nodes.push(NodeReport { node: node.clone(), from, to: program, took_ms });
        Ok(())
    }

    /// Waits until the node runs the program and all is well again.
    async fn wait(&mut self, node: &NodeName, program: &Program) -> Result<(), CliError> {
        let (mut refused, known) = (None, &self.known);
        let missing = self.progress.until(self.connection, NODE_LIMIT, |view| {
            refused = refusal(view, node, program);
            if refused.is_some() {
                return None;
            }
            unfinished(view, node, program).or_else(|| troubles(view, known))
        });
        let missing = missing.await?;
        let hint = "the other nodes were left alone and all goes on; `mainstay upgrade --undo` takes the first ones back too";
        match (refused, missing) {
            (Some(because), _) => {
                Err(CliError::failed(format!("{node} has gone back to its former program: {because}"))
                    .hint(hint))
            }
            (None, Some(missing)) => {
                let message = format!("{node} is not well after {} s: {missing}", NODE_LIMIT.as_secs());
                Err(CliError::failed(message).hint(hint))
            }
            (None, None) => Ok(()),
        }
    }
}

/// Why the node has taken the program back, if it has.
fn refusal(view: &View, node: &NodeName, program: &Program) -> Option<String> {
    let note = &view.overview.nodes.get(node)?.program;
    let (refused, because) = note.refused.as_ref()?;
    (refused.digest == program.digest && runs(view, node) != Some(program.digest.as_str()))
        .then(|| because.clone())
}

fn is_done(view: &View, node: &NodeName, program: &Program) -> bool {
    unfinished(view, node, program).is_none()
}

/// What the node has not done yet.
fn unfinished(view: &View, node: &NodeName, program: &Program) -> Option<String> {
    let Some(note) = view.overview.nodes.get(node).map(|summary| &summary.program) else {
        return Some(format!("waiting for {node}"));
    };
    if note.digest != program.digest.as_str() {
        return Some(format!("{node} begins to run it"));
    }
    if note.proxy == Some(false) {
        return Some(format!("{node} replaces its proxy"));
    }
    note.on_trial.then(|| format!("{node} tries it"))
}

/// What is not well, and was not known before.
fn troubles(view: &View, known: &BTreeSet<String>) -> Option<String> {
    let verdict = Verdict::of(view);
    let mut new = verdict.troubles.into_iter().filter(|trouble| {
        trouble.level != Level::Healthy && trouble.subject != PROGRAMS && !known.contains(&trouble.what)
    });
    new.next().map(|trouble| trouble.what)
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{healthy, seen, shop};
    use super::*;

    fn program(digit: char) -> Program {
        let digest = Digest::try_from(digit.to_string().repeat(64)).unwrap();
        Program { version: "0.1.0".to_owned(), digest }
    }

    #[test]
    fn a_node_is_done_when_agent_and_proxy_run_the_program_and_it_is_proven() {
        let mut overview = healthy(&shop(), "w1");
        let (node, new) = (NodeName::from("e1"), program('2'));
        let look = |overview: &decide::agent::Overview| {
            unfinished(&seen(shop(), overview.clone()), &node, &new).unwrap_or_default()
        };
        assert_eq!(look(&overview), "e1 begins to run it");
        let note = |overview: &mut decide::agent::Overview, proxy, on_trial| {
            let note = &mut overview.nodes.get_mut("e1").unwrap().program;
            (note.digest, note.proxy, note.on_trial) = (new.digest.to_string(), proxy, on_trial);
        };
        note(&mut overview, Some(false), true);
        assert_eq!(look(&overview), "e1 replaces its proxy");
        note(&mut overview, Some(true), true);
        assert_eq!(look(&overview), "e1 tries it");
        note(&mut overview, Some(true), false);
        assert_eq!(look(&overview), "");
    }

    #[test]
    fn a_program_that_was_taken_back_ends_the_wait_with_its_reason() {
        let mut overview = healthy(&shop(), "w1");
        let note = &mut overview.nodes.get_mut("e1").unwrap().program;
        note.digest = program('1').digest.to_string();
        note.refused = Some((program('2'), "it crashed".to_owned()));
        let view = seen(shop(), overview);
        let refused = |digit| refusal(&view, &"e1".into(), &program(digit));
        assert_eq!((refused('2'), refused('3')), (Some("it crashed".to_owned()), None));
    }

    #[test]
    fn undo_means_what_most_nodes_ran_before() {
        let mut overview = healthy(&shop(), "w1");
        assert_eq!(before(&seen(shop(), overview.clone())).unwrap_err().exit(), Exit::Refused);
        for (node, former) in [("e1", '1'), ("w1", '1'), ("n1", '2')] {
            overview.nodes.get_mut(node).unwrap().program.former = Some(program(former));
        }
        let wanted = before(&seen(shop(), overview)).unwrap();
        assert_eq!(wanted, [("e1".into(), program('1')), ("w1".into(), program('1'))].into());
    }
}
