//! What people with every right do by mistake on a node.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use effects::clock::now;
use effects::process::{Signal, signal_process};
use model::{DatabaseName, NodeName};

use super::{Evidence, Target};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::programs;

/// The superuser role; only users of the node itself get in as it.
const SUPERUSER: &str = "mainstay";

/// How a unix socket of PostgreSQL is called, before its port.
const SOCKET: &str = ".s.PGSQL.";

impl Lab {
    /// Runs statements on the node's member as its superuser, each on its own.
    pub fn run_sql(&self, node: &NodeName, database: &DatabaseName, statements: &[&str]) -> Result<Evidence> {
        let (directory, port) = self.server_socket(node, database)?;
        let mut psql = Command::new(programs::path("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", "postgres"]);
        psql.arg("-h").arg(directory).args(["-p", &port]);
        psql.env("PGCONNECT_TIMEOUT", "5").env("PGOPTIONS", "-c statement_timeout=5s");
        for statement in statements {
            psql.args(["-c", statement]);
        }
        let begun = now();
        let said = self.run_in_node(node, psql, "running SQL")?;
        let said = said.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Evidence::since(begun, format!("{} on {node}: {said}", statements.join("; "))))
    }

    /// Tells the node's PostgreSQL to shut down, as `pg_ctl stop -m fast` does.
    pub fn stop_server(&self, node: &NodeName, database: &DatabaseName) -> Result<Evidence> {
        let postmaster = self.await_process(node, &Target::Postmaster(database.clone()))?;
        let begun = now();
        signal_process(postmaster, Signal::INT);
        Ok(Evidence::since(
            begun,
            format!("the postmaster of {node} (process {}) was told to", postmaster.pid),
        ))
    }

    /// Removes everything in the member's data directory while the server runs.
    pub fn remove_data(&self, node: &NodeName, database: &DatabaseName) -> Result<Evidence> {
        let data = self.root(node).join("databases").join(database.as_str()).join("data");
        let mut find = Command::new(programs::path("find"));
        find.arg(&data).args(["-mindepth", "1", "-delete", "-printf", "."]);
        let begun = now();
        let removed = self.run_in_node(node, find, "removing data")?;
        let what = format!("{} files and directories of {} are gone", removed.len(), data.display());
        Ok(Evidence::since(begun, what))
    }

    /// Removes every rule of the node's firewall, the gate's too.
    pub fn flush_rules(&self, node: &NodeName) -> Result<Evidence> {
        let mut nft = Command::new(programs::path("nft"));
        nft.args(["flush", "ruleset"]);
        let begun = now();
        self.run_in_node(node, nft, "flushing the firewall")?;
        Ok(Evidence::since(begun, format!("the firewall of {node} has no rules")))
    }

    /// The directory and the port of the unix socket on which the member listens.
    fn server_socket(&self, node: &NodeName, database: &DatabaseName) -> Result<(PathBuf, String)> {
        self.init(node)?;
        let directory = self.root(node).join("run").join(format!("pg-{database}"));
        let names = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let port = |name: std::ffi::OsString| {
            let port = name.to_str()?.strip_prefix(SOCKET)?.to_owned();
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)
        };
        let found = names.filter_map(port).next();
        found.map(|port| (directory, port)).ok_or_else(|| LabError::NotPossible {
            what: format!("reaching PostgreSQL on {node}"),
            why: "it does not listen at this moment".to_owned(),
        })
    }

    /// What a program printed that ran to a good end inside the node.
    fn run_in_node(&self, node: &NodeName, mut command: Command, doing: &str) -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn_in_node(node, &mut command)?;
        let Output { status, stdout, stderr } =
            child.wait_with_output().map_err(LabError::io(|| format!("{doing} on {node}")))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        Err(LabError::Program {
            doing: format!("{doing} on {node}"),
            program,
            status: status.to_string(),
            stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
        })
    }
}
