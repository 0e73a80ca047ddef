//! A real etcd, and wires to it that can be cut.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const START: Duration = Duration::from_secs(20);

pub(crate) struct EtcdServer {
    child: Child,
    pub(crate) address: SocketAddr,
    _data: TempDir,
}

impl EtcdServer {
    pub(crate) async fn start() -> Self {
        Self::start_with("http", &[]).await
    }

    /// With further arguments, for instance for TLS.
    pub(crate) async fn start_with(scheme: &str, arguments: &[String]) -> Self {
        let data = TempDir::new().unwrap();
        let (client, peer) = (free_address(), free_address());
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data.path().join("data"));
        command.args(["--listen-client-urls", &format!("{scheme}://{client}")]);
        command.args(["--advertise-client-urls", &format!("{scheme}://{client}")]);
        command.args(["--listen-peer-urls", &format!("http://{peer}")]);
        command.args(["--initial-advertise-peer-urls", &format!("http://{peer}")]);
        command.args(["--initial-cluster", &format!("default=http://{peer}")]);
        command.args(arguments).stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start `etcd`: {error}; `make setup` installs it (Debian package etcd-server)")
        });
        let server = Self { child, address: client, _data: data };
        server.wait_until_it_listens().await;
        server
    }

    async fn wait_until_it_listens(&self) {
        let since = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            let log = std::fs::read_to_string(self._data.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < START, "etcd does not listen: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Forgets all changes up to now.
    pub(crate) async fn compact(&self) {
        let client = Client::connect([format!("http://{}", self.address)], None).await.unwrap();
        let now = client.kv_client().get("x", None).await.unwrap().header().unwrap().revision();
        client.kv_client().compact(now, None).await.unwrap();
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a wire does at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Every connection is closed, new ones too.
    Closed,
    /// Connections stay open, nothing passes.
    Silent,
}

/// A TCP proxy that can fail.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::Up));
        tokio::spawn(accept(listener, server, state.subscribe()));
        Self { address, state }
    }

    pub(crate) fn close(&self, closed: bool) {
        self.state.send_replace(if closed { State::Closed } else { State::Up });
    }

    pub(crate) fn silence(&self, silent: bool) {
        self.state.send_replace(if silent { State::Silent } else { State::Up });
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<State>) {
    while let Ok((near, _)) = listener.accept().await {
        if *state.borrow() == State::Closed {
            continue;
        }
        let Ok(far) = TcpStream::connect(server).await else { continue };
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::spawn(pump(near_read, far_write, state.clone()));
        tokio::spawn(pump(far_read, near_write, state.clone()));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut closed = state.clone();
        let length = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = closed.wait_for(|state| *state == State::Closed) => return,
        };
        if length == 0 {
            return;
        }
        match state.wait_for(|state| *state != State::Silent).await {
            Ok(now) if *now == State::Up => {}
            Ok(_) | Err(_) => return,
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
