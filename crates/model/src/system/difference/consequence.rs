//! What follows from a change, by where it stands.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{
    Database, Durability, Route, RouteTarget, Service, System, duration, needs_restart, placeholder,
};
use super::Impact;
use crate::postgres::STANDBY_NEEDS_AS_MUCH;
use crate::{DatabaseName, NodeName, RouteName, ServiceName};

/// Both descriptions.
pub(super) struct Comparison<'s> {
    pub(super) old: &'s System,
    pub(super) new: &'s System,
}

type Consequence = (Impact, String);

fn says(impact: Impact, sentence: impl Into<String>) -> Consequence {
    (impact, sentence.into())
}

impl Comparison<'_> {
    /// What follows from the change at `path`; `None` where another change says it already.
    pub(super) fn consequence(
        &self,
        path: &[&str],
        from: Option<&Value>,
        to: Option<&Value>,
    ) -> Option<Consequence> {
        let more = from.is_none();
        Some(match path {
            ["objectives", ..] => says(Impact::None, "drills and alarms are judged by it from now on"),
            ["sites", rest @ ..] => site(rest, to),
            ["nodes", name, rest @ ..] => node(name, rest, from, to),
            ["databases", name, rest @ ..] => return self.database(name, rest, from, to),
            ["services", name, rest @ ..] => return self.service(name, rest),
            ["routes", name, rest @ ..] => self.route(name, rest, from, to),
            ["jobs", _] if more => says(Impact::Start, "it runs when it is due next, or is asked for"),
            ["jobs", _] => says(Impact::Stop, "no further run begins; one that is under way ends by itself"),
            ["jobs", ..] => says(Impact::None, "it holds from the next run on"),
            ["alarms", ..] => says(Impact::None, "these addresses hear of the next alarm"),
            ["backups", _] if more => says(Impact::Start, "the first base backup is taken at once"),
            ["backups", ..] if to.is_none() => {
                says(Impact::Stop, "no further backups are taken; those that exist stay in the repository")
            }
            ["backups", _, "repository"] => says(
                Impact::Start,
                "a base backup into the new repository is taken at once; the old one stays as it is",
            ),
            ["backups", ..] => says(Impact::None, "it holds from the next backup on"),
            ["coordination", ..] => refused("the agents agree through it about this very change"),
            ["name", ..] => refused("certificates and data carry the system's name"),
            _ => refused("nothing is known about how to do it"),
        })
    }

    fn database(
        &self,
        name: &str,
        rest: &[&str],
        from: Option<&Value>,
        to: Option<&Value>,
    ) -> Option<Consequence> {
        let name = DatabaseName::new(name);
        let (old, new) = (self.old.databases.get(&name), self.new.databases.get(&name));
        let (Some(old), Some(new)) = (old, new) else {
            return Some(whole_database(old, new));
        };
        let changed_kind = std::mem::discriminant(&old.durability) != std::mem::discriminant(&new.durability);
        Some(match rest {
            ["members"] => members(old, new),
            ["durability"] => durability(new),
            // The number follows from the durability, about which there is a line of its own.
            ["sync"] if changed_kind => return None,
            ["sync"] => says(
                Impact::Reload,
                "the sync set changes while writes go on; until every standby follows, a failover must satisfy the old and the new",
            ),
            ["allow_same_site"] => says(Impact::None, "nothing changes but the check of the file"),
            ["parameters", parameter] => setting(parameter, from, to),
            ["parameters"] => says(Impact::Reload, "settings are read again"),
            ["bin_dir"] => says(
                Impact::Rolling,
                "members restart with the other programs one after another, the primary last after a switchover",
            ),
            ["port"] => refused(
                "clients of a running database would lose it; choose the port when a database is created",
            ),
            ["os_user"] => refused("the files of the database belong to the old user"),
            ["dbname" | "owner"] => refused(
                "renaming is not done for you; use `mainstay psql` first, then describe what is there",
            ),
            ["engine"] => refused("another engine is another database"),
            _ => refused("nothing is known about how to do it"),
        })
    }

    fn service(&self, name: &str, rest: &[&str]) -> Option<Consequence> {
        let name = ServiceName::new(name);
        let (old, new) = (self.old.services.get(&name), self.new.services.get(&name));
        let (Some(old), Some(new)) = (old, new) else {
            return Some(self.whole_service(old, new));
        };
        if old.is_external() != new.is_external() {
            // Everything else changes with it.
            return (rest == ["addresses"]).then(|| {
                refused(
                    "what runs here cannot become addresses of others, nor the other way round; describe a new service, lead the routes to it, then remove this one",
                )
            });
        }
        Some(match rest {
            ["addresses"] => says(
                Impact::None,
                "requests go to new addresses as soon as they answer, and to those that are gone no more",
            ),
            ["instances"] if new.instances > old.instances => says(
                Impact::Start,
                format!("{} more start on {}", new.instances - old.instances, self.places(new)),
            ),
            ["instances"] => says(Impact::Stop, stopping(old.instances - new.instances)),
            ["placement", ..] => says(
                Impact::Rolling,
                format!("instances elsewhere move to {} one after another", self.places(new)),
            ),
            ["health" | "ready", ..] => says(Impact::None, "instances are asked this way from now on"),
            ["after"] => says(Impact::None, "it holds when an instance starts for the first time next"),
            ["traffic", ..] => says(Impact::None, "the next request is routed so"),
            ["protocol" | "send_proxy_protocol" | "tls", ..] => {
                says(Impact::None, "proxies speak so to its instances from the next connection on")
            }
            ["scale"] if new.scale.is_none() => {
                says(Impact::None, "the load changes their number no more: as many run as `instances` says")
            }
            ["scale", ..] => says(Impact::None, "their number follows the load by it from now on"),
            ["release", ..] => says(Impact::None, "it holds for the next release"),
            ["stop_grace"] => says(Impact::None, "it holds when an instance stops next"),
            ["command" | "image" | "ports" | "user" | "env" | "memory", ..] => says(
                Impact::Rolling,
                "instances are replaced one after another; a new one must be healthy before an old one stops",
            ),
            _ => refused("nothing is known about how to do it"),
        })
    }

    fn whole_service(&self, old: Option<&Service>, new: Option<&Service>) -> Consequence {
        match (old, new) {
            (None, Some(new)) if new.is_external() => {
                says(Impact::None, "nothing starts: others run it, and routes may lead to it")
            }
            (Some(old), None) if old.is_external() => {
                says(Impact::None, "nothing stops: others run it, and no route leads to it any more")
            }
            (None, Some(new)) => says(
                Impact::Start,
                format!("{} start on {}", count(new.instances, "instance"), self.places(new)),
            ),
            (Some(old), _) => says(Impact::Stop, stopping(old.instances)),
            (None, None) => refused("nothing is known about how to do it"),
        }
    }

    /// Where instances may run, in words.
    fn places(&self, service: &Service) -> String {
        let nodes: Vec<&str> = self.new.nodes_for(service).into_iter().map(NodeName::as_str).collect();
        match nodes.len() {
            0..=4 => nodes.join(", "),
            many => format!("{many} nodes"),
        }
    }

    fn route(&self, name: &str, rest: &[&str], from: Option<&Value>, to: Option<&Value>) -> Consequence {
        match rest {
            [] if from.is_none() => says(Impact::Start, "every node listens on it"),
            [] if to.is_none() => {
                says(Impact::Stop, "no new connections are taken; those that are open are closed")
            }
            ["listen"] => self.new_listen(name),
            ["target"] => says(Impact::None, self.new_target(name)),
            ["park_limit" | "park_connections"] => {
                says(Impact::None, "it holds for the next connection that has to wait")
            }
            ["host" | "path" | "redirect_https" | "maintenance" | "trusted_proxies" | "access_log", ..] => {
                says(Impact::None, "it holds for the next request; no connection is closed")
            }
            ["tls" | "proxy_protocol" | "limits", ..] => {
                says(Impact::None, "it holds for the next connection; those that are open stay as they are")
            }
            _ => refused("nothing is known about how to do it"),
        }
    }

    fn new_listen(&self, route: &str) -> Consequence {
        let sentence = "the new place is opened, then the old one is closed; open connections stay";
        let route = RouteName::new(route);
        let refers = |service: &Service| {
            let texts = service.command.iter().chain(service.env.values());
            texts.into_iter().any(|text| placeholder::routes(text).contains(&route))
        };
        let services: Vec<String> = self
            .new
            .services
            .iter()
            .filter(|(_, s)| refers(s))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if services.is_empty() {
            return says(Impact::None, sentence);
        }
        let services = services.join(", ");
        says(
            Impact::Rolling,
            format!(
                "{sentence}; instances of {services}, which were given its address, are replaced one after another"
            ),
        )
    }

    fn new_target(&self, name: &str) -> String {
        match self.new.routes.get(&RouteName::new(name)).map(|Route { target, .. }| target) {
            Some(RouteTarget::Database { .. }) => {
                "new connections go there; those to other members are closed".to_owned()
            }
            Some(RouteTarget::Service { .. }) | None => "the next request goes there".to_owned(),
        }
    }
}

fn refused(why: &str) -> Consequence {
    (Impact::Refused, format!("refused: {why}"))
}

fn site(rest: &[&str], to: Option<&Value>) -> Consequence {
    match rest {
        [_, "witness"] if to == Some(&Value::Bool(true)) => {
            says(Impact::Stop, "its nodes only vote from now on: routes close there and instances move away")
        }
        [_, "witness"] => says(Impact::None, "its nodes may carry work from now on"),
        _ => says(Impact::None, "only where nodes stand counts"),
    }
}

fn node(node: &str, rest: &[&str], from: Option<&Value>, to: Option<&Value>) -> Consequence {
    match rest {
        [] if from.is_none() => says(
            Impact::Start,
            format!(
                "`{node}` belongs to the system as soon as its agent has joined; until then it counts as down"
            ),
        ),
        [] => says(
            Impact::Stop,
            format!("`{node}` leaves: what runs there moves to other nodes, then its agent may be stopped"),
        ),
        ["site"] => says(
            Impact::None,
            "it counts for the new site from now on; instances that may not run there move",
        ),
        ["lines", _] if from.is_none() => says(Impact::None, "agents use the line as soon as it answers"),
        ["lines", _] if to.is_none() => says(Impact::None, "agents stop using the line"),
        ["lines", _] => refused(
            "the address of a running node cannot change; add the node under a new name, then remove this one",
        ),
        ["preferred_line"] => says(
            Impact::Reload,
            format!("members and instances on `{node}` are reached over it; standbys connect anew"),
        ),
        ["voter"] if to == Some(&Value::Bool(true)) => {
            says(Impact::None, format!("`{node}` gets a vote once it has copied the log"))
        }
        ["voter"] => {
            says(Impact::None, format!("`{node}` loses its vote; a majority of the others is enough"))
        }
        ["agent_port"] => {
            refused("the other agents know this one by its port; add the node under a new name instead")
        }
        _ => refused("nothing is known about how to do it"),
    }
}

fn whole_database(old: Option<&Database>, new: Option<&Database>) -> Consequence {
    match (old, new) {
        (None, Some(new)) => {
            let (first, others) = new
                .members
                .split_first()
                .map_or(("", String::new()), |(first, others)| (first.as_str(), names(others)));
            let copied = if others.is_empty() { String::new() } else { format!(" and copied to {others}") };
            says(Impact::Start, format!("it is created on {first}{copied}"))
        }
        (Some(old), _) => says(
            Impact::Stop,
            format!("PostgreSQL stops on {}; the data stays there and is never deleted", names(&old.members)),
        ),
        (None, None) => refused("nothing is known about how to do it"),
    }
}

fn members(old: &Database, new: &Database) -> Consequence {
    let before: BTreeSet<&NodeName> = old.members.iter().collect();
    let after: BTreeSet<&NodeName> = new.members.iter().collect();
    let (added, removed) =
        (names(after.difference(&before).copied()), names(before.difference(&after).copied()));
    let comes = format!("{added} gets a copy from a member and counts for writes once it streams");
    let goes =
        format!("{removed} hands over if it is the primary, leaves the sync set and stops; its files stay");
    match (added.is_empty(), removed.is_empty()) {
        (true, true) => says(Impact::None, "the order only matters when a database is created"),
        (false, true) => says(Impact::Start, comes),
        (true, false) => says(Impact::Stop, goes),
        (false, false) => says(Impact::Stop, format!("{comes}; then {goes}")),
    }
}

fn durability(new: &Database) -> Consequence {
    match new.durability {
        Durability::ZeroLoss => says(
            Impact::Reload,
            format!(
                "writes wait for {} as soon as so many stream; from then on none is lost",
                count(new.sync, "standby")
            ),
        ),
        Durability::Async { max_loss } => says(
            Impact::Reload,
            format!(
                "writes wait for nobody from now on; a failover may lose the last {}",
                duration::format(max_loss)
            ),
        ),
    }
}

fn setting(name: &str, from: Option<&Value>, to: Option<&Value>) -> Consequence {
    if needs_restart(name) {
        let number =
            |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok());
        let lower = matches!((number(from), number(to)), (Some(before), Some(after)) if after < before);
        let order = match lower && STANDBY_NEEDS_AS_MUCH.contains(&name) {
            true => "the primary first and in place, because no standby may have less than it",
            false => "standbys first, the primary last after a switchover",
        };
        return says(Impact::Rolling, format!("members restart one after another, {order}"));
    }
    if name.contains('.') {
        return says(
            Impact::Reload,
            "settings are read again; if PostgreSQL asks for a restart, members restart one after another",
        );
    }
    says(Impact::Reload, "settings are read again; nothing restarts")
}

fn names<'n>(nodes: impl IntoIterator<Item = &'n NodeName>) -> String {
    nodes.into_iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

fn stopping(instances: u32) -> String {
    match instances {
        1 => "1 instance finishes its work and stops".to_owned(),
        many => format!("{many} instances finish their work and stop"),
    }
}

fn count(number: u32, noun: &str) -> String {
    match (number, noun) {
        (1, noun) => format!("1 {noun}"),
        (number, "standby") => format!("{number} standbys"),
        (number, noun) => format!("{number} {noun}s"),
    }
}
