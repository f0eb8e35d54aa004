//! Chance, out of one seed.
//!
//! Each party draws from a stream of its own, so that one that draws more often does not change the fate of the others.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// A stream of chance.
#[derive(Debug)]
pub struct Chance(SmallRng);

impl Chance {
    /// Returns the stream of `party` for `seed`.
    pub fn of(seed: u64, party: &str) -> Self {
        // FNV-1a: the same on every machine and in every version.
        let hash = party.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(SmallRng::seed_from_u64(seed ^ hash))
    }

    /// Returns a number from `min` to `max`, both included.
    pub fn between(&mut self, min: u64, max: u64) -> u64 {
        self.0.random_range(min..=max)
    }

    /// Returns whether something happens that happens so often in a thousand times.
    pub fn in_thousand(&mut self, often: u32) -> bool {
        self.0.random_range(0..1000) < often
    }

    /// Returns the stream itself, for those who draw by themselves.
    pub fn numbers(&mut self) -> &mut SmallRng {
        &mut self.0
    }

    /// Returns one of `choices`, which must not be empty.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.0.random_range(0..choices.len())]
    }
}
