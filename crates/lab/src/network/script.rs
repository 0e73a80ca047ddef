//! The batches for `ip` that make the network: texts only, so that they can be read and tested.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use crate::manifest::{Manifest, Node};

/// Bridges and the clients' links of all lines from one on, run in the switch namespace.
pub(crate) fn switch(manifest: &Manifest, from: usize) -> String {
    let client = super::client(&manifest.system);
    let mut text = String::from("link set lo up\n");
    for line in from..manifest.lines.len() {
        add(&mut text, format_args!("link add line{line} type bridge forward_delay 0 mcast_snooping 0"));
        add(&mut text, format_args!("link set line{line} up"));
        link(&mut text, &format!("cl{line}"), line, 0xffff, client.name());
    }
    text
}

/// A node's links, run in the switch namespace.
pub(crate) fn plug(manifest: &Manifest, node: &Node, namespace: &str) -> String {
    let mut text = String::new();
    for (line, port) in ports(manifest, node) {
        link(&mut text, &port, line, node.number, namespace);
    }
    text
}

/// Removes a node's links, run in the switch namespace. While they are slow, a port's own link has another name.
pub(crate) fn unplug(manifest: &Manifest, node: &Node) -> String {
    let both = |port: String| format!("link del {port}\nlink del {}\n", wire(&port));
    ports(manifest, node).map(|(_, port)| both(port)).collect()
}

/// What a port's own link is called while a relay stands in its place.
pub(crate) fn wire(port: &str) -> String {
    format!("w{port}")
}

/// What a relay's end is called before it stands in a port's place.
pub(crate) fn stand_in(port: &str) -> String {
    format!("t{port}")
}

/// Puts the relays' ends into the places of these ports, which keep their names there, so that cuts still find them.
pub(crate) fn divert(ports: &[(usize, String)]) -> String {
    let mut text = String::new();
    for (line, port) in ports {
        let (wire, stand_in) = (wire(port), stand_in(port));
        add(&mut text, format_args!("link set {stand_in} up"));
        add(&mut text, format_args!("link set {port} nomaster"));
        add(&mut text, format_args!("link set {port} name {wire}"));
        add(&mut text, format_args!("link set {stand_in} name {port}"));
        add(&mut text, format_args!("link set {port} master line{line}"));
    }
    text
}

/// Puts these ports back into their places, once the relays' ends are gone.
pub(crate) fn restore(ports: &[(usize, String)]) -> String {
    let mut text = String::new();
    for (line, port) in ports {
        add(&mut text, format_args!("link set {} name {port}", wire(port)));
        add(&mut text, format_args!("link set {port} master line{line}"));
    }
    text
}

/// A node's addresses and its routes to everybody on its lines, run in its namespace.
pub(crate) fn node(manifest: &Manifest, node: &Node) -> String {
    let mut text = String::from("link set lo up\n");
    for (line, record) in manifest.lines.iter().enumerate() {
        if let Some(address) = node.addresses.get(&record.name) {
            let mut others = on_line(manifest, line);
            others.insert(record.client);
            interface(&mut text, line, *address, &others);
        }
    }
    text
}

/// The clients' addresses and routes on all lines from one on, run in their namespace.
pub(crate) fn client(manifest: &Manifest, from: usize) -> String {
    let mut text = String::from("link set lo up\n");
    for (line, record) in manifest.lines.iter().enumerate().skip(from) {
        interface(&mut text, line, record.client, &on_line(manifest, line));
    }
    text
}

/// Routes to others on a line, for one whose address on it is `address`.
pub(crate) fn routes(line: usize, address: IpAddr, others: &BTreeSet<IpAddr>) -> String {
    let mut text = String::new();
    let length = if address.is_ipv4() { 32 } else { 128 };
    let of_its_family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4() && **other != address;
    for other in others.iter().filter(of_its_family) {
        add(&mut text, format_args!("route replace {other}/{length} dev line{line} src {address}"));
    }
    // Two lines may share a network: the lower line number wins for addresses that nobody has named.
    let metric = 1000 + line;
    let around = others.iter().chain([&address]).filter(|other| other.is_ipv4() == address.is_ipv4());
    for network in around.map(network).collect::<BTreeSet<_>>() {
        add(&mut text, format_args!("route replace {network} dev line{line} src {address} metric {metric}"));
    }
    text
}

/// The ports of a node on the switch: the number of the line and the interface's name in the switch namespace.
pub(crate) fn ports<'a>(
    manifest: &'a Manifest,
    node: &'a Node,
) -> impl Iterator<Item = (usize, String)> + 'a {
    let number = node.number;
    let lines = node.addresses.keys().filter_map(|line| manifest.line_number(line));
    lines.map(move |line| (line, format!("n{number}l{line}")))
}

/// All nodes' addresses on a line.
fn on_line(manifest: &Manifest, line: usize) -> BTreeSet<IpAddr> {
    let name = &manifest.lines[line].name;
    manifest.nodes.values().filter_map(|node| node.addresses.get(name).copied()).collect()
}

/// A link from a bridge into a namespace. The far end's hardware address is always the same, so that a node that comes back
/// is found by those who remember it.
fn link(text: &mut String, port: &str, line: usize, owner: u16, namespace: &str) {
    let [high, low] = owner.to_be_bytes();
    add(
        text,
        format_args!(
            "link add {port} type veth peer name line{line} address 02:4d:53:{high:02x}:{low:02x}:{line:02x} netns {namespace}"
        ),
    );
    add(text, format_args!("link set {port} master line{line}"));
    add(text, format_args!("link set {port} up"));
}

/// An address of full length, a route to each other party of the line, and, for addresses that come later, one to each
/// network that has a party. Whatever networks the file's addresses are in, all of a line reach each other directly.
fn interface(text: &mut String, line: usize, address: IpAddr, others: &BTreeSet<IpAddr>) {
    let (length, flags) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
    add(text, format_args!("link set line{line} up"));
    add(text, format_args!("address add {address}/{length} dev line{line}{flags}"));
    text.push_str(&routes(line, address, others));
}

/// The /24 or /64 around an address.
fn network(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}
