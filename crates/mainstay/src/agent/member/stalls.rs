//! Which standbys stand still: they confirm nothing, although there is something to confirm.

use std::collections::BTreeMap;

use model::NodeName;
use model::postgres::Lsn;
use model::time::Moment;

/// What a standby has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Got {
    /// All up to here, for ever.
    pub(super) flushed: Lsn,
    /// What arrived last. After a new connection that is less than it has flushed, for a while: it gets the log file that it
    /// is in from the beginning on. Over a slow line that takes seconds, in which it does not stand still.
    pub(super) written: Lsn,
}

/// Since when each standby has not moved although it lacks something, and what it had confirmed then.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<NodeName, (Got, Moment)>);

impl Stalls {
    /// For how long, in milliseconds, `node` has stood still that has confirmed what it `got` of all that was `written`.
    pub(super) fn look(&mut self, node: &NodeName, got: Got, written: Lsn, now: Moment) -> u32 {
        if got.flushed >= written {
            self.0.remove(node);
            return 0;
        }
        let stall = self.0.entry(node.clone()).or_insert((got, now));
        if got != stall.0 {
            *stall = (got, now);
        }
        u32::try_from(now.since(stall.1).as_millis()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_again_what_it_has_does_not_stand_still() {
        let (mut stalls, node) = (Stalls::default(), NodeName::new("b"));
        let mut look = |flushed, written, ms| {
            let got = Got { flushed: Lsn(flushed), written: Lsn(written) };
            stalls.look(&node, got, Lsn(900), Moment::from_millis(ms))
        };
        assert_eq!(look(900, 900, 0), 0, "it lacks nothing");
        assert_eq!([look(800, 800, 100), look(800, 800, 600)], [0, 500]);
        assert_eq!(look(800, 100, 700), 0, "it has connected anew, and gets its file from the beginning");
        assert_eq!([look(800, 500, 1200), look(800, 500, 1300)], [0, 100]);
        assert_eq!([look(850, 850, 1400), look(850, 850, 2900)], [0, 1500]);
        assert_eq!(look(900, 900, 3000), 0);
    }
}
