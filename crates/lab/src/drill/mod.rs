//! Drills: a fault under load, what an outside client saw of it, and a verdict.
//!
//! ```text
//! run: is all redundant? -> load and prober start -> 2 s -> faults -> writes flow again -> recovery -> all redundant
//!      client (through the route) ─┐
//!      prober (at every member)   ─┼─> history ─> checker ─> report
//!      rows read afterwards       ─┘
//! ```
//!
//! The client and the prober know nothing of the system's own opinion of itself; the checker and the verdict are pure
//! functions of what they saw. How a fault is done and how the system's state is asked for is given by the caller:
//!
//! ```text
//! let clients = lab.client_runtime()?;                        // threads inside the clients' network
//! let options = Options::new(clients.handle().clone(), login);
//! let report = run(drill, runs, &options, async || status_of_the_system().await, async |step| match step {
//!     Step::Switchover(from) => ask_for_a_switchover(from).await,
//!     step => blocking(|| act(&mut lab, &database, step)).await,   // the lab's faults wait: not on a worker
//! }).await?;
//! ```

mod act;
mod catalogue;
mod checker;
mod client;
pub(crate) mod connector;
mod faults;
mod history;
mod mix;
mod page;
mod picture;
mod plan;
mod prober;
pub mod replay;
mod report;
mod run;
mod sabotage;
pub(crate) mod session;
mod soak;
mod step;
pub(crate) mod table;
mod timeline;

#[cfg(test)]
pub(crate) mod tests;

pub use self::checker::{Findings, Leadership, Overlap, Window, check, longest_gap};
pub(crate) use act::evidence;
pub use act::{Act, Ends, Needs, Shows, act};
pub use catalogue::{Drill, Layer, UnknownDrill};
pub use client::{Client, Ids, Target, WRITE_EVERY};
pub use history::{Answer, Copy, History, Member, Outcome, Role, Server, Write, WriteId, Writer};
pub use mix::Mix;
pub use page::markdown;
pub use picture::svg;
pub use plan::{Cast, Change, Expectation, Manner, Plan, Writes};
pub use prober::{ASK_EVERY, Prober};
pub use report::{Report, Run, Spread};
pub use run::{Account, DrillError, Entry, Options, SystemView, Writing, control, run, soak};
pub use sabotage::{Control, Sabotage, UnknownSabotage};
pub use session::Deadlines;
pub use soak::{Order, Row, Tally};
pub use step::Step;
pub use table::RunName;
pub use timeline::Timeline;
