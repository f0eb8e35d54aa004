//! Bytes of rows, entries and outcomes: MessagePack with named fields, so that old bytes stay readable when a type
//! gains a field.
//!
//! Types that go through here never use internally tagged enums: those would buffer their content, and addresses do
//! not survive that in MessagePack.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::{Entry, Outcome, StepRecord};

/// How deep an entry may nest. Manifests stay far below; the bound keeps hostile bytes from exhausting the stack.
const ENTRY_DEPTH_MAX: usize = 256;

/// How deep a stored row may nest: more than an entry, so that whatever came in can be read again.
const ROW_DEPTH_MAX: usize = 320;

/// Bytes that are no entry or outcome of this or an earlier version.
#[derive(Debug, thiserror::Error)]
#[error("failed to decode {what}")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: rmp_serde::decode::Error,
}

impl Entry {
    /// Returns the bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Returns the entry that `bytes` hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, ENTRY_DEPTH_MAX).map_err(|source| DecodeError { what: "a log entry", source })
    }
}

impl StepRecord {
    /// Returns how many bytes of an entry it takes.
    pub fn bytes(&self) -> usize {
        encode(self).len()
    }
}

impl Outcome {
    /// Returns the bytes that travel back to the proposer.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Returns the outcome that `bytes` hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, ENTRY_DEPTH_MAX).map_err(|source| DecodeError { what: "an outcome", source })
    }
}

/// Returns the bytes of `value`.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value)
        .expect("the state's types have no maps with odd keys and memory does not fail")
}

/// Returns the value that a row's `bytes` hold.
///
/// We wrote the row ourselves, so one that can't be read is damaged or was written by a newer version. Going on
/// without it would make this replica differ from the others: it stops instead.
pub(crate) fn decode_row<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> T {
    match decode(bytes, ROW_DEPTH_MAX) {
        Ok(value) => value,
        Err(error) => panic!("a row of table {table} is damaged or newer than this program: {error}"),
    }
}

/// Returns the value whose bytes travelled in pieces. They nest no deeper than if they had travelled in one entry.
pub(crate) fn decode_piece<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    decode(bytes, ENTRY_DEPTH_MAX).map_err(|source| DecodeError { what, source })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], depth_max: usize) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(depth_max);
    T::deserialize(&mut deserializer)
}
