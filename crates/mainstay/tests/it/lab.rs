//! A real system in the lab for one test, taken down when it ends.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A system in the lab, by its name.
pub(super) struct Lab(&'static str);

impl Lab {
    /// Brings it up from a file.
    #[track_caller]
    pub(super) fn up(name: &'static str, file: &Path) -> Self {
        let lab = Self(name);
        let (code, told) = run(&["up", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "mainstay up: {told}");
        lab
    }

    /// What a command says about it, and its exit code.
    pub(super) fn mainstay(&self, arguments: &[&str]) -> (Option<i32>, String) {
        run(&[arguments, &["--system", self.0]].concat())
    }

    #[track_caller]
    pub(super) fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, told) = self.mainstay(arguments);
        assert_eq!(code, Some(0), "mainstay {}: {told}", arguments.join(" "));
        told
    }

    /// The status as JSON; null when it cannot be had at this moment.
    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.mainstay(&["status", "--json"]).1).unwrap_or(Value::Null)
    }

    /// All instances, as their nodes describe them.
    pub(super) fn instances(&self) -> Vec<Value> {
        let status = self.status();
        let nodes = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
        nodes.flat_map(|node| node["instances"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The node that leads.
    pub(super) fn leader(&self) -> String {
        self.status()["leader"].as_str().expect("there is a leader").to_owned()
    }

    /// Kills the agent of a node; the lab starts another one.
    pub(super) fn kill_agent(&self, node: &str) {
        let root = format!("{}/nodes/{node}", self.0);
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = command.split('\0').collect();
            if words.get(1) == Some(&"agent") && words.iter().any(|word| word.ends_with(&root)) {
                return kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        }
        panic!("no agent of {node} runs");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        run(&["down", self.0]);
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).output().unwrap();
    let told =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), told)
}
