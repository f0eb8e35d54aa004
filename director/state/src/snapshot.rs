//! The state as one stream of bytes, for backup files and for tests. (Replicas hand each other the store's own files.)
//!
//! A stream is a header, then every pair in the order of the keys, then an end that says how many there were and what
//! they add up to: half a file is never taken for a whole one.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::kv::{Direction, Kv, KvRead, Pair, Span};
use crate::tables;

/// The format that this version writes.
pub const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"DRSTATE\n";

/// The longest key or value that is read: far above any row, far below what would exhaust memory.
const PIECE_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// The length that stands where a key's would, at the end.
const END: u32 = u32::MAX;

/// What a stream begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format, [`FORMAT`].
    pub format: u16,
    /// The tables that the writer knew, by number and name.
    pub tables: Vec<(u8, String)>,
}

/// Why a stream was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The stream itself failed, or ended too early.
    #[error("failed to read the snapshot")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error("this is no snapshot of the state")]
    NotASnapshot,
    /// A later version wrote it.
    #[error("the snapshot has format {found}, this program reads up to {FORMAT}")]
    TooNew {
        /// Its format.
        found: u16,
    },
    /// It has a table that this version does not know, or knows under another name.
    #[error("the snapshot has a table {name} under number {id}, which this program does not know")]
    UnknownTable {
        /// The table's number.
        id: u8,
        /// Its name there.
        name: String,
    },
    /// A length in it is beyond all reason.
    #[error("the snapshot is damaged: a piece of {bytes} bytes")]
    TooLong {
        /// The length.
        bytes: u32,
    },
    /// Its content is not what the writer wrote.
    #[error("the snapshot is damaged: its checksum does not match after {pairs} pairs")]
    Damaged {
        /// Pairs read.
        pairs: u64,
    },
    /// The store is not empty.
    #[error("the store already holds a state")]
    NotEmpty,
}

/// Returns the stream in pieces of no particular size. Lazy: holds one pair in memory at a time.
pub fn export(kv: &dyn KvRead) -> impl Iterator<Item = Vec<u8>> {
    let tables = tables::ALL.iter().map(|table| (table.id, table.name.to_owned())).collect();
    let header = codec::encode(&Header { format: FORMAT, tables });
    let mut first = MAGIC.to_vec();
    put_piece(&mut first, &header);
    let mut sum = Checksum::new();
    let mut pairs = Some(kv.scan(Span { start: Vec::new(), end: None }, Direction::Forward));
    let rest = std::iter::from_fn(move || match pairs.as_mut()?.next() {
        Some(pair) => {
            sum.add(&pair);
            let mut piece = Vec::with_capacity(pair.0.len() + pair.1.len() + 8);
            put_piece(&mut piece, &pair.0);
            put_piece(&mut piece, &pair.1);
            Some(piece)
        }
        None => {
            pairs = None;
            let mut end = END.to_be_bytes().to_vec();
            end.extend(sum.pairs.to_be_bytes());
            end.extend(sum.hash.to_be_bytes());
            Some(end)
        }
    });
    std::iter::once(first).chain(rest)
}

/// Fills an empty store from a stream; returns how many pairs it had. After an error the store's content is useless.
pub fn import<K: Kv>(kv: &mut K, stream: &mut dyn Read) -> Result<u64, ImportError> {
    if kv.scan(Span { start: Vec::new(), end: None }, Direction::Forward).next().is_some() {
        return Err(ImportError::NotEmpty);
    }
    check_header(&read_header(stream)?)?;
    let mut sum = Checksum::new();
    loop {
        let length = read_length(stream)?;
        if length == END {
            let end = (read_u64(stream)?, read_u64(stream)?);
            let whole = end == (sum.pairs, sum.hash);
            return if whole { Ok(sum.pairs) } else { Err(ImportError::Damaged { pairs: sum.pairs }) };
        }
        let key = read_piece(stream, length)?;
        let length = read_length(stream)?;
        let pair = (key, read_piece(stream, length)?);
        sum.add(&pair);
        kv.put(pair.0, pair.1);
    }
}

/// Reads what a stream begins with, for tools that only want to know what they have.
pub fn read_header(stream: &mut dyn Read) -> Result<Header, ImportError> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).map_err(|_| ImportError::NotASnapshot)?;
    if magic != *MAGIC {
        return Err(ImportError::NotASnapshot);
    }
    let length = read_length(stream)?;
    let header = read_piece(stream, length)?;
    codec::decode_header(&header).map_err(|_| ImportError::NotASnapshot)
}

fn check_header(header: &Header) -> Result<(), ImportError> {
    if header.format > FORMAT {
        return Err(ImportError::TooNew { found: header.format });
    }
    let known = |id: u8, name: &str| tables::ALL.iter().any(|table| table.id == id && table.name == name);
    match header.tables.iter().find(|(id, name)| !known(*id, name)) {
        Some((id, name)) => Err(ImportError::UnknownTable { id: *id, name: name.clone() }),
        None => Ok(()),
    }
}

/// FNV-1a over everything, lengths included. It finds accidents; against malice, sign the file.
struct Checksum {
    pairs: u64,
    hash: u64,
}

impl Checksum {
    fn new() -> Self {
        Self { pairs: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }

    fn add(&mut self, pair: &Pair) {
        self.pairs += 1;
        for part in [&pair.0, &pair.1] {
            let length = (part.len() as u64).to_be_bytes();
            for byte in length.iter().chain(part) {
                self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
}

fn put_piece(out: &mut Vec<u8>, piece: &[u8]) {
    let length = u32::try_from(piece.len()).expect("rows are far smaller than 4 GiB");
    out.extend(length.to_be_bytes());
    out.extend(piece);
}

fn read_length(stream: &mut dyn Read) -> Result<u32, ImportError> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut dyn Read) -> Result<u64, ImportError> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_piece(stream: &mut dyn Read, length: u32) -> Result<Vec<u8>, ImportError> {
    if length > PIECE_BYTES_MAX {
        return Err(ImportError::TooLong { bytes: length });
    }
    // Grows with what really comes, so that a damaged length does not reserve memory for nothing.
    let mut piece = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut piece)?;
    if piece.len() == length as usize {
        return Ok(piece);
    }
    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MemoryKv;

    fn store() -> MemoryKv {
        let mut kv = MemoryKv::new();
        for byte in 1..20u8 {
            kv.put(vec![byte, 0], vec![byte; usize::from(byte)]);
        }
        kv
    }

    fn bytes(kv: &MemoryKv) -> Vec<u8> {
        export(kv).flatten().collect()
    }

    #[test]
    fn what_was_exported_comes_back() {
        for kv in [MemoryKv::new(), store()] {
            let mut copy = MemoryKv::new();
            import(&mut copy, &mut bytes(&kv).as_slice()).unwrap();
            assert_eq!(copy, kv);
        }
    }

    #[test]
    fn half_a_stream_is_no_stream() {
        let whole = bytes(&store());
        for cut in 0..whole.len() {
            assert!(import(&mut MemoryKv::new(), &mut &whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_row_is_found() {
        let whole = bytes(&store());
        let body = whole.len() - 60;
        for place in body..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            assert!(import(&mut MemoryKv::new(), &mut damaged.as_slice()).is_err(), "bit at {place}");
        }
    }

    #[test]
    fn a_filled_store_is_left_alone() {
        let (mut kv, stream) = (store(), bytes(&store()));
        assert!(matches!(import(&mut kv, &mut stream.as_slice()), Err(ImportError::NotEmpty)));
    }

    #[test]
    fn what_a_later_version_wrote_is_refused() {
        let table = |id, name: &str| Header { format: FORMAT, tables: vec![(id, name.to_owned())] };
        assert!(check_header(&table(0x20, "tasks")).is_ok());
        assert!(matches!(
            check_header(&table(0x20, "jobs")),
            Err(ImportError::UnknownTable { id: 0x20, .. })
        ));
        assert!(matches!(check_header(&table(0xf0, "new")), Err(ImportError::UnknownTable { id: 0xf0, .. })));
        let newer = Header { format: FORMAT + 1, tables: Vec::new() };
        assert!(matches!(check_header(&newer), Err(ImportError::TooNew { found: 2 })));
    }
}
