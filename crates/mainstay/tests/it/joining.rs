//! A system of three machines: founded on one, joined by two, each with a network and a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

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

/// Where the first machine's agent listens.
const FOUNDER: &str = "10.91.0.1:7432";

impl Machines {
    fn join(&self, on: &str, token: &str, node: &str, root: &str) -> Output {
        self.on(on, &["join", token.trim(), FOUNDER, "--node", node, "--root", root])
    }

    /// An attempt to join that must fail with this exit code and these words, and leave no identity.
    #[track_caller]
    fn fails_to_join(&self, on: &str, token: &str, node: &str, code: i32, words: &str) {
        let root = self.root("stranger");
        self.fails(on, &["join", token.trim(), FOUNDER, "--node", node, "--root", &root], code, words);
        assert!(!Path::new(&root).join("state/identity/node.pem").exists());
    }

    fn token(&self, arguments: &[&str]) -> String {
        let root = self.root("n1");
        self.does("n1", &[&["token", "--root", &root], arguments].concat())
    }

    /// A token of a system of the same file that was founded elsewhere.
    fn foreign_token(&self, file: &str) -> String {
        let root = self.root("elsewhere");
        self.does("n1", &["init", file, "--node", "n1", "--root", &root]);
        self.does("n1", &["token", "--root", &root])
    }

    /// Repeats until it succeeds: the other side may not have started yet.
    fn join_in_the_end(&self, node: &str, token: &str) {
        let (begin, root) = (Instant::now(), self.root(node));
        loop {
            let output = self.join(node, token, node, &root);
            if output.status.success() {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", text(&output.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Each wrong token with words of its own: used, for another node, over, of another system, none at all; and names
    /// that cannot join.
    fn refuses_wrong_tokens(&self, used: &str, file: &str) {
        self.fails_to_join("n3", used, "n2", 3, "already used by node `n2`");
        let other = self.token(&["--node", "n2"]);
        self.fails_to_join("n3", &other, "n3", 3, "the join token is for node `n2`");
        let short = self.token(&["--valid", "1s"]);
        std::thread::sleep(Duration::from_millis(1100));
        self.fails_to_join("n3", &short, "n3", 3, "the join token has expired");
        let edited = short.trim().rsplit_once('.').map(|(front, _)| format!("{front}.4000000000")).unwrap();
        self.fails_to_join("n3", &edited, "n3", 3, "the join token has expired");
        let foreign = self.foreign_token(file);
        self.fails_to_join("n3", &foreign, "n3", 3, "of another system, or someone is in between");
        self.fails_to_join("n3", "mainstay-join-1.12", "n3", 2, "this is not a join token");
        let any = self.token(&[]);
        // From another machine: five failures of one in a minute make it wait.
        self.fails_to_join("n2", &any, "n9", 3, "the system file in force has no node `n9`");
        self.fails_to_join("n2", &any, "n1", 3, "a node `n1` is up already");
    }
}

impl Machines {
    fn identity(&self, node: &str) -> PathBuf {
        Path::new(&self.root(node)).join("state/identity")
    }

    /// Gives a node that does not run a certificate with twelve hours left.
    fn let_certificate_grow_old(&self, node: &str) {
        let authority = Path::new(&self.root("n1")).join("state/authority");
        let authority = transport::Authority::load(&authority).unwrap();
        let end = SystemTime::now() + Duration::from_secs(12 * 3600);
        let credentials = authority.issue_until(&node.into(), &[], end).unwrap();
        credentials.write(&self.identity(node)).unwrap();
    }

    fn certificate_lasts(&self, node: &str) -> Duration {
        let identity = transport::Identity::load(&self.identity(node), &"joined".into()).unwrap();
        identity.expires_at().duration_since(SystemTime::now()).unwrap()
    }
}

#[test]
fn a_system_is_founded_on_one_machine_and_joined_by_two_others() {
    let mut machines = Machines::new();
    let file = machines.file().display().to_string();
    let (first, second) = (machines.root("n1"), machines.root("n2"));
    let told = machines.does("n1", &["init", &file, "--node", "n1", "--root", &first]);
    assert!(told.contains(&format!("mainstay agent --node n1 --root {first}")), "{told}");
    for node in ["n2", "n3"] {
        assert!(told.contains(&format!(" --node {node} {FOUNDER}")), "{told}");
    }
    machines.fails("n1", &["init", &file, "--node", "n1", "--root", &first], 3, "already");

    // Before anything answers, and without anything that proves a right to join.
    let invited = machines.token(&["--node", "n2"]);
    machines.fails_to_join("n3", &invited, "n2", 5, "cannot connect to 10.91.0.1:7432");
    machines.fails("n2", &["agent", "--node", "n2", "--root", &second], 1, "not the directory of a node");
    let stranger = ["agent", "--node", "n2", "--root", &second, "--file", &file];
    machines.fails("n2", &stranger, 1, "this node has not joined a system");

    machines.start_agent("n1");
    machines.join_in_the_end("n2", &invited);
    machines.start_agent("n2");
    machines.refuses_wrong_tokens(&invited, &file);
    let again = machines.join("n2", &invited, "n2", &second);
    assert!(again.status.code() == Some(3), "{}", text(&again.stderr));

    machines.join_in_the_end("n3", &machines.token(&[]));
    machines.let_certificate_grow_old("n3");
    machines.start_agent("n3");
    let begin = Instant::now();
    for node in NODES {
        while let Some(missing) = machines.missing(node) {
            let log = std::fs::read_to_string(machines.folder.path().join(format!("{node}.log"))).unwrap();
            assert!(begin.elapsed() < PATIENCE, "{node}: {missing}\n{log}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    println!("three nodes and a database with two standbys {:?} after the last join", begin.elapsed());
    while machines.certificate_lasts("n3") < Duration::from_secs(364 * 24 * 3600) {
        assert!(begin.elapsed() < PATIENCE, "the certificate was not renewed");
        std::thread::sleep(Duration::from_millis(300));
    }
}
