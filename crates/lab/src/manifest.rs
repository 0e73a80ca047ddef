//! `lab.json`: all that a lab consists of, written before each thing is made, so that whatever interrupts a command, the
//! next one finds what there may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use effects::files::write_atomic;
use effects::process::ProcessId;
use model::system::System;
use model::{LineName, NodeName, SystemName};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::fault::Lasting;
use crate::forward::Forward;
use crate::home::Home;
use crate::process;

/// How nodes are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each node has its own network, mount, process, IPC and host name namespaces; lines are bridges.
    Namespaces,
    /// Each node has loopback addresses of this machine; only processes tell nodes apart.
    Loopback,
}

/// How far the lab has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `up` is at work, or was interrupted.
    Rising,
    /// `up` has finished.
    Up,
    /// `down` is at work, or was interrupted; or it has finished and kept the data.
    Down,
}

/// The whole record of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The system's name.
    pub system: SystemName,
    /// How nodes are kept apart.
    pub mode: Mode,
    /// How far it has come.
    pub phase: Phase,
    /// The boot of this machine that all process records belong to.
    pub boot: String,
    /// The system file as the user gave it.
    pub source: PathBuf,
    /// The system file as agents get it: `source`, or a copy with loopback addresses.
    pub file: PathBuf,
    /// The binary that nodes run.
    pub program: PathBuf,
    /// Lines in the order of their bridges; never reordered, only appended to.
    pub lines: Vec<Line>,
    /// The nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// What is reachable from the machine itself.
    pub forwards: Vec<Forward>,
    /// The process that serves `forwards`.
    pub forwarder: Option<ProcessId>,
    /// Processes that end a fault by themselves.
    pub guards: Vec<ProcessId>,
    /// Faults that may still last.
    #[serde(default)]
    pub lasting: Vec<Lasting>,
}

/// One line of the system: a bridge in the switch namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name in the file.
    pub name: LineName,
    /// The address outside clients have on it.
    pub client: IpAddr,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Tells its links apart; never given to another node.
    pub number: u16,
    /// Its address on each line.
    pub addresses: BTreeMap<LineName, IpAddr>,
    /// The line used where only one can be.
    pub preferred: LineName,
    /// What its init keeps running.
    pub command: Vec<String>,
    /// Its first process, as the machine's own PID namespace numbers it; `None` while it is off.
    pub init: Option<ProcessId>,
    /// Size in bytes of the file system of its own that its databases lie on.
    pub volume: Option<u64>,
    /// Whether its clocks can be changed for it alone.
    #[serde(default)]
    pub own_clocks: bool,
}

impl Manifest {
    /// The record of a lab that does not exist yet; numbers and lines of a `former` record are kept.
    pub(crate) fn plan(system: &System, mode: Mode, source: &Path, former: Option<&Self>) -> Self {
        let mut lines: Vec<Line> = former.map(|f| f.lines.clone()).unwrap_or_default();
        let used: BTreeSet<IpAddr> =
            system.nodes.values().flat_map(|node| node.lines.values().copied()).collect();
        for node in system.nodes.values() {
            for (name, address) in &node.lines {
                if !lines.iter().any(|line| line.name == *name) {
                    lines.push(Line { name: name.clone(), client: free_beside(*address, &used) });
                }
            }
        }
        let mut next = former.and_then(|f| f.nodes.values().map(|n| n.number + 1).max()).unwrap_or(0);
        let mut number = |name: &NodeName| {
            former.and_then(|f| f.nodes.get(name)).map_or_else(
                || {
                    next += 1;
                    next - 1
                },
                |node| node.number,
            )
        };
        let nodes = system.nodes.iter().map(|(name, node)| {
            let record = Node {
                number: number(name),
                addresses: node.lines.clone(),
                preferred: node.preferred_line.clone(),
                command: Vec::new(),
                init: None,
                volume: former.and_then(|f| f.nodes.get(name)).and_then(|n| n.volume),
                own_clocks: former.and_then(|f| f.nodes.get(name)).is_some_and(|n| n.own_clocks),
            };
            (name.clone(), record)
        });
        Self {
            system: system.name.clone(),
            mode,
            phase: Phase::Rising,
            boot: process::boot(),
            source: source.to_owned(),
            file: source.to_owned(),
            program: PathBuf::new(),
            nodes: nodes.collect(),
            lines,
            forwards: Vec::new(),
            forwarder: None,
            guards: Vec::new(),
            lasting: Vec::new(),
        }
    }

    /// Reads the record; `None` when there is none. Process records of an earlier boot are dropped.
    pub(crate) fn load(home: &Home) -> Result<Option<Self>> {
        let path = home.manifest();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::file("reading", &path)(error)),
        };
        let mut manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| LabError::Damaged { path, reason: error.to_string() })?;
        if manifest.boot != process::boot() {
            manifest.forget_processes();
        }
        Ok(Some(manifest))
    }

    /// Writes the record so that a reader sees the old one or the new one, never half of it.
    pub(crate) fn save(&self, home: &Home) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| LabError::Damaged { path: home.manifest(), reason: error.to_string() })?;
        store(&home.manifest(), &text)
    }

    /// The node of that name.
    pub(crate) fn node(&self, name: &NodeName) -> Result<&Node> {
        self.nodes
            .get(name)
            .ok_or_else(|| LabError::UnknownNode { system: self.system.clone(), node: name.clone() })
    }

    pub(crate) fn node_mut(&mut self, name: &NodeName) -> Result<&mut Node> {
        let system = &self.system;
        self.nodes
            .get_mut(name)
            .ok_or_else(|| LabError::UnknownNode { system: system.clone(), node: name.clone() })
    }

    /// How many nodes have a living first process.
    pub(crate) fn nodes_on(&self) -> usize {
        self.nodes.values().filter(|node| node.is_on()).count()
    }

    /// The place of a line among the bridges.
    pub(crate) fn line_number(&self, line: &LineName) -> Option<usize> {
        self.lines.iter().position(|known| known.name == *line)
    }

    /// Forgets all that ends with the machine, or with the lab.
    pub(crate) fn forget_processes(&mut self) {
        for node in self.nodes.values_mut() {
            node.init = None;
        }
        self.forwarder = None;
        self.guards.clear();
        // Nothing lasts beyond the processes and namespaces that it was done to.
        self.lasting.clear();
        self.boot = process::boot();
    }
}

impl Node {
    /// Whether its first process lives.
    pub fn is_on(&self) -> bool {
        self.init.is_some_and(process::is_alive)
    }

    /// Its address on the preferred line.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.get(&self.preferred).copied()
    }

    /// `port` at its addresses, the preferred line's first.
    pub(crate) fn at_port(&self, port: u16) -> impl Iterator<Item = SocketAddr> + '_ {
        let others = self.addresses.iter().filter(|(line, _)| **line != self.preferred).map(|(_, a)| *a);
        self.address().into_iter().chain(others).map(move |address| SocketAddr::new(address, port))
    }
}

/// Replaces a file of the lab in one step.
pub(crate) fn store(path: &Path, text: &[u8]) -> Result<()> {
    write_atomic(path, text, 0o644).map_err(LabError::file("writing", path))
}

/// An address in the same /24 (IPv4) or /64 (IPv6) as `address` that nobody uses, taken from the top.
fn free_beside(address: IpAddr, used: &BTreeSet<IpAddr>) -> IpAddr {
    let candidates = (1..=254u8).rev().map(|last| match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, last])
        }
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0xff, last]);
            IpAddr::from(octets)
        }
    });
    candidates.into_iter().find(|candidate| !used.contains(candidate)).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_an_address_nobody_uses() {
        let used = BTreeSet::from(["10.0.1.254".parse().unwrap(), "10.0.1.253".parse().unwrap()]);
        assert_eq!(free_beside("10.0.1.11".parse().unwrap(), &used).to_string(), "10.0.1.252");
        assert_eq!(free_beside("fd00:1::5".parse().unwrap(), &used).to_string(), "fd00:1::fffe");
    }
}
