//! Where does a database route lead now? Every agent answers for its own proxy, from the record and what members said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::NodeName;
use model::leadership::{Leadership, Phase};
use model::routes::{DatabaseEndpoint, DatabaseRouteState};
use model::status::{MemberStatus, Server};
use model::system::Role;

/// How long sessions of the old primary have to become idle in a switchover. Long enough for transactions of a few statements
/// over a slow line; while one of them goes on, new connections wait.
pub const DRAIN: Duration = Duration::from_secs(2);

/// What is known about the members a route may lead to.
pub struct Question<'a> {
    /// What the route leads to.
    pub role: Role,
    /// The leadership record as last seen.
    pub record: Option<&'a Leadership>,
    /// What every member's agent said last; members whose node is silent are left out.
    pub members: &'a BTreeMap<&'a NodeName, &'a MemberStatus>,
    /// Whether this route led to the record's primary in its term before. What a primary has proved in a term holds for
    /// the term: that its agent has been restarted and knows less now closes no connection.
    pub proved: bool,
    /// Where each member's PostgreSQL listens.
    pub addresses: &'a dyn Fn(&NodeName) -> Option<SocketAddr>,
}

/// What the proxy shall do with connections of this route.
pub fn decide(question: &Question<'_>) -> DatabaseRouteState {
    let Some(record) = question.record else {
        return parked("the database has not been created yet");
    };
    match question.role {
        Role::Primary => primary(question, record),
        Role::Standby => open_or_park(standbys(question, record), "no standby is following the primary"),
        Role::Any => {
            let mut members = standbys(question, record);
            if let DatabaseRouteState::Open { members: primary } = primary(question, record) {
                members.extend(primary);
            }
            open_or_park(members, "no member is serving")
        }
    }
}

fn parked(because: impl Into<String>) -> DatabaseRouteState {
    DatabaseRouteState::Parked { because: because.into() }
}

fn open_or_park(members: Vec<DatabaseEndpoint>, because: &str) -> DatabaseRouteState {
    if members.is_empty() { parked(because) } else { DatabaseRouteState::Open { members } }
}

fn endpoint(question: &Question<'_>, record: &Leadership, node: &NodeName) -> Option<DatabaseEndpoint> {
    let address = (question.addresses)(node)?;
    Some(DatabaseEndpoint { node: node.clone(), address, term: record.term })
}

fn primary(question: &Question<'_>, record: &Leadership) -> DatabaseRouteState {
    match &record.phase {
        Phase::Founding { .. } => parked("the database is being created"),
        Phase::Revoking { .. } => parked(format!("there is no primary now: {}", record.because)),
        Phase::Led { primary } if !is_settled(question, record, primary) => {
            parked(format!("{primary} is being promoted: {}", record.because))
        }
        Phase::Led { primary } => open_or_park(
            endpoint(question, record, primary).into_iter().collect(),
            "the primary has no address",
        ),
        Phase::HandingOver { from, .. } => DatabaseRouteState::Draining {
            members: endpoint(question, record, from).into_iter().collect(),
            drain_ms: u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX),
            because: record.because.clone(),
        },
    }
}

/// Whether the primary has proved that it leads: promoted, and its sync set in force — or without enough standbys for
/// one, so that it can at least be read and writes wait.
fn is_settled(question: &Question<'_>, record: &Leadership, primary: &NodeName) -> bool {
    if question.proved {
        return true;
    }
    let tenure = question.members.get(&primary).and_then(|status| status.tenure.as_ref());
    let unsatisfiable = record.sync.members.len() < usize::try_from(record.sync.k).unwrap_or(usize::MAX);
    tenure
        .is_some_and(|tenure| tenure.term == record.term && (tenure.sync_applied.is_some() || unsatisfiable))
}

fn standbys(question: &Question<'_>, record: &Leadership) -> Vec<DatabaseEndpoint> {
    let follows = |status: &MemberStatus| matches!(&status.server, Server::Standby(facts) if facts.streaming);
    let mut members: Vec<_> = question
        .members
        .iter()
        .filter(|(node, status)| record.primary() != Some(**node) && follows(status))
        .filter_map(|(node, _)| endpoint(question, record, node))
        .collect();
    // A standby's connections survive a change of the primary's term: its readers lose nothing.
    for member in &mut members {
        member.term = model::leadership::Term(0);
    }
    members
}
