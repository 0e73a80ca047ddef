//! The sample system as its agents would describe it, for tests of what is shown and judged.

use std::collections::{BTreeMap, BTreeSet};

use decide::agent::{MemberSummary, NodeSummary, Overview};
use model::leadership::{Leadership, Phase, SyncSet, Term};
use model::postgres::{Lsn, Timeline, WalPosition};
use model::routes::{
    DatabaseEndpoint, DatabaseRouteState, DatabaseTarget, InstanceEndpoint, InstanceRouteState, Route,
    RouteTable, RouteTarget, ServiceTarget,
};
use model::status::{MemberStatus, PrimaryFacts, Server, Silence, StandbyFacts, StandbyLink, Tenure};
use model::system::{Role, System, parse};
use model::{DatabaseName, NodeName};

use super::status::view::View;

/// Where the log of the sample's primary ends.
pub(crate) const END: Lsn = Lsn(0x300_0000);

/// The description of `examples/shop`.
pub(crate) fn shop() -> System {
    let text = include_str!("../../../../examples/shop/mainstay.toml");
    parse("mainstay.toml", text.as_bytes()).expect("the sample is valid").system
}

/// The system that `text` describes.
pub(crate) fn described(text: &str) -> System {
    parse("mainstay.toml", text.as_bytes()).expect("the file of the test is valid").system
}

/// What `me` says when all of `system` works; the first member of each database is its primary.
pub(crate) fn healthy(system: &System, me: &str) -> Overview {
    let leader = system.voters().next().cloned();
    let databases: BTreeMap<_, _> =
        system.databases.keys().map(|name| (name.clone(), leadership(system, name))).collect();
    let leads = leader.as_ref().is_some_and(|leader| leader.as_str() == me);
    let because = databases.keys().filter(|_| leads).map(|name| {
        (format!("database/{name} leadership"), "the primary leads; commits are confirmed".to_owned())
    });
    let because = because.collect();
    let mut overview = Overview {
        incarnation: 1,
        system: system.name.clone(),
        node: me.into(),
        leader,
        generation: 0,
        paused: None,
        nodes: system.nodes.keys().map(|node| (node.clone(), summary(system, node, me))).collect(),
        members: databases
            .iter()
            .map(|(name, record)| (name.clone(), members(system, name, record)))
            .collect(),
        databases,
        routes: RouteTable::default(),
        traffic: model::routes::ProxyReport::default(),
        upkeep: Default::default(),
        releases: Default::default(),
        scaled: Default::default(),
        because,
    };
    overview.routes = table(system, &overview);
    overview
}

/// The picture that `me` alone gives.
pub(crate) fn seen(system: System, overview: Overview) -> View {
    view(system, [overview])
}

/// The picture from several answers.
pub(crate) fn view(system: System, overviews: impl IntoIterator<Item = Overview>) -> View {
    let answers = overviews.into_iter().map(|overview| (overview.node.clone(), overview)).collect();
    View::compose(system, answers).expect("at least one answer")
}

/// `node` falls silent, and its standbys' links with it.
pub(crate) fn silence(overview: &mut Overview, node: &str) {
    let node = NodeName::from(node);
    if let Some(summary) = overview.nodes.get_mut(&node) {
        summary.silent = Some(Silence::Silent);
        summary.lines.clear();
    }
    for members in overview.members.values_mut() {
        for (name, member) in members.iter_mut() {
            if *name == node {
                member.stale = true;
            } else if let Server::Primary(facts) = &mut member.status.server {
                facts.standbys.remove(&node);
            }
        }
    }
}

/// The member of `database` on `node`.
pub(crate) fn member<'o>(overview: &'o mut Overview, database: &str, node: &str) -> &'o mut MemberStatus {
    let members = overview.members.get_mut(database).expect("the database is there");
    &mut members.get_mut(node).expect("the member is there").status
}

// ---- parts ----

fn summary(system: &System, node: &NodeName, me: &str) -> NodeSummary {
    let lines = system.nodes[node].lines.keys().filter(|_| node.as_str() != me).cloned().collect();
    let instances = system.services.iter().flat_map(|(name, service)| {
        let places = system.nodes_for(service);
        (1..=service.instances).filter_map(move |number| {
            let index = usize::try_from(number - 1).unwrap_or_default();
            let place = *places.get(index % places.len().max(1))?;
            (place == node).then(|| InstanceEndpoint {
                id: format!("{name}-{number}@{node}"),
                node: node.clone(),
                site: system.nodes[node].site.clone(),
                address: (system.nodes[node].address(), service.ports.first).into(),
                state: InstanceRouteState::Ready,
            })
        })
    });
    NodeSummary {
        silent: None,
        heard: true,
        lines,
        missing: vec![],
        instances: instances.collect(),
        generation: 0,
        program: Default::default(),
        services: Default::default(),
    }
}

fn leadership(system: &System, database: &DatabaseName) -> Leadership {
    let config = &system.databases[database];
    let rules = decide::view::Rules::of(config);
    Leadership {
        term: Term(1),
        phase: Phase::Led { primary: config.members[0].clone() },
        sync: rules.sync_set(config.members.iter().skip(1).cloned()),
        sync_version: 1,
        previous_sync: vec![],
        system_identifier: Some(1),
        lineage: vec![],
        restart: None,
        handed_on: 0,
        because: "commits are provably confirmed".to_owned(),
    }
}

fn members(
    system: &System,
    database: &DatabaseName,
    record: &Leadership,
) -> BTreeMap<NodeName, MemberSummary> {
    let all = &system.databases[database].members;
    let position = WalPosition { timeline: Timeline(1), lsn: END };
    let link = StandbyLink { streaming: true, flushed: END, stalled_ms: 0 };
    let standbys = all.iter().skip(1).map(|node| (node.clone(), link.clone())).collect();
    let standby =
        StandbyFacts { position, replayed: END, streaming: true, follows: record.term, started_us: 1 };
    let status = |node: &NodeName| match record.primary() == Some(node) {
        true => MemberStatus {
            promised: record.term,
            server: Server::Primary(PrimaryFacts {
                position,
                standbys: BTreeMap::clone(&standbys),
                waiting_commits: 0,
                started_us: 1,
            }),
            led: Some(record.term),
            tenure: Some(Tenure {
                term: record.term,
                timeline: Timeline(1),
                begins: Lsn(0),
                sync_applied: Some(1),
                made_in: None,
                system_identifier: Some(1),
            }),
            ..MemberStatus::unknown()
        },
        false => MemberStatus {
            promised: record.term,
            server: Server::Standby(standby.clone()),
            ..MemberStatus::unknown()
        },
    };
    all.iter().map(|node| (node.clone(), MemberSummary { status: status(node), stale: false })).collect()
}

fn table(system: &System, overview: &Overview) -> RouteTable {
    let routes = system.routes.iter().map(|(name, route)| Route {
        name: name.clone(),
        listen: vec![],
        target: match &route.target {
            model::system::RouteTarget::Service { service } => {
                RouteTarget::Service(Box::new(ServiceTarget {
                    trial: None,
                    external: None,
                    service: service.clone(),
                    instances: overview.nodes.values().flat_map(|node| node.instances.clone()).collect(),
                    traffic: system.services.get(service).map(|s| s.traffic.clone()).unwrap_or_default(),
                    health_path: None,
                    protocol: Default::default(),
                    send_proxy_protocol: false,
                    tls: None,
                    carriage: route.carriage.clone(),
                }))
            }
            model::system::RouteTarget::Database { database, role } => {
                RouteTarget::Database(DatabaseTarget {
                    database: database.clone(),
                    state: DatabaseRouteState::Open { members: endpoints(system, database, *role) },
                    park_limit_ms: 10_000,
                    park_limit_count: 1000,
                })
            }
        },
    });
    RouteTable { generation: 1, site: None, routes: routes.collect() }
}

fn endpoints(system: &System, database: &DatabaseName, role: Role) -> Vec<DatabaseEndpoint> {
    let config = &system.databases[database];
    let fits = |place: usize| match role {
        Role::Primary => place == 0,
        Role::Standby => place > 0,
        Role::Any => true,
    };
    let members = config.members.iter().enumerate().filter(|(place, _)| fits(*place));
    members
        .map(|(_, node)| DatabaseEndpoint {
            node: node.clone(),
            address: (system.nodes[node].address(), config.port).into(),
            term: Term(1),
        })
        .collect()
}

/// A sync set of these members.
pub(crate) fn set(k: u32, names: &[&str]) -> SyncSet {
    SyncSet { k, members: names.iter().map(|name| NodeName::from(*name)).collect::<BTreeSet<_>>() }
}
