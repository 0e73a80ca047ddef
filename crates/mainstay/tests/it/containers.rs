//! A service whose instances are containers, on a real system: served under load while agents, containers and a node die,
//! replaced by another image, and gone without a trace with the system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Lab;
use rustix::process::{Pid, Signal, kill_process};

const NAME: &str = "container-e2e";

fn file(port: u16, tag: &str) -> String {
    format!(
        "[system]\nname = \"{NAME}\"\n[sites.east]\n[sites.west]\n[sites.north]\n\
         [nodes.e1]\nsite = \"east\"\naddress = \"10.94.1.11\"\n\
         [nodes.w1]\nsite = \"west\"\naddress = \"10.94.2.11\"\n\
         [nodes.n1]\nsite = \"north\"\naddress = \"10.94.3.11\"\n\
         [services.web]\nimage = \"localhost/mainstay-web:{tag}\"\ninstances = 2\nmemory = \"64MiB\"\n\
         health = {{ http = \"/healthz\", interval = \"500ms\" }}\n\
         env = {{ HOST = \"{{address}}\", PORT = \"{{port}}\" }}\n\
         [routes.public]\nlisten = \":{port}\"\nservice = \"web\"\n"
    )
}

fn free_port() -> u16 {
    let begin = 20_000 + u16::try_from(std::process::id() % 9000).unwrap();
    (begin..32_000).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}

#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

// ---- the machine ----

/// A podman with a store of its own, and the commands of a user who has set it up so.
struct Machine {
    folder: PathBuf,
    setup: BTreeMap<&'static str, String>,
}

impl Machine {
    fn new(folder: &Path) -> Self {
        let place = |name: &str| folder.join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            place("storage"),
            place("run")
        );
        // crun refuses machines that have both versions of control groups, runc does not.
        let is_hybrid = Path::new("/sys/fs/cgroup/unified").exists();
        let runtime = if is_hybrid { "runtime = \"runc\"\n" } else { "" };
        let engine = format!(
            "[engine]\n{runtime}static_dir = \"{}\"\ntmp_dir = \"{}\"\nvolume_path = \"{}\"\nlock_type = \"file\"\n",
            place("storage/libpod"),
            place("tmp"),
            place("volumes")
        );
        fs::write(folder.join("storage.conf"), storage).unwrap();
        fs::write(folder.join("containers.conf"), engine).unwrap();
        let setup = BTreeMap::from([
            ("CONTAINERS_STORAGE_CONF", place("storage.conf")),
            ("CONTAINERS_CONF", place("containers.conf")),
        ]);
        Self { folder: folder.to_owned(), setup }
    }

    fn podman(&self, arguments: &[&str]) -> String {
        ran(Command::new("podman").args(arguments).envs(&self.setup))
    }

    /// Makes an image of each tag, which says its tag.
    fn make_images(&self, tags: &[&str]) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../effects/tests/it/containers/guest.c");
        ran(Command::new("cc").args(["-static", "-O1", "-o", "guest"]).arg(source).current_dir(&self.folder));
        ran(Command::new("tar").args(["-cf", "guest.tar", "guest"]).current_dir(&self.folder));
        let tar = self.folder.join("guest.tar").display().to_string();
        for tag in tags {
            let name = format!("localhost/mainstay-web:{tag}");
            let (entry, says) = ("ENTRYPOINT [\"/guest\"]", format!("ENV NAME=image-{tag}"));
            self.podman(&["import", "--quiet", "--change", entry, "--change", &says, &tar, &name]);
        }
    }

    /// What the engine knows of: name and image, running or not.
    fn containers(&self) -> BTreeMap<String, String> {
        let told = self.podman(&["ps", "--all", "--format", "{{.Names}} {{.Image}}"]);
        told.lines().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
    }

    /// The processes inside containers, as this machine numbers them.
    fn guests() -> BTreeSet<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let command = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.filter(|pid| command(pid) == b"/guest\0").collect()
    }

    /// What a command said, and its exit code.
    fn mainstay(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(arguments).envs(&self.setup);
        if arguments[0] != "up" && arguments[0] != "down" {
            command.args(["--system", NAME]);
        }
        let output = command.output().unwrap();
        let told =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.code(), told)
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, told) = self.mainstay(arguments);
        assert_eq!(code, Some(0), "mainstay {}: {told}", arguments.join(" "));
        told
    }

    /// Waits until the status says all of `words`, and says how long that took.
    #[track_caller]
    fn status_says(&self, words: &[&str]) -> Duration {
        let begin = Instant::now();
        loop {
            let (_, told) = self.mainstay(&["status"]);
            if words.iter().all(|word| told.contains(word)) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "not {words:?} in:\n{told}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.mainstay(&["down", NAME]);
        let remove = ["rm", "--all", "--force", "--time", "0"];
        let _ = Command::new("podman").args(remove).envs(&self.setup).output();
    }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Kills a node's agent.
fn kill_agent(node: &str) {
    let root = format!("{NAME}/nodes/{node}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = command.split('\0').collect();
        if words.get(1) == Some(&"agent") && words.iter().any(|word| word.ends_with(&root)) {
            return kill(pid);
        }
    }
    panic!("no agent of {node} runs");
}

// ---- clients ----

fn ask(at: SocketAddr) -> Result<(), String> {
    let in_words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(at).map_err(in_words)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").map_err(in_words)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(in_words)?;
    let is_good = answer.starts_with("HTTP/1.1 200 ");
    if is_good { Ok(()) } else { Err(answer) }
}

/// Asks all the time while `act` does something; nothing may fail.
#[track_caller]
fn under_load(what: &str, at: SocketAddr, act: impl FnOnce()) {
    let ends = Arc::new(AtomicBool::new(false));
    let client = |_| {
        let ends = Arc::clone(&ends);
        std::thread::spawn(move || {
            let (mut ok, mut failed) = (0, vec![]);
            while !ends.load(Ordering::Relaxed) {
                match ask(at) {
                    Ok(()) => ok += 1,
                    Err(because) => failed.push(because),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (ok, failed)
        })
    };
    let clients: Vec<_> = (0..4).map(client).collect();
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    act();
    println!("{what} took {:.1} s", begin.elapsed().as_secs_f32());
    std::thread::sleep(Duration::from_millis(500));
    ends.store(true, Ordering::Relaxed);
    let mut failed = vec![];
    let mut ok = 0;
    for client in clients {
        let (more, others) = client.join().unwrap();
        ok += more;
        failed.extend(others);
    }
    println!("{what}: {ok} requests answered, {} failed", failed.len());
    assert!(ok > 0 && failed.is_empty(), "{what}: {failed:?}");
}

// ---- the test ----

#[test]
fn containers_serve_while_agents_containers_and_nodes_die_and_go_with_their_system() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path());
    machine.make_images(&["1", "2"]);
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    fs::write(&path, file(port, "1")).unwrap();
    machine.succeeds(&["up", path.to_str().unwrap()]);
    machine.status_says(&["is healthy"]);
    let at: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let (first, guests) = (machine.containers(), Machine::guests());
    assert_eq!((first.len(), guests.len()), (2, 2), "{first:?}");
    let told = machine.succeeds(&["logs", "web"]);
    assert!(told.contains("listening as image-1") && told.contains("GET /healthz"), "{told}");
    let artefact = tempfile::tempdir().unwrap();
    fs::write(artefact.path().join("run"), "#!/bin/sh\n").unwrap();
    let (code, told) = machine.mainstay(&["release", "web", "--from", artefact.path().to_str().unwrap()]);
    assert!(code != Some(0) && told.contains("runs from the image localhost/mainstay-web:1"), "{told}");

    under_load("agents killed", at, || {
        ["e1", "w1", "n1"].iter().for_each(|node| kill_agent(node));
        std::thread::sleep(Duration::from_secs(2));
        machine.status_says(&["is healthy"]);
    });
    assert_eq!(
        (machine.containers(), Machine::guests()),
        (first.clone(), guests.clone()),
        "they were adopted"
    );

    under_load("a container killed", at, || {
        kill(*guests.first().unwrap());
        let begin = Instant::now();
        while Machine::guests().len() != 2 || Machine::guests() == guests {
            assert!(begin.elapsed() < Duration::from_secs(30), "it is not started again");
            std::thread::sleep(Duration::from_millis(20));
        }
        machine.status_says(&["is healthy"]);
    });

    under_load("another image", at, || {
        fs::write(&path, file(port, "2")).unwrap();
        machine.succeeds(&["apply", path.to_str().unwrap(), "--yes"]);
        let begin = Instant::now();
        let is_new = |image: &String| image == "localhost/mainstay-web:2";
        while machine.containers().values().filter(|image| is_new(image)).count() != 2 {
            assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", machine.containers());
            std::thread::sleep(Duration::from_millis(200));
        }
        machine.status_says(&["is healthy"]);
    });
    assert_eq!((machine.containers().len(), Machine::guests().len()), (2, 2), "{:?}", machine.containers());

    a_node_loses_power(&machine, at);

    println!("{}", machine.succeeds(&["down", NAME]));
    assert_eq!((machine.containers(), Machine::guests()), (BTreeMap::new(), BTreeSet::new()));
}

/// Everything on a node with an instance dies at once; others do its work, and nothing runs twice when it is back.
fn a_node_loses_power(machine: &Machine, at: SocketAddr) {
    let mut lab = Lab::open(&NAME.into()).unwrap();
    let status: serde_json::Value = serde_json::from_str(&machine.mainstay(&["status", "--json"]).1).unwrap();
    let services = status.to_string();
    let node =
        ["w1", "n1"].into_iter().find(|node| services.contains(&format!("@{node}\""))).expect("one of two");
    lab.kill_node(&node.into()).unwrap();
    machine.status_says(&["is silent on every line", node]);
    let begin = Instant::now();
    while Machine::guests().len() != 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no other node has started it");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("another node did its work after {:.1} s", begin.elapsed().as_secs_f32());
    lab.start_node(&node.into()).unwrap();
    let begin = Instant::now();
    while machine.containers().len() != 2 || Machine::guests().len() != 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", machine.containers());
        std::thread::sleep(Duration::from_millis(200));
    }
    machine.status_says(&["is healthy"]);
    under_load("back", at, || {});
}
