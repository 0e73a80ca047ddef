//! The system that is simulated: nodes with one line, one zero-loss database on the first three, one route to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::system::{
    Alarms, Coordination, Database, Durability, Engine, Listen, Node, Objectives, Role, Route, RouteTarget,
    Site, System,
};
use model::{DatabaseName, NodeName};

/// The name of the node of that index: people count from 1.
pub(crate) fn node_name(index: usize) -> NodeName {
    NodeName::new(format!("n{}", index + 1))
}

/// The database.
pub(crate) fn database() -> DatabaseName {
    "orders".into()
}

/// A system of `nodes` nodes with a database of `members` members.
pub(crate) fn system(nodes: usize, members: usize, k: u32) -> System {
    let node = |index: usize| Node {
        site: "s".into(),
        lines: BTreeMap::from([("main".into(), address(index))]),
        preferred_line: "main".into(),
        voter: true,
        agent_port: 7432,
    };
    let config = Database {
        engine: Engine::Postgres,
        members: (0..members).map(node_name).collect(),
        port: 6432,
        durability: Durability::ZeroLoss,
        sync: k,
        allow_same_site: true,
        parameters: BTreeMap::new(),
        bin_dir: None,
        os_user: "postgres".to_owned(),
        dbname: "orders".to_owned(),
        owner: "orders".to_owned(),
    };
    let route = Route {
        listen: Listen { address: None, port: 5432 },
        target: RouteTarget::Database { database: database(), role: Role::Primary },
        park_limit: Duration::from_secs(30),
        park_connections: 100,
        carriage: Default::default(),
    };
    System {
        name: "simulated".into(),
        objectives: Objectives { availability: None, rto: Duration::from_secs(3), rpo: Duration::ZERO },
        sites: BTreeMap::from([("s".into(), Site { witness: false })]),
        nodes: (0..nodes).map(|index| (node_name(index), node(index))).collect(),
        coordination: Coordination::Embedded,
        databases: BTreeMap::from([(database(), config)]),
        services: BTreeMap::new(),
        routes: BTreeMap::from([("orders-rw".into(), route)]),
        alarms: Alarms { notify: vec![] },
        backups: BTreeMap::new(),
        jobs: BTreeMap::new(),
    }
}

fn address(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1).unwrap_or(u8::MAX)))
}
