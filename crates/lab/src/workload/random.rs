//! Chance for clients: even and fast, not secret (`SplitMix64`; Steele, Lea, Flood 2014).

use effects::clock;

/// A source of chance.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// One that nobody else has: by the clock and the number of a client.
    pub(super) fn of_client(client: u32) -> Self {
        Self(clock::now().as_micros() ^ (u64::from(client) << 48))
    }

    /// A number from 0 on, less than `end`; 0 when `end` is.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(end).unwrap_or(0)
    }

    /// True this often of a hundred times.
    pub(super) fn percent(&mut self, often: u64) -> bool {
        self.below(100) < often
    }
}
