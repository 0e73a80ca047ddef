//! The program of this node: received, looked at, taken up, proven or taken back. See [`crate::program`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::agent::Input;
use effects::artefact::{self, ArtefactError, Artefacts};
use effects::disposable;
use effects::process::{ProcessId, Spawn, ToolCommand, run_tool, spawn_detached};
use model::event::{Event, Severity};
use model::release::Digest;
use model::status::{Program, ProgramNote};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::data_plane::Stand;
use super::{Places, Shared};
use crate::api::{Reply, unhex};
use crate::program::{self, Choice, Facts};

/// How long one piece, and a look at the own directories, may take.
const PIECE_LIMIT: Duration = Duration::from_secs(10);

/// How long copying and checking a program may take.
const COPY_LIMIT: Duration = Duration::from_secs(60);

/// How long a new program may take to say what it is.
const FACTS_LIMIT: Duration = Duration::from_secs(10);

/// Between the answer to whoever asked and the end of this program: the answer has to go out, the lead to another node.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A program is proven when all that it has to do has worked for so long.
const PROVEN_AFTER: Duration = Duration::from_secs(2);

/// One that is not proven by then is taken back.
const TRIAL_LIMIT: Duration = Duration::from_secs(60);

/// How often is looked whether it works.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What helps against most that can go wrong here.
const HINT: &str = "the node goes on with the program that it runs; `mainstay events` tells what happened";

/// The programs of this node, as its agent knows them.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    choice: watch::Sender<Choice>,
    /// What this process runs, once that is known.
    own: watch::Sender<Option<Program>>,
    /// How far the proxy is with it.
    stand: watch::Sender<Stand>,
}

impl Programs {
    /// Those in the agent's directory.
    pub(super) fn open(places: &Places) -> Self {
        Self {
            choice: watch::Sender::new(Choice::read(&places.root)),
            own: watch::Sender::default(),
            stand: watch::Sender::default(),
        }
    }

    /// How long connections may stay with a proxy that is replaced.
    pub(super) fn drain(&self) -> Duration {
        Duration::from_secs(self.choice.borrow().drain_s.unwrap_or(crate::api::DRAIN_S))
    }

    /// Where is told how far the proxy is.
    pub(super) fn stand(&self) -> watch::Sender<Stand> {
        self.stand.clone()
    }

    fn note(&self) -> ProgramNote {
        let (choice, stand) = (self.choice.borrow(), self.stand.borrow());
        let own = self.own.borrow();
        ProgramNote {
            version: Facts::own().version,
            digest: own.as_ref().map(|own| own.digest.to_string()).unwrap_or_default(),
            on_trial: choice.on_trial,
            proxy: stand.follows,
            leaving: stand.leaving,
            proxy_trouble: stand.because.clone(),
            former: choice.former.clone(),
            refused: choice.refused.clone(),
        }
    }

    /// Changes what the node remembers, durably.
    async fn change(&self, places: &Places, change: impl FnOnce(&mut Choice)) -> Result<(), String> {
        let mut next = self.choice.borrow().clone();
        change(&mut next);
        let (root, kept) = (places.root.clone(), next.clone());
        match disposable::run("program", PIECE_LIMIT, move || kept.write(&root)).await {
            Ok(Ok(())) => {
                self.choice.send_replace(next);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Runs `work` on the programs of this node, on a thread of its own.
async fn with<T: Send + 'static>(
    shared: &Shared,
    limit: Duration,
    work: impl FnOnce(Artefacts) -> Result<T, ArtefactError> + Send + 'static,
) -> Result<T, String> {
    let root = program::store(&shared.places.root);
    match disposable::run("programs", limit, move || work(Artefacts::open(&root)?)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

// ---- what the others are told ----

/// Lets the others know which program runs here, and proves or takes back one that is on trial. For ever.
pub(super) async fn keep(shared: Shared) {
    let programs = shared.programs.clone();
    tokio::spawn(learn_own(programs.clone()));
    tell_refused(&shared).await;
    if programs.choice.borrow().on_trial {
        tokio::spawn(prove(shared.clone()));
    }
    let (mut choice, mut own, mut stand) =
        (programs.choice.subscribe(), programs.own.subscribe(), programs.stand.subscribe());
    loop {
        shared.inputs.send(Input::Program(programs.note()));
        let changed = tokio::select! {
            changed = choice.changed() => changed,
            changed = own.changed() => changed,
            changed = stand.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn learn_own(programs: Programs) {
    let look = || artefact::sha256(Path::new("/proc/self/exe"));
    match disposable::run("own program", COPY_LIMIT, look).await {
        Ok(Ok(digest)) => {
            let digest = Digest::try_from(digest).ok();
            let own = digest.map(|digest| Program { version: Facts::own().version, digest });
            programs.own.send_replace(own);
        }
        Ok(Err(error)) => tracing::warn!(%error, "the own program cannot be read"),
        Err(error) => tracing::warn!(%error, "the own program cannot be read"),
    }
}

/// An event for a program that was taken back before this one was started.
async fn tell_refused(shared: &Shared) {
    let refused = {
        let choice = shared.programs.choice.borrow();
        choice.refused.clone().filter(|_| !choice.told)
    };
    let Some((program, because)) = refused else { return };
    tell(shared, Severity::Warning, format!("went back from the program {program}"), because);
    if let Err(error) = shared.programs.change(&shared.places, |choice| choice.told = true).await {
        tracing::warn!(%error, "that an event was told could not be kept");
    }
}

fn tell(shared: &Shared, severity: Severity, what: String, because: String) {
    let node = shared.me.clone();
    let (subject, what) = (format!("node/{node}"), format!("{node} {what}"));
    shared.journal.add(Event { at_us: 0, node, severity, subject, what, because });
}

// ---- the trial ----

/// Waits until this program has worked for a moment, and says so; when it does not, the former one runs again.
async fn prove(shared: Shared) {
    let (begun, mut works_since) = (Instant::now(), None);
    let because = loop {
        sleep(LOOK_EVERY).await;
        match missing(&shared).await {
            None => {
                let since = *works_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PROVEN_AFTER {
                    return proven(&shared).await;
                }
            }
            Some(missing) => {
                works_since = None;
                if begun.elapsed() >= TRIAL_LIMIT {
                    break format!("it did not work after {} s: {missing}", TRIAL_LIMIT.as_secs());
                }
            }
        }
    };
    take_back(&shared, &because).await;
}

/// What this agent does not do yet that the one before did.
async fn missing(shared: &Shared) -> Option<String> {
    let known = shared.inputs.ask(|agent| (agent.leader().is_some(), agent.has_routes())).await;
    let stand = shared.programs.stand.borrow().clone();
    match known {
        None | Some((false, _)) => Some("no leader is known".to_owned()),
        Some((true, false)) => None,
        Some((true, true)) if stand.follows == Some(true) => None,
        Some((true, true)) => {
            Some(stand.because.unwrap_or_else(|| "the proxy does not run it yet".to_owned()))
        }
    }
}

async fn proven(shared: &Shared) {
    if let Err(error) = shared.programs.change(&shared.places, Choice::proven).await {
        // Should it end before this is kept, the former one runs again.
        tracing::warn!(%error, "that the program works could not be kept");
        return;
    }
    let kept = {
        let choice = shared.programs.choice.borrow();
        choice.chosen.iter().chain(&choice.former).map(|program| program.digest.clone()).collect()
    };
    if let Err(error) = with(shared, COPY_LIMIT, move |store| store.keep(&kept)).await {
        tracing::warn!(%error, "older programs could not be removed");
    }
    let own = shared.programs.own.borrow().clone();
    let what = own.map_or_else(|| "runs another program".to_owned(), |own| format!("runs the program {own}"));
    tell(shared, Severity::Info, what, "an operator asked for it, and it works".to_owned());
}

async fn take_back(shared: &Shared, because: &str) {
    let because = because.to_owned();
    if let Err(error) = shared.programs.change(&shared.places, |choice| choice.take_back(because)).await {
        tracing::error!(%error, "going back to the former program could not be kept");
        return;
    }
    go_on_as_chosen(shared);
}

/// Becomes what is chosen now.
fn go_on_as_chosen(shared: &Shared) {
    let chosen = shared.programs.choice.borrow().chosen.clone();
    let Some(chosen) = chosen else { return };
    tracing::info!(program = %chosen, "going on as another program");
    let error = program::become_program(&program::file(&shared.places.root, &chosen.digest));
    tracing::error!(%error, "the program cannot be run");
}

// ---- what is asked of it ----

/// Takes a piece of a program that an operator sends; an empty one at the end.
pub(super) async fn take(shared: &Shared, digest: Digest, offset: u64, piece: &str) -> Reply {
    let Some(piece) = unhex(piece) else { return Reply::refused("the piece cannot be read", HINT) };
    if program::file(&shared.places.root, &digest).is_file() {
        return Reply::Done("complete".to_owned());
    }
    let ended = piece.is_empty();
    let taken = with(shared, COPY_LIMIT, move |store| {
        if ended {
            return program::complete(&store, &digest);
        }
        // What an attempt that was broken off has left is sent again.
        if offset == 0 {
            store.forget_received(&digest)?;
        }
        store.receive(&digest, offset, &piece)
    });
    match taken.await {
        Ok(()) => Reply::Done(if ended { "complete" } else { "received" }.to_owned()),
        Err(because) => Reply::refused(because, HINT),
    }
}

/// Looks at a program that lies here: it has to run on this machine, to read what this node has, and to understand the
/// others.
pub(super) async fn check(shared: &Shared, digest: &Digest) -> Reply {
    match facts(shared, digest).await {
        Ok(facts) => Reply::Program(facts),
        Err(because) => Reply::refused(format!("{}: {because}", shared.me), HINT),
    }
}

async fn facts(shared: &Shared, digest: &Digest) -> Result<Facts, String> {
    let file = program::file(&shared.places.root, digest);
    let root = shared.places.root.display().to_string();
    let tool = ToolCommand {
        program: file,
        args: ["program", "--root", &root].map(str::to_owned).into(),
        env: vec![],
        cwd: None,
        user: None,
        umask: 0o077,
        stdin: vec![],
        deadline: FACTS_LIMIT,
        capture: 64 << 10,
    };
    let output = run_tool(tool).await.map_err(|error| format!("the program cannot be used: {error}"))?;
    let facts: Facts = serde_json::from_str(&output.stdout)
        .map_err(|_| "what was sent is no Mainstay program that can be upgraded to".to_owned())?;
    Facts::own().can_become(&facts).map(|()| facts)
}

/// Begins to run a program that lies here.
pub(super) async fn take_up(shared: &Shared, digest: Digest, drain_s: u64) -> Reply {
    match prepare(shared, digest, drain_s).await {
        Ok(Some(next)) => {
            let sentence = format!("{} goes on as the program {next}", shared.me);
            tokio::spawn(change_over(shared.clone()));
            Reply::Done(sentence)
        }
        Ok(None) => Reply::Done(format!("{} runs it already", shared.me)),
        Err(because) => Reply::refused(format!("{}: {because}", shared.me), HINT),
    }
}

/// All that can fail without harm; `None` when there is nothing to do.
async fn prepare(shared: &Shared, digest: Digest, drain_s: u64) -> Result<Option<Program>, String> {
    let programs = &shared.programs;
    let own = programs.own.borrow().clone().ok_or("the agent has not looked at its own program yet")?;
    if own.digest == digest {
        return Ok(None);
    }
    if programs.choice.borrow().on_trial {
        return Err("the program that it runs is still on trial".to_owned());
    }
    let facts = facts(shared, &digest).await?;
    let next = Program { version: facts.version, digest };
    keep_own(shared, &own).await?;
    let installed = runs_installed(&shared.places);
    let installed = installed.then(|| PathBuf::from("/proc/self/exe"));
    let begun = next.clone();
    programs
        .change(&shared.places, move |choice| choice.begin(begun, own, installed.as_deref(), drain_s))
        .await?;
    Ok(Some(next))
}

fn runs_installed(places: &Places) -> bool {
    std::env::current_exe().is_ok_and(|own| !program::is_chosen(&places.root, &own))
}

/// Puts what this process runs beside the new program, to go back to.
async fn keep_own(shared: &Shared, own: &Program) -> Result<(), String> {
    let digest = own.digest.clone();
    with(shared, COPY_LIMIT, move |store| {
        if store.files(&digest).is_dir() {
            return Ok(());
        }
        store.forget_received(&digest)?;
        store.receive_file(&digest, Path::new("/proc/self/exe"))?;
        program::complete(&store, &digest)
    })
    .await
}

async fn change_over(shared: Shared) {
    start_guard(&shared);
    let lead = shared.inputs.ask(decide::agent::Agent::heir_of_lead).await.flatten();
    if let Some(to) = lead {
        shared.store.hand_lead(&to).await;
    }
    sleep(LAST_WORDS).await;
    go_on_as_chosen(&shared);
    let because = "it could not be started";
    if let Err(error) = shared.programs.change(&shared.places, |choice| choice.take_back(because)).await {
        tracing::error!(%error, "that a program was taken back could not be kept");
    }
    tell_refused(&shared).await;
}

/// Somebody of the program that runs now looks after this process when it runs another one.
fn start_guard(shared: &Shared) {
    let Some(me) = ProcessId::of(std::process::id().cast_signed()) else { return };
    let former = shared.programs.choice.borrow().former.clone();
    let Some(former) = former else { return };
    let (root, pid, ticks) =
        (shared.places.root.display().to_string(), me.pid.to_string(), me.start_ticks.to_string());
    let arguments = ["guard", "--root", &root, "--pid", &pid, "--started", &ticks];
    let mut guard = Spawn::new(program::file(&shared.places.root, &former.digest), arguments);
    guard.log = Some(shared.places.log("guard.log"));
    if let Err(error) = spawn_detached(&guard) {
        tracing::warn!(%error, "nobody ends the new program should it hang");
    }
}
