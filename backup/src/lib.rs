//! The file that a backup is: written by a director, checked by anybody, read by the first replica of a restored fleet.
//!
//! It says what it is (fleet, position, time), holds every row of the state and, if asked for, every blob, and ends with
//! how many there were. Each record has a checksum, so that damage has a place and a name; a SHA-256 over all of it says
//! that nothing was added, lost or moved. `docs/operations.md` has the layout for whoever wants to read one without us.
//!
//! # What it is not
//!
//! It knows no table and no row: keys and values are bytes. It neither encrypts nor signs: secrets in rows are sealed
//! under the fleet's key already, and the rest is readable by whoever has the file.
//!
//! # What it keeps
//!
//! * One record is in memory at a time, on both sides.
//! * Half a file is never taken for a whole one, nor a damaged one for a sound one.
//! * What was written once is readable for ever: [`FORMAT`] counts up, and the frame of the first record never changes.
//!
//! Read next: [`Encoder`], [`Reader`], [`verify`](verify()).

mod encode;
mod frame;
mod read;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use encode::Encoder;
pub use read::{Item, ReadError, Reader};
pub use verify::{Report, verify};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What a file begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format, [`FORMAT`].
    pub format: u32,
    /// The fleet's id.
    pub cluster_id: String,
    /// The fleet's name.
    pub fleet: String,
    /// The last entry of the log that is in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// When it was taken, on the clock of the replica that took it.
    pub taken_at_unix_ms: i64,
    /// The version of the program that took it.
    pub version: String,
    /// What a program must know to understand the rows.
    pub feature_level: u32,
    /// Whether blobs are in it.
    pub with_blobs: bool,
    /// The tables that the writer knew: the first byte of a row's key, and the name.
    pub tables: Vec<(u8, String)>,
}

/// How much is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the state.
    pub rows: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Rows by table.
    pub tables: BTreeMap<String, u64>,
    /// Blobs that the fleet knows of and no replica has any more: they are in no backup either.
    #[serde(default)]
    pub absent: Vec<String>,
}

impl Header {
    /// Returns the name of the table that a row's key belongs to.
    fn table(&self, key: &[u8]) -> &str {
        let id = key.first();
        let found = self.tables.iter().find(|(number, _)| Some(number) == id);
        found.map_or("unknown", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests;
