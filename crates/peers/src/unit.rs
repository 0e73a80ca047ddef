//! What runs inside a node: a few programs, each started again when it ends, as a service manager would.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use effects::process::OsUser;
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// From the end of a program to its next start. No fault of the bench ends one of these programs alone; at first start
/// some end until others are there.
const RESTART: Duration = Duration::from_millis(500);

/// Whom PostgreSQL and all that belongs to a peer run as: PostgreSQL refuses to run as root.
pub(crate) const USER: &str = "postgres";

/// Where Debian's PostgreSQL puts its socket when nobody says where.
const SOCKETS: &str = "/run/postgresql";

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Its name in the node's log.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// What it has in its environment beside the node's own.
    pub(crate) environment: BTreeMap<String, String>,
}

/// All programs of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Units {
    /// In the order of their start; none waits for another.
    pub(crate) units: Vec<Unit>,
}

impl Unit {
    /// A program with its arguments.
    pub(crate) fn new(name: &str, command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { name: name.to_owned(), command, environment: BTreeMap::new() }
    }

    /// The same with one more variable.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }
}

/// Keeps the programs that the file names running, until the node ends.
pub(crate) fn keep_running(file: &Path) -> Outcome<()> {
    let text = fs::read(file).map_err(|e| format!("reading {}: {e}", file.display()))?;
    let Units { units } =
        serde_json::from_slice(&text).map_err(|e| format!("reading {}: {e}", file.display()))?;
    let user = user_of(USER)?;
    own_sockets(&user)?;
    thread::scope(|scope| {
        for unit in &units {
            let user = &user;
            scope.spawn(move || keep_one(unit, user));
        }
    });
    Ok(())
}

/// The user of that name.
pub(crate) fn user_of(name: &str) -> Outcome<OsUser> {
    OsUser::lookup(name).map_err(|e| e.to_string())?.ok_or_else(|| format!("there is no user {name}"))
}

/// Gives the node a directory for sockets of its own, as a machine has one: the nodes share this machine's files.
fn own_sockets(user: &OsUser) -> Outcome<()> {
    let failed = |e: std::io::Error| format!("making {SOCKETS}: {e}");
    fs::create_dir_all(SOCKETS).map_err(failed)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("sockets", SOCKETS, "tmpfs", flags, None).map_err(|e| failed(e.into()))?;
    chown(SOCKETS, Some(user.uid), Some(user.gid)).map_err(failed)
}

fn keep_one(unit: &Unit, user: &OsUser) {
    loop {
        let mut command = Command::new(&unit.command[0]);
        command.args(&unit.command[1..]).envs(&unit.environment).stdin(Stdio::null()).current_dir("/");
        command.uid(user.uid).gid(user.gid);
        match command.status() {
            Ok(status) => eprintln!("{} ended: {status}", unit.name),
            Err(error) => eprintln!("{} cannot be started: {error}", unit.name),
        }
        thread::sleep(RESTART);
    }
}
