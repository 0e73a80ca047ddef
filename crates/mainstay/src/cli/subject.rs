//! What a person means by a name: `orders`, `database/orders`, `node/e1`, `web-1`.

use std::fmt;

use model::{DatabaseName, NodeName, RouteName, ServiceName};

use super::error::CliError;
use super::exit::Exit;
use super::status::view::{View, service_of};

/// A thing of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All of it.
    System,
    /// A node.
    Node(NodeName),
    /// A database.
    Database(DatabaseName),
    /// A member: a database on a node.
    Member(DatabaseName, NodeName),
    /// A service.
    Service(ServiceName),
    /// An instance, `web-1` or `web-1@e1`.
    Instance(String),
    /// A route.
    Route(RouteName),
}

impl Subject {
    /// Finds what `text` means.
    ///
    /// # Errors
    /// When it means nothing, or several things.
    pub(crate) fn find(view: &View, text: &str) -> Result<Self, CliError> {
        let found: Vec<Self> = match text.split_once('/') {
            Some((kind, name)) => Self::of_kind(view, kind, name).into_iter().collect(),
            None => KINDS.iter().filter_map(|kind| Self::of_kind(view, kind, text)).collect(),
        };
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => {
                let message = format!("there is nothing called {text} in {}", view.system.name);
                Err(CliError::with(Exit::Invalid, message).hint(format!("there is: {}", everything(view))))
            }
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                let message = format!("{text} means several things");
                Err(CliError::with(Exit::Invalid, message).hint(format!("name one: {}", names.join(" | "))))
            }
        }
    }

    fn of_kind(view: &View, kind: &str, name: &str) -> Option<Self> {
        let system = &view.system;
        match kind {
            "system" => (name == system.name.as_str()).then_some(Self::System),
            "node" => system.nodes.get_key_value(name).map(|(name, _)| Self::Node(name.clone())),
            "database" => match name.split_once('@') {
                None => system.databases.get_key_value(name).map(|(name, _)| Self::Database(name.clone())),
                Some((database, node)) => Self::member(view, database, node),
            },
            "service" => system.services.get_key_value(name).map(|(name, _)| Self::Service(name.clone())),
            "instance" => is_instance(view, name).then(|| Self::Instance(name.to_owned())),
            "route" => system.routes.get_key_value(name).map(|(name, _)| Self::Route(name.clone())),
            _ => None,
        }
    }

    fn member(view: &View, database: &str, node: &str) -> Option<Self> {
        let (name, config) = view.system.databases.get_key_value(database)?;
        let node = config.members.iter().find(|member| member.as_str() == node)?;
        Some(Self::Member(name.clone(), node.clone()))
    }
}

/// What stands before the `/`.
const KINDS: [&str; 6] = ["system", "node", "database", "service", "instance", "route"];

fn is_instance(view: &View, name: &str) -> bool {
    let service = service_of(name).map(ServiceName::new);
    let instances = service.map(|service| view.instances(&service)).unwrap_or_default();
    instances.iter().any(|instance| instance.id == name || instance.id.split('@').next() == Some(name))
}

fn everything(view: &View) -> String {
    let system = &view.system;
    let nodes = system.nodes.keys().map(|name| format!("node/{name}"));
    let databases = system.databases.keys().map(|name| format!("database/{name}"));
    let services = system.services.keys().map(|name| format!("service/{name}"));
    let routes = system.routes.keys().map(|name| format!("route/{name}"));
    nodes.chain(databases).chain(services).chain(routes).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Database(name) => write!(f, "database/{name}"),
            Self::Member(name, node) => write!(f, "database/{name}@{node}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Instance(name) => write!(f, "instance/{name}"),
            Self::Route(name) => write!(f, "route/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{healthy, seen, shop};
    use super::*;

    fn find(text: &str) -> Result<String, (Exit, String)> {
        let system = shop();
        let overview = healthy(&system, "e1");
        let found = Subject::find(&seen(system, overview), text);
        found.map(|subject| subject.to_string()).map_err(|error| (error.exit(), error.sentence().to_owned()))
    }

    #[test]
    fn plain_names_are_found_where_they_are_unique() {
        for (text, subject) in [
            ("orders", "database/orders"),
            ("database/orders", "database/orders"),
            ("orders@w1", "database/orders@w1"),
            ("e1", "node/e1"),
            ("web", "service/web"),
            ("web-2", "instance/web-2"),
            ("public", "route/public"),
            ("shop", "system"),
        ] {
            assert_eq!(find(text), Ok(subject.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_of_the_command_line() {
        for text in ["nothing", "node/orders", "orders@x9", "kind/orders", "web-9"] {
            let error = (Exit::Invalid, format!("there is nothing called {text} in shop"));
            assert_eq!(find(text), Err(error));
        }
    }
}
