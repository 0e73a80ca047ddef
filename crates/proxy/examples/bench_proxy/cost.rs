//! What a proxy costs: processor time per request over kept connections, and memory per idle connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::agent::free_address;
use crate::front::{Front, Kind, spawn};
use crate::load::read_answer;
use crate::site::answers;

/// The proxy has this processor for itself;
const PROXY_CORE: usize = 0;
/// what asks and what answers share the other one.
const OTHER_CORE: usize = 1;
const CONNECTIONS: &str = "64";
const SECONDS: &str = "4s";
const IDLE: usize = 5000;

/// Something that answers 128 bytes at next to no cost.
pub(crate) struct Backend {
    process: Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
        let (place, body) = (directory.path().display(), "x".repeat(128));
        let conf = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log /dev/null;\nworker_rlimit_nofile 20000;\n\
             events {{ worker_connections 19000; }}\nhttp {{\n access_log off;\n keepalive_requests 1000000000;\n \
             client_body_temp_path {place}/a;\n proxy_temp_path {place}/b;\n fastcgi_temp_path {place}/c;\n \
             uwsgi_temp_path {place}/d;\n scgi_temp_path {place}/e;\n \
             server {{ listen {address}; location / {{ return 200 \"{body}\"; }} }}\n}}\n"
        );
        let file = directory.path().join("conf");
        std::fs::write(&file, conf).unwrap();
        let words = ["nginx", "-c", &file.display().to_string(), "-p", &place.to_string()];
        let process = spawn(Some(OTHER_CORE), &words);
        answers(address).await;
        Self { process, address, _directory: directory }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Microseconds of processor time per request, with as many requests as it can take; `Err` says why it was not measured.
pub(crate) async fn per_request(kind: Kind, backend: &Backend) -> Result<f64, String> {
    let front = Front::start(kind, &[backend.address], Some(PROXY_CORE)).await;
    let url = format!("http://{}/", front.listen);
    wrk(&url, "1s").await?;
    let before = cpu_seconds(front.id());
    let requests = wrk(&url, SECONDS).await?;
    let used = cpu_seconds(front.id()) - before;
    if used == 0.0 {
        Err("the kernel counts no processor time".to_owned())
    } else {
        Ok(used * 1e6 / requests)
    }
}

/// Runs wrk; returns how many requests were answered well.
async fn wrk(url: &str, lasting: &str) -> Result<f64, String> {
    let core = OTHER_CORE.to_string();
    let words = ["-c", &core, "wrk", "-t1", "-c", CONNECTIONS, "-d", lasting, url].map(str::to_owned);
    let running = tokio::task::spawn_blocking(move || Command::new("taskset").args(words).output());
    let output = running.await.unwrap().map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("requests failed: {text}"));
    }
    let line = text.lines().find(|line| line.contains(" requests in ")).ok_or("wrk said nothing")?;
    line.split_whitespace()
        .next()
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| "wrk said nothing".to_owned())
}

/// The time that all threads of a process have run.
fn cpu_seconds(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let ran = |task: PathBuf| -> f64 {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0)
    };
    tasks.flatten().map(|task| ran(task.path())).sum::<f64>() / 1e9
}

/// Bytes of resident memory per connection that has had one request and is kept.
pub(crate) async fn per_idle_connection(kind: Kind, backend: &Backend) -> f64 {
    let front = Front::start(kind, &[backend.address], None).await;
    let request = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
    let mut kept = Vec::new();
    let mut before = 0;
    for number in 0..=IDLE {
        let mut stream = TcpStream::connect(front.listen).await.unwrap();
        stream.write_all(request).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().0, 200);
        kept.push(stream);
        // What the first connection costs is the program's own start.
        before = if number == 0 { resident(front.id()) } else { before };
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = resident(front.id());
    drop(kept);
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory, far below 2^52")]
    let bytes = after.saturating_sub(before) as f64;
    bytes / 5000.0
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
