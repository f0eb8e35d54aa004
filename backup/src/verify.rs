//! Looking whether a backup is sound, without a fleet.

use std::io::Read;

use crate::{Counts, Header, ReadError, Reader};

/// Damages that are named; a file with more is named enough.
const DAMAGES_MAX: usize = 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the file is.
    pub header: Header,
    /// What could be read of it.
    pub counts: Counts,
    /// Its SHA-256, if it is sound.
    pub sha256: Option<String>,
    /// What is damaged; nothing if it is sound.
    pub damages: Vec<String>,
}

/// Reads a whole backup. Fails only if it is none, or can't be read at all; damage is part of the answer.
pub fn verify(input: impl Read) -> Result<Report, ReadError> {
    let mut reader = Reader::open(input)?;
    let mut damages = Vec::new();
    loop {
        match reader.item() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error @ ReadError::Io(_)) => return Err(error),
            // Records are missing, of course, where damaged ones were passed over.
            Err(ReadError::Whole(_)) if !damages.is_empty() => break,
            Err(error) => {
                damages.push(error.to_string());
                if !error.goes_on() || damages.len() == DAMAGES_MAX {
                    break;
                }
            }
        }
    }
    Ok(Report {
        header: reader.header().clone(),
        counts: reader.counts().clone(),
        sha256: reader.digest().filter(|_| damages.is_empty()).map(str::to_owned),
        damages,
    })
}
