//! The lab's network: a switch namespace with one bridge for each line, one namespace for each node, one for outside
//! clients. Nothing is configured in the machine's own namespace.
//!
//! ```text
//!   ms-shop.e1            ms-shop-net                    ms-shop-client
//!   line0 10.0.1.11 ----- n0l0 [line0 bridge] cl0 ------ line0 10.0.1.254
//!   line1 10.9.1.11 ----- n0l1 [line1 bridge] cl1 ------ line1 10.9.1.254
//! ```

pub(crate) mod cut;
pub(crate) mod flaw;
pub(crate) mod relay;
pub(crate) mod script;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use model::{NodeName, SystemName};

use crate::error::{LabError, Result};
use crate::manifest::{Manifest, Node};
use crate::namespace::NetworkNamespace;
use crate::programs;

/// The namespace with the bridges.
pub(crate) fn switch(system: &SystemName) -> NetworkNamespace {
    NetworkNamespace::named(format!("ms-{system}-net"))
}

/// The namespace outside clients live in.
pub(crate) fn client(system: &SystemName) -> NetworkNamespace {
    NetworkNamespace::named(format!("ms-{system}-client"))
}

/// The namespace of a node. Names hold no dot, so that it can never be the switch or another system's.
pub(crate) fn node(system: &SystemName, node: &NodeName) -> NetworkNamespace {
    NetworkNamespace::named(format!("ms-{system}.{node}"))
}

/// All namespaces of the lab that exist, by their exact names.
pub(crate) fn existing(system: &SystemName) -> Vec<NetworkNamespace> {
    let dotted = format!("ms-{system}.");
    let exact = [switch(system), client(system)];
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&dotted) || exact.iter().any(|known| known.name() == name))
        .map(NetworkNamespace::named)
        .collect()
}

/// Makes the switch, the clients' namespace and the bridges, without any node.
pub(crate) fn create_switch(manifest: &Manifest) -> Result<()> {
    let (switch, client) = (switch(&manifest.system), client(&manifest.system));
    ip(None, "making the switch", &format!("netns add {}\nnetns add {}\n", switch.name(), client.name()))?;
    switch.run(|| settle(true))?;
    client.run(|| settle(false))?;
    ip(Some(&switch), "making the lines", &script::switch(manifest, 0))?;
    ip(Some(&client), "connecting the clients", &script::client(manifest, 0))?;
    cut::prepare(&switch)?;
    flaw::prepare(&switch)
}

/// Adds the lines from one on to a switch that is there.
pub(crate) fn extend(manifest: &Manifest, from: usize) -> Result<()> {
    if from == manifest.lines.len() {
        return Ok(());
    }
    ip(Some(&switch(&manifest.system)), "adding lines", &script::switch(manifest, from))?;
    ip(Some(&client(&manifest.system)), "adding lines", &script::client(manifest, from))
}

/// Tells all who are there how to reach newcomers.
pub(crate) fn introduce(manifest: &Manifest, newcomers: &[NodeName]) -> Result<()> {
    let doing = "adding routes to new nodes";
    for (line, record) in manifest.lines.iter().enumerate() {
        let address = |node: &Node| node.addresses.get(&record.name).copied();
        let new: BTreeSet<IpAddr> =
            newcomers.iter().filter_map(|name| address(manifest.nodes.get(name)?)).collect();
        if new.is_empty() {
            continue;
        }
        ip(Some(&client(&manifest.system)), doing, &script::routes(line, record.client, &new))?;
        let old = manifest.nodes.iter().filter(|(name, node)| !newcomers.contains(name) && node.is_on());
        for (name, own) in old.filter_map(|(name, node)| Some((name, address(node)?))) {
            ip(Some(&node(&manifest.system, name)), doing, &script::routes(line, own, &new))?;
        }
    }
    Ok(())
}

/// Plugs a node in: its namespace, a link to each of its lines, addresses and routes.
pub(crate) fn attach(manifest: &Manifest, name: &NodeName) -> Result<()> {
    let namespace = node(&manifest.system, name);
    let record = manifest.node(name)?;
    let doing = format!("connecting node {name}");
    ip(None, &doing, &format!("netns add {}\n", namespace.name()))?;
    namespace.run(|| settle(false))?;
    ip(Some(&switch(&manifest.system)), &doing, &script::plug(manifest, record, namespace.name()))?;
    ip(Some(&namespace), &doing, &script::node(manifest, record))
}

/// Unplugs a node and removes its namespace with everything that the kernel still held for it.
pub(crate) fn detach(manifest: &Manifest, name: &NodeName) -> Result<()> {
    let record = manifest.node(name)?;
    let ports = script::unplug(manifest, record);
    // The ports go first and at once: a connection that the kernel still closes for the dead cannot get out any more.
    ip_force(Some(&switch(&manifest.system)), "unplugging a node", &ports);
    remove(&[node(&manifest.system, name)])
}

/// Removes namespaces; those that do not exist are no error.
pub(crate) fn remove(namespaces: &[NetworkNamespace]) -> Result<()> {
    let text: String = namespaces
        .iter()
        .filter(|namespace| namespace.exists())
        .map(|namespace| format!("netns del {}\n", namespace.name()))
        .collect();
    if text.is_empty() {
        return Ok(());
    }
    ip(None, "removing namespaces", &text)
}

/// Kernel settings of a fresh namespace. Two lines in one network must not answer ARP for each other.
fn settle(switch: bool) {
    let conf = "/proc/sys/net/ipv4/conf";
    for scope in ["all", "default"] {
        // Settings that a kernel lacks (no IPv6, for example) need no value either.
        let _ = fs::write(format!("{conf}/{scope}/arp_ignore"), "1");
        let _ = fs::write(format!("{conf}/{scope}/arp_announce"), "2");
        let _ = fs::write(format!("{conf}/{scope}/rp_filter"), "0");
        if switch {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
        }
    }
}

/// Runs a batch of `ip` commands; the first that fails ends it.
pub(crate) fn ip(inside: Option<&NetworkNamespace>, doing: &str, batch: &str) -> Result<()> {
    let mut command = Command::new(programs::path("ip"));
    if let Some(namespace) = inside {
        command.args(["-n", namespace.name()]);
    }
    command.args(["-batch", "-"]);
    feed(command, doing, batch).map(|_| ())
}

/// Runs a batch of `ip` commands whose failures do not matter.
fn ip_force(inside: Option<&NetworkNamespace>, doing: &str, batch: &str) {
    let mut command = Command::new(programs::path("ip"));
    if let Some(namespace) = inside {
        command.args(["-n", namespace.name()]);
    }
    command.args(["-force", "-batch", "-"]);
    let _ = feed(command, doing, batch);
}

/// Runs a program with a text as its input and returns what it prints.
fn feed(mut command: Command, doing: &str, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(LabError::io(|| format!("running {program} for {doing}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Program {
        doing: doing.to_owned(),
        program,
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs nft inside a namespace with a ruleset or commands as its input (nft(8), `-f -`), and returns what it prints.
pub(crate) fn nft(inside: &NetworkNamespace, doing: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(programs::path("nft"));
    command.args(arguments);
    inside.run(|| feed(command, doing, input))?
}
