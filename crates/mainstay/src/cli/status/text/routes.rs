//! Where routes lead, in the status: one line for all nodes whose proxies agree.

use std::net::SocketAddr;

use model::routes::{DatabaseRouteState, InstanceRouteState, RouteTarget};
use model::{NodeName, RouteName};

use crate::cli::columns::{Cell, listed};
use crate::cli::output::Look;
use crate::cli::status::view::View;

/// What the proxies of some nodes do with a route.
#[derive(PartialEq, Eq)]
struct Opinion {
    works: bool,
    text: String,
}

/// The lines of all routes.
pub(super) fn rows(view: &View) -> Vec<Vec<Cell>> {
    let mut rows = vec![];
    for (name, config) in &view.system.routes {
        let opinions = opinions(view, name);
        let agreed = opinions.len() == 1;
        for (place, (opinion, nodes)) in opinions.into_iter().enumerate() {
            let text = if agreed { opinion.text } else { format!("on {}: {}", listed(nodes), opinion.text) };
            let cell = if opinion.works { text.into() } else { Cell::new(Look::Error, text) };
            let first = place == 0;
            let shown = |text: String| if first { text } else { String::new() };
            rows.push(vec![shown(name.to_string()).into(), shown(config.listen.to_string()).into(), cell]);
        }
    }
    rows
}

fn opinions<'v>(view: &'v View, name: &RouteName) -> Vec<(Opinion, Vec<&'v str>)> {
    let mut found: Vec<(Opinion, Vec<&str>)> = vec![];
    for (node, table) in &view.tables {
        let Some(route) = table.routes.iter().find(|route| route.name == *name) else { continue };
        let said = opinion(&route.target);
        match found.iter_mut().find(|(known, _)| *known == said) {
            Some((_, nodes)) => nodes.push(node.as_str()),
            None => found.push((said, vec![node.as_str()])),
        }
    }
    if found.is_empty() {
        let text = "no answering node listens on it".to_owned();
        found.push((Opinion { works: false, text }, vec![]));
    }
    found
}

/// What a proxy does with a route, in words.
fn opinion(target: &RouteTarget) -> Opinion {
    match target {
        RouteTarget::Database(target) => match &target.state {
            DatabaseRouteState::Open { members } => {
                let to = members.iter().map(|member| place(&member.node, member.address));
                Opinion { works: true, text: listed(to) }
            }
            DatabaseRouteState::Parked { because } => {
                Opinion { works: false, text: format!("new connections wait: {because}") }
            }
            DatabaseRouteState::Draining { members, because, drain_ms: _ } => {
                let from = listed(members.iter().map(|member| member.node.as_str()));
                Opinion { works: true, text: format!("leaves {from}, new connections wait: {because}") }
            }
        },
        RouteTarget::Service(target) => {
            let ready = target.instances.iter().filter(|i| i.state == InstanceRouteState::Ready);
            let ids: Vec<&str> = ready.map(|instance| instance.id.as_str()).collect();
            if let Some(external) = &target.external {
                let addresses = external.addresses.iter().map(|external| external.address.to_string());
                return Opinion { works: true, text: listed(addresses) };
            }
            let text = if ids.is_empty() { "no instance is ready".to_owned() } else { listed(&ids) };
            Opinion { works: !ids.is_empty(), text }
        }
    }
}

fn place(node: &NodeName, address: SocketAddr) -> String {
    format!("{node} ({address})")
}
