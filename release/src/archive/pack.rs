//! Writing tgz archives whose bytes depend on nothing but names, modes and contents.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use flate2::{Compression, GzBuilder, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// How the content of an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Small.
    Compressed,
    /// As it is, within the same format: for what is compressed already, and readers that expect a gzip.
    Stored,
}

/// Writes a reproducible tgz: entries in the caller's order, owner 0, time 0.
pub struct TgzWriter<W: Write> {
    tar: Builder<GzEncoder<W>>,
}

impl<W: Write> TgzWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self::packed(out, Packing::Compressed)
    }

    /// Starts an archive whose content is packed as given.
    pub fn packed(out: W, packing: Packing) -> Self {
        let level = match packing {
            Packing::Compressed => Compression::default(),
            Packing::Stored => Compression::none(),
        };
        // Operating system 255 ("unknown"): the same bytes on every machine.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, level);
        Self { tar: Builder::new(gzip) }
    }

    /// Adds a file that is in memory.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.stream(name, mode, content.len() as u64, content)
    }

    /// Adds a file of `bytes` bytes that streams.
    pub fn stream(&mut self, name: &str, mode: u32, bytes: u64, content: impl Read) -> io::Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(bytes);
        self.append(header, name, content)
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.append(header(EntryType::Directory, 0o755), name, io::empty())
    }

    /// Writes a name as it is: the library would drop the `./` that BOSH's inner archives have.
    fn append(&mut self, mut header: Header, name: &str, content: impl Read) -> io::Result<()> {
        let field = &mut header.as_old_mut().name;
        if name.len() > field.len() || name.split('/').any(|part| part == "..") || name.starts_with('/') {
            return self.tar.append_data(&mut header, name, content);
        }
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.tar.append(&header, content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &Path) -> io::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777);
        if header.set_link_name_literal(target.as_os_str().as_bytes()).is_err() {
            return self.tar.append_link(&mut header, name, target); // Too long for the plain field.
        }
        self.append(header, name, io::empty())
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_give_equal_bytes() {
        let pack = || {
            let mut tgz = TgzWriter::new(Vec::new());
            tgz.folder("./bin/").unwrap();
            tgz.file("./bin/run", 0o755, b"#!/bin/sh\n").unwrap();
            tgz.symlink("./link", Path::new("bin/run")).unwrap();
            tgz.file(&format!("./{}x", "long/".repeat(40)), 0o644, b"deep").unwrap();
            tgz.finish().unwrap()
        };
        let (one, two) = (pack(), pack());
        assert_eq!(one, two);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&one[..]));
        let found: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().header().mtime().unwrap()).collect();
        assert_eq!(found, [0; 4]);
    }
}
