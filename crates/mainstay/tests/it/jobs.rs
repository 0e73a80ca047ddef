//! Services and jobs in the hands of three real agents on one machine: due times, requests, a frozen node, a crash loop.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Three agents on addresses of the loopback device of a namespace of their own.
struct Agents {
    namespace: String,
    folder: tempfile::TempDir,
    running: Vec<(&'static str, Child)>,
}

fn ip(arguments: &str) -> Output {
    Command::new("ip").args(arguments.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Agents {
    fn start(sections: &str) -> Self {
        let namespace = format!("msjobs{}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut agents = Self { namespace, folder, running: vec![] };
        for arguments in ["netns add NS", "-n NS link set lo up"] {
            let done = ip(&arguments.replace("NS", &agents.namespace));
            assert!(done.status.success(), "{}", text(&done.stderr));
        }
        for node in &NODES[..] {
            let number = node.trim_start_matches('n');
            let done = ip(&format!("-n {} addr add 10.92.0.{number}/24 dev lo", agents.namespace));
            assert!(done.status.success(), "{}", text(&done.stderr));
        }
        let file = agents.write(sections);
        let root = agents.root("n1");
        agents.does(&["init", &file, "--node", "n1", "--root", &root]);
        agents.run("n1");
        for node in ["n2", "n3"] {
            agents.join(node);
        }
        agents
    }

    fn write(&self, sections: &str) -> String {
        let file = self.folder.path().join("mainstay.toml");
        let mut text = "[system]\nname = \"jobs\"\n".to_owned();
        for (number, node) in NODES.iter().enumerate() {
            text += &format!("[nodes.{node}]\naddress = \"10.92.0.{}\"\n", number + 1);
        }
        std::fs::write(&file, text + sections).unwrap();
        file.display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self, node: &str) -> String {
        self.path(node).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_mainstay")]);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "mainstay {}: {}\n{out}\n{err}", arguments.join(" "), output.status);
        out
    }

    fn run(&mut self, node: &'static str) {
        let log = std::fs::File::create(self.path(&format!("{node}.log"))).unwrap();
        let root = self.root(node);
        let mut command = self.command(&["agent", "--node", node, "--root", &root]);
        // `ip netns exec` becomes the agent: its pid is the agent's.
        let agent = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.running.push((node, agent));
    }

    fn join(&mut self, node: &'static str) {
        let (begin, root) = (Instant::now(), self.root(node));
        let token = self.does(&["token", "--root", &self.root("n1")]);
        loop {
            let joined = ["join", token.trim(), "10.92.0.1:7432", "--node", node, "--root", &root];
            let output = self.command(&joined).output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", text(&output.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
        self.run(node);
    }

    fn signal(&self, node: &str, signal: Signal) {
        let (_, agent) = self.running.iter().find(|(name, _)| *name == node).unwrap();
        kill_process(Pid::from_child(agent), signal).unwrap();
    }

    /// What a command says as JSON, by the agent of a node.
    fn json(&self, node: &str, arguments: &[&str]) -> Value {
        let root = self.root(node);
        let output = self.command(&[arguments, &["--json", "--root", &root]].concat()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The runs of a job that fulfil `wanted`, as soon as there are any.
    fn runs(&self, node: &str, job: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let begin = Instant::now();
        loop {
            let runs = self.json(node, &["job", "history", job]);
            let found: Vec<Value> =
                runs.as_array().into_iter().flatten().filter(|run| wanted(run)).cloned().collect();
            if !found.is_empty() {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "{job}: {runs:#}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn logs(&self) -> String {
        let log =
            |node: &&str| std::fs::read_to_string(self.path(&format!("{node}.log"))).unwrap_or_default();
        NODES.iter().map(log).collect()
    }

    /// The status in words, as soon as it says `words`.
    fn status(&self, node: &str, words: &str) -> String {
        let (begin, root) = (Instant::now(), self.root(node));
        loop {
            let status = text(&self.command(&["status", "--root", &root]).output().unwrap().stdout);
            if status.contains(words) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "{words} is not in\n{status}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let pids = text(&ip(&format!("netns pids {}", self.namespace)).stdout);
        for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        for (_, agent) in &mut self.running {
            let _ = agent.wait();
        }
        ip(&format!("netns del {}", self.namespace));
    }
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |run| run["state"]["state"] == state
}

/// `DIRECTORY` is written to by whoever runs as `nobody`.
const SECTIONS: &str = r#"
[jobs.tick]
command = ["/bin/sh", "-c", "echo {instance} on {node} >> DIRECTORY/ticks"]
schedule = "every 10s"
[jobs.fails]
command = ["/bin/sh", "-c", "echo about to fail; exit 3"]
[jobs.slow]
command = ["/bin/sh", "-c", "echo begun; while test ! -e DIRECTORY/go-on; do sleep 0.2; done"]
nodes = ["n2", "n3"]
[services.gate]
command = ["/bin/sh", "-c", "while test ! -e DIRECTORY/open; do sleep 0.2; done; exec sleep 1000"]
health.command = ["/bin/sh", "-c", "test -e DIRECTORY/open"]
[services.loop]
command = ["/bin/sh", "-c", "echo the disk is missing; exit 7"]
[services.late]
command = ["/bin/sh", "-c", "exec sleep 1000"]
after = ["gate"]
"#;

#[test]
fn jobs_run_once_in_the_system_and_services_are_told_of_in_words() {
    let shared = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(shared.path(), open).unwrap();
    let agents = Agents::start(&SECTIONS.replace("DIRECTORY", &shared.path().display().to_string()));

    // A crash loop in words, and an instance that waits for another service.
    let status = agents.status("n2", "crash loop");
    let told = "is in a crash loop: it ended with exit code 7, waits for its next start";
    assert!(status.contains(told) && status.contains("it said last: the disk is missing"), "{status}");
    agents.status("n3", "waits for gate");
    std::fs::write(shared.path().join("open"), "").unwrap();
    let begin = Instant::now();
    while agents.status("n3", "late-1@").contains("waits for gate") {
        assert!(begin.elapsed() < PATIENCE, "it still waits");
    }

    // A run that fails, asked for by hand, with its words.
    let root = agents.root("n3");
    let failed = agents.command(&["job", "run", "fails", "--root", &root]).output().unwrap();
    let told = text(&failed.stdout);
    assert_eq!(failed.status.code(), Some(1), "{told}{}", text(&failed.stderr));
    assert_eq!(told, "run 1 of fails failed: ended with exit code 3\n");
    assert_eq!(agents.does(&["job", "logs", "fails", "--root", &agents.root("n1")]), "about to fail\n");

    // A node that is frozen in the middle: nobody knows, nobody repeats, and it tells when it is back.
    agents.does(&["job", "run", "slow", "--no-wait", "--root", &agents.root("n1")]);
    let running = agents.runs("n1", "slow", is("running")).remove(0);
    let node = NODES.into_iter().find(|node| running["state"]["node"] == **node).unwrap();
    agents.signal(node, Signal::STOP);
    let unknown = agents.runs("n1", "slow", is("unknown")).remove(0);
    assert_eq!(unknown["state"]["because"], format!("{node} was lost while it ran"));
    std::thread::sleep(Duration::from_secs(3));
    let all = agents.json("n1", &["job", "history", "slow"]);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "it is not silently repeated: {all:#}");
    agents.signal(node, Signal::CONT);
    std::fs::write(shared.path().join("go-on"), "").unwrap();
    agents.runs("n1", "slow", is("succeeded"));

    // Every due time at most once, whoever led: as many lines as runs that succeeded, none twice.
    agents.runs("n1", "tick", |run| run["number"] == 3 && run["state"]["state"] == "succeeded");
    let runs = agents.json("n1", &["job", "history", "tick"]);
    let mut due: Vec<i64> =
        runs.as_array().unwrap().iter().map(|run| run["cause"]["at"].as_i64().unwrap()).collect();
    due.dedup();
    assert_eq!(Some(due.len()), runs.as_array().map(Vec::len), "{runs:#}");
    let ticks = std::fs::read_to_string(shared.path().join("ticks")).unwrap();
    let mut lines: Vec<&str> = ticks.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), ticks.lines().count(), "a run began twice:\n{ticks}");
}
