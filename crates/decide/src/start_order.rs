//! What does the first start of an instance still wait for?

use model::leadership::Phase;
use model::routes::InstanceRouteState;
use model::status::Server;
use model::system::After;
use model::{DatabaseName, ServiceName};

use crate::agent::Overview;

/// What is not ready of `after`, in a few words; `None` when all is.
pub fn unmet(after: &[After], overview: &Overview) -> Option<String> {
    let missing = |after: &&After| match after {
        After::Service(service) => !is_ready(service, overview),
        After::Database(database) => !takes_writes(database, overview),
    };
    let missing: Vec<String> = after.iter().filter(missing).map(ToString::to_string).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

/// Whether some instance of a service takes requests, on a node that is heard.
fn is_ready(service: &ServiceName, overview: &Overview) -> bool {
    let heard = overview.nodes.values().filter(|node| node.silent.is_none());
    heard.flat_map(|node| &node.instances).any(|instance| {
        let of = instance.id.split('@').next().and_then(|id| id.rsplit_once('-')).map(|(of, _)| of);
        of == Some(service.as_str()) && instance.state == InstanceRouteState::Ready
    })
}

/// Whether the elected primary of a database serves as one in its term.
fn takes_writes(database: &DatabaseName, overview: &Overview) -> bool {
    let Some(record) = overview.databases.get(database) else { return false };
    let Phase::Led { primary } = &record.phase else { return false };
    let member = overview.members.get(database).and_then(|members| members.get(primary));
    member.is_some_and(|member| {
        let leads = member.status.tenure.as_ref().is_some_and(|tenure| tenure.term == record.term);
        !member.stale && leads && matches!(member.status.server, Server::Primary(_))
    })
}
