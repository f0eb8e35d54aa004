//! Reading a backup from its beginning to its end; nothing in it is believed before its checksum is.

use std::io::{self, Read};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::frame::{self, DIGEST_BYTES, Kind, MAGIC, PAYLOAD_BYTES_MAX};
use crate::{Counts, FORMAT, Header};

/// Why a file, or a record of it, was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error("failed to read the backup")]
    Io(#[source] io::Error),
    /// It is something else, or its very beginning is damaged.
    #[error("this is no backup, or its beginning is damaged")]
    NotABackup,
    /// A later version wrote it.
    #[error("the backup has format {found}, this program reads up to {FORMAT}: use a newer one")]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// A record is not what was written. The ones after it can still be read.
    #[error("record {record} at byte {at} ({what}) is damaged")]
    Record {
        /// Its number, from 0, the header's.
        record: u64,
        /// Where it begins.
        at: u64,
        /// What it seems to be.
        what: String,
    },
    /// Nothing after this place can be told apart any more.
    #[error("from byte {at} on, in record {record}, nothing can be read: {why}")]
    Lost {
        /// The record's number, from 0.
        record: u64,
        /// Where it begins.
        at: u64,
        /// What stood there.
        why: &'static str,
    },
    /// A blob's content is not what its address says.
    #[error("blob {digest} is damaged")]
    Blob {
        /// Its address.
        digest: String,
    },
    /// Every record is sound, and together they are not what was written.
    #[error("the backup is not what was written: {0}")]
    Whole(&'static str),
}

impl ReadError {
    /// Returns whether more can be read after it.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::Blob { .. })
    }
}

/// A piece of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A row of the state.
    Row {
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// A blob begins.
    Blob {
        /// Its address: SHA-256 in hex.
        digest: String,
        /// Its length.
        size_bytes: u64,
    },
    /// More of that blob's content. The last piece comes only if the whole content is what the address says.
    Data(Vec<u8>),
}

#[derive(Deserialize)]
struct BlobHead {
    digest: String,
    size_bytes: u64,
}

/// A blob whose content is being read.
struct Open {
    head: BlobHead,
    left: u64,
    sha: Sha256,
}

/// Reads a file piece by piece.
pub struct Reader<R> {
    input: R,
    header: Header,
    counts: Counts,
    sha: Sha256,
    record: u64,
    at: u64,
    blob: Option<Open>,
    /// Whether something was passed over: content may follow then whose beginning is lost.
    damaged: bool,
    /// The file's SHA-256, once its end was read.
    digest: Option<String>,
}

impl<R: Read> Reader<R> {
    /// Reads what a file begins with.
    pub fn open(input: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            input,
            header: Header::default(),
            counts: Counts::default(),
            sha: Sha256::new(),
            record: 0,
            at: 0,
            blob: None,
            damaged: false,
            digest: None,
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic)?;
        if magic != *MAGIC {
            return Err(ReadError::NotABackup);
        }
        reader.sha.update(magic);
        reader.at = MAGIC.len() as u64;
        let first = reader.frame().map_err(|error| match error {
            ReadError::Io(_) => error,
            _ => ReadError::NotABackup,
        })?;
        let (Kind::Header, text) = first else { return Err(ReadError::NotABackup) };
        reader.header = serde_json::from_slice(&text).map_err(|_| ReadError::NotABackup)?;
        match reader.header.format {
            found if found > FORMAT => Err(ReadError::TooNew { found }),
            _ => Ok(reader),
        }
    }

    /// Returns what the file is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns how much was read so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the file's SHA-256 in hex, once its end was read and is right.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Returns the next piece; none at the end, if the file is whole and what was written.
    pub fn item(&mut self) -> Result<Option<Item>, ReadError> {
        if self.digest.is_some() {
            return Ok(None);
        }
        let (record, at) = (self.record, self.at);
        let (kind, payload) = self.frame()?;
        let wrong = |what: &str| ReadError::Record { record, at, what: what.into() };
        match kind {
            Kind::Header => Err(wrong("a second header")),
            Kind::Row => self.row(payload).ok_or_else(|| wrong("a row")).map(Some),
            Kind::Blob => {
                let head: BlobHead =
                    serde_json::from_slice(&payload).map_err(|_| wrong("the beginning of a blob"))?;
                self.begin_blob(head).map(Some)
            }
            Kind::Data => self.data(payload).map(Some),
            Kind::End => self.end(&payload).map(|()| None),
        }
    }

    fn row(&mut self, payload: Vec<u8>) -> Option<Item> {
        let (length, rest) = payload.split_first_chunk::<4>()?;
        let (key, value) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.counts.rows += 1;
        let table = self.header.table(key);
        *self.counts.tables.entry(table.to_owned()).or_default() += 1;
        Some(Item::Row { key: key.to_vec(), value: value.to_vec() })
    }

    fn begin_blob(&mut self, head: BlobHead) -> Result<Item, ReadError> {
        if let Some(open) = self.blob.take() {
            return Err(ReadError::Blob { digest: open.head.digest });
        }
        self.counts.blobs += 1;
        self.counts.blob_bytes += head.size_bytes;
        let item = Item::Blob { digest: head.digest.clone(), size_bytes: head.size_bytes };
        let open = Open { left: head.size_bytes, head, sha: Sha256::new() };
        self.blob = if open.left == 0 { None } else { Some(open) };
        Ok(item)
    }

    fn data(&mut self, piece: Vec<u8>) -> Result<Item, ReadError> {
        let Some(mut open) = self.blob.take() else {
            return match self.damaged {
                true => Ok(Item::Data(piece)),
                false => Err(ReadError::Whole("there is content that belongs to no blob")),
            };
        };
        let Some(left) = open.left.checked_sub(piece.len() as u64) else {
            return Err(ReadError::Blob { digest: open.head.digest });
        };
        open.sha.update(&piece);
        open.left = left;
        if left > 0 {
            self.blob = Some(open);
            return Ok(Item::Data(piece));
        }
        match hex::encode(open.sha.finalize()) == open.head.digest {
            true => Ok(Item::Data(piece)),
            false => Err(ReadError::Blob { digest: open.head.digest }),
        }
    }

    fn end(&mut self, payload: &[u8]) -> Result<(), ReadError> {
        let computed = self.sha.clone().finalize();
        let mut stored = [0; DIGEST_BYTES];
        self.fill(&mut stored)?;
        let counts: Option<Counts> = serde_json::from_slice(payload).ok();
        if let Some(open) = self.blob.take() {
            return Err(ReadError::Blob { digest: open.head.digest });
        }
        if let Some(counts) = &counts {
            self.counts.absent.clone_from(&counts.absent);
        }
        if counts.as_ref() != Some(&self.counts) {
            return Err(ReadError::Whole("records are missing, or there are too many"));
        }
        if stored[..] != computed[..] {
            return Err(ReadError::Whole("its SHA-256 is another one"));
        }
        if self.input.read(&mut [0]).map_err(ReadError::Io)? != 0 {
            return Err(ReadError::Whole("something stands after its end"));
        }
        self.digest = Some(hex::encode(computed));
        Ok(())
    }

    /// Reads one record and checks it.
    fn frame(&mut self) -> Result<(Kind, Vec<u8>), ReadError> {
        let (record, at) = (self.record, self.at);
        let lost = |why| ReadError::Lost { record, at, why };
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let kind = Kind::of(kind).ok_or_else(|| lost("no record begins like that"))?;
        let length = u32::from_be_bytes(length);
        if length > PAYLOAD_BYTES_MAX {
            return Err(lost("no record is as long as it says"));
        }
        // Grows with what really comes: a damaged length reserves no memory.
        let mut payload = Vec::new();
        let limit = u64::from(length);
        (&mut self.input).take(limit).read_to_end(&mut payload).map_err(ReadError::Io)?;
        if payload.len() as u64 != limit {
            return Err(lost("the file ends in the middle of it"));
        }
        let mut stored = [0; 4];
        self.fill(&mut stored)?;
        self.sha.update(head);
        self.sha.update(&payload);
        self.sha.update(stored);
        self.record += 1;
        self.at += limit + 9;
        match frame::checksum(head, &[&payload]) == u32::from_be_bytes(stored) {
            true => Ok((kind, payload)),
            false => Err(ReadError::Record { record, at, what: self.describe(kind, &payload) }),
        }
    }

    /// Returns what a damaged record seems to be.
    fn describe(&mut self, kind: Kind, payload: &[u8]) -> String {
        self.damaged = true;
        match kind {
            Kind::Row => {
                let key = payload.get(4..).unwrap_or_default();
                format!("a row of table `{}`", self.header.table(key))
            }
            Kind::Data => match self.blob.take() {
                Some(open) => format!("content of blob {}", open.head.digest),
                None => "content of a blob".into(),
            },
            Kind::Blob => "the beginning of a blob".into(),
            Kind::Header => "the header".into(),
            Kind::End => "the end".into(),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        let (record, at) = (self.record, self.at);
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof if at == 0 => ReadError::NotABackup,
            io::ErrorKind::UnexpectedEof => {
                ReadError::Lost { record, at, why: "the file ends in the middle of it" }
            }
            _ => ReadError::Io(error),
        })
    }
}
