//! What the bench needs to know of a peer, whichever it is.

use std::path::Path;
use std::time::Duration;

use lab::drill::{Entry, Member, SystemView};
use model::NodeName;
use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;

use crate::Outcome;
use crate::autofailover::{self, monitor, monitor::Monitor};
use crate::layout::{self, PASSWORD, POSTGRES_PORT, at, members};
use crate::patroni::{self, rest};
use crate::place::Place;
use crate::unit::Unit;
use crate::variant::{Subject, Timers};

/// A system that is not ours.
#[derive(Clone)]
pub(crate) enum Peer {
    /// Patroni with etcd and HAProxy.
    Patroni(Timers),
    /// pg_auto_failover with a monitor on a node of its own, and the connection that asks it.
    AutoFailover(Timers, Monitor),
}

impl Peer {
    /// The peer that is measured; `None` for ourselves.
    pub(crate) fn of(subject: Subject) -> Option<Self> {
        match subject {
            Subject::Mainstay => None,
            Subject::Patroni(timers) => Some(Self::Patroni(timers)),
            Subject::AutoFailover(timers) => Some(Self::AutoFailover(timers, Monitor::default())),
        }
    }

    /// The nodes it runs on, as a system file.
    pub(crate) fn nodes_file(&self, system: &str) -> String {
        layout::nodes_file(system, matches!(self, Self::AutoFailover(..)))
    }

    /// How long a cut-off primary may go on.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Patroni(timers) => patroni::ttl(*timers),
            Self::AutoFailover(timers, _) => autofailover::partition_timeout(*timers),
        })
    }

    /// What runs on a node.
    pub(crate) fn units(&self, place: &Place<'_>, software: &Path) -> Vec<Unit> {
        match self {
            Self::Patroni(_) => patroni::units(place, software),
            Self::AutoFailover(..) => autofailover::units(place),
        }
    }

    /// The configuration of a node: names and texts.
    pub(crate) fn files(&self, place: &Place<'_>) -> Vec<(String, String)> {
        match self {
            Self::Patroni(timers) => vec![
                ("patroni.yml".to_owned(), patroni::configuration(place, *timers)),
                ("haproxy.cfg".to_owned(), patroni::haproxy(*timers)),
            ],
            Self::AutoFailover(timers, _) => {
                let scripts = autofailover::scripts(place, *timers);
                scripts.into_iter().map(|(name, text)| (format!("{name}.sh"), text)).collect()
            }
        }
    }

    /// Who the client logs in as, and how it finds the primary.
    pub(crate) fn login(&self) -> Config {
        let mut login = Config::new();
        login.user("postgres").password(PASSWORD).dbname("postgres");
        match self {
            // HAProxy leads to the primary alone.
            Self::Patroni(_) => {}
            Self::AutoFailover(..) => {
                login.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
        }
        login
    }

    /// What the peer says of itself. To be asked from inside its network.
    pub(crate) async fn view(self) -> Outcome<SystemView> {
        let (primary, missing, door) = match self {
            Self::Patroni(_) => {
                let answers = rest::ask_all().await;
                (rest::primary(&answers), rest::missing(&answers), patroni::DOOR)
            }
            Self::AutoFailover(_, monitor) => {
                let rows = monitor.ask().await?;
                (monitor::primary(&rows), monitor::missing(&rows), POSTGRES_PORT)
            }
        };
        let member = |(node, address)| Member { node, addresses: vec![at(address, POSTGRES_PORT)] };
        let entry = |(node, address)| Entry { node, address: at(address, door) };
        Ok(SystemView {
            primary,
            missing,
            members: members().map(member).collect(),
            routes: members().map(entry).collect(),
            ..SystemView::default()
        })
    }

    /// Asks for a switchover away from this node.
    pub(crate) async fn switch_over(self, from: NodeName) -> Outcome<String> {
        match self {
            Self::Patroni(_) => rest::switch_over(from).await,
            Self::AutoFailover(_, monitor) => monitor.switch_over().await,
        }
    }
}
