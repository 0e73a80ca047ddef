//! Three instances of a small service, one of which is hurt.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// What happens to the first instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9: its connections are reset, new ones refused.
    Killed,
    /// SIGSTOP: its kernel still takes connections, nobody answers.
    Frozen,
    /// Answers everything with status 500.
    Answers500,
    /// Every packet to it is lost: nobody says that it is gone.
    BlackHoled,
}

pub(crate) const FAULTS: [Fault; 4] = [Fault::Killed, Fault::Frozen, Fault::Answers500, Fault::BlackHoled];

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Answers500 => "answers 500",
            Self::BlackHoled => "black-holed",
        }
    }
}

/// The instances of one run; they end when dropped, and so does what was done to them.
pub(crate) struct Site {
    instances: Vec<(Child, SocketAddr)>,
    manner: PathBuf,
    _directory: TempDir,
}

impl Site {
    /// Starts three instances on free ports.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let manner = directory.path().join("manner");
        let mut instances = Vec::new();
        for number in 0..3 {
            let address = crate::agent::free_address();
            // Only the first one reads it.
            let manner = if number == 0 { manner.clone() } else { directory.path().join("none") };
            let process = Command::new(program()).arg(address.to_string()).arg(manner).spawn();
            instances.push((process.expect("the example `instance` is built beside this one"), address));
        }
        let site = Self { instances, manner, _directory: directory };
        for address in site.addresses() {
            answers(address).await;
        }
        site
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(|(_, address)| *address).collect()
    }

    /// Hurts the first instance. With `slow` instead of a fault see [`Self::slow_down`].
    pub(crate) fn hurt(&self, fault: Fault) {
        match fault {
            Fault::Killed => self.signal(Signal::KILL),
            Fault::Frozen => self.signal(Signal::STOP),
            Fault::Answers500 => std::fs::write(&self.manner, "500").unwrap(),
            Fault::BlackHoled => black_hole(self.instances[0].1.port()),
        }
    }

    /// The first instance takes so long for every answer.
    pub(crate) fn slow_down(&self, by: Duration) {
        std::fs::write(&self.manner, format!("slow {}", by.as_millis())).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.instances[0].0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for (process, _) in &mut self.instances {
            drop(process.kill());
            drop(process.wait());
        }
        drop(Command::new("nft").args(["delete", "table", "inet", "bench_proxy"]).output());
    }
}

/// The rule lies in the network namespace that `scripts/bench-proxy.sh` made for this run, and ends with it.
fn black_hole(port: u16) {
    let rules = format!(
        "table inet bench_proxy {{ chain input {{ type filter hook input priority 0; tcp dport {port} drop; }}; }}"
    );
    let done = Command::new("nft").arg(rules).output().unwrap();
    assert!(done.status.success(), "nft: {}", String::from_utf8_lossy(&done.stderr));
}

fn program() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("instance")
}

/// Waits until somebody takes connections there.
pub(crate) async fn answers(address: SocketAddr) {
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "nobody listens on {address}");
        sleep(Duration::from_millis(5)).await;
    }
}
