//! What a checker answers.

use std::fmt;

/// Violations shown before the rest is only counted.
const SHOWN: usize = 20;

/// What a history proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was claimed holds in this history.
    Valid,
    /// What was claimed does not hold; never empty.
    Violated(Vec<Violation>),
    /// Nothing wrong was found, but something could not be looked at; the text says what and why.
    Undecided(String),
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its kind.
    pub anomaly: Anomaly,
    /// What was seen, in words.
    pub evidence: String,
}

/// Kinds of broken promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// It was acknowledged (or seen) and is gone.
    Lost,
    /// A read that began after the acknowledgement did not see it; a later one did.
    Stale,
    /// It is there more than once.
    Doubled,
    /// It had surely failed and is there.
    Revived,
    /// Nobody wrote it, or nobody had written it yet.
    Foreign,
    /// The sum of all accounts changed.
    WrongSum,
    /// An account is negative although that is forbidden.
    Negative,
    /// A read does not show the accounts that there are.
    WrongAccounts,
    /// No choice of the transfers that may have happened leads to what was read.
    Unexplained,
    /// A transaction does not see what it itself read or wrote.
    Internal,
    /// Two reads of one list contradict each other in its order.
    IncompatibleOrder,
    /// Dirty write: the order of writes alone is a cycle.
    G0,
    /// Aborted read: a value of a transaction that had failed was read.
    G1a,
    /// Intermediate read: a value was read that its transaction had already replaced.
    G1b,
    /// Circular information flow: each saw or overwrote the other's writes.
    G1c,
    /// A cycle with exactly one missed write (read skew, lost update).
    GSingle,
    /// A cycle in which no two missed writes follow each other (forbidden under snapshot isolation).
    GNonadjacent,
    /// A cycle with missed writes (write skew).
    G2,
    /// No order of the operations, each between its beginning and its end, explains the answers.
    NotLinearizable,
}

impl Verdict {
    /// What was found and what could not be looked at: a violation outweighs everything.
    pub(crate) fn of(violations: Vec<Violation>, undecided: Option<String>) -> Self {
        match undecided {
            _ if !violations.is_empty() => Self::Violated(violations),
            Some(reason) => Self::Undecided(reason),
            None => Self::Valid,
        }
    }

    /// The violations; none when valid or undecided.
    pub fn violations(&self) -> &[Violation] {
        match self {
            Self::Violated(violations) => violations,
            Self::Valid | Self::Undecided(_) => &[],
        }
    }
}

impl Violation {
    pub(crate) fn new(anomaly: Anomaly, evidence: impl Into<String>) -> Self {
        Self { anomaly, evidence: evidence.into() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Undecided(reason) => write!(f, "undecided: {reason}"),
            Self::Violated(violations) => {
                f.write_str("violated:")?;
                for violation in violations.iter().take(SHOWN) {
                    write!(f, "\n- {violation}")?;
                }
                match violations.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "\n- and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.anomaly, self.evidence)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Stale => "stale read",
            Self::Doubled => "doubled",
            Self::Revived => "revived",
            Self::Foreign => "foreign",
            Self::WrongSum => "wrong sum",
            Self::Negative => "negative balance",
            Self::WrongAccounts => "wrong accounts",
            Self::Unexplained => "unexplained balances",
            Self::Internal => "own effects unseen",
            Self::IncompatibleOrder => "incompatible orders",
            Self::G0 => "G0, dirty write",
            Self::G1a => "G1a, aborted read",
            Self::G1b => "G1b, intermediate read",
            Self::G1c => "G1c, circular information flow",
            Self::GSingle => "G-single, read skew or lost update",
            Self::GNonadjacent => "G-nonadjacent",
            Self::G2 => "G2, write skew",
            Self::NotLinearizable => "not linearizable",
        })
    }
}
