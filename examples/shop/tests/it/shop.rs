//! A running instance of the shop, and a few words of HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const SHOP: &str = env!("CARGO_BIN_EXE_shop");
const DEADLINE: Duration = Duration::from_secs(30);

/// An instance, killed when dropped.
pub(crate) struct Shop {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Shop {
    /// Starts an instance; returns when it listens, not when it is ready.
    pub(crate) fn start(instance: &str, database: &str, replica: Option<&str>) -> Self {
        let mut command = Command::new(SHOP);
        command.args(["--listen", "127.0.0.1:0"]).env("DATABASE_URL", database);
        command.env("MAINSTAY_INSTANCE", instance).env("MAINSTAY_NODE", "e1").env_remove("REPLICA_URL");
        if let Some(replica) = replica {
            command.env("REPLICA_URL", replica);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// Starts an instance and waits until it is ready.
    pub(crate) fn ready(instance: &str, database: &str, replica: Option<&str>) -> Self {
        let shop = Self::start(instance, database, replica);
        shop.wait_ready();
        shop
    }

    pub(crate) fn wait_ready(&self) {
        let begin = Instant::now();
        loop {
            let health = self.get("/healthz");
            if health.status == 200 {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "not ready: {}", health.body);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", "")
    }

    pub(crate) fn order(&self, key: &str, body: &str) -> Answer {
        self.request("POST", "/api/orders", &format!("Idempotency-Key: {key}\r\n"), body)
    }

    /// Sends a request on a connection of its own.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, body: body.to_owned() }
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until the instance has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < DEADLINE, "the shop does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
