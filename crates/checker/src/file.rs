//! Histories as text: first a line with the claim, then one line for each operation, all JSON.
//!
//! ```text
//! {"bank":{"accounts":{"1":100,"2":100},"overdraft":false,"stale_reads":false}}
//! {"client":1,"from":1000,"is":"ok","until":1900,"do":{"transfer":{"from":1,"to":2,"amount":5}}}
//! {"client":2,"from":1200,"is":"unknown","do":{"transfer":{"from":2,"to":1,"amount":7}}}
//! {"client":1,"from":2000,"is":"ok","until":2400,"do":{"read":{"1":95,"2":105}}}
//! ```
//!
//! `from` and `until` are microseconds of one clock. The reader takes files from strangers: it says in which line what is
//! wrong, and it is bounded.

use std::fmt;

use model::time::Moment;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Operation, Outcome, Verdict, append, bank, register, set};

/// The longest line in bytes: a read of a million values.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// The most operations in a file.
pub const MAX_OPERATIONS: usize = 2_000_000;

/// A history with what is claimed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Unique values in a set.
    Set(Vec<Operation<set::Action>>),
    /// Transfers between accounts.
    Bank(bank::Claim, Vec<Operation<bank::Action>>),
    /// Transactions over lists.
    Append(append::Claim, Vec<Operation<append::Action>>),
    /// Registers with compare-and-set.
    Register(Vec<Operation<register::Action>>),
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Acknowledged.
    pub ok: u64,
    /// Surely not done.
    pub failed: u64,
    /// Done or not, their clients cannot know.
    pub unknown: u64,
}

/// Why a text is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Header {
    Set {},
    Bank(bank::Claim),
    Append(append::Claim),
    Register {},
}

/// Every other line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<A> {
    client: u32,
    from: Moment,
    is: Is,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Moment>,
    #[serde(rename = "do")]
    action: A,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Is {
    Ok,
    Failed,
    Unknown,
}

/// What can be in a history.
trait Recorded: Serialize + DeserializeOwned + Clone {
    /// What an acknowledged operation must tell and does not.
    fn missing(&self) -> Option<&'static str>;
}

impl History {
    /// Reads a history.
    ///
    /// # Errors
    /// [`FileError`] with the first line that is not as it should be.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
        let Some((_, first)) = lines.next() else { return Err(FileError::new(1, "the file is empty")) };
        Ok(match json(1, first)? {
            Header::Set {} => Self::Set(operations(lines)?),
            Header::Bank(claim) => Self::Bank(claim, operations(lines)?),
            Header::Append(claim) => Self::Append(claim, operations(lines)?),
            Header::Register {} => Self::Register(operations(lines)?),
        })
    }

    /// The history as text, ending with a line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Set(history) => write(&mut text, &Header::Set {}, history),
            Self::Bank(claim, history) => write(&mut text, &Header::Bank(claim.clone()), history),
            Self::Append(claim, history) => write(&mut text, &Header::Append(*claim), history),
            Self::Register(history) => write(&mut text, &Header::Register {}, history),
        }
        text
    }

    /// The name of its workload, which is also how its text begins.
    pub const fn workload(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Bank(..) => "bank",
            Self::Append(..) => "append",
            Self::Register(_) => "register",
        }
    }

    /// How its operations ended.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Set(history) => Counts::of(history),
            Self::Bank(_, history) => Counts::of(history),
            Self::Append(_, history) => Counts::of(history),
            Self::Register(history) => Counts::of(history),
        }
    }

    /// What it proves.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Set(history) => set::check(history).verdict(),
            Self::Bank(claim, history) => bank::check(claim, history),
            Self::Append(claim, history) => append::check(*claim, history),
            Self::Register(history) => register::check(history, register::Bounds::default()),
        }
    }
}

impl Counts {
    fn of<A>(history: &[Operation<A>]) -> Self {
        let mut counts = Self::default();
        for operation in history {
            let counted = match operation.outcome {
                Outcome::Ok(_) => &mut counts.ok,
                Outcome::Failed => &mut counts.failed,
                Outcome::Unknown => &mut counts.unknown,
            };
            *counted += 1;
        }
        counts
    }
}

fn operations<'a, A: Recorded>(
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Result<Vec<Operation<A>>, FileError> {
    let mut operations = Vec::new();
    for (number, line) in lines {
        if operations.len() == MAX_OPERATIONS {
            return Err(FileError::new(number, format!("more than {MAX_OPERATIONS} operations")));
        }
        operations.push(operation(number, json(number, line)?)?);
    }
    Ok(operations)
}

fn operation<A: Recorded>(number: usize, line: Line<A>) -> Result<Operation<A>, FileError> {
    let wrong = |reason: &str| Err(FileError::new(number, reason));
    let outcome = match (line.is, line.until) {
        (Is::Ok, None) => {
            return wrong("an acknowledged operation needs `until`, when its acknowledgement came");
        }
        (Is::Ok, Some(until)) if until < line.from => return wrong("`until` lies before `from`"),
        (Is::Ok, Some(until)) => Outcome::Ok(until),
        (Is::Failed | Is::Unknown, Some(_)) => return wrong("only an acknowledged operation has `until`"),
        (Is::Failed, None) => Outcome::Failed,
        (Is::Unknown, None) => Outcome::Unknown,
    };
    if let (Outcome::Ok(_), Some(missing)) = (outcome, line.action.missing()) {
        return wrong(missing);
    }
    Ok(Operation { client: line.client, invoked: line.from, outcome, action: line.action })
}

fn json<T: DeserializeOwned>(number: usize, line: &str) -> Result<T, FileError> {
    if line.len() > MAX_LINE {
        return Err(FileError::new(number, format!("longer than {MAX_LINE} bytes")));
    }
    serde_json::from_str(line).map_err(|error| FileError::new(number, error.to_string()))
}

fn write<A: Recorded>(text: &mut String, header: &Header, history: &[Operation<A>]) {
    push(text, header);
    for operation in history {
        let (is, until) = match operation.outcome {
            Outcome::Ok(at) => (Is::Ok, Some(at)),
            Outcome::Failed => (Is::Failed, None),
            Outcome::Unknown => (Is::Unknown, None),
        };
        let (client, from) = (operation.client, operation.invoked);
        push(text, &Line { client, from, is, until, action: operation.action.clone() });
    }
}

fn push(text: &mut String, line: &impl Serialize) {
    // Only maps with keys that are no text cannot be written, and there are none here.
    text.push_str(&serde_json::to_string(line).unwrap_or_default());
    text.push('\n');
}

// --- Recorded -------------------------------------------------------------------------------------------------------

const NO_ANSWER: Option<&str> = Some("an acknowledged read needs its answer");

impl Recorded for set::Action {
    fn missing(&self) -> Option<&'static str> {
        match self {
            Self::Read(None) => NO_ANSWER,
            Self::Add(_) | Self::Read(Some(_)) => None,
        }
    }
}

impl Recorded for bank::Action {
    fn missing(&self) -> Option<&'static str> {
        match self {
            Self::Read(None) => NO_ANSWER,
            Self::Transfer(_) | Self::Read(Some(_)) => None,
        }
    }
}

impl Recorded for append::Action {
    fn missing(&self) -> Option<&'static str> {
        self.iter().find_map(|step| match step {
            append::Step::Read(_, None) => NO_ANSWER,
            append::Step::Append(..) | append::Step::Read(_, Some(_)) => None,
        })
    }
}

impl Recorded for register::Action {
    fn missing(&self) -> Option<&'static str> {
        match self.what {
            register::What::Read(register::Answer::None) => NO_ANSWER,
            register::What::Swap { done: None, .. } => {
                Some("an acknowledged swap needs `done`: whether it was done or refused")
            }
            register::What::Read(_) | register::What::Write(_) | register::What::Swap { .. } => None,
        }
    }
}

// --- FileError ------------------------------------------------------------------------------------------------------

impl FileError {
    fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for FileError {}
