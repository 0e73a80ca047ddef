//! Real PostgreSQL servers for tests: a primary and its standby on loopback, ended when dropped.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::Config;

/// Settings that make a small server, and replication possible.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'\nmax_connections = 50\nshared_buffers = 16MB\n\
                        wal_level = replica\nwal_retrieve_retry_interval = 100ms\nwal_keep_size = 64MB\n\
                        fsync = on\nlog_min_messages = warning\n";

/// One running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    data: PathBuf,
    child: Child,
}

/// Where servers of one test live, and who they run as.
pub(crate) struct Cellar {
    directory: TempDir,
    owner: Option<(u32, u32)>,
}

/// Who logs in; the servers trust everyone who comes over loopback.
pub(crate) fn login() -> Config {
    let mut config = Config::new();
    config.user("postgres").dbname("postgres").application_name("mainstay-drill");
    config
}

impl Cellar {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // PostgreSQL refuses to run as root.
        let owner = rustix::process::geteuid().is_root().then(|| user("postgres"));
        if let Some((uid, gid)) = owner {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        Self { directory, owner }
    }

    /// A new primary.
    pub(crate) fn primary(&self, settings: &str) -> Server {
        let data = self.directory.path().join("first");
        self.tool(
            "initdb",
            &["-D", text(&data), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
        );
        self.start(data, settings)
    }

    /// A new standby of `of`, streaming.
    pub(crate) fn standby(&self, name: &str, of: &Server, settings: &str) -> Server {
        self.standby_at(free_port(), name, of, settings)
    }

    /// A new standby of `of` at an address that was another server's.
    pub(crate) fn standby_at(&self, address: SocketAddr, name: &str, of: &Server, settings: &str) -> Server {
        let data = self.directory.path().join(name);
        let port = of.address.port().to_string();
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "fast"];
        self.tool("pg_basebackup", &[["-D", text(&data)].as_slice(), &from].concat());
        fs::write(data.join("standby.signal"), "").unwrap();
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
        self.start_at(address, data, &format!("primary_conninfo = '{conninfo}'\n{settings}"))
    }

    fn start(&self, data: PathBuf, settings: &str) -> Server {
        self.start_at(free_port(), data, settings)
    }

    fn start_at(&self, address: SocketAddr, data: PathBuf, settings: &str) -> Server {
        let sockets = text(self.directory.path());
        let conf =
            format!("{SETTINGS}port = {}\nunix_socket_directories = '{sockets}'\n{settings}", address.port());
        fs::write(data.join("postgresql.conf"), conf).unwrap();
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let mut command = self.command("postgres");
        command.args(["-D", text(&data)]).stdout(Stdio::null()).stderr(log);
        let server = Server { address, data, child: command.spawn().unwrap() };
        server.wait_until_ready();
        server
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        let output = self.command(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.current_dir(self.directory.path());
        if let Some((uid, gid)) = self.owner {
            command.gid(gid).uid(uid);
        }
        command
    }
}

impl Server {
    /// Runs one statement on a connection of its own and returns the first column of the first row.
    pub(crate) async fn ask(&self, sql: &str) -> Result<Option<String>, String> {
        let session =
            super::super::session::Session::open(self.address, &login(), Default::default()).await?;
        let done = session.run(sql, Duration::from_secs(10)).await.map_err(|e| e.to_string())?;
        Ok(done.rows.first().and_then(|row| row.get(0)).map(str::to_owned))
    }

    /// Asks until the answer is `wanted`.
    pub(crate) async fn until(&self, sql: &str, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.ask(sql).await;
            if answer.as_ref().is_ok_and(|answer| answer.as_deref() == Some(wanted)) {
                return;
            }
            assert!(Instant::now() < end, "{sql}: wanted {wanted}, got {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes it a primary and waits until it is one.
    pub(crate) async fn promote(&self) {
        self.ask("select pg_promote(false)").await.unwrap();
        self.until("select pg_is_in_recovery()::text", "false").await;
    }

    /// SIGKILL to the postmaster and to every process it started.
    pub(crate) fn kill(&mut self) {
        let children = children(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children {
            signal(child, Signal::KILL);
        }
    }

    /// Stops or continues the process of this server whose title contains `what`.
    pub(crate) fn signal_process(&self, what: &str, how: Signal) {
        let found = children(self.child.id()).into_iter().find(|pid| title(*pid).contains(what));
        signal(found.unwrap_or_else(|| panic!("no process `{what}` in {}", self.data.display())), how);
    }

    fn wait_until_ready(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        let socket = self.data.join("postmaster.pid");
        // The last line says "ready" or, for a hot standby that accepts connections, the same.
        while !fs::read_to_string(&socket).is_ok_and(|text| text.contains("ready")) {
            let log = || fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not start in {}: {}", self.data.display(), log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The newest PostgreSQL's program of this name.
fn binary(name: &str) -> PathBuf {
    let majors = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = majors.map(|major| major.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&on_path).map(|dir| dir.join(name)).filter(|path| path.exists()));
    found
        .into_iter()
        .next_back()
        .unwrap_or_else(|| panic!("PostgreSQL's `{name}` is missing: run `make setup`"))
}

fn user(name: &str) -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("there is no user `{name}`: run `make setup`"));
    let field = |at: usize| line.split(':').nth(at).unwrap().parse().unwrap();
    (field(2), field(3))
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn title(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn signal(pid: u32, how: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, how);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
