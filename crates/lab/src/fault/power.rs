//! The power button of a node.

use std::time::Duration;

use effects::clock::now;
use effects::process::{ProcessFacts, ProcessId, Signal, signal_process};
use model::NodeName;

use super::{CutOptions, Evidence};
use crate::containers;
use crate::error::{LabError, Result};
use crate::freezer::Freezer;
use crate::home::Home;
use crate::lab::Lab;
use crate::manifest::{Manifest, Mode};
use crate::network;
use crate::process;

/// How long the kernel may take to end everything of a node.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

impl Lab {
    /// Cuts the power of a node: its links fall silent first, so that no packet says goodbye, then all its processes die at
    /// once, and with its network everything that the kernel still held for it. Data that was not flushed to the node's
    /// disk survives, because this machine lives on; see [`Lab::lose_power`].
    pub fn kill_node(&mut self, node: &NodeName) -> Result<Evidence> {
        let init = self.init(node)?;
        let begun = now();
        if self.mode() == Mode::Namespaces {
            self.cut_node(node, &CutOptions::whole())?;
        }
        let count = self.end_node(node, init)?;
        let evidence = Evidence::since(begun, format!("all {count} processes of {node} are dead"));
        self.forget(node)?;
        Ok(evidence)
    }

    /// Cuts the power of several nodes: the links of all fall silent before the first of them dies, so that nobody notices
    /// the death of another. See [`Lab::kill_node`].
    pub fn kill_nodes(&mut self, nodes: &[NodeName]) -> Result<Evidence> {
        let begun = now();
        if self.mode() == Mode::Namespaces {
            for node in nodes {
                self.cut_node(node, &CutOptions::whole())?;
            }
        }
        let killed = nodes.iter().map(|node| self.kill_node(node).map(|evidence| evidence.what));
        let killed = killed.collect::<Result<Vec<String>>>()?;
        Ok(Evidence::since(begun, killed.join(", ")))
    }

    /// Switches a node on after [`Lab::kill_node`] or its own death: the links heal and its init starts.
    pub fn start_node(&mut self, node: &NodeName) -> Result<Evidence> {
        if self.node(node)?.is_on() {
            return Err(LabError::NodeOn { node: node.clone() });
        }
        let begun = now();
        let handle = self.clone();
        // As on a machine that boots, whose engine then knows that nothing runs.
        containers::remove(self.mode(), vec![self.root(node)]);
        let init = self.change(|manifest| {
            if manifest.mode == Mode::Namespaces {
                reconnect(manifest, node)?;
                handle.heal_node(node)?;
            }
            let init = handle.power_on(manifest, node)?;
            manifest.node_mut(node)?.init = Some(init);
            Ok(init)
        })?;
        Ok(Evidence::since(begun, format!("{node} is on, its first process is {}", init.pid)))
    }

    /// Asks a node to shut down in order: its agent first, then everything.
    pub fn stop_node(&mut self, node: &NodeName) -> Result<Evidence> {
        let init = self.init(node)?;
        let begun = now();
        signal_process(init, Signal::TERM);
        if !process::wait_gone(init, DEATH_LIMIT) {
            let seen = process::describe(init.pid) + " still runs";
            return Err(LabError::Late { what: format!("the end of {node}"), within: DEATH_LIMIT, seen });
        }
        let evidence = Evidence::since(begun, format!("{node} has shut down"));
        self.forget(node)?;
        Ok(evidence)
    }

    /// Kills everything of a node and waits until it is dead; returns how many processes that were.
    pub(crate) fn end_node(&self, node: &NodeName, init: ProcessId) -> Result<usize> {
        let family = process::family(init);
        signal_process(init, Signal::KILL);
        // Without a PID namespace the kernel does not end the others with it.
        if self.mode() == Mode::Loopback {
            for process in &family {
                signal_process(*process, Signal::KILL);
            }
        }
        // The frozen of cgroup v1 end when they are thawed.
        if let Some(freezer) = Freezer::find(self.system(), node).filter(Freezer::holds_the_killed) {
            freezer.thaw()?;
        }
        if process::wait_until(DEATH_LIMIT, || !family.iter().any(|process| process::is_alive(*process))) {
            self.end_strays(node)?;
            return Ok(family.len());
        }
        let left: Vec<ProcessId> = family.into_iter().filter(|process| process::is_alive(*process)).collect();
        let seen = process::names(&left);
        Err(LabError::Late { what: format!("the death of {node}"), within: DEATH_LIMIT, seen })
    }

    /// Processes that entered the node's network or were begun while the others died.
    fn end_strays(&self, node: &NodeName) -> Result<()> {
        let network = network::node(self.system(), node).inode();
        let mark = self.root(node).into_os_string();
        let stray = |facts: &ProcessFacts| {
            (network.is_some() && process::namespace(facts.id.pid, "net") == network)
                || facts.environment_variable(crate::node::MARK).as_ref() == Some(&mark)
        };
        process::kill_all(&format!("node {node}"), DEATH_LIMIT, || process::matching(stray)).map(|_| ())
    }

    /// Records that a node is off and removes its network.
    fn forget(&mut self, node: &NodeName) -> Result<()> {
        self.end_relay(node)?;
        self.change(|manifest| {
            manifest.node_mut(node)?.init = None;
            if let Some(freezer) = Freezer::find(&manifest.system, node) {
                freezer.thaw()?;
            }
            match manifest.mode {
                Mode::Namespaces => network::detach(manifest, node),
                Mode::Loopback => Ok(()),
            }
        })
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }
}

/// Gives a node that is off a new network, as a kernel that has just booted has it.
fn reconnect(manifest: &Manifest, node: &NodeName) -> Result<()> {
    if network::node(&manifest.system, node).exists() {
        network::detach(manifest, node)?;
    }
    network::attach(manifest, node)
}
