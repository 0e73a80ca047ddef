//! Taking a system down: everything that was made goes, in an order in which each step finds what the next one needs, and
//! each step finds it no matter what was interrupted before.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use effects::process::{ProcessFacts, ProcessId, Signal, signal_process};
use model::SystemName;

use crate::cgroup::Group;
use crate::containers;
use crate::error::{LabError, Result};
use crate::freezer::Freezer;
use crate::home::Home;
use crate::manifest::{Manifest, Mode, Phase};
use crate::namespace::NetworkNamespace;
use crate::network;
use crate::node::MARK;
use crate::process;
use crate::volume;

/// How long nodes may take to end on their own.
const STOP_LIMIT: Duration = Duration::from_secs(12);
/// How long killing may take.
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// What happens to the nodes' directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nodes are stopped and their directories stay: a later `up` starts them with their data.
    Keep,
    /// Nothing stays.
    Remove,
}

/// See [`crate::Lab::down`].
pub(crate) fn down(base: &Path, system: &SystemName, data: Data) -> Result<()> {
    let home = Home::new(base, system);
    let recorded = home.manifest().exists();
    if !home.directory().exists() && network::existing(system).is_empty() && Group::all(system).is_empty() {
        return Err(LabError::Unknown { system: system.clone(), known: crate::lab::names(base) });
    }
    let _lock = home.lock()?;
    // A record that cannot be read keeps nothing from being removed.
    let manifest = Manifest::load(&home).ok().flatten();
    match (&manifest, data) {
        (Some(manifest), Data::Keep) => {
            ask_nodes_to_end(&home, manifest);
            stop(&home, manifest)
        }
        (Some(manifest), Data::Remove) => {
            let falling = Manifest { phase: Phase::Down, ..manifest.clone() };
            falling.save(&home)?;
            if manifest.mode == Mode::Loopback {
                // Without namespaces the killed would leave shared memory behind.
                ask_nodes_to_end(&home, manifest);
            }
            stop(&home, &falling)?;
            remove_files(&home)
        }
        (None, _) => {
            tracing::debug!(recorded, "no readable record, removing what bears the system's name");
            end_processes(&home, None)?;
            // Nobody says whether it had namespaces; without them containers may still run.
            remove_containers(&home, Mode::Loopback);
            end_network(system)?;
            release_volumes(&home)?;
            remove_files(&home)
        }
    }
}

/// Ends every process and removes everything that is not a file. The record says so afterwards.
pub(crate) fn stop(home: &Home, manifest: &Manifest) -> Result<()> {
    end_processes(home, Some(manifest))?;
    remove_containers(home, manifest.mode);
    end_network(&manifest.system)?;
    release_volumes(home)?;
    let mut stopped = manifest.clone();
    stopped.phase = Phase::Down;
    stopped.forget_processes();
    stopped.save(home)
}

/// Removes what a failed `up` has made; its own error is what the user hears of.
pub(crate) fn take_back(home: &Home, manifest: &Manifest, keep_files: bool) {
    let result = stop(home, manifest).and_then(|()| if keep_files { Ok(()) } else { remove_files(home) });
    if let Err(error) = result {
        tracing::warn!(%error, "could not remove everything that `up` had begun");
    }
}

/// SIGTERM to every init: the agent ends first, then the rest. What does not end in time is killed afterwards.
fn ask_nodes_to_end(home: &Home, manifest: &Manifest) {
    let inits: Vec<ProcessId> = manifest.nodes.values().filter_map(|node| node.init).collect();
    thaw(home, Some(manifest));
    for init in &inits {
        signal_process(*init, Signal::TERM);
    }
    process::wait_until(STOP_LIMIT, || !inits.iter().any(|init| process::is_alive(*init)));
}

/// Kills every process of the lab, known or not.
fn end_processes(home: &Home, manifest: Option<&Manifest>) -> Result<()> {
    // The frozen cannot die: first whatever holds them is let go.
    thaw(home, manifest);
    let inits = manifest.into_iter().flat_map(|m| m.nodes.values().filter_map(|node| node.init));
    // Before their init dies, children that carry no mark can still be told by their descent.
    let below: Vec<ProcessId> = inits.clone().flat_map(|init| process::descendants(init.pid)).collect();
    let others = manifest.into_iter().flat_map(|m| m.forwarder.into_iter().chain(m.guards.iter().copied()));
    let known: Vec<ProcessId> = inits.chain(others).chain(below).collect();
    for process in &known {
        signal_process(*process, Signal::KILL);
    }
    let loopback = manifest.is_none_or(|m| m.mode == Mode::Loopback);
    process::kill_all(&format!("system {}", home.system), KILL_LIMIT, || ours(home, &known, loopback))?;
    Group::all(&home.system).iter().try_for_each(Group::remove)
}

/// Every living process of the lab: recorded, in one of its namespaces, or with its mark. Where nodes have no namespaces,
/// also processes without a terminal that work in a node's directory. Never those that this process descends from: a
/// person may call `down` from within.
fn ours(home: &Home, known: &[ProcessId], loopback: bool) -> Vec<ProcessId> {
    let networks: Vec<u64> =
        network::existing(&home.system).iter().filter_map(NetworkNamespace::inode).collect();
    let marks = marks(home);
    let nodes = home.directory().join("nodes");
    let callers = process::ancestors(process::me());
    let works_there = |facts: &ProcessFacts| {
        facts.working_directory().is_some_and(|directory| directory.starts_with(&nodes))
            && !process::has_terminal(facts.id.pid)
    };
    let inside = |pid: i32| process::namespace(pid, "net").is_some_and(|inode| networks.contains(&inode));
    let marked =
        |facts: &ProcessFacts| facts.environment_variable(MARK).is_some_and(|mark| marks.contains(&mark));
    let wanted = |facts: &ProcessFacts| {
        !callers.contains(&facts.id.pid)
            && (inside(facts.id.pid) || marked(facts) || (loopback && works_there(facts)))
    };
    let mut found = process::matching(wanted);
    found.extend(known.iter().filter(|process| process::is_alive(**process)));
    found
}

/// The values of [`MARK`] of this lab: the directories of its nodes, and its own for the forwarder.
fn marks(home: &Home) -> Vec<OsString> {
    let nodes = fs::read_dir(home.directory().join("nodes")).into_iter().flatten().flatten();
    let nodes = nodes.map(|entry| entry.path().into_os_string());
    nodes.chain([home.directory().as_os_str().to_owned()]).collect()
}

/// Lets everything go on that a fault has stopped.
fn thaw(home: &Home, manifest: Option<&Manifest>) {
    for freezer in Freezer::all(&home.system) {
        let _ = freezer.thaw();
    }
    let Some(manifest) = manifest else { return };
    crate::fault::disk::thaw_all(home, manifest);
    if manifest.mode == Mode::Loopback {
        for init in manifest.nodes.values().filter_map(|node| node.init) {
            for process in process::family(init) {
                signal_process(process, Signal::CONT);
            }
        }
    }
}

/// Removes what the machine's container engine still knows of instances.
fn remove_containers(home: &Home, mode: Mode) {
    let nodes = fs::read_dir(home.directory().join("nodes")).into_iter().flatten().flatten();
    containers::remove(mode, nodes.map(|node| node.path()).collect());
}

fn end_network(system: &SystemName) -> Result<()> {
    network::remove(&network::existing(system))
}

fn release_volumes(home: &Home) -> Result<()> {
    let images = fs::read_dir(home.directory().join("volumes")).into_iter().flatten().flatten();
    images.map(|entry| entry.path()).try_for_each(|image| volume::release(&image))
}

/// Removes the lab's directory. The record and the lock go last, so that an interrupted `down` can be repeated.
fn remove_files(home: &Home) -> Result<()> {
    let directory = home.directory();
    let last = [home.manifest(), directory.join("lock")];
    let entries = fs::read_dir(directory).map_err(LabError::file("reading", directory))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !last.contains(path)) {
        remove(&path)?;
    }
    last.iter().try_for_each(|path| remove(path))?;
    remove(directory)?;
    // The directories above only if they are empty: other systems may live there.
    if directory.parent() == Some(&crate::home::standard_base()) {
        for parent in directory.ancestors().skip(1).take(2) {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Removes a file or directory that may be gone already. A process that is just ending may still write: try again.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let attempt = || match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    let mut result = attempt();
    for _ in 0..20 {
        match result {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        result = attempt();
    }
    result.map_err(LabError::file("removing", path))
}
