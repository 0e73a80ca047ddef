//! A system of three machines: founded on one, joined by two, each with a network and a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long three agents may take to make a database with two standbys. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

fn ip(arguments: &str) -> Output {
    Command::new("ip").args(arguments.split_whitespace()).output().unwrap()
}

#[track_caller]
fn ip_does(arguments: &str) {
    let output = ip(arguments);
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Machines in network namespaces, plugged into one switch.
struct Machines {
    prefix: String,
    folder: tempfile::TempDir,
    agents: Vec<Child>,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

impl Machines {
    fn new() -> Self {
        let prefix = format!("msj{}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        // The operating-system user `postgres` must pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let machines = Self { prefix, folder, agents: vec![] };
        let switch = machines.namespace("sw");
        ip_does(&format!("netns add {switch}"));
        ip_does(&format!("-n {switch} link add br0 type bridge"));
        ip_does(&format!("-n {switch} link set br0 up"));
        for (number, node) in NODES.iter().enumerate() {
            let own = machines.namespace(node);
            ip_does(&format!("netns add {own}"));
            ip_does(&format!("-n {own} link add eth0 type veth peer name {node} netns {switch}"));
            ip_does(&format!("-n {switch} link set {node} master br0 up"));
            ip_does(&format!("-n {own} addr add 10.91.0.{}/24 dev eth0", number + 1));
            ip_does(&format!("-n {own} link set eth0 up"));
            ip_does(&format!("-n {own} link set lo up"));
        }
        machines
    }

    fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    fn root(&self, node: &str) -> String {
        self.folder.path().join(node).display().to_string()
    }

    fn command(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node), env!("CARGO_BIN_EXE_mainstay")]);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs a command on a machine.
    fn on(&self, node: &str, arguments: &[&str]) -> Output {
        self.command(node, arguments).output().unwrap()
    }

    #[track_caller]
    fn does(&self, node: &str, arguments: &[&str]) -> String {
        let output = self.on(node, arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "mainstay {}: {}\n{out}\n{err}", arguments.join(" "), output.status);
        out
    }

    /// Runs a command that must fail with this exit code and these words.
    #[track_caller]
    fn fails(&self, node: &str, arguments: &[&str], code: i32, words: &str) {
        let output = self.on(node, arguments);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.code() == Some(code) && told.contains(words), "{}: {told}", output.status);
        assert_eq!(told.matches("Error:").count(), 1, "{told}");
    }

    fn start_agent(&mut self, node: &str) {
        let log = std::fs::File::create(self.folder.path().join(format!("{node}.log"))).unwrap();
        let root = self.root(node);
        let mut command = self.command(node, &["agent", "--node", node, "--root", &root]);
        self.agents.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn file(&self) -> PathBuf {
        let file = self.folder.path().join("mainstay.toml");
        let mut text = "[system]\nname = \"joined\"\n".to_owned();
        for (number, node) in NODES.iter().enumerate() {
            text += &format!("[nodes.{node}]\naddress = \"10.91.0.{}\"\n", number + 1);
        }
        text += "[databases.orders]\n[routes.orders-rw]\nlisten = \":5432\"\ndatabase = \"orders\"\ntarget = \"primary\"\n";
        std::fs::write(&file, text).unwrap();
        file
    }

    /// What is not as it should be, by the word of the agent on a machine.
    fn missing(&self, node: &str) -> Option<String> {
        let root = self.root(node);
        let output = self.on(node, &["status", "--json", "--root", &root]);
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            return Some(text(&output.stderr));
        };
        let text = self.on(node, &["status", "--root", &root]).stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = NODES.iter().all(|node| text.contains(node)) && text.matches("standby").count() >= 2;
        let ok = self.on(node, &["status", "--check", "--root", &root]).status.success();
        (!whole || !ok).then(|| format!("{text}\n{status}"))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Drop for Machines {
    fn drop(&mut self) {
        for node in NODES {
            let pids = text(&ip(&format!("netns pids {}", self.namespace(node))).stdout);
            for pid in pids.lines().filter_map(|pid| pid.trim().parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        for agent in &mut self.agents {
            let _ = agent.wait();
        }
        for node in NODES.iter().chain(&["sw"]) {
            ip(&format!("netns del {}", self.namespace(node)));
        }
    }
}

/// Founds a system elsewhere, only for its token.
fn foreign_token(machines: &Machines, file: &Path) -> String {
    let root = machines.root("elsewhere");
    machines.does("n1", &["init", file.to_str().unwrap(), "--node", "n1", "--root", &root]);
    machines.does("n1", &["token", "--root", &root]).trim().to_owned()
}

#[test]
fn a_system_is_founded_on_one_machine_and_joined_by_two_others() {
    let mut machines = Machines::new();
    let file = machines.file();
    let founder = machines.root("n1");
    let told = machines.does("n1", &["init", file.to_str().unwrap(), "--node", "n1", "--root", &founder]);
    assert!(told.contains(&format!("mainstay agent --node n1 --root {founder}")), "{told}");
    let address = "10.91.0.1:7432";
    for node in ["n2", "n3"] {
        assert!(told.contains(&format!(" --node {node} {address}")), "{told}");
    }
    machines.fails("n1", &["init", file.to_str().unwrap(), "--node", "n1", "--root", &founder], 3, "already");

    // Before anything answers, and without anything that proves a right to join.
    let invited = machines.does("n1", &["token", "--root", &founder, "--node", "n2"]).trim().to_owned();
    let second = machines.root("n2");
    let join = |token: &str, node: &str, root: &str| -> Vec<String> {
        ["join", token, address, "--node", node, "--root", root].map(str::to_owned).to_vec()
    };
    let fails_on = |machines: &Machines, on: &str, token: &str, node: &str, code: i32, words: &str| {
        let arguments = join(token, node, &machines.root("stranger"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        machines.fails(on, &arguments, code, words);
        assert!(!Path::new(&machines.root("stranger")).join("state/identity/node.pem").exists());
    };
    let fails = |machines: &Machines, token: &str, node: &str, code: i32, words: &str| {
        fails_on(machines, "n3", token, node, code, words);
    };
    fails(&machines, &invited, "n2", 5, "cannot connect to 10.91.0.1:7432");
    machines.fails("n2", &["agent", "--node", "n2", "--root", &second], 1, "not the directory of a node");
    let nobody = ["agent", "--node", "n2", "--root", &second, "--file", file.to_str().unwrap()];
    machines.fails("n2", &nobody, 1, "this node has not joined a system");

    machines.start_agent("n1");
    let begin = Instant::now();
    let arguments = join(&invited, "n2", &second);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    while !machines.on("n2", &arguments).status.success() {
        assert!(begin.elapsed() < PATIENCE, "{}", text(&machines.on("n2", &arguments).stderr));
        std::thread::sleep(Duration::from_millis(200));
    }
    machines.start_agent("n2");
    println!("n2 joined after {:?}", begin.elapsed());

    // Wrong tokens, each with its own words: used, for another node, over, of another system, not a token, unknown node.
    fails(&machines, &invited, "n2", 3, "already used by node `n2`");
    let other = machines.does("n1", &["token", "--root", &founder, "--node", "n2"]);
    fails(&machines, other.trim(), "n3", 3, "the join token is for node `n2`");
    let short = machines.does("n1", &["token", "--root", &founder, "--valid", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    fails(&machines, short.trim(), "n3", 3, "the join token has expired");
    let edited = short.trim().rsplit_once('.').map(|(front, _)| format!("{front}.4000000000")).unwrap();
    fails(&machines, &edited, "n3", 3, "the join token has expired");
    let foreign = foreign_token(&machines, &file);
    fails(&machines, &foreign, "n3", 3, "of another system, or someone is in between");
    fails(&machines, "mainstay-join-1.12", "n3", 2, "this is not a join token");
    let any = machines.does("n1", &["token", "--root", &founder]);
    fails_on(&machines, "n2", any.trim(), "n9", 3, "the system file in force has no node `n9`");
    fails_on(&machines, "n2", any.trim(), "n1", 3, "a node `n1` is up already");

    machines.fails("n2", &arguments, 3, "is the directory of a node already");

    // The refused attempts have not used it up.
    let third = machines.root("n3");
    let arguments = join(any.trim(), "n3", &third);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    machines.does("n3", &arguments);
    machines.start_agent("n3");
    println!("n3 joined after {:?}", begin.elapsed());
    for node in NODES {
        while let Some(missing) = machines.missing(node) {
            let log = std::fs::read_to_string(machines.folder.path().join(format!("{node}.log"))).unwrap();
            assert!(begin.elapsed() < PATIENCE, "{node}: {missing}\n{log}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    println!("three nodes and a database with two standbys after {:?}", begin.elapsed());
}
