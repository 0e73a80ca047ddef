//! A PostgreSQL server of the test's own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// PostgreSQL's programs, as Debian installs them.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const DEADLINE: Duration = Duration::from_secs(60);

/// A server, stopped and removed when dropped.
pub(crate) struct Postgres {
    dir: TempDir,
    pub(crate) port: u16,
    server: Option<Child>,
    owner: Option<(u32, u32)>,
}

impl Postgres {
    /// A running server.
    pub(crate) fn start() -> Self {
        let mut postgres = Self::prepare();
        postgres.boot();
        postgres
    }

    /// A server that is ready to be booted.
    pub(crate) fn prepare() -> Self {
        let postgres = Self::empty();
        let data = postgres.data();
        postgres.run("initdb", &["-D", &data, "-U", "shop", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        postgres
    }

    /// A standby that follows `primary`, running.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let mut postgres = Self::empty();
        let from = primary.url();
        let data = postgres.data();
        postgres.run("pg_basebackup", &["-D", &data, "-d", &from, "-R", "-c", "fast", "--no-sync"]);
        postgres.boot();
        postgres
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://shop@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn boot(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let (data, port) = (self.data(), self.port.to_string());
        let mut command = self.command("postgres");
        command.args(["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]);
        command.args(["-c", "cluster_name=member", "-c", "wal_retrieve_retry_interval=100ms"]);
        let log = fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        self.wait_until("the server answers", || self.psql("select 1").status.success());
    }

    /// Stops the server as a crash would: nothing is written any more, clients are cut off.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = Pid::from_child(&server);
            // The postmaster takes its children with it at SIGQUIT; it may have ended by itself.
            let _ = kill_process(pid, Signal::QUIT);
            server.wait().unwrap();
        }
    }

    pub(crate) fn promote(&self) {
        self.sql("select pg_promote()");
    }

    /// Runs SQL and returns what it prints.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether SQL succeeds and prints `expected`.
    pub(crate) fn answers(&self, sql: &str, expected: &str) -> bool {
        let output = self.psql(sql);
        output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == expected
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let begin = Instant::now();
        while !condition() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; the server's log:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn empty() -> Self {
        assert!(Path::new(PROGRAMS).exists(), "PostgreSQL 15 is not in {PROGRAMS}; `make setup` installs it");
        let dir = tempfile::tempdir().unwrap();
        let owner = owner();
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { dir, port, server: None, owner }
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    fn psql(&self, sql: &str) -> Output {
        self.command("psql").args(["-X", "-A", "-t", "-d", &self.url(), "-c", sql]).output().unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(PathBuf::from(PROGRAMS).join(program));
        command.current_dir(self.dir.path()).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// PostgreSQL refuses to run as root: then it runs as the user `postgres`.
fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("there is no user `postgres`; `make setup` installs PostgreSQL, which makes it");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
