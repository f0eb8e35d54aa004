//! Chance as an input: fresh UUIDs drawn from a seed, so that one seed gives one plan.

use sha2::{Digest, Sha256};

/// Thirty-two bytes of chance, drawn once by the proposer of a task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// A source of fresh UUIDs.
pub trait Ids {
    /// Returns the next UUID as text.
    fn next(&mut self) -> String;
}

/// UUIDs of one purpose. Two purposes of one seed never share an id, so drafting and planning stay independent.
#[derive(Clone, Debug)]
pub struct SeededIds {
    seed: Seed,
    purpose: &'static str,
    drawn: u64,
}

impl SeededIds {
    /// Starts the sequence of `purpose`.
    pub fn new(seed: Seed, purpose: &'static str) -> Self {
        Self { seed, purpose, drawn: 0 }
    }
}

impl Ids for SeededIds {
    fn next(&mut self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seed.0);
        hash.update(self.purpose.as_bytes());
        hash.update(self.drawn.to_be_bytes());
        self.drawn += 1;
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        // Version 4, variant 1: what every reader of a UUID expects of a random one.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        uuid::Uuid::from_bytes(bytes).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_per_purpose() {
        let seed = Seed([7; 32]);
        let draw = |purpose| {
            let mut ids = SeededIds::new(seed, purpose);
            [ids.next(), ids.next()]
        };
        assert_eq!(draw("agents"), draw("agents"));
        assert_ne!(draw("agents"), draw("disks"));
        assert_ne!(draw("agents")[0], draw("agents")[1]);
        assert_eq!(uuid::Uuid::parse_str(&draw("agents")[0]).unwrap().get_version_num(), 4);
    }
}
