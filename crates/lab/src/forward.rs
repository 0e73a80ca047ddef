//! The door from the machine into the lab: a small process that listens on 127.0.0.1 at the ports of the routes and connects
//! from the clients' namespace to the nodes, so that a person can open the sample application in a browser.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effects::process::ProcessId;
use model::RouteName;
use model::system::System;
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{LabError, Result};
use crate::home::Home;
use crate::manifest::{Manifest, Mode, store};
use crate::namespace;
use crate::network;
use crate::node::spawn::{detach, say_ready, wait_ready};

/// A node that does not answer within this is dead for the purpose of one connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(300);
/// Data that a node does not take within this ends the connection, so that a browser tries again elsewhere.
const SILENCE_LIMIT: Duration = Duration::from_millis(1500);

/// One port of the machine and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The route it stands for.
    pub route: RouteName,
    /// Where the machine listens.
    pub listen: SocketAddr,
    /// The nodes' addresses at which the route listens, tried in turn.
    pub targets: Vec<SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ForwarderSpec {
    /// The namespace to connect from.
    namespace: Option<PathBuf>,
    forwards: Vec<Forward>,
}

/// The forwards of a system: one for each port of a route, to all nodes that carry routes.
pub(crate) fn plan(system: &System, manifest: &Manifest) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for (name, route) in &system.routes {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, route.listen.port));
        if forwards.iter().any(|forward| forward.listen == listen) {
            continue;
        }
        let on_nodes = system.workers().filter_map(|(node, _)| manifest.nodes.get(node));
        let all = on_nodes.flat_map(|node| node.at_port(route.listen.port));
        let targets: Vec<_> =
            all.filter(|t| route.listen.address.is_none_or(|only| only == t.ip())).collect();
        // A node that has the address itself needs no door, and leaves no room for one.
        if !targets.is_empty() && !targets.contains(&listen) {
            forwards.push(Forward { route: name.clone(), listen, targets });
        }
    }
    forwards
}

/// Starts the forwarder and waits until it listens.
pub(crate) fn start(home: &Home, manifest: &Manifest) -> Result<ProcessId> {
    let namespace = (manifest.mode == Mode::Namespaces).then(|| network::client(&manifest.system).path());
    let spec = ForwarderSpec { namespace, forwards: manifest.forwards.clone() };
    let path = home.forwarder_spec();
    let text = serde_json::to_vec_pretty(&spec)
        .map_err(|error| LabError::Damaged { path: path.clone(), reason: error.to_string() })?;
    store(&path, &text)?;
    let mut command = Command::new(&manifest.program);
    command.args(["lab-node", "forward"]).arg(&path).current_dir("/").env_clear();
    command.env(crate::node::MARK, home.directory());
    let mut start = || {
        detach(&mut command, None)?;
        command.stderr(File::create(home.forwarder_log())?);
        command.spawn()
    };
    let child = start().map_err(LabError::io(|| "starting the forwarder".to_owned()))?;
    wait_ready(child, Duration::from_secs(10)).map_err(|reason| LabError::Io {
        doing: "starting the forwarder".to_owned(),
        source: io::Error::other(reason),
    })
}

/// Serves until it is killed.
pub(crate) fn run(spec: &Path) -> ExitCode {
    match serve(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> std::result::Result<(), String> {
    let text = fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let spec: ForwarderSpec =
        serde_json::from_slice(&text).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let bind = |forward: Forward| {
        let listener = TcpListener::bind(forward.listen).map_err(|e| format!("{}: {e}", forward.listen))?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        Ok((listener, forward.targets))
    };
    let doors = spec.forwards.into_iter().map(bind).collect::<std::result::Result<Vec<_>, String>>()?;
    // The listeners stay where they were made; everything that is opened from here on is inside.
    if let Some(namespace) = spec.namespace {
        let handle = File::open(&namespace).map_err(|e| format!("opening {}: {e}", namespace.display()))?;
        namespace::enter(&handle).map_err(|e| format!("entering {}: {e}", namespace.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("starting the runtime: {e}"))?;
    runtime.block_on(async {
        for (listener, targets) in doors {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| e.to_string())?;
            tokio::spawn(accept(listener, Arc::new(Targets { all: targets, good: AtomicUsize::new(0) })));
        }
        say_ready().map_err(|e| e.to_string())?;
        std::future::pending().await
    })
}

struct Targets {
    all: Vec<SocketAddr>,
    /// The one that answered last.
    good: AtomicUsize,
}

async fn accept(listener: tokio::net::TcpListener, targets: Arc<Targets>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(client, Arc::clone(&targets)));
            }
            // Out of descriptors: a moment later some are free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn carry(mut client: TcpStream, targets: Arc<Targets>) {
    if let Some(mut node) = targets.connect().await {
        let _ = client.set_nodelay(true);
        let _ = node.set_nodelay(true);
        let silence = u32::try_from(SILENCE_LIMIT.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&node, silence);
        let _ = copy_bidirectional(&mut client, &mut node).await;
    }
}

impl Targets {
    /// A connection to the first that answers, beginning with the one that did last time.
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.good.load(Ordering::Relaxed);
        for step in 0..self.all.len() {
            let turn = (first + step) % self.all.len();
            if let Ok(Ok(node)) = timeout(CONNECT_LIMIT, TcpStream::connect(self.all[turn])).await {
                self.good.store(turn, Ordering::Relaxed);
                return Some(node);
            }
        }
        None
    }
}
