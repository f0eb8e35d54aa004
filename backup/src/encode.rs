//! Writing a backup, as bytes: whoever calls knows where they go.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::frame::{self, Kind, MAGIC};
use crate::{Counts, Header};

/// Turns rows and blobs into the bytes of a file. What is returned must be written in order, all of it.
pub struct Encoder {
    header: Header,
    counts: Counts,
    sha: Sha256,
}

impl Encoder {
    /// Begins a file; returns its first bytes.
    pub fn begin(header: Header) -> (Self, Vec<u8>) {
        let mut encoder = Self { header, counts: Counts::default(), sha: Sha256::new() };
        let mut bytes = MAGIC.to_vec();
        encoder.sha.update(MAGIC);
        let text =
            serde_json::to_vec(&encoder.header).expect("a header has nothing that JSON has no word for");
        bytes.extend(encoder.record(Kind::Header, &[&text]));
        (encoder, bytes)
    }

    /// Adds a row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Vec<u8> {
        self.counts.rows += 1;
        let table = self.header.table(key);
        match self.counts.tables.get_mut(table) {
            Some(count) => *count += 1,
            None => drop(self.counts.tables.insert(table.to_owned(), 1)),
        }
        self.record(Kind::Row, &[&length(key.len()).to_be_bytes(), key, value])
    }

    /// Begins a blob. Its content must follow, [piece](Encoder::data) by piece.
    pub fn blob(&mut self, digest: &str, size_bytes: u64) -> Vec<u8> {
        self.counts.blobs += 1;
        self.counts.blob_bytes += size_bytes;
        let text = json!({ "digest": digest, "size_bytes": size_bytes }).to_string();
        self.record(Kind::Blob, &[text.as_bytes()])
    }

    /// Adds a piece of the blob that has begun.
    pub fn data(&mut self, piece: &[u8]) -> Vec<u8> {
        self.record(Kind::Data, &[piece])
    }

    /// Notes a blob that should be in the file and can't.
    pub fn absent(&mut self, digest: &str) {
        self.counts.absent.push(digest.to_owned());
    }

    /// Ends the file.
    pub fn end(mut self) -> Vec<u8> {
        let text = serde_json::to_vec(&self.counts).expect("counts have nothing that JSON has no word for");
        let mut bytes = self.record(Kind::End, &[&text]);
        bytes.extend(self.sha.finalize());
        bytes
    }

    fn record(&mut self, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
        let payload_bytes = length(parts.iter().map(|part| part.len()).sum());
        let head = frame::head(kind, payload_bytes);
        let mut bytes = Vec::with_capacity(payload_bytes as usize + 9);
        bytes.extend(head);
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes.extend(frame::checksum(head, parts).to_be_bytes());
        self.sha.update(&bytes);
        bytes
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("rows and pieces are far smaller than 4 GiB")
}
