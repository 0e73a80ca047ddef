//! Placeholders in commands and environment variables: what only the node that starts an instance knows.
//!
//! `{{` and `}}` stand for braces that shall stay.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::nearest::nearest;
use crate::{NodeName, RouteName};

/// Every placeholder, for messages and the reference.
pub const ALL: &str =
    "{address}, {port}, {node}, {instance}, {dir}, {release}, {route.NAME.dsn} and {route.NAME.address}";

/// What is known where an instance starts.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'s> {
    /// `{address}`: the node's address to listen on.
    pub address: IpAddr,
    /// `{port}`: the instance's own port.
    pub port: u16,
    /// `{node}`: the node's name.
    pub node: &'s NodeName,
    /// `{instance}`: the instance's name, unique in the system.
    pub instance: &'s str,
    /// `{dir}`: the instance's working directory.
    pub dir: &'s str,
    /// `{release}`: the directory of the unpacked release, if it runs from one.
    pub release: Option<&'s str>,
    /// Where this node's proxy listens for each route.
    pub routes: &'s BTreeMap<RouteName, RoutePlace>,
}

/// Where a route can be reached from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlace {
    /// `{route.NAME.address}`.
    pub address: SocketAddr,
    /// `{route.NAME.dsn}`: the connection string; `None` for a route to a service.
    pub dsn: Option<String>,
}

/// One placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{address}`
    Address,
    /// `{port}`
    Port,
    /// `{node}`
    Node,
    /// `{instance}`
    Instance,
    /// `{dir}`
    Dir,
    /// `{release}`
    Release,
    /// `{route.NAME.dsn}` or `{route.NAME.address}`
    Route {
        /// The route.
        name: String,
        /// What of it.
        part: RoutePart,
    },
}

/// What a placeholder takes from a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePart {
    /// Its connection string.
    Dsn,
    /// Its address and port.
    Address,
}

/// Why a template cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// No such placeholder.
    #[error("there is no placeholder `{{{0}}}`")]
    Unknown(String),
    /// A brace without its partner.
    #[error("the brace `{{` is not closed")]
    Unclosed,
    /// The system has no such route, or it does not listen on this node.
    #[error("the route `{0}` does not listen on this node")]
    NoRoute(String),
    /// The service runs from no release.
    #[error("there is no release yet")]
    NoRelease,
    /// A connection string of a route that leads to a service.
    #[error("the route `{0}` leads to a service and has no dsn")]
    NoDsn(String),
}

impl PlaceholderError {
    /// What stands there and what was probably meant by it.
    pub fn meant(&self) -> Option<(String, String)> {
        let Self::Unknown(text) = self else {
            return None;
        };
        if let Some((name, part)) = text.strip_prefix("route.").and_then(|rest| rest.split_once('.')) {
            let part = nearest(part, ["dsn", "address"]).unwrap_or("address");
            return Some((format!("{{{text}}}"), format!("{{route.{name}.{part}}}")));
        }
        nearest(text, ["address", "port", "node", "instance", "dir", "release"])
            .map(|name| (format!("{{{text}}}"), format!("{{{name}}}")))
    }
}

/// A part of a template.
enum Piece<'t> {
    Text(&'t str),
    Place(Placeholder),
}

/// Fills in every placeholder of `template`.
///
/// An IPv6 `{address}` gets brackets where a port follows (`{address}:{port}`).
///
/// # Errors
/// When a placeholder does not exist or refers to a route that is not among the surroundings. Templates of a validated
/// system only fail for routes that do not listen on the node.
pub fn expand(template: &str, with: &Surroundings<'_>) -> Result<String, PlaceholderError> {
    let pieces = pieces(template).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        let port_follows = matches!(pieces.get(i + 1), Some(Piece::Text(next)) if next.starts_with(':'));
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Place(Placeholder::Address) if port_follows && with.address.is_ipv6() => {
                text.push_str(&format!("[{}]", with.address));
            }
            Piece::Place(placeholder) => text.push_str(&value_of(placeholder, with)?),
        }
    }
    Ok(text)
}

fn value_of(placeholder: &Placeholder, with: &Surroundings<'_>) -> Result<String, PlaceholderError> {
    Ok(match placeholder {
        Placeholder::Address => with.address.to_string(),
        Placeholder::Port => with.port.to_string(),
        Placeholder::Node => with.node.to_string(),
        Placeholder::Instance => with.instance.to_owned(),
        Placeholder::Dir => with.dir.to_owned(),
        Placeholder::Release => with.release.ok_or(PlaceholderError::NoRelease)?.to_owned(),
        Placeholder::Route { name, part } => {
            let place = with.routes.get(&RouteName::new(name.clone()));
            let place = place.ok_or_else(|| PlaceholderError::NoRoute(name.clone()))?;
            match part {
                RoutePart::Address => place.address.to_string(),
                RoutePart::Dsn => place.dsn.clone().ok_or_else(|| PlaceholderError::NoDsn(name.clone()))?,
            }
        }
    })
}

/// The placeholders of `template`, each readable or with the reason why not.
pub(super) fn find(template: &str) -> impl Iterator<Item = Result<Placeholder, PlaceholderError>> {
    pieces(template).filter_map(|piece| match piece {
        Ok(Piece::Text(_)) => None,
        Ok(Piece::Place(placeholder)) => Some(Ok(placeholder)),
        Err(error) => Some(Err(error)),
    })
}

/// Whether `template` says `{port}`.
pub(super) fn uses_port(template: &str) -> bool {
    find(template).any(|found| found == Ok(Placeholder::Port))
}

/// Whether `template` says `{release}`.
pub(super) fn uses_release(template: &str) -> bool {
    find(template).any(|found| found == Ok(Placeholder::Release))
}

/// The routes `template` refers to.
pub(super) fn routes(template: &str) -> Vec<RouteName> {
    let route = |found| match found {
        Ok(Placeholder::Route { name, .. }) => Some(RouteName::new(name)),
        Ok(_) | Err(_) => None,
    };
    find(template).filter_map(route).collect()
}

fn pieces(template: &str) -> impl Iterator<Item = Result<Piece<'_>, PlaceholderError>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        let (piece, after) = next_piece(rest)?;
        rest = after;
        Some(piece)
    })
}

fn next_piece(rest: &str) -> Option<(Result<Piece<'_>, PlaceholderError>, &str)> {
    if rest.is_empty() {
        return None;
    }
    for (double, single) in [("{{", "{"), ("}}", "}")] {
        if let Some(after) = rest.strip_prefix(double) {
            return Some((Ok(Piece::Text(single)), after));
        }
    }
    if let Some(inner) = rest.strip_prefix('{') {
        let Some((name, after)) = inner.split_once('}') else {
            return Some((Err(PlaceholderError::Unclosed), ""));
        };
        return Some((placeholder(name).map(Piece::Place), after));
    }
    // At least one character, so that a lone `}` is text and the loop goes on.
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let end = rest[first..].find(['{', '}']).map_or(rest.len(), |i| first + i);
    Some((Ok(Piece::Text(&rest[..end])), &rest[end..]))
}

fn placeholder(name: &str) -> Result<Placeholder, PlaceholderError> {
    let unknown = || PlaceholderError::Unknown(name.chars().take(80).collect());
    match name {
        "address" => Ok(Placeholder::Address),
        "port" => Ok(Placeholder::Port),
        "node" => Ok(Placeholder::Node),
        "instance" => Ok(Placeholder::Instance),
        "dir" => Ok(Placeholder::Dir),
        "release" => Ok(Placeholder::Release),
        other => {
            let (name, part) =
                other.strip_prefix("route.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
            let part = match part {
                "dsn" => RoutePart::Dsn,
                "address" => RoutePart::Address,
                _ => return Err(unknown()),
            };
            Ok(Placeholder::Route { name: name.to_owned(), part })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, address: &str) -> Result<String, PlaceholderError> {
        let db = RoutePlace {
            address: "10.0.1.11:5432".parse().unwrap(),
            dsn: Some("postgres://orders@10.0.1.11:5432/orders".to_owned()),
        };
        let web = RoutePlace { address: "[fd00::1]:8080".parse().unwrap(), dsn: None };
        let routes = BTreeMap::from([("db".into(), db), ("web".into(), web)]);
        let with = Surroundings {
            address: address.parse().unwrap(),
            port: 20_001,
            node: &"e1".into(),
            instance: "web-1",
            dir: "/srv/web-1",
            release: None,
            routes: &routes,
        };
        expand(template, &with)
    }

    #[test]
    fn placeholders_are_filled_in() {
        let all = "{address}:{port} {node} {instance} {dir} {route.db.dsn} {route.web.address}";
        assert_eq!(
            filled(all, "10.0.1.11").unwrap(),
            "10.0.1.11:20001 e1 web-1 /srv/web-1 postgres://orders@10.0.1.11:5432/orders [fd00::1]:8080"
        );
    }

    #[test]
    fn an_ipv6_address_gets_brackets_only_before_a_port() {
        assert_eq!(filled("{address}:{port}", "fd00::2").unwrap(), "[fd00::2]:20001");
        assert_eq!(
            filled("--host {address} --port {port}", "fd00::2").unwrap(),
            "--host fd00::2 --port 20001"
        );
    }

    #[test]
    fn doubled_braces_stay() {
        assert_eq!(filled(r#"{{"node":"{node}"}}"#, "::1").unwrap(), r#"{"node":"e1"}"#);
        assert_eq!(filled("a } b", "::1").unwrap(), "a } b");
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        let meant = |template| filled(template, "::1").unwrap_err().meant().unwrap().1;
        assert_eq!(meant("{prot}"), "{port}");
        assert_eq!(meant("{route.db.dns}"), "{route.db.dsn}");
        assert_eq!(filled("{port", "::1"), Err(PlaceholderError::Unclosed));
        assert_eq!(filled("{route.web.dsn}", "::1"), Err(PlaceholderError::NoDsn("web".to_owned())));
        assert_eq!(filled("{release}/web", "::1"), Err(PlaceholderError::NoRelease));
        assert_eq!(filled("{route.x.dsn}", "::1"), Err(PlaceholderError::NoRoute("x".to_owned())));
    }
}
