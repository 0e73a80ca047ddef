//! The handle to a lab, and the ways into it.

use std::fs;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use effects::process::ProcessId;
use model::system::System;
use model::{LineName, NodeName, SystemName};
use tokio::runtime::Runtime;

use crate::down::{self, Data};
use crate::error::{LabError, Result};
use crate::fault::Door;
use crate::home::{self, Home, Lock};
use crate::manifest::{Manifest, Mode, Node, Phase};
use crate::namespace::{self, NetworkNamespace};
use crate::network;
use crate::node::spawn;
use crate::options::Options;
use crate::process;
use crate::up;

/// A system that runs on this machine with all its nodes.
#[derive(Clone, Debug)]
pub struct Lab {
    pub(crate) home: Home,
    manifest: Manifest,
    door: Option<Door>,
}

/// One line of [`Lab::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The system.
    pub system: SystemName,
    /// How its nodes are kept apart; `None` when its record cannot be read.
    pub mode: Option<Mode>,
    /// How far it has come; `None` when its record cannot be read.
    pub phase: Option<Phase>,
    /// How many nodes are on, of how many.
    pub nodes: (usize, usize),
    /// Where its files lie.
    pub directory: PathBuf,
}

/// A tokio runtime all of whose threads are in the clients' network namespace: sockets that its tasks open are outside
/// clients of the system.
#[derive(Debug)]
pub struct ClientRuntime {
    runtime: Runtime,
}

impl Lab {
    /// Brings a system up: every node of `system` on this machine, which `file` describes. A system that was stopped, or
    /// whose `up` was interrupted, is continued with its data.
    ///
    /// # Errors
    /// [`LabError::NotReady`] before anything was created; [`LabError::AlreadyRunning`]; otherwise what was begun has been
    /// taken back.
    pub fn up(system: &System, file: &Path, options: &Options) -> Result<Self> {
        up::up(system, file, options)
    }

    /// Why nodes would share this machine's loopback instead of having networks of their own, and what that costs; `None`
    /// when they get namespaces.
    pub fn limits(system: &System, options: &Options) -> Option<String> {
        let why = up::why_loopback(system, options)?;
        Some(format!(
            "Nodes share this machine's loopback addresses because {why}. Missing there: the gate (a former primary is not \
             fenced by the kernel), cut and silent links, and file systems that hang or fill up."
        ))
    }

    /// Takes a system down. Repeating it is harmless; it also removes what an interrupted `up` or `down` has left.
    ///
    /// # Errors
    /// [`LabError::Unknown`] when there is nothing of that name; otherwise what could not be removed.
    pub fn down(system: &SystemName, data: Data) -> Result<()> {
        Self::down_in(&home::standard_base(), system, data)
    }

    /// [`Lab::down`] for labs that lie elsewhere.
    pub fn down_in(base: &Path, system: &SystemName, data: Data) -> Result<()> {
        down::down(base, system, data)
    }

    /// The lab of that name.
    pub fn open(system: &SystemName) -> Result<Self> {
        Self::open_in(&home::standard_base(), system)
    }

    /// [`Lab::open`] for labs that lie elsewhere.
    pub fn open_in(base: &Path, system: &SystemName) -> Result<Self> {
        let home = Home::new(base, system);
        match Manifest::load(&home)? {
            Some(manifest) => Ok(Self { home, manifest, door: None }),
            None => Err(LabError::Unknown { system: system.clone(), known: names(base) }),
        }
    }

    /// All labs of this user.
    pub fn list() -> Vec<Summary> {
        Self::list_in(&home::standard_base())
    }

    /// [`Lab::list`] for labs that lie elsewhere.
    pub fn list_in(base: &Path) -> Vec<Summary> {
        names(base).into_iter().map(|system| summary(base, system)).collect()
    }

    pub(crate) fn new(home: Home, manifest: Manifest) -> Self {
        Self { home, manifest, door: None }
    }

    // ---- what there is ----

    /// The system's name.
    pub fn system(&self) -> &SystemName {
        &self.manifest.system
    }

    /// How its nodes are kept apart.
    pub fn mode(&self) -> Mode {
        self.manifest.mode
    }

    /// The record as it was read or last changed through this handle.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its files lie.
    pub fn directory(&self) -> &Path {
        self.home.directory()
    }

    /// Its nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.manifest.nodes.iter()
    }

    /// A node by name.
    pub fn node(&self, name: &NodeName) -> Result<&Node> {
        self.manifest.node(name)
    }

    /// A node's `--root`.
    pub fn root(&self, node: &NodeName) -> PathBuf {
        self.home.node_root(node)
    }

    /// What a node's init and agent have printed.
    pub fn log(&self, node: &NodeName) -> PathBuf {
        self.home.node_log(node)
    }

    /// The address of a node on a line.
    pub fn address(&self, node: &NodeName, line: &LineName) -> Result<Option<IpAddr>> {
        Ok(self.node(node)?.addresses.get(line).copied())
    }

    /// Reads the record again, after another process may have changed it.
    pub fn refresh(&mut self) -> Result<()> {
        self.manifest = Self::open_at(&self.home)?;
        Ok(())
    }

    /// The text of a system file as this lab's agents must get it: loopback nodes have other addresses than the file.
    pub fn localize(&self, text: &str, system: &System) -> String {
        match self.manifest.mode {
            Mode::Namespaces => text.to_owned(),
            Mode::Loopback => crate::loopback::rewrite(text, &crate::loopback::addresses(system)),
        }
    }

    // ---- ways in ----

    /// The network outside clients live in; `None` where that is the machine's own.
    pub fn client_network(&self) -> Option<NetworkNamespace> {
        (self.manifest.mode == Mode::Namespaces).then(|| network::client(&self.manifest.system))
    }

    /// Starts a program as an outside client.
    pub fn spawn_as_client(&self, command: &mut Command) -> Result<Child> {
        match self.client_network() {
            Some(network) => network.spawn(command),
            None => command.spawn().map_err(LabError::io(|| "starting a client".to_owned())),
        }
    }

    /// Starts a program inside a node: it sees the node's network, files and processes, and dies with it.
    pub fn spawn_in_node(&self, node: &NodeName, command: &mut Command) -> Result<Child> {
        command.env(crate::node::MARK, self.root(node));
        let doing = || format!("starting a program in node {node}");
        match self.manifest.mode {
            Mode::Namespaces => {
                let init = self.init(node)?;
                namespace::spawn_in_node(init, command).map_err(LabError::io(doing))
            }
            Mode::Loopback => command.spawn().map_err(LabError::io(doing)),
        }
    }

    /// A runtime for outside clients.
    pub fn client_runtime(&self) -> Result<ClientRuntime> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().thread_name("lab-client");
        if let Some(network) = self.client_network() {
            let handle = Arc::new(network.open()?);
            // Whether this process may enter is found out here; the threads below cannot report an error.
            let trial = Arc::clone(&handle);
            namespace::on_thread(move || namespace::enter(&trial))
                .map_err(LabError::io(|| format!("entering network namespace {}", network.name())))?;
            builder.on_thread_start(move || {
                let entered = namespace::enter(&handle);
                assert!(entered.is_ok(), "a client's thread could not enter its namespace: {entered:?}");
            });
        }
        let runtime =
            builder.build().map_err(LabError::io(|| "starting a runtime for clients".to_owned()))?;
        Ok(ClientRuntime { runtime })
    }

    // ---- for the faults ----

    /// Says how clients get to the primary, for faults that are clients.
    pub fn use_door(&mut self, door: Door) {
        self.door = Some(door);
    }

    /// How clients get to the primary.
    pub(crate) fn door(&self) -> Result<&Door> {
        self.door.as_ref().ok_or_else(|| LabError::NotPossible {
            what: "a fault that is a client".to_owned(),
            why: "nobody has said how clients get to the primary".to_owned(),
        })
    }

    /// The first process of a node that is on.
    pub(crate) fn init(&self, node: &NodeName) -> Result<ProcessId> {
        let init = self.node(node)?.init.filter(|init| process::is_alive(*init));
        init.ok_or_else(|| LabError::NodeOff { node: node.clone() })
    }

    /// Changes the record while no other command does, starting from what it says now.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Manifest) -> Result<T>) -> Result<T> {
        let _lock: Lock = self.home.lock()?;
        let mut manifest = Self::open_at(&self.home)?;
        let result = change(&mut manifest);
        manifest.save(&self.home)?;
        self.manifest = manifest;
        result
    }

    /// Fails with words where nodes have no network of their own.
    pub(crate) fn need_namespaces(&self, what: &str) -> Result<()> {
        match self.manifest.mode {
            Mode::Namespaces => Ok(()),
            Mode::Loopback => Err(LabError::NotPossible {
                what: what.to_owned(),
                why: "the nodes of this lab share the machine's loopback; run `mainstay up` as root"
                    .to_owned(),
            }),
        }
    }

    /// Switches a node on again.
    pub(crate) fn power_on(&self, manifest: &Manifest, node: &NodeName) -> Result<ProcessId> {
        spawn::power_on(&self.home, manifest, node)
    }

    fn open_at(home: &Home) -> Result<Manifest> {
        Manifest::load(home)?
            .ok_or_else(|| LabError::Unknown { system: home.system.clone(), known: Vec::new() })
    }
}

impl ClientRuntime {
    /// Runs a future on one of the runtime's threads, which are inside, and waits for it on this one, which is not.
    ///
    /// # Panics
    /// When the future panics.
    pub fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.runtime.block_on(self.runtime.spawn(future)) {
            Ok(output) => output,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// Starts a task inside.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.spawn(future)
    }

    /// The handle to start tasks with from elsewhere.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Ends the runtime without waiting for blocking tasks.
    pub fn shutdown(self) {
        self.runtime.shutdown_background();
    }
}

/// The names of all directories that may be labs.
pub(crate) fn names(base: &Path) -> Vec<SystemName> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let mut names: Vec<SystemName> = entries
        .filter(|entry| entry.path().join("lab.json").exists() || entry.path().join("lock").exists())
        .filter_map(|entry| entry.file_name().into_string().ok().map(SystemName::new))
        .collect();
    names.sort();
    names
}

fn summary(base: &Path, system: SystemName) -> Summary {
    let home = Home::new(base, &system);
    let manifest = Manifest::load(&home).ok().flatten();
    Summary {
        mode: manifest.as_ref().map(|m| m.mode),
        phase: manifest.as_ref().map(|m| m.phase),
        nodes: manifest.as_ref().map_or((0, 0), |m| (m.nodes_on(), m.nodes.len())),
        directory: home.directory().to_owned(),
        system,
    }
}
