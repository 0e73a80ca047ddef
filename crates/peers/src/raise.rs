//! Bringing a peer's lab up, and removing it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use effects::process::OsUser;
use lab::{Data, Ground, Lab, LabError};
use model::SystemName;

use crate::Outcome;
use crate::layout::{self, MEMBERS, MONITOR};
use crate::peer::Peer;
use crate::place::Place;
use crate::unit::{USER, Units, user_of};

/// Where the peers' labs lie: not among Mainstay's own, whose commands would find them there.
const BASE: &str = "/var/lib/mainstay/peers";

/// What of this machine the peers use.
#[derive(Clone, Debug)]
pub(crate) struct Software {
    /// PostgreSQL's programs.
    pub(crate) bin: PathBuf,
    /// The Python modules of Patroni.
    pub(crate) modules: PathBuf,
}

impl Software {
    /// Looks for everything; `venv` is where Patroni was installed.
    pub(crate) fn find(venv: &Path, bin: PathBuf) -> Outcome<Self> {
        let versions = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
        let mut found = versions
            .map(|entry| entry.path().join("site-packages"))
            .filter(|path| path.join("patroni").is_dir());
        let missing = || format!("there is no Patroni in {}; run scripts/setup-peers.sh", venv.display());
        Ok(Self { bin, modules: found.next().ok_or_else(missing)? })
    }
}

/// Switches the nodes of a peer on; what was left of an earlier one is removed before.
pub(crate) fn raise(name: &SystemName, peer: Peer, software: Software) -> Outcome<Lab> {
    remove(name)?;
    let text = peer.nodes_file(name.as_str());
    let system = layout::system(&text)?;
    let options = options(peer, software)?;
    if let Some(limits) = Lab::limits(&system, &options) {
        return Err(format!("the bench needs nodes with networks of their own. {limits}"));
    }
    let file = file_of(name);
    fs::create_dir_all(BASE).map_err(|e| format!("making {BASE}: {e}"))?;
    write(&file, &text)?;
    Lab::up(&system, &file, &options).map_err(|e| in_words(&e))
}

/// How the lab is to run a peer: this program is the first process of each node, and starts what the peer consists of.
fn options(peer: Peer, software: Software) -> Outcome<lab::Options> {
    let user = user_of(USER)?;
    let program = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    let command = vec![program.display().to_string(), "node".to_owned(), "{root}/units.json".to_owned()];
    let prepare: lab::Prepare = Box::new(move |ground| prepare(ground, &peer, &software, &user));
    Ok(lab::Options {
        base: PathBuf::from(BASE),
        forward: false,
        program,
        command,
        prepare: vec![prepare],
        ..lab::Options::default()
    })
}

/// Removes a peer's lab with all its data; nothing to remove is fine.
pub(crate) fn remove(name: &SystemName) -> Outcome<()> {
    let removed = match Lab::down_in(Path::new(BASE), name, Data::Remove) {
        Ok(()) | Err(LabError::Unknown { .. }) => Ok(()),
        Err(error) => Err(in_words(&error)),
    };
    // It may never have been written.
    let _ = fs::remove_file(file_of(name));
    removed
}

/// Keeps what the nodes of a peer wrote down, because something went wrong.
pub(crate) fn keep_logs(name: &SystemName, out: &Path) {
    let (from, to) = (Path::new(BASE).join(name.as_str()).join("logs"), out.join(format!("logs-{name}")));
    if from.is_dir() && copy(&from, &to).is_ok() {
        eprintln!("  what its nodes wrote down is in {}", to.display());
    }
}

/// An error of the lab with its hint.
pub(crate) fn in_words(error: &LabError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn file_of(name: &SystemName) -> PathBuf {
    Path::new(BASE).join(format!("{name}.toml"))
}

/// Files and directories of one node.
fn prepare(ground: &Ground<'_>, peer: &Peer, software: &Software, user: &OsUser) -> Outcome<()> {
    // Where the user of PostgreSQL can read it, which may not hold for the work tree.
    let modules = ground.directory.join("software");
    if matches!(peer, Peer::Patroni(_)) && !modules.exists() {
        copy(&software.modules, &modules)?;
    }
    let directory = ground.root.join("peer");
    let database = ground.root.join("databases").join(layout::DATABASE);
    for path in [&directory, &database] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.and_then(|()| chown(path, Some(user.uid), Some(user.gid)))
            .map_err(|e| format!("making {}: {e}", path.display()))?;
    }
    let name = ground.name.as_str();
    let known = MEMBERS.into_iter().chain([MONITOR]).find(|(node, _)| *node == name);
    let (_, address) = known.ok_or_else(|| format!("{name} is no node of the bench"))?;
    let data = database.join("data");
    let place = Place { name, address, directory: &directory, data: &data, bin: &software.bin };
    let units = Units { units: peer.units(&place, &modules) };
    let units = serde_json::to_string_pretty(&units).map_err(|e| e.to_string())?;
    write(&ground.root.join("units.json"), &units)?;
    peer.files(&place).into_iter().try_for_each(|(name, text)| write(&directory.join(name), &text))
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let status = Command::new("cp").arg("-rT").args([from, to]).status().map_err(|e| e.to_string())?;
    status.success().then_some(()).ok_or_else(|| format!("{} could not be copied", from.display()))
}
