//! The test program as another process: some tests need one that they can freeze, kill or rob of its rights.

use std::collections::BTreeSet;
use std::time::Duration;

use effects::network::gate::Gate;
use effects::process::{Process, Signal, Spawn, spawn_detached};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROLE: &str = "EFFECTS_TEST_ROLE";

/// A process in a role, killed when dropped.
pub(crate) struct Actor(pub(crate) Process);

impl Actor {
    /// Starts this test program in `role`, in the caller's network namespace.
    pub(crate) fn start(role: &str, arguments: &[(&str, &str)]) -> Self {
        let pairs = arguments.iter().copied().chain([(ROLE, role)]);
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self(
            spawn_detached(&Spawn { env, ..Spawn::new(program(), self_arguments()) }).expect("starts itself"),
        )
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.0.signal_session(Signal::KILL);
    }
}

/// This test program.
pub(crate) fn program() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

/// The arguments that make it play the role in its environment.
pub(crate) fn self_arguments() -> [String; 3] {
    ["--exact", "roles::role", "--nocapture"].map(str::to_owned)
}

/// The environment variable that names the role.
pub(crate) fn role_variable(role: &str) -> (String, String) {
    (ROLE.to_owned(), role.to_owned())
}

fn argument(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("role needs {name}"))
}

fn millis(name: &str) -> Duration {
    Duration::from_millis(argument(name).parse().unwrap())
}

/// Renews a lease until it is frozen or killed.
async fn renew() {
    let port = argument("PORT").parse().unwrap();
    let gate = Gate::install(&argument("TABLE"), &BTreeSet::from([port])).await.unwrap();
    loop {
        gate.renew(port, millis("LEASE")).unwrap();
        std::thread::sleep(millis("EVERY"));
    }
}

/// A small web server whose answer a test sets by writing a status line into a file; prints a line for each request. With
/// `STUBBORN` it ignores SIGTERM.
async fn serve() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let stubborn = std::env::var("STUBBORN").is_ok();
    let listener =
        tokio::net::TcpListener::bind(("127.0.0.1", argument("PORT").parse().unwrap())).await.unwrap();
    println!("listening");
    loop {
        tokio::select! {
            _ = terminate.recv() => if !stubborn { return },
            connection = listener.accept() => answer(connection.unwrap().0).await,
        }
    }
}

async fn answer(mut connection: tokio::net::TcpStream) {
    let mut request = vec![0; 1024];
    let count = connection.read(&mut request).await.unwrap_or(0);
    println!("{}", String::from_utf8_lossy(&request[..count]).lines().next().unwrap_or("nothing"));
    let status = std::fs::read_to_string(argument("STATUS")).unwrap_or_else(|_| "200 OK".to_owned());
    let _ = connection.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
}

#[tokio::test]
async fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("renew") => renew().await,
        Ok("serve") => serve().await,
        Ok("probe") => println!("PROTECTION {}", Gate::probe()),
        Ok(other) => panic!("there is no role {other}"),
        Err(_) => {
            let actor = Actor::start("nonsense", &[]);
            assert!(!actor.0.exited().await.is_success(), "an unknown role must fail");
        }
    }
}
