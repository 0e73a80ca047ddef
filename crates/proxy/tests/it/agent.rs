//! A proxy under test, and the agent that speaks to it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::leadership::Term;
use model::routes::{
    DatabaseEndpoint, DatabaseRouteState, DatabaseTarget, FromProxy, InstanceEndpoint, InstanceRouteState,
    ProxyReport, Route, RouteTable, RouteTarget, ServiceTarget, ToProxy,
};
use model::system::traffic::Traffic;
use model::system::{Carriage, Protocol};
use proxy::{ProxyError, ProxyOptions};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here may take, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A proxy in a runtime of its own, so that it ends with all its connections like a process does.
pub(crate) struct Proxy {
    runtime: Option<Runtime>,
    options: ProxyOptions,
    running: std::sync::Mutex<Option<JoinHandle<Result<(), ProxyError>>>>,
    /// The control socket that was there before.
    found: Option<u64>,
    _directory: Option<TempDir>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut proxy = Self::start_in(directory.path());
        proxy._directory = Some(directory);
        proxy
    }

    pub(crate) fn start_in(directory: &Path) -> Self {
        Self::run_in(directory, None)
    }

    /// One that takes the place of the one that runs there.
    pub(crate) fn succeed_in(directory: &Path, drain: Duration) -> Self {
        Self::run_in(directory, Some(drain))
    }

    fn run_in(directory: &Path, succeeds: Option<Duration>) -> Self {
        let options = ProxyOptions {
            socket: directory.join("proxy.sock"),
            state_file: directory.join("routes.json"),
            log: directory.to_path_buf(),
            succeeds,
        };
        let found = inode(&options.socket);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = std::sync::Mutex::new(Some(runtime.spawn(proxy::run(options.clone()))));
        Self { runtime: Some(runtime), options, running, found, _directory: None }
    }

    /// Returns when it answers agents in the place of the one before.
    pub(crate) async fn serves(&self) {
        while inode(&self.options.socket) == self.found {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns when it has ended by itself, as the program would.
    pub(crate) async fn ended(&self) -> Result<(), ProxyError> {
        let running = self.running.lock().unwrap().take().expect("it is waited for once");
        running.await.unwrap()
    }

    pub(crate) fn leaving_directory(&self) -> PathBuf {
        proxy::leaving_at(&self.options.socket)
    }

    /// Where agents find the only proxy that finishes its work.
    pub(crate) fn leaving_socket(&self) -> PathBuf {
        let entries = self.leaving_directory().read_dir().unwrap();
        let mut sockets: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        sockets.remove(0)
    }

    /// Ends the proxy without a word, as SIGKILL would.
    pub(crate) fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        std::thread::spawn(|| runtime.shutdown_timeout(LONG)).join().unwrap();
    }

    pub(crate) async fn agent(&self) -> Agent {
        Agent::connect(&self.options.socket).await
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.options.state_file.clone()
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|facts| facts.ino())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The agent's end of the control socket.
pub(crate) struct Agent {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    /// The generation in force when the agent connected.
    pub(crate) found: u64,
}

impl Agent {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = timeout(LONG, async {
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        let (reader, writer) = stream.await.expect("the control socket answers").into_split();
        let mut agent = Self { lines: BufReader::new(reader).lines(), writer, found: 0 };
        let FromProxy::Applied { generation, .. } = agent.hear().await else { panic!("no greeting") };
        agent.found = generation;
        agent
    }

    pub(crate) async fn say(&mut self, message: &ToProxy) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.say_bytes(&line).await;
    }

    pub(crate) async fn say_bytes(&mut self, line: &[u8]) {
        self.writer.write_all(line).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> FromProxy {
        let line = timeout(LONG, self.lines.next_line()).await.expect("the proxy says something").unwrap();
        serde_json::from_str(&line.expect("the proxy keeps the connection")).unwrap()
    }

    /// Puts a table in force; returns the listen errors.
    pub(crate) async fn apply(&mut self, generation: u64, routes: Vec<Route>) -> Vec<String> {
        let table = RouteTable { generation, site: None, routes };
        self.say(&ToProxy::Table(table)).await;
        self.applied(generation).await
    }

    /// Waits until `generation` is in force; returns the listen errors.
    pub(crate) async fn applied(&mut self, wanted: u64) -> Vec<String> {
        loop {
            match self.hear().await {
                FromProxy::Applied { generation, listen_errors } if generation == wanted => {
                    return listen_errors;
                }
                FromProxy::Applied { .. } | FromProxy::Report(_) => {}
                other @ (FromProxy::Refused { .. } | FromProxy::Drained { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// Waits until the draining has ended: sessions that left while idle, and those that were cut.
    pub(crate) async fn drained(&mut self) -> (u64, u64) {
        loop {
            match self.hear().await {
                FromProxy::Drained { idle, cut, .. } => return (idle, cut),
                FromProxy::Report(_) => {}
                other @ (FromProxy::Refused { .. } | FromProxy::Applied { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// Waits until a message is refused: the generation offered and the one in force.
    pub(crate) async fn refused(&mut self) -> (u64, u64) {
        loop {
            match self.hear().await {
                FromProxy::Refused { generation, current, .. } => return (generation, current),
                FromProxy::Report(_) | FromProxy::Applied { .. } => {}
                other @ FromProxy::Drained { .. } => panic!("{other:?}"),
            }
        }
    }

    /// Counters as they are now. An unreadable line behind the question marks its answer, as reports that the proxy
    /// sent on its own accord may still be in the socket.
    pub(crate) async fn report(&mut self) -> ProxyReport {
        self.say(&ToProxy::Report).await;
        self.say_bytes(b"marker\n").await;
        let mut last = None;
        loop {
            match self.hear().await {
                FromProxy::Report(report) => last = Some(report),
                FromProxy::Refused { generation: 0, .. } => return last.expect("a report before the marker"),
                FromProxy::Applied { .. } | FromProxy::Refused { .. } | FromProxy::Drained { .. } => {}
            }
        }
    }
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn endpoint(node: &str, address: SocketAddr, term: u64) -> DatabaseEndpoint {
    DatabaseEndpoint { node: node.into(), address, term: Term(term) }
}

pub(crate) fn database_route(listen: SocketAddr, state: DatabaseRouteState) -> Route {
    let target =
        DatabaseTarget { database: "orders".into(), state, park_limit_ms: 5000, park_limit_count: 100 };
    Route { name: "orders-rw".into(), listen: vec![listen], target: RouteTarget::Database(target) }
}

pub(crate) fn open(listen: SocketAddr, members: &[DatabaseEndpoint]) -> Vec<Route> {
    vec![database_route(listen, DatabaseRouteState::Open { members: members.to_vec() })]
}

pub(crate) fn parked(listen: SocketAddr) -> Vec<Route> {
    let because = "e1 does not answer and its successor is being elected".to_owned();
    vec![database_route(listen, DatabaseRouteState::Parked { because })]
}

pub(crate) fn draining(listen: SocketAddr, members: &[DatabaseEndpoint], drain_ms: u64) -> Vec<Route> {
    let because = "a switchover from e1 to e2 is under way".to_owned();
    vec![database_route(
        listen,
        DatabaseRouteState::Draining { members: members.to_vec(), drain_ms, because },
    )]
}

pub(crate) fn instance(id: &str, address: SocketAddr, state: InstanceRouteState) -> InstanceEndpoint {
    InstanceEndpoint { id: id.to_owned(), node: "e1".into(), site: "east".into(), address, state }
}

pub(crate) fn service(listen: SocketAddr, instances: Vec<InstanceEndpoint>) -> Vec<Route> {
    service_with(listen, instances, Traffic::default())
}

pub(crate) fn service_with(
    listen: SocketAddr,
    instances: Vec<InstanceEndpoint>,
    traffic: Traffic,
) -> Vec<Route> {
    let mut route = service_route("public", listen, Protocol::Http, instances, Carriage::default());
    if let RouteTarget::Service(target) = &mut route.target {
        target.traffic = traffic;
    }
    vec![route]
}

pub(crate) fn service_route(
    name: &str,
    listen: SocketAddr,
    protocol: Protocol,
    instances: Vec<InstanceEndpoint>,
    carriage: Carriage,
) -> Route {
    let target = RouteTarget::Service(Box::new(ServiceTarget {
        service: "web".into(),
        instances,
        traffic: Traffic::default(),
        health_path: None,
        trial: None,
        external: None,
        protocol,
        send_proxy_protocol: false,
        tls: None,
        carriage,
    }));
    Route { name: name.into(), listen: vec![listen], target }
}
