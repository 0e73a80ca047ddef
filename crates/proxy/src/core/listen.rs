//! Which listeners a change of the table opens, keeps and closes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::RouteName;
use model::routes::{Route, RouteTable, RouteTarget};
use model::system::Protocol;

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

/// The addresses of a table. When two routes claim one address the first has it, and the others are named in the second
/// value; but routes that requests tell apart may share one.
pub fn wanted(table: &RouteTable) -> (Wanted, Vec<String>) {
    let mut wanted = Wanted::new();
    let mut clashes = Vec::new();
    for route in &table.routes {
        for address in &route.listen {
            match wanted.get(address) {
                None => drop(wanted.insert(*address, route.name.clone())),
                Some(owner) if *owner == route.name => {}
                Some(owner) if takes_requests(route) && is_shared_by(table, owner) => {}
                Some(owner) => {
                    clashes.push(format!("{} {address}: route {owner} listens there already", route.name));
                }
            }
        }
    }
    (wanted, clashes)
}

/// The routes to services behind each address, in the order of the table.
pub fn shared(table: &RouteTable) -> BTreeMap<SocketAddr, Vec<RouteName>> {
    let mut shared: BTreeMap<SocketAddr, Vec<RouteName>> = BTreeMap::new();
    let (wanted, _) = wanted(table);
    for route in table.routes.iter().filter(|route| matches!(route.target, RouteTarget::Service(_))) {
        for address in &route.listen {
            let owner = wanted.get(address);
            let is_here = owner == Some(&route.name)
                || (takes_requests(route) && owner.is_some_and(|owner| is_shared_by(table, owner)));
            let here = shared.entry(*address).or_default();
            if is_here && !here.contains(&route.name) {
                here.push(route.name.clone());
            }
        }
    }
    shared.retain(|_, names| !names.is_empty());
    shared
}

fn is_shared_by(table: &RouteTable, owner: &RouteName) -> bool {
    table.routes.iter().any(|route| route.name == *owner && takes_requests(route))
}

fn takes_requests(route: &Route) -> bool {
    match &route.target {
        RouteTarget::Service(target) => target.protocol != Protocol::Tcp,
        RouteTarget::Database(_) => false,
    }
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
    use model::routes::ServiceTarget;

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn route(name: &str, ports: &[u16]) -> Route {
        speaking(Protocol::Tcp, name, ports)
    }

    fn speaking(protocol: Protocol, name: &str, ports: &[u16]) -> Route {
        let target = RouteTarget::Service(Box::new(ServiceTarget {
            service: "web".into(),
            instances: vec![],
            traffic: model::system::traffic::Traffic::default(),
            health_path: None,
            trial: None,
            external: None,
            protocol,
            send_proxy_protocol: false,
            tls: None,
            carriage: Default::default(),
        }));
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
    fn routes_that_requests_tell_apart_share_an_address() {
        let http = |name, ports| speaking(Protocol::Http, name, ports);
        let routes = vec![http("a", &[1, 2]), http("b", &[1]), route("c", &[1, 3]), http("d", &[3])];
        let table = RouteTable { routes, ..RouteTable::default() };
        let (_, clashes) = wanted(&table);
        assert_eq!(
            clashes,
            ["c 127.0.0.1:1: route a listens there already", "d 127.0.0.1:3: route c listens there already"]
        );
        let names = |port| shared(&table)[&at(port)].iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (names(1), names(2), names(3)),
            (vec!["a".into(), "b".into()], vec!["a".into()], vec!["c".into()])
        );
    }

    #[test]
    fn only_what_differs_is_touched() {
        let table = RouteTable { routes: vec![route("b", &[2, 3])], ..RouteTable::default() };
        let change = change(&BTreeSet::from([at(1), at(2)]), &wanted(&table).0);
        assert_eq!(change, Change { open: vec![at(3)], close: vec![at(1)] });
    }
}
