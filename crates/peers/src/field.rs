//! A peer that runs in the lab: up, struck, asked, down.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use effects::postgres::Installation;
use effects::process::OsUser;
use lab::drill::{self, Drill, Entry, Member, Options, Run, Step, SystemView};
use lab::{ClientRuntime, Data, Ground, Lab, LabError};
use model::SystemName;
use tokio_postgres::Config;

use crate::Outcome;
use crate::layout::{self, PASSWORD, POSTGRES_PORT, at, members};
use crate::patroni::{self, Place, rest};
use crate::unit::{Units, user_of};
use crate::variant::{Subject, Timers};

/// Where the peers' labs lie: not among Mainstay's own, whose commands would find them there.
const BASE: &str = "/var/lib/mainstay/peers";

/// Whom PostgreSQL and all that belongs to a peer run as.
const USER: &str = "postgres";

/// How long a peer may take to be whole: after its start, and after a fault.
const PATIENCE: Duration = Duration::from_secs(180);

/// A peer that is up.
pub(crate) struct Field {
    timers: Timers,
    name: SystemName,
    lab: Arc<Mutex<Lab>>,
    clients: ClientRuntime,
    /// What takes back the steps that were done and last.
    pending: Mutex<Vec<Step>>,
    /// From the first act to full redundancy.
    pub(crate) set_up: Duration,
}

impl Field {
    /// Brings a peer up and waits until it is whole.
    pub(crate) async fn up(subject: Subject, venv: &Path) -> Outcome<Self> {
        let Subject::Patroni(timers) = subject else { return Err("not a peer".to_owned()) };
        let modules = modules(venv)?;
        let bin = Installation::find(None, None).await.map_err(|e| e.to_string())?.bin_dir;
        let user = user_of(USER)?;
        let name = SystemName::new(subject.system());
        let begun = Instant::now();
        let (described, text) = (name.clone(), layout::nodes_file(&subject.system(), false));
        let lab = blocking(move || {
            remove(&described)?;
            raise(&text, move |ground| prepare(ground, timers, &modules, &bin, &user))
        });
        let lab = Arc::new(Mutex::new(lab.await?));
        let held = lab.clone();
        let clients = blocking(move || lock(&held).client_runtime().map_err(|e| in_words(&e))).await?;
        let mut field =
            Self { timers, name, lab, clients, pending: Mutex::default(), set_up: Duration::ZERO };
        field.wait_until_whole().await?;
        field.set_up = begun.elapsed();
        Ok(field)
    }

    /// One run of a fault.
    pub(crate) async fn measure(&self, fault: Drill) -> Outcome<Run> {
        self.wait_until_whole().await?;
        let options = Options {
            lease: Duration::from_secs(patroni::ttl(self.timers)),
            patience: PATIENCE,
            tell: |text| eprintln!("  {text}"),
            ..Options::new(self.clients.handle().clone(), login())
        };
        let view = async || self.view().await;
        let apply = async |step: &Step| self.apply(step).await;
        let report = drill::run(fault, 1, &options, view, apply).await;
        self.take_back().await;
        report.map_err(|e| e.to_string())?.runs.pop().ok_or_else(|| "there was no run".to_owned())
    }

    /// Removes it with all it left.
    pub(crate) async fn down(self) -> Outcome<()> {
        self.take_back().await;
        let Self { name, clients, .. } = self;
        blocking(move || {
            clients.shutdown();
            remove(&name)
        })
        .await
    }

    async fn wait_until_whole(&self) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let missing = match self.view().await {
                Ok(SystemView { missing: None, .. }) => return Ok(()),
                Ok(SystemView { missing: Some(missing), .. }) | Err(missing) => missing,
            };
            if Instant::now() >= end {
                return Err(format!("{} is not whole after {} s: {missing}", self.name, PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the system says of itself.
    async fn view(&self) -> Outcome<SystemView> {
        let answers = self.inside(rest::ask_all()).await?;
        Ok(SystemView {
            primary: rest::primary(&answers),
            missing: rest::missing(&answers),
            members: direct(),
            routes: doors(),
            ..SystemView::default()
        })
    }

    /// Does a step and says by what it is known.
    async fn apply(&self, step: &Step) -> Outcome<String> {
        self.pending().extend(step.undo());
        let done = match step {
            Step::Switchover(from) => self.inside(rest::switch_over(from.clone())).await?,
            step => self.act(step.clone()).await,
        }?;
        self.pending().retain(|undo| undo != step);
        if self.pending().is_empty() {
            self.dismiss_guards().await?;
        }
        Ok(done)
    }

    /// Takes back what was done and lasts.
    async fn take_back(&self) {
        let pending = std::mem::take(&mut *self.pending());
        for step in pending {
            // What is over already says so.
            let _ = self.act(step).await;
        }
        let _ = self.dismiss_guards().await;
    }

    async fn act(&self, step: Step) -> Outcome<String> {
        let lab = self.lab.clone();
        blocking(move || drill::act(&mut lock(&lab), &layout::database(), &step).map_err(|e| in_words(&e)))
            .await
    }

    async fn dismiss_guards(&self) -> Outcome<()> {
        let lab = self.lab.clone();
        blocking(move || lock(&lab).dismiss_guards().map_err(|e| in_words(&e))).await
    }

    /// Runs where the outside clients are.
    async fn inside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Outcome<T> {
        self.clients.spawn(work).await.map_err(|e| format!("the clients' runtime broke down: {e}"))
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Step>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes down what an interrupted bench left of any peer.
pub(crate) fn down_all() -> Outcome<()> {
    Subject::ALL.into_iter().try_for_each(|subject| remove(&SystemName::new(subject.system())))
}

fn remove(name: &SystemName) -> Outcome<()> {
    match Lab::down_in(Path::new(BASE), name, Data::Remove) {
        Ok(()) | Err(LabError::Unknown { .. }) => Ok(()),
        Err(error) => Err(in_words(&error)),
    }
}

/// The members as the prober asks them.
fn direct() -> Vec<Member> {
    let member = |(node, address)| Member { node, addresses: vec![at(address, POSTGRES_PORT)] };
    members().map(member).collect()
}

/// The client's ways in.
fn doors() -> Vec<Entry> {
    members().map(|(node, address)| Entry { node, address: at(address, patroni::DOOR) }).collect()
}

fn login() -> Config {
    let mut login = Config::new();
    login.user("postgres").password(PASSWORD).dbname("postgres");
    login
}

fn lock(lab: &Mutex<Lab>) -> MutexGuard<'_, Lab> {
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_words(error: &LabError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

// ---- before the nodes are switched on ----

fn raise(text: &str, prepare: impl Fn(&Ground<'_>) -> Outcome<()> + Send + 'static) -> Outcome<Lab> {
    let system = layout::system(text)?;
    let base = PathBuf::from(BASE);
    fs::create_dir_all(&base).map_err(|e| format!("making {BASE}: {e}"))?;
    let file = base.join(format!("{}.toml", system.name));
    fs::write(&file, text).map_err(|e| format!("writing {}: {e}", file.display()))?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let command = vec![program.display().to_string(), "node".to_owned(), "{root}/units.json".to_owned()];
    let prepare: lab::Prepare = Box::new(prepare);
    let options = lab::Options {
        base,
        forward: false,
        program,
        command,
        prepare: vec![prepare],
        ..lab::Options::default()
    };
    if let Some(limits) = Lab::limits(&system, &options) {
        return Err(format!("the bench needs nodes with networks of their own. {limits}"));
    }
    Lab::up(&system, &file, &options).map_err(|e| in_words(&e))
}

/// Files and directories of one node.
fn prepare(ground: &Ground<'_>, timers: Timers, modules: &Path, bin: &Path, user: &OsUser) -> Outcome<()> {
    let software = ground.directory.join("software");
    if !software.exists() {
        copy(modules, &software)?;
    }
    let (directory, database) =
        (ground.root.join("peer"), ground.root.join("databases").join(layout::DATABASE));
    for path in [&directory, &database] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .and_then(|()| chown(path, Some(user.uid), Some(user.gid)))
            .map_err(|e| format!("making {}: {e}", path.display()))?;
    }
    let (_, address) = members().find(|(name, _)| name == ground.name).ok_or("no such member")?;
    let place = Place {
        name: ground.name.as_str(),
        address,
        directory: &directory,
        data: &database.join("data"),
        bin,
    };
    let units = Units { user: USER.to_owned(), units: patroni::units(&place, &software) };
    let units = serde_json::to_string_pretty(&units).map_err(|e| e.to_string())?;
    let files = [
        (directory.join("patroni.yml"), patroni::configuration(&place, timers)),
        (directory.join("haproxy.cfg"), patroni::haproxy(timers)),
        (ground.root.join("units.json"), units),
    ];
    for (path, text) in files {
        fs::write(&path, text).map_err(|e| format!("writing {}: {e}", path.display()))?;
    }
    Ok(())
}

/// Copies Patroni to where the user of PostgreSQL can read it.
fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let status = Command::new("cp").arg("-rT").args([from, to]).status().map_err(|e| e.to_string())?;
    status.success().then_some(()).ok_or_else(|| format!("{} could not be copied", from.display()))
}

/// Where the modules of a Python environment lie.
fn modules(venv: &Path) -> Outcome<PathBuf> {
    let versions = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    let mut found =
        versions.map(|entry| entry.path().join("site-packages")).filter(|path| path.join("patroni").is_dir());
    found
        .next()
        .ok_or_else(|| format!("there is no Patroni in {}; run scripts/setup-peers.sh", venv.display()))
}
