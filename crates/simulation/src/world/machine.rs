//! One machine of the world, with its agent and its member.

use decide::agent::{Agent, Durable, Input};
use decide::member::Action;
use model::NodeName;
use model::time::Moment;

use crate::clock::{Clock, MOST_DRIFT};
use crate::postgres::Postgres;
use crate::random::Random;
use crate::system;

/// One machine.
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) up: bool,
    pub(crate) frozen: bool,
    /// Whether only its agent stands still.
    pub(crate) stalled: bool,
    pub(crate) clock: Clock,
    pub(crate) disk_hangs_since: Option<Moment>,
    /// Since when no long packet from or to it has arrived.
    pub(crate) narrow_since: Option<Moment>,
    pub(crate) agent: Option<Agent>,
    /// Counts the runs of the agent; whatever belongs to an earlier one is void.
    pub(crate) run: u64,
    pub(crate) durable: Durable,
    pub(crate) postgres: Postgres,
    pub(crate) gate_until: Option<Moment>,
    pub(crate) action: Option<Action>,
    /// What arrived while it was frozen.
    pub(crate) backlog: Vec<Input>,
    /// What the store told it last.
    pub(crate) seen_revision: u64,
    pub(crate) seen_placement: u64,
    pub(crate) seen_paused: Option<String>,
    /// What the server's settings were when its agent asked last: server, part, value, wish, floor, run.
    pub(crate) asked_settings: Option<(i64, bool, u32, u32, u32, u64)>,
}

impl Machine {
    pub(super) fn new(index: usize, random: &mut Random) -> Self {
        let ahead = random.between(0, 1_000_000_000);
        let drift = u32::try_from(random.below(usize::try_from(MOST_DRIFT).unwrap_or(0))).unwrap_or(0);
        Self {
            name: system::node_name(index),
            up: false,
            frozen: false,
            stalled: false,
            clock: Clock { ahead, drift },
            disk_hangs_since: None,
            narrow_since: None,
            agent: None,
            run: 0,
            durable: Durable::default(),
            postgres: Postgres::empty(),
            gate_until: None,
            action: None,
            backlog: vec![],
            seen_revision: 0,
            seen_placement: 0,
            seen_paused: None,
            asked_settings: None,
        }
    }

    /// Whether its agent stands still, alone or with the machine.
    pub(crate) fn is_deaf(&self) -> bool {
        self.frozen || self.stalled
    }
}
