//! What a route costs against a direct connection: latency, memory, and how fast a deposed primary's clients learn it.
//!
//! `cargo run --release -p proxy --example measure` prints a few lines. The proxy runs as a process of its own, so that
//! its memory and its processor time are its own.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a measurement fails loudly, and uses the tests' helpers in part"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::Ready;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

#[path = "../tests/it/agent.rs"]
mod agent;
#[path = "../tests/it/client.rs"]
mod client;
#[path = "../tests/it/postgres.rs"]
mod postgres;

use agent::{Agent, endpoint, free_address, instance, open, service};
use client::Wire;
use postgres::{Postgres, connect};

const ROUNDS: usize = 7;
const COMMITS: usize = 300;
const QUESTIONS: usize = 2000;
const SESSIONS: usize = 2000;
/// Authentication is over and the server is ready: what a session needs to begin.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
const STARTUP: &[u8] = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(socket), Some(state_file)) = (arguments.next(), arguments.next()) {
        let options = proxy::ProxyOptions {
            socket: socket.into(),
            state_file: state_file.into(),
            log: std::env::temp_dir(),
            succeeds: None,
        };
        return proxy::run(options).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let proxy = Carrier::start(directory.path());
    let mut agent = Agent::connect(&directory.path().join("proxy.sock")).await;
    latency(&mut agent).await;
    idle_sessions(&mut agent, &proxy).await;
    http(&mut agent, &proxy).await;
}

/// The proxy as a process; ends when dropped.
struct Carrier(Child);

impl Carrier {
    fn start(directory: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let files = [directory.join("proxy.sock"), directory.join("routes.json")];
        Self(Command::new(program).args(files).spawn().unwrap())
    }

    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Commits and small questions, directly and through the route, in turns.
async fn latency(agent: &mut Agent) {
    let (server, listen) = (Postgres::start().await, free_address());
    agent.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let clients = [connect(server.address).await.unwrap(), connect(listen).await.unwrap()];
    clients[0].execute("create table ledger (amount int)", &[]).await.unwrap();
    for (what, sql, times) in
        [("commit", "insert into ledger values (1)", COMMITS), ("select 1", "select 1", QUESTIONS)]
    {
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (client, taken) in clients.iter().zip(&mut taken) {
                run(client, sql, times, taken).await;
            }
        }
        let [direct, routed] = taken.map(Spread::of);
        println!(
            "{what}: direct {direct}; through the route {routed}; median x {:.2}",
            routed.median / direct.median
        );
    }
}

async fn run(client: &Client, sql: &str, times: usize, taken: &mut Vec<Duration>) {
    let statement = client.prepare(sql).await.unwrap();
    for _ in 0..times {
        let begin = Instant::now();
        client.execute(&statement, &[]).await.unwrap();
        taken.push(begin.elapsed());
    }
}

/// Microseconds.
struct Spread {
    median: f64,
    p99: f64,
}

impl Spread {
    fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort();
        let at = |percent: usize| taken[taken.len() * percent / 100].as_secs_f64() * 1e6;
        Self { median: at(50), p99: at(99) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:.0} us, p99 {:.0} us", self.median, self.p99)
    }
}

/// Memory of idle sessions, and the time to end them all when their primary is deposed. The member is played here: two
/// thousand PostgreSQL backends would measure PostgreSQL.
async fn idle_sessions(agent: &mut Agent, proxy: &Carrier) {
    let (member, listen) = (welcoming_member().await, free_address());
    agent.apply(2, open(listen, &[endpoint("e1", member, 1)])).await;
    let before = proxy.resident_kb();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(STARTUP).await.unwrap();
        stream.read_exact(&mut [0; WELCOME.len()]).await.unwrap();
        sessions.push(stream);
    }
    let bytes = (proxy.resident_kb() - before) * 1024 / SESSIONS as u64;
    println!("{SESSIONS} idle database sessions: {bytes} bytes each (resident)");
    let begin = Instant::now();
    let ends = sessions.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            stream.read_exact(&mut [0]).await.unwrap_err();
            begin.elapsed()
        })
    });
    let ends: Vec<_> = ends.collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let deposed = begin.elapsed();
    agent.apply(3, open(listen, &[endpoint("e1", member, 2)])).await;
    let acknowledged = begin.elapsed() - deposed;
    let mut last = Duration::ZERO;
    for end in ends {
        last = last.max(end.await.unwrap() - deposed);
    }
    println!(
        "{SESSIONS} sessions of a deposed primary: acknowledged after {acknowledged:?}, last client knew after {last:?}"
    );
}

async fn welcoming_member() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut startup = [0; STARTUP.len()];
                stream.read_exact(&mut startup).await.unwrap();
                stream.write_all(WELCOME).await.unwrap();
                drop(stream.read(&mut startup).await);
            });
        }
    });
    address
}

/// Latency and memory of HTTP connections.
async fn http(agent: &mut Agent, proxy: &Carrier) {
    let (server, listen) = (answering_instance().await, free_address());
    agent.apply(4, service(listen, vec![instance("web-1", server, Ready)])).await;
    let mut wires = [Wire::connect(server).await, Wire::connect(listen).await];
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (wire, taken) in wires.iter_mut().zip(&mut taken) {
            for _ in 0..QUESTIONS {
                let begin = Instant::now();
                wire.get("/").await;
                taken.push(begin.elapsed());
            }
        }
    }
    let [direct, routed] = taken.map(Spread::of);
    println!("GET: direct {direct}; through the route {routed}");
    let before = proxy.resident_kb();
    let mut idle = Vec::new();
    for _ in 0..SESSIONS {
        let mut wire = Wire::connect(listen).await;
        wire.get("/").await;
        idle.push(wire);
    }
    let bytes = (proxy.resident_kb() - before) * 1024 / SESSIONS as u64;
    println!("{SESSIONS} idle HTTP connections, each used once: {bytes} bytes each (resident)");
    println!("proxy in all: {} KB resident", proxy.resident_kb());
}

async fn answering_instance() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut wire = Wire::accept_now(&listener).await;
            tokio::spawn(async move {
                while wire.read_forever().await.is_some() {
                    wire.answer("hello").await;
                }
            });
        }
    });
    address
}
