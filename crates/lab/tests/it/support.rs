//! A lab for one test, removed when the test ends however it ends.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::{Data, Lab, Options};
use model::system::System;
use model::{LineName, NodeName, SystemName};
use tempfile::TempDir;

/// The port at which nodes answer, in networks of their own.
pub(crate) const PORT: u16 = 7000;

/// The binary of the tests.
pub(crate) const STAND_IN: &str = env!("CARGO_BIN_EXE_lab-test-stand-in");

/// How the directories of tests begin, before the number of the test's process.
const PREFIX: &str = "mainstay-lab-test-";

/// What one test works with.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) system: System,
    pub(crate) file: PathBuf,
    pub(crate) door: u16,
}

impl Bench {
    /// A system of three nodes on three lines with a name of its own.
    pub(crate) fn new() -> Self {
        assert!(
            rustix_is_root(),
            "this test makes network namespaces and needs root; run it as `sudo make test`"
        );
        for program in ["ip", "nft", "mkfs.ext4", "losetup", "setpriv"] {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|d| Path::new(d).join(program).exists());
            assert!(found, "this test needs the program {program}; `make setup` installs it");
        }
        sweep();
        let name = unique_name();
        let directory =
            tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().unwrap();
        open_to_all(directory.path());
        let door = free_port();
        let text = TEXT.replace("{name}", &name).replace("{door}", &door.to_string());
        let file = directory.path().join("test.toml");
        fs::write(&file, &text).unwrap();
        fs::write(directory.path().join("web"), "#!/bin/sh\n").unwrap();
        let system = match model::system::parse("test.toml", text.as_bytes()) {
            Ok(checked) => checked.system,
            Err(invalid) => panic!("the test's file is wrong: {invalid:?}"),
        };
        Self { directory, system, file, door }
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.directory.path().join("labs")
    }

    pub(crate) fn name(&self) -> &SystemName {
        &self.system.name
    }

    pub(crate) fn options(&self) -> Options {
        let port = PORT.to_string();
        let command = [STAND_IN, "answer", "{node}", "{root}", "{file}", &port];
        Options {
            base: self.base(),
            program: PathBuf::from(STAND_IN),
            command: command.map(str::to_owned).to_vec(),
            ..Options::default()
        }
    }

    pub(crate) fn up(&self) -> Lab {
        let lab = Lab::up(&self.system, &self.file, &self.options()).unwrap();
        wait_for_answers(&lab);
        lab
    }

    pub(crate) fn down(&self, data: Data) {
        Lab::down_in(&self.base(), self.name(), data).unwrap();
    }
}

/// The same with a database on two of the nodes, and how to bring it up.
pub(crate) fn with_database(mut bench: Bench) -> (Bench, Options) {
    let text = fs::read_to_string(&bench.file).unwrap()
        + "[databases.orders]\nmembers = [\"e1\", \"w1\"]\n[routes.orders-rw]\nlisten = \":5432\"\ndatabase = \"orders\"\n";
    fs::write(&bench.file, &text).unwrap();
    bench.system = match model::system::parse("test.toml", text.as_bytes()) {
        Ok(checked) => checked.system,
        Err(invalid) => panic!("the test's file is wrong: {invalid:?}"),
    };
    let options = Options { forward: false, ..bench.options() };
    (bench, options)
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Most tests have taken it down themselves; a failed one has not.
        let _ = Lab::down_in(&self.base(), &self.system.name, Data::Remove);
    }
}

const TEXT: &str = r#"
[system]
name = "{name}"
[sites.east]
[sites.west]
[sites.north]
witness = true
[nodes.e1]
site = "east"
lines = { fibre = "10.0.1.11", radio = "10.9.1.11", mesh = "fd00:1::11" }
[nodes.w1]
site = "west"
lines = { fibre = "10.0.2.11", radio = "10.9.1.12", mesh = "fd00:2::12" }
[nodes.n1]
site = "north"
lines = { fibre = "192.168.7.5", radio = "10.9.9.5" }
[services.web]
command = ["./web", "{address}:{port}"]
[routes.public]
listen = ":{door}"
service = "web"
"#;

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

pub(crate) fn line(name: &str) -> LineName {
    LineName::new(name)
}

/// The address at which a node answers on a line.
pub(crate) fn at(lab: &Lab, name: &str, on: &str) -> SocketAddr {
    let address: IpAddr = lab.address(&node(name), &line(on)).unwrap().unwrap();
    SocketAddr::new(address, PORT)
}

/// Who answers an outside client.
pub(crate) fn dial(lab: &Lab, address: SocketAddr) -> Result<String, String> {
    finish(lab.spawn_as_client(piped(Command::new(STAND_IN).args(["dial", &address.to_string()]))).unwrap())
}

/// Who answers a client inside a node.
pub(crate) fn dial_from(lab: &Lab, from: &str, address: SocketAddr) -> Result<String, String> {
    let mut command = Command::new(STAND_IN);
    finish(lab.spawn_in_node(&node(from), piped(command.args(["dial", &address.to_string()]))).unwrap())
}

/// What a program prints inside a node.
pub(crate) fn inside(lab: &Lab, name: &str, program: &str, arguments: &[&str]) -> String {
    finish(lab.spawn_in_node(&node(name), piped(Command::new(program).args(arguments))).unwrap()).unwrap()
}

fn piped(command: &mut Command) -> &mut Command {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

fn finish(child: std::process::Child) -> Result<String, String> {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}

pub(crate) fn wait_for_answers(lab: &Lab) {
    for name in ["e1", "w1", "n1"] {
        let address = at(lab, name, "fibre");
        let log = || fs::read_to_string(lab.log(&node(name))).unwrap_or_default();
        eventually(&format!("{name} answers"), log, || dial(lab, address).is_ok());
    }
}

/// Waits up to ten seconds.
pub(crate) fn eventually(what: &str, details: impl Fn() -> String, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "not within 10 s: {what}\n{}", details());
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what tests have left that were killed before they could clean up.
fn sweep() {
    let dead = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
    for namespace in names_in("/run/netns") {
        let system = namespace.strip_prefix("ms-").and_then(|name| name.strip_suffix("-net"));
        let owner = system.and_then(|name| name.strip_prefix('t')?.split('-').next());
        if let (Some(system), Some(_)) = (system, owner.filter(|pid| dead(pid))) {
            let _ = Lab::down_in(&std::env::temp_dir(), &SystemName::new(system), Data::Remove);
        }
    }
    for name in names_in(&std::env::temp_dir().display().to_string()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(dead) {
            let _ = fs::remove_dir_all(std::env::temp_dir().join(&name));
        }
    }
}

fn rustix_is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Everything on this machine that bears the system's name or could be left by it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) mounts: BTreeSet<String>,
    pub(crate) loops: BTreeSet<String>,
    pub(crate) processes: BTreeSet<String>,
    pub(crate) files: BTreeSet<PathBuf>,
    pub(crate) rules: String,
    pub(crate) links: String,
}

impl Traces {
    pub(crate) fn of(bench: &Bench) -> Self {
        let name = bench.name().as_str();
        let directory = bench.directory.path().display().to_string();
        let ours = |text: &str| text.contains(name) || text.contains(&directory);
        let lines = |text: String| text.lines().filter(|line| ours(line)).map(str::to_owned).collect();
        Self {
            namespaces: names_in("/run/netns").into_iter().filter(|n| ours(n)).collect(),
            groups: ["", "unified", "freezer", "cpu", "memory", "pids"]
                .iter()
                .flat_map(|root| names_in(&format!("/sys/fs/cgroup/{root}")))
                .filter(|n| ours(n))
                .collect(),
            mounts: lines(fs::read_to_string("/proc/self/mounts").unwrap()),
            loops: lines(output("losetup", &["-a"])),
            processes: processes(&ours),
            files: files(bench.base()),
            rules: output("nft", &["list", "ruleset"]),
            links: output("ip", &["-o", "link"]),
        }
    }
}

/// How many living processes have this variable.
pub(crate) fn processes_with(name: &str, value: &str) -> usize {
    let wanted = format!("{name}={value}").into_bytes();
    let has = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
    };
    names_in("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).filter(has).count()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Living processes that bear the mark in their arguments, environment or directory.
fn processes(ours: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let me = std::process::id().to_string();
    let bears = |pid: &String| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        ours(&text(read("cmdline"))) || ours(&text(read("environ"))) || ours(&cwd.display().to_string())
    };
    let pids = names_in("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok() && *name != me);
    pids.filter(bears).collect()
}

fn files(directory: PathBuf) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![directory];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}
