//! Where things are: the same three nodes for every system, and a fourth for a monitor.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use model::system::{System, parse};
use model::{DatabaseName, NodeName};

use crate::Outcome;

/// The nodes that have a copy of the database. One line, because none of the faults tells lines apart.
pub(crate) const MEMBERS: [(&str, Ipv4Addr); 3] = [
    ("n1", Ipv4Addr::new(10, 79, 0, 11)),
    ("n2", Ipv4Addr::new(10, 79, 0, 12)),
    ("n3", Ipv4Addr::new(10, 79, 0, 13)),
];

/// The node of a monitor, which no fault strikes.
pub(crate) const MONITOR: (&str, Ipv4Addr) = ("m1", Ipv4Addr::new(10, 79, 0, 14));

/// What all nodes and the outside client are in.
pub(crate) const NETWORK: &str = "10.79.0.0/24";

/// The database.
pub(crate) const DATABASE: &str = "app";

/// Where members' PostgreSQL listens, of every system but Mainstay, whose route has this port.
pub(crate) const POSTGRES_PORT: u16 = 5432;

/// Of the roles that PostgreSQL itself needs. The lab's lines lead nowhere else.
pub(crate) const PASSWORD: &str = "bench";

/// A member's PostgreSQL, or another program on its node.
pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// The database as the lab's faults name it: the directory of the member is called so.
pub(crate) fn database() -> DatabaseName {
    DatabaseName::from(DATABASE)
}

/// The members' nodes.
pub(crate) fn members() -> impl Iterator<Item = (NodeName, Ipv4Addr)> {
    MEMBERS.into_iter().map(|(name, address)| (NodeName::from(name), address))
}

/// The text of a system file with nothing but nodes: what runs there is told to the lab in another way.
pub(crate) fn nodes_file(system: &str, with_monitor: bool) -> String {
    let nodes = MEMBERS.into_iter().chain(with_monitor.then_some(MONITOR));
    let nodes = nodes.map(|(name, address)| format!("\n[nodes.{name}]\naddress = \"{address}\"\n"));
    format!("[system]\nname = \"{system}\"\n{}", nodes.collect::<String>())
}

/// The system file of Mainstay on the same nodes.
pub(crate) fn mainstay_file(system: &str) -> String {
    let members = MEMBERS.map(|(name, _)| format!("\"{name}\"")).join(", ");
    format!(
        "{}\n[databases.{DATABASE}]\nmembers = [{members}]\ndurability = \"zero-loss\"\n\n\
         [routes.{DATABASE}-rw]\nlisten = \":{POSTGRES_PORT}\"\ndatabase = \"{DATABASE}\"\ntarget = \"primary\"\n",
        nodes_file(system, false)
    )
}

/// The file's meaning.
pub(crate) fn system(text: &str) -> Outcome<System> {
    parse("peers.toml", text.as_bytes())
        .map(|checked| checked.system)
        .map_err(|invalid| format!("the bench's own system file is wrong: {invalid:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_valid_and_name_the_same_nodes() {
        let bare = system(&nodes_file("one", true)).unwrap();
        let ours = system(&mainstay_file("two")).unwrap();
        assert_eq!(bare.nodes.len(), 4);
        for (name, address) in members() {
            assert_eq!(bare.nodes[&name].address(), IpAddr::V4(address));
            assert_eq!(ours.nodes[&name].address(), IpAddr::V4(address));
        }
        assert_eq!(ours.databases[&database()].members.len(), 3);
    }
}
