//! What can be done to a node, as data: in which words, by which means, how it ends by itself, and what takes it back.

use std::fmt;
use std::thread;
use std::time::Duration;

use model::{DatabaseName, NodeName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::faults;
use super::step::Step;
use crate::error::{LabError, Result};
use crate::fault::Evidence;
use crate::lab::Lab;

/// When a fault ends by itself although nobody took it back: longer than any drill waits.
pub(super) const EXPIRES: Duration = Duration::from_secs(180);

/// How long a guard may take for what it does in the end.
const GRACE: Duration = Duration::from_secs(10);

/// When a hung disk ends by itself: long enough for every objective, and short, because nothing that writes there can be
/// killed before.
pub(super) const DISK_EXPIRES: Duration = Duration::from_secs(60);

/// How an act is done to a node; the database is the one under drill.
pub(super) type Inject = fn(&mut Lab, &DatabaseName, &NodeName) -> Result<Evidence>;

/// One thing that can be done to a node.
pub struct Act {
    /// Its name in what is handed to guards.
    pub(super) name: &'static str,
    /// What is done, with `{}` where the node's name stands.
    pub(super) words: &'static str,
    /// By which means of an ordinary kernel.
    pub(super) means: &'static str,
    /// How it ends when nobody takes it back.
    pub(super) ends: Ends,
    /// What takes it back; `None` when it is over in a moment, or takes something back itself.
    pub(super) undo: Option<&'static Self>,
    /// What others must see of it.
    pub(super) shows: Shows,
    /// What the node must have.
    pub(super) needs: Needs,
    /// Does it.
    pub(super) inject: Inject,
}

/// How an act ends when nobody takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It is over in a moment.
    AtOnce,
    /// The kernel ends it: what it rests on has a timeout.
    ByKernel(Duration),
    /// A guard process on the same machine takes it back.
    ByGuard(Duration),
    /// The same, by a guard that the fault itself has started.
    ByOwnGuard(Duration),
}

/// By what others see that an act was really done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Nothing that is checked in general: what was expected of the system has to show it.
    Nothing,
    /// Nobody outside hears the node any more.
    Silence,
    /// The node's agent is another one than before.
    AnotherAgent,
    /// The node's agent does not answer.
    SilentAgent,
    /// The client's connection, which goes through the node, ends.
    EndedConnection,
    /// Other processes of the primary than before send its log.
    OtherSenders,
    /// Of what the prober asks the node's member while the fault lasts, so many of a hundred answers take so long.
    Late {
        /// How many of a hundred, at least.
        percent: u8,
        /// How long, at least.
        by: Duration,
    },
    /// Between two answers of the node's member to the prober lies so much time, at least once.
    Pause(Duration),
}

/// What a node must have so that an act can be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing beyond the lab.
    Nothing,
    /// A volume of its own for its databases.
    Volume,
    /// At least two lines.
    TwoLines,
    /// Clocks that can be changed for this node alone.
    Clock,
}

impl Act {
    /// An act that is over in a moment and shows in nothing by itself; `inject` must be given.
    pub(super) const ONCE: Self = Self {
        name: "",
        words: "",
        means: "",
        ends: Ends::AtOnce,
        undo: None,
        shows: Shows::Nothing,
        needs: Needs::Nothing,
        inject: nothing,
    };

    /// The same, taken back by `undo` and by a guard.
    pub(super) const fn until(undo: &'static Self) -> Self {
        Self { undo: Some(undo), ends: Ends::ByGuard(EXPIRES), ..Self::ONCE }
    }

    /// By which means it is done.
    pub const fn means(&self) -> &'static str {
        self.means
    }

    /// How it ends when nobody takes it back.
    pub const fn ends(&self) -> Ends {
        self.ends
    }

    /// What the node must have.
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    pub(super) fn on(&self, node: &NodeName) -> String {
        self.words.replace("{}", node.as_str())
    }

    fn find(name: &str) -> Option<&'static Self> {
        faults::acts().find(|act| act.name == name)
    }
}

fn nothing(_: &mut Lab, _: &DatabaseName, node: &NodeName) -> Result<Evidence> {
    Err(LabError::NotPossible {
        what: format!("doing something to {node}"),
        why: "nobody says what".to_owned(),
    })
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Act {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Act {}

pub(super) fn serialize_act<S: Serializer>(
    act: &&'static Act,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    act.name.serialize(serializer)
}

pub(super) fn deserialize_act<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<&'static Act, D::Error> {
    let name = String::deserialize(deserializer)?;
    Act::find(&name).ok_or_else(|| D::Error::custom(format!("there is no act `{name}`")))
}

/// Does one step and says what was seen of it. It waits for processes and files: not for a thread of an async runtime.
///
/// What lasts ends by itself, also when this process dies: by the kernel's clock, or by a guard process. The lab's record
/// knows of it ([`Lab::lasting`]) until a step has taken it back.
///
/// # Errors
/// Those of the faults, and [`LabError::NotPossible`] for what is asked of the system and not done to it.
pub fn act(lab: &mut Lab, database: &DatabaseName, step: &Step) -> Result<String> {
    let undo = step.undo();
    if !undo.is_empty() {
        lab.remember_fault(database, &undo, step.lasts() + GRACE)?;
    }
    if let Some(lasting) = step.guarded() {
        lab.set_guard(database, &undo, lasting)?;
    }
    let evidence = evidence(lab, database, step)?;
    lab.forget_fault(step)?;
    Ok(evidence.to_string())
}

/// Does one step and remembers nothing.
pub(crate) fn evidence(lab: &mut Lab, database: &DatabaseName, step: &Step) -> Result<Evidence> {
    match step {
        Step::Do { act, node } => (act.inject)(lab, database, node),
        Step::KillNodes(nodes) => lab.kill_nodes(nodes),
        Step::CutApart(nodes) => lab.separate_nodes(nodes, EXPIRES),
        Step::Part([one, other]) => lab.cut_between(one, other, Some(EXPIRES)),
        Step::Wait(time) => {
            let begun = effects::clock::now();
            thread::sleep(*time);
            Ok(Evidence::since(begun, "it is over"))
        }
        Step::OnPrimary { .. }
        | Step::AwaitWrites
        | Step::Switchover(_)
        | Step::HandTo(_)
        | Step::AskStatus => Err(LabError::NotPossible {
            what: format!("to {step}"),
            why: "the lab injects faults; this is asked of the system".to_owned(),
        }),
    }
}
