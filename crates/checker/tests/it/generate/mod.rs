//! Valid histories: a correct serial system is played, with concurrent clients, failures and unknown outcomes.

pub(crate) mod append;
pub(crate) mod bank;
pub(crate) mod register;
pub(crate) mod set;

use checker::{Operation, Outcome};
use model::time::Moment;

use crate::rng::Rng;

/// When an operation begins, takes effect (if it does), and ends.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) client: u32,
    pub(crate) invoked: u64,
    pub(crate) effect: Option<u64>,
    pub(crate) outcome: Outcome,
}

/// How large a history is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clients: u32,
    pub(crate) each: u32,
}

pub(crate) const USUAL: Size = Size { clients: 4, each: 8 };

pub(crate) fn at(micros: u64) -> Moment {
    Moment::from_micros(micros)
}

/// Clients that each do one thing after another. An effect lies between beginning and end; that of an unknown outcome
/// may come much later, or never.
pub(crate) fn schedule(rng: &mut Rng, size: Size) -> Vec<Slot> {
    let mut slots = Vec::new();
    for client in 0..size.clients {
        let mut now = rng.below(100);
        for _ in 0..size.each {
            let invoked = now + rng.below(50);
            let lasts = 1 + rng.below(200);
            let roll = rng.below(100);
            let (effect, outcome) = match roll {
                0..75 => (Some(invoked + rng.below(lasts + 1)), Outcome::Ok(at(invoked + lasts))),
                75..87 => (None, Outcome::Failed),
                _ => {
                    let later = rng.percent(60).then(|| invoked + rng.below(lasts * 8));
                    (later, Outcome::Unknown)
                }
            };
            slots.push(Slot { client, invoked, effect, outcome });
            now = invoked + lasts + rng.below(30);
        }
    }
    slots
}

/// Two reads of everything when all clients are done, by new clients and one after the other.
pub(crate) fn last_looks(slots: &[Slot]) -> [Slot; 2] {
    let ends = slots.iter().map(|slot| match slot.outcome {
        Outcome::Ok(at) => at.as_micros(),
        Outcome::Failed | Outcome::Unknown => slot.invoked,
    });
    let end = ends.max().unwrap_or(0) + 10;
    [0, 1].map(|number| {
        let invoked = end + number * 100;
        let effect = Some(invoked + 5);
        let client = 1000 + u32::try_from(number).unwrap();
        Slot { client, invoked, effect, outcome: Outcome::Ok(at(invoked + 50)) }
    })
}

impl Slot {
    pub(crate) fn operation<A>(&self, action: A) -> Operation<A> {
        Operation { client: self.client, invoked: at(self.invoked), outcome: self.outcome, action }
    }

    pub(crate) fn is_ok(&self) -> bool {
        match self.outcome {
            Outcome::Ok(_) => true,
            Outcome::Failed | Outcome::Unknown => false,
        }
    }
}

/// The slots that take effect, in the order in which they do.
pub(crate) fn in_order(slots: &[Slot]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..slots.len()).filter(|slot| slots[*slot].effect.is_some()).collect();
    order.sort_by_key(|slot| slots[*slot].effect);
    order
}
