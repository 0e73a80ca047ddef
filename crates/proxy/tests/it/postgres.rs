//! A real PostgreSQL server in a temporary directory.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::agent::{LONG, free_address};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A running server; ends when dropped.
pub(crate) struct Postgres {
    postmaster: Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], |_| {}).await
    }

    /// Starts a server with further settings, after `prepare` has worked on its data directory.
    pub(crate) async fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        assert!(Path::new(BIN).exists(), "PostgreSQL 15 is missing in {BIN}; `make setup` installs it");
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        own(directory.path());
        let initdb = program("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "--no-sync"])
            .output();
        let initdb = initdb.unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        prepare(&data);
        let address = free_address();
        let postmaster = program("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=200",
                // In the data directory, which goes with the test.
                "-c",
                "dynamic_shared_memory_type=mmap",
            ])
            .args(["-p", &address.port().to_string()])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .spawn()
            .unwrap();
        let server = Self { postmaster, address, _directory: directory };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        let begin = Instant::now();
        while connect(self.address).await.is_err() {
            assert!(begin.elapsed() < LONG, "PostgreSQL does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal_postmaster(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.postmaster.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal_postmaster(Signal::CONT);
        // Immediate shutdown: the postmaster ends its backends first.
        self.signal_postmaster(Signal::QUIT);
        drop(self.postmaster.wait());
    }
}

/// Connects and drives the connection in a task.
pub(crate) async fn connect(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let settings = format!("host={} port={} user=postgres dbname=postgres", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// `psql` against `address` with a further connection setting.
pub(crate) async fn psql(address: SocketAddr, setting: &str, sql: &str) -> std::process::Output {
    let target =
        format!("host={} port={} user=postgres dbname=postgres {setting}", address.ip(), address.port());
    let mut command = tokio::process::Command::new(Path::new(BIN).join("psql"));
    command.args(["-XAt", &target, "-c", sql]).kill_on_drop(true).output().await.unwrap()
}

/// A server's program, run by a user that PostgreSQL accepts.
fn program(name: &str) -> Command {
    let mut command = Command::new(PathBuf::from(BIN).join(name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    if name == "initdb" {
        command.stderr(Stdio::piped());
    }
    if let Some((user, group)) = postgres_user() {
        command.uid(user).gid(group);
    }
    command
}

fn own(directory: &Path) {
    if let Some((user, group)) = postgres_user() {
        chown(directory, Some(user), Some(group)).unwrap();
    }
    std::fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
}

/// Gives a file to the server's user, readable by nobody else.
pub(crate) fn give(file: &Path) {
    if let Some((user, group)) = postgres_user() {
        chown(file, Some(user), Some(group)).unwrap();
    }
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// The OS user `postgres` when this is root; PostgreSQL refuses to run as root.
fn postgres_user() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect("no OS user `postgres`; `make setup` makes it").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
