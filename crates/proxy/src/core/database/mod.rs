//! Database routes: who may connect where, who waits, and what a change of the table closes.

mod admission;
pub mod answer;
mod attendance;
pub mod conversation;
pub mod first_message;
mod patience;
mod view;

pub use admission::{Admission, Counters, Drained, ParkFull};
pub use attendance::Attendance;
pub use patience::{Patience, RETRY_LONGEST};
pub use view::{Verdict, View, sent_away};
