//! Output as a client followed it is byte for byte what is stored: no gap, no repeat, to the end.
//!
//! The pieces are taken as they came, over all the streams that the client needed; each says where it begins.

use std::fmt;

use crate::Findings;

/// A piece as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, as its sender says.
    pub offset: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// How far the client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was told that this was all.
    End,
    /// It was cut off, or stopped.
    Somewhere,
}

/// One followed output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Which one, for people.
    pub name: String,
    /// The pieces, in the order in which they came.
    pub pieces: Vec<Piece>,
    /// How far it went.
    pub reached: Reached,
    /// What is stored.
    pub stored: Vec<u8>,
}

/// What is wrong with a followed output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which output.
    pub name: String,
    /// The number of the piece; that of pieces, if it is about the end.
    pub piece: usize,
    /// What is wrong.
    pub what: Wrong,
}

/// The ways to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Bytes were left out.
    Gap {
        /// Where the piece should have begun.
        expected: u64,
        /// Where it began.
        offset: u64,
    },
    /// Bytes came again.
    Repeat {
        /// Where the piece should have begun.
        expected: u64,
        /// Where it began.
        offset: u64,
    },
    /// A byte is another one than the stored.
    Differs {
        /// The first such byte.
        at: u64,
    },
    /// More came than is stored.
    Beyond {
        /// How much is stored.
        stored: u64,
        /// How far it went.
        reached: u64,
    },
    /// The client was told that this was all, and it was not.
    CutShort {
        /// How much is stored.
        stored: u64,
        /// How far it went.
        reached: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, piece {}: ", self.name, self.piece)?;
        match &self.what {
            Wrong::Gap { expected, offset } => write!(f, "bytes {expected} to {offset} are missing"),
            Wrong::Repeat { expected, offset } => {
                write!(f, "begins at {offset}, but everything before {expected} had come already")
            }
            Wrong::Differs { at } => write!(f, "byte {at} is not the stored one"),
            Wrong::Beyond { stored, reached } => write!(f, "reaches {reached}, but only {stored} are stored"),
            Wrong::CutShort { stored, reached } => {
                write!(f, "the client was told that {reached} bytes are all, but {stored} are stored")
            }
        }
    }
}

/// Judges followed outputs.
pub fn check(outputs: &[Followed]) -> Findings<Violation> {
    let pieces = outputs.iter().map(|output| output.pieces.len()).sum();
    let bytes = outputs.iter().flat_map(|output| &output.pieces).map(|piece| piece.bytes.len()).sum();
    Findings {
        looked_at: vec![("outputs", outputs.len()), ("pieces", pieces), ("bytes", bytes)],
        violations: outputs.iter().flat_map(check_one).collect(),
        undecided: Vec::new(),
    }
}

fn check_one(output: &Followed) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let (stored, mut expected) = (output.stored.len() as u64, 0_u64);
    for (number, piece) in output.pieces.iter().enumerate() {
        let offset = piece.offset;
        match offset.cmp(&expected) {
            std::cmp::Ordering::Greater => wrong.push((number, Wrong::Gap { expected, offset })),
            std::cmp::Ordering::Less => wrong.push((number, Wrong::Repeat { expected, offset })),
            std::cmp::Ordering::Equal => {}
        }
        // Where bytes do not fit, the ones after them are judged by where they say they are.
        expected = offset.saturating_add(piece.bytes.len() as u64);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(output.stored.len());
        let differs = piece.bytes.iter().zip(&output.stored[from..]).position(|(got, stored)| got != stored);
        wrong.extend(differs.map(|at| (number, Wrong::Differs { at: offset + at as u64 })));
        if expected > stored {
            wrong.push((number, Wrong::Beyond { stored, reached: expected }));
        }
    }
    if output.reached == Reached::End && expected < stored {
        wrong.push((output.pieces.len(), Wrong::CutShort { stored, reached: expected }));
    }
    wrong.into_iter().map(|(piece, what)| Violation { name: output.name.clone(), piece, what }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pieces: &[(u64, &str)], reached: Reached, stored: &str) -> Vec<(usize, Wrong)> {
        let pieces =
            pieces.iter().map(|(offset, text)| Piece { offset: *offset, bytes: text.as_bytes().to_vec() });
        let output =
            Followed { name: "task 7".into(), pieces: pieces.collect(), reached, stored: stored.into() };
        check(&[output]).violations.into_iter().map(|violation| (violation.piece, violation.what)).collect()
    }

    #[test]
    fn pieces_that_make_up_the_stored_output_are_fine_however_they_are_cut() {
        assert_eq!(found(&[(0, "abc"), (3, ""), (3, "def")], Reached::End, "abcdef"), []);
        assert_eq!(found(&[], Reached::End, ""), []);
        assert_eq!(found(&[(0, "ab")], Reached::Somewhere, "abcdef"), []);
    }

    #[test]
    fn each_way_to_be_wrong_has_its_name() {
        let stored = "abcdef";
        let gap = (1, Wrong::Gap { expected: 2, offset: 3 });
        assert_eq!(found(&[(0, "ab"), (3, "def")], Reached::End, stored), [gap]);
        let repeat = (1, Wrong::Repeat { expected: 3, offset: 2 });
        assert_eq!(found(&[(0, "abc"), (2, "cdef")], Reached::End, stored), [repeat]);
        let differs = (1, Wrong::Differs { at: 4 });
        assert_eq!(found(&[(0, "abc"), (3, "dXf")], Reached::End, stored), [differs]);
        let beyond = (1, Wrong::Beyond { stored: 6, reached: 7 });
        assert_eq!(found(&[(0, "abc"), (3, "defg")], Reached::End, stored), [beyond]);
        let short = (1, Wrong::CutShort { stored: 6, reached: 3 });
        assert_eq!(found(&[(0, "abc")], Reached::End, stored), [short]);
    }

    #[test]
    fn a_piece_from_nowhere_does_not_confuse_the_checker() {
        let far = u64::MAX - 1;
        let expected = [
            (0, Wrong::Gap { expected: 0, offset: far }),
            (0, Wrong::Beyond { stored: 3, reached: u64::MAX }),
        ];
        assert_eq!(found(&[(far, "abc")], Reached::Somewhere, "abc"), expected);
    }

    #[test]
    fn is_told_to_people() {
        let what = Wrong::Gap { expected: 2, offset: 3 };
        let told = Violation { name: "task 7".into(), piece: 1, what }.to_string();
        assert_eq!(told, "task 7, piece 1: bytes 2 to 3 are missing");
    }

    proptest! {
        #[test]
        fn any_cut_passes_and_one_piece_lost_or_doubled_does_not(
            stored in "[a-c]{1,40}",
            cuts in prop::collection::btree_set(1..40_usize, 0..6),
            victim in 0..7_usize,
        ) {
            let mut edges: Vec<usize> = cuts.into_iter().filter(|cut| *cut < stored.len()).collect();
            edges.insert(0, 0);
            edges.push(stored.len());
            let pieces: Vec<(u64, &str)> =
                edges.windows(2).map(|edge| (edge[0] as u64, &stored[edge[0]..edge[1]])).collect();
            prop_assert_eq!(found(&pieces, Reached::End, &stored), []);
            let victim = victim % pieces.len();
            let mut lost = pieces.clone();
            lost.remove(victim);
            prop_assert_ne!(found(&lost, Reached::End, &stored), []);
            let mut doubled = pieces.clone();
            doubled.insert(victim, pieces[victim]);
            prop_assert_ne!(found(&doubled, Reached::End, &stored), []);
        }
    }
}
