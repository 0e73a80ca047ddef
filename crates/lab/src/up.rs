//! Bringing a system up: checks first, then the record, then the things.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use effects::process::ProcessId;
use model::NodeName;
use model::system::System;

use crate::deploy;
use crate::down;
use crate::error::{LabError, Result};
use crate::forward;
use crate::home::Home;
use crate::lab::Lab;
use crate::loopback;
use crate::manifest::{Manifest, Mode, Phase};
use crate::namespace;
use crate::network;
use crate::node::spawn::{self, make_directory, power_on};
use crate::options::{Ground, Options};
use crate::preflight;
use crate::volume;

/// See [`Lab::up`].
pub(crate) fn up(system: &System, file: &Path, options: &Options) -> Result<Lab> {
    let home = Home::new(&options.base, &system.name);
    let source = fs::canonicalize(file).map_err(LabError::file("reading", file))?;
    let former = Manifest::load(&home)?;
    refuse_second(former.as_ref())?;
    let manifest = plan(system, &source, &home, options, former.as_ref());
    refuse_other_mode(former.as_ref(), manifest.mode)?;
    let problems = preflight::check(system, &manifest, former.as_ref(), &home, options);
    if !problems.is_empty() {
        return Err(LabError::NotReady(problems));
    }
    make_directory(home.directory())?;
    let lock = home.lock()?;
    // Another `up` may have been faster.
    let former = Manifest::load(&home)?;
    refuse_second(former.as_ref())?;
    if let Some(former) = &former {
        down::stop(&home, former)?;
    }
    let mut manifest = plan(system, &source, &home, options, former.as_ref());
    match raise(&home, &mut manifest, system, options) {
        Ok(()) => {
            drop(lock);
            Ok(Lab::new(home, manifest))
        }
        Err(error) => {
            // What was begun is taken back; data that was there before stays.
            down::take_back(&home, &manifest, former.is_some());
            Err(error)
        }
    }
}

/// Why the lab of this user cannot keep nodes apart by namespaces; `None` when it can.
pub(crate) fn why_loopback(system: &System, options: &Options) -> Option<String> {
    if options.loopback {
        return Some("it was asked for".to_owned());
    }
    let mut addresses = system.nodes.values().flat_map(|node| node.lines.values());
    if let Some(address) = addresses.find(|address| address.is_loopback()) {
        return Some(format!("the file gives nodes loopback addresses ({address})"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("only root may make network namespaces".to_owned());
    }
    namespace::may_isolate().err().map(|error| format!("the kernel does not allow namespaces here: {error}"))
}

fn refuse_second(former: Option<&Manifest>) -> Result<()> {
    match former {
        Some(manifest) if manifest.phase == Phase::Up && manifest.nodes_on() > 0 => {
            Err(LabError::AlreadyRunning { system: manifest.system.clone(), nodes: manifest.nodes_on() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Kept data knows the addresses its nodes had.
fn refuse_other_mode(former: Option<&Manifest>, mode: Mode) -> Result<()> {
    match former.map(|former| former.mode) {
        Some(before) if before != mode => Err(LabError::NotPossible {
            what: "going on with the data that is there".to_owned(),
            why: match before {
                Mode::Loopback => {
                    "its nodes had loopback addresses; use `--loopback`, or `mainstay down` first"
                }
                Mode::Namespaces => {
                    "its nodes had networks of their own; become root, or `mainstay down` first"
                }
            }
            .to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

fn plan(
    system: &System,
    source: &Path,
    home: &Home,
    options: &Options,
    former: Option<&Manifest>,
) -> Manifest {
    let mode = if why_loopback(system, options).is_some() { Mode::Loopback } else { Mode::Namespaces };
    plan_in(mode, system, source, home, options, former)
}

/// The record that a system would have.
pub(crate) fn plan_in(
    mode: Mode,
    system: &System,
    source: &Path,
    home: &Home,
    options: &Options,
    former: Option<&Manifest>,
) -> Manifest {
    let mut manifest = Manifest::plan(system, mode, source, former);
    manifest.program.clone_from(&options.program);
    if mode == Mode::Loopback {
        manifest.file = home.loopback_file();
        let loopback = loopback::addresses(system);
        for address in manifest.nodes.values_mut().flat_map(|node| node.addresses.values_mut()) {
            *address = loopback.get(address).copied().unwrap_or(*address);
        }
    }
    let file = manifest.file.display().to_string();
    for (name, node) in &mut manifest.nodes {
        let root = home.node_root(name).display().to_string();
        let fill = |word: &String| {
            word.replace("{node}", name.as_str()).replace("{root}", &root).replace("{file}", &file)
        };
        node.command = options.command.iter().map(fill).collect();
        let stores = system.databases_on(name).next().is_some();
        node.own_clocks |= options.own_clocks && mode == Mode::Namespaces;
        node.volume = options.data_volume.filter(|_| stores && mode == Mode::Namespaces).or(node.volume);
    }
    if options.forward {
        manifest.forwards = forward::plan(system, &manifest);
    }
    manifest
}

/// Makes all that the record speaks of. The record is on disk before the first of them.
fn raise(home: &Home, manifest: &mut Manifest, system: &System, options: &Options) -> Result<()> {
    if options.data_volume.is_some() && manifest.mode == Mode::Loopback {
        return Err(LabError::NotPossible {
            what: "a data volume".to_owned(),
            why: "nodes without a mount namespace cannot mount one".to_owned(),
        });
    }
    if options.own_clocks && manifest.mode == Mode::Loopback {
        return Err(LabError::NotPossible {
            what: "clocks of its own for each node".to_owned(),
            why: "nodes without a mount namespace share the machine's".to_owned(),
        });
    }
    manifest.save(home)?;
    for directory in ["specs", "logs", "nodes"] {
        make_directory(&home.directory().join(directory))?;
    }
    if manifest.mode == Mode::Namespaces {
        network::create_switch(manifest)?;
    }
    let names: Vec<NodeName> = manifest.nodes.keys().cloned().collect();
    prepare(home, manifest, system, &names, options)?;
    start_nodes(home, manifest, &names)?;
    if !manifest.forwards.is_empty() {
        manifest.forwarder = Some(forward::start(home, manifest)?);
    }
    manifest.phase = Phase::Up;
    manifest.save(home)
}

/// Makes files and network of nodes, up to the moment in which they are switched on.
pub(crate) fn prepare(
    home: &Home,
    manifest: &Manifest,
    system: &System,
    names: &[NodeName],
    options: &Options,
) -> Result<()> {
    if manifest.mode == Mode::Loopback {
        write_loopback_file(home, manifest, system)?;
    }
    for name in names {
        spawn::write_spec(home, manifest, name)?;
        let node = manifest.node(name)?;
        if let Some(bytes) = node.volume {
            volume::create(home, name, bytes)?;
        }
        if node.own_clocks {
            make_directory(&home.directory().join("clocks"))?;
        }
        let root = home.node_root(name);
        make_directory(&root)?;
        deploy::programs(system, name, home, &sources(&manifest.source, options))?;
        let ground = Ground { directory: home.directory(), name, node, root: &root };
        let prepared = options.prepare.iter().try_for_each(|prepare| prepare(&ground));
        prepared.map_err(|reason| LabError::NodeStart { node: name.clone(), reason })?;
        if manifest.mode == Mode::Namespaces {
            network::attach(manifest, name)?;
        }
    }
    Ok(())
}

/// Where services' own programs are taken from.
pub(crate) fn sources<'p>(file: &'p Path, options: &'p Options) -> Vec<&'p Path> {
    file.parent().into_iter().chain(options.program.parent()).collect()
}

/// Switches all nodes on at once, as a common power supply would.
pub(crate) fn start_nodes(home: &Home, manifest: &mut Manifest, names: &[NodeName]) -> Result<()> {
    let record: &Manifest = manifest;
    let started: Vec<(NodeName, Result<ProcessId>)> = thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| (name.clone(), scope.spawn(move || power_on(home, record, name))))
            .collect();
        let panicked = |node: &NodeName| {
            let reason = "the thread that started it panicked".to_owned();
            Err(LabError::NodeStart { node: node.clone(), reason })
        };
        let join = |(name, thread): (NodeName, thread::ScopedJoinHandle<'_, _>)| {
            let result = thread.join().unwrap_or_else(|_| panicked(&name));
            (name, result)
        };
        threads.into_iter().map(join).collect()
    });
    let mut failure = None;
    for (name, result) in started {
        match result {
            Ok(init) => manifest.node_mut(&name)?.init = Some(init),
            Err(error) => failure = Some(error),
        }
    }
    manifest.save(home)?;
    failure.map_or(Ok(()), Err)
}

/// The file with loopback addresses in place of its own.
fn write_loopback_file(home: &Home, manifest: &Manifest, system: &System) -> Result<PathBuf> {
    let text = fs::read_to_string(&manifest.source).map_err(LabError::file("reading", &manifest.source))?;
    let text = loopback::rewrite(&text, &loopback::addresses(system));
    let path = home.loopback_file();
    crate::manifest::store(&path, text.as_bytes())?;
    Ok(path)
}
