//! Draws for the core's random choices.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    // RandomState is seeded by the system; zero would stop the generator.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8) | 1);
}

/// A draw: fast and even, not secret (xorshift64*; Marsaglia 2003, Vigna 2016).
pub(crate) fn draw() -> u64 {
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

/// Twelve bytes that were never drawn before and never will be: for what must be used once.
pub(crate) fn nonce() -> [u8; 12] {
    let mut nonce = [0; 12];
    // It fails only where the kernel has no random numbers; then the draws above are as good as can be had, and what is
    // sealed with a nonce twice (RFC 8452) shows no more than that it is the same.
    if aws_lc_rs::rand::fill(&mut nonce).is_err() {
        nonce[..8].copy_from_slice(&draw().to_be_bytes());
    }
    nonce
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_differ_and_spread() {
        let mut buckets = [0_u32; 4];
        (0..4000).for_each(|_| buckets[usize::try_from(super::draw() >> 62).unwrap()] += 1);
        assert!(buckets.iter().all(|count| (800..1200).contains(count)), "{buckets:?}");
    }
}
