//! What can be asked of an agent: over its unix socket by the command line, over mutual TLS by other agents.
//!
//! One JSON document a line on the socket; one frame each way between agents. The socket is only for the user the agent
//! runs as (mode 0600): who can open it may do everything.

pub mod client;

use decide::agent::Overview;
use model::event::Event;
use model::jobs::Run;
use model::release::{Digest, Strategy};
use model::system::{JobSchedule, System};
use model::upkeep::UpkeepChange;
use model::{DatabaseName, JobName, NodeName, RouteName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::program::Facts;

/// How long connections may stay with a proxy that is replaced when nothing else is said, in seconds.
pub const DRAIN_S: u64 = 3600;

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Everything this agent knows.
    Overview,
    /// Events of this node since a moment (microseconds since the Unix epoch), or of all nodes.
    Events {
        /// The oldest moment wanted.
        since_us: i64,
        /// Also ask the other nodes.
        everywhere: bool,
    },
    /// A planned change of the primary.
    Switchover {
        /// The database.
        database: DatabaseName,
        /// The member to take over; the best standby if not given.
        to: Option<NodeName>,
    },
    /// Promote a member although writes may be lost.
    Failover {
        /// The database.
        database: DatabaseName,
        /// The member to promote.
        to: NodeName,
        /// The operator's words.
        statement: String,
    },
    /// Flush dirty pages on this node's member, so that a clean shutdown is quick.
    Checkpoint {
        /// The database.
        database: DatabaseName,
    },
    /// Stop deciding on failovers, starts and rejoins.
    Pause {
        /// Why.
        reason: String,
    },
    /// Decide again.
    Resume,
    /// Change what holds beyond the file: drained nodes, scaled services.
    Upkeep {
        /// What.
        change: UpkeepChange,
    },
    /// Take the next piece of an artefact; an empty one says that all of it has come.
    ArtefactTake {
        /// Which artefact.
        digest: Digest,
        /// Where the piece begins.
        offset: u64,
        /// Its bytes, as hexadecimal digits.
        piece: String,
    },
    /// Give a piece of an artefact.
    ArtefactPiece {
        /// Which artefact.
        digest: Digest,
        /// Where the piece begins.
        offset: u64,
    },
    /// Take the next piece of a program of Mainstay itself; an empty one says that all of it has come.
    ProgramTake {
        /// Its SHA-256.
        digest: Digest,
        /// Where the piece begins.
        offset: u64,
        /// Its bytes, as hexadecimal digits.
        piece: String,
    },
    /// Look whether a program that lies on this node could run it.
    ProgramCheck {
        /// Its SHA-256.
        digest: Digest,
    },
    /// Run a program that lies on this node from now on, on trial.
    ProgramUse {
        /// Its SHA-256.
        digest: Digest,
        /// How long connections may stay with the proxy that is replaced, in seconds.
        drain_s: u64,
    },
    /// Begin a release of a service.
    Release {
        /// The service.
        service: ServiceName,
        /// What, and how.
        order: ReleaseOrder,
    },
    /// Take the release on its way back, or go back to the one before.
    ReleaseBack {
        /// The service.
        service: ServiceName,
    },
    /// Put a system file in force.
    Apply {
        /// What it says.
        system: Box<System>,
        /// The generation it replaces.
        replaces: u64,
    },
    /// The system file in force.
    System,
    /// How to connect to a route's database as its owner.
    Dsn {
        /// The route.
        route: RouteName,
    },
    /// Restart instances on this node.
    Restart {
        /// `service/web` or `instance/web-1`.
        subject: String,
    },
    /// Give a member of a database its turn to restart its PostgreSQL; the primary hands over first.
    RestartMember {
        /// The database.
        database: DatabaseName,
        /// The member.
        node: NodeName,
        /// Whether writes may have to wait meanwhile.
        force: bool,
    },
    /// Certify the asking node's key again: it holds a certificate that is getting old.
    Renew {
        /// The certificate request (PKCS#10, PEM).
        request_pem: String,
    },
    /// Every job with what is agreed on about it.
    Jobs,
    /// Let a job run once, now.
    RunJob {
        /// The job.
        job: JobName,
    },
    /// Ask another node's agent.
    On {
        /// The node.
        node: NodeName,
        /// What.
        request: Box<Request>,
    },
    /// The last lines of the logs of `subject` on this node.
    Logs {
        /// `service/web`, `database/orders`, `agent`, `proxy`.
        subject: String,
        /// How many lines.
        lines: usize,
    },
}

/// What an operator wants of a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseOrder {
    /// The artefact, which the agent that is asked has.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What the operator named.
    pub from: String,
    /// How it takes over.
    pub strategy: Strategy,
    /// See [`model::release::Rollout::bake_ms`].
    pub bake_ms: u64,
    /// See [`model::release::Rollout::ready_within_ms`].
    pub ready_within_ms: u64,
    /// See [`model::release::Rollout::sample`].
    pub sample: u64,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Overview`].
    Overview(Box<Overview>),
    /// To [`Request::Events`].
    Events(Vec<Event>),
    /// To [`Request::System`].
    System {
        /// What the file says.
        system: Box<System>,
        /// Its generation.
        generation: u64,
    },
    /// To [`Request::Renew`]: the certificate (PEM).
    Certificate(String),
    /// To [`Request::Dsn`].
    Dsn(String),
    /// To [`Request::Jobs`].
    Jobs(Vec<JobSummary>),
    /// To [`Request::RunJob`]: the number of the run.
    JobRun(u64),
    /// To [`Request::ArtefactPiece`]: the bytes as hexadecimal digits; none behind the end.
    Piece(String),
    /// To [`Request::ProgramCheck`].
    Program(Facts),
    /// To [`Request::Logs`].
    Logs(Vec<String>),
    /// Done; one sentence says what.
    Done(String),
    /// Not done.
    Refused(Refused),
}

/// A job as the file describes it, with its runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its name.
    pub name: JobName,
    /// When it is due; `None` when it runs on demand only, or is not in the file any more.
    pub schedule: Option<JobSchedule>,
    /// Whether the file in force describes it.
    pub described: bool,
    /// When it is due next, in seconds since the Unix epoch.
    pub next: Option<i64>,
    /// Its newest runs, oldest first.
    pub runs: Vec<Run>,
}

/// Why something was not done.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{because}")]
pub struct Refused {
    /// One sentence.
    pub because: String,
    /// What the operator can do.
    pub hint: String,
}

impl Reply {
    /// A refusal.
    pub fn refused(because: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused(Refused { because: because.into(), hint: hint.into() })
    }
}

/// Bytes as text: twice as long, and nothing to get wrong.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that [`hex`] made a text of; `None` for any other text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some((value(*high)? << 4) | value(*low)?)).collect();
    bytes.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex(""), Some(vec![]));
    }
}
