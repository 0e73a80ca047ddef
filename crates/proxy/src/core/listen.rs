//! Which listeners a change of the table opens, keeps and closes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::RouteName;
use model::routes::RouteTable;

/// Which route listens on which address.
pub type Wanted = BTreeMap<SocketAddr, RouteName>;

/// What to do with listeners, in this order, so that no address that stays is ever without a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Open these first.
    pub open: Vec<SocketAddr>,
    /// Close these then.
    pub close: Vec<SocketAddr>,
}

/// The addresses of a table. When two routes claim one address the first has it; the others are named in the second value.
pub fn wanted(table: &RouteTable) -> (Wanted, Vec<String>) {
    let mut wanted = Wanted::new();
    let mut clashes = Vec::new();
    for route in &table.routes {
        for address in &route.listen {
            match wanted.get(address) {
                None => drop(wanted.insert(*address, route.name.clone())),
                Some(owner) if *owner == route.name => {}
                Some(owner) => {
                    clashes.push(format!("{} {address}: route {owner} listens there already", route.name));
                }
            }
        }
    }
    (wanted, clashes)
}

/// What changes between the addresses that have a listener and those that are wanted. An address that only moves from
/// one route to another keeps its listener.
pub fn change(present: &BTreeSet<SocketAddr>, wanted: &Wanted) -> Change {
    Change {
        open: wanted.keys().filter(|address| !present.contains(address)).copied().collect(),
        close: present.iter().filter(|address| !wanted.contains_key(address)).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::routes::{Route, RouteTarget, ServiceTarget};

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn route(name: &str, ports: &[u16]) -> Route {
        let target = RouteTarget::Service(ServiceTarget {
            service: "web".into(),
            instances: vec![],
            traffic: model::system::traffic::Traffic::default(),
            health_path: None,
        });
        Route { name: name.into(), listen: ports.iter().map(|port| at(*port)).collect(), target }
    }

    #[test]
    fn the_first_route_has_the_address() {
        let table =
            RouteTable { routes: vec![route("a", &[1, 2, 2]), route("b", &[2, 3])], ..RouteTable::default() };
        let (wanted, clashes) = wanted(&table);
        assert_eq!(
            wanted.iter().map(|(a, r)| (a.port(), r.as_str())).collect::<Vec<_>>(),
            [(1, "a"), (2, "a"), (3, "b")]
        );
        assert_eq!(clashes, ["b 127.0.0.1:2: route a listens there already"]);
    }

    #[test]
    fn only_what_differs_is_touched() {
        let table = RouteTable { routes: vec![route("b", &[2, 3])], ..RouteTable::default() };
        let change = change(&BTreeSet::from([at(1), at(2)]), &wanted(&table).0);
        assert_eq!(change, Change { open: vec![at(3)], close: vec![at(1)] });
    }
}
