//! One record on disk: `kind, length, payload, CRC-32 of all three`. Numbers are big-endian.

/// What every file begins with.
pub(crate) const MAGIC: &[u8; 8] = b"DRBACKUP";

/// The longest payload: far above any row, far below what would exhaust memory.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 256 << 20;

/// The SHA-256 that every file ends with.
pub(crate) const DIGEST_BYTES: usize = 32;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the file is; JSON.
    Header,
    /// A row: length of the key, key, value.
    Row,
    /// A blob begins; JSON.
    Blob,
    /// Content of the blob that has begun.
    Data,
    /// How much there was; JSON.
    End,
}

impl Kind {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Header => b'H',
            Self::Row => b'R',
            Self::Blob => b'B',
            Self::Data => b'D',
            Self::End => b'E',
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::Row, Self::Blob, Self::Data, Self::End].into_iter().find(|k| k.byte() == byte)
    }
}

/// Returns the record's first five bytes.
pub(crate) fn head(kind: Kind, payload_bytes: u32) -> [u8; 5] {
    let [a, b, c, d] = payload_bytes.to_be_bytes();
    [kind.byte(), a, b, c, d]
}

/// Returns the checksum of a record.
pub(crate) fn checksum(head: [u8; 5], parts: &[&[u8]]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head);
    parts.iter().for_each(|part| sum.update(part));
    sum.finalize()
}
