//! The archive that a kernel starts from: "newc", uncompressed.

use std::io::{self, Write};

/// Names what ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Directories, files: the kind in a mode.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// An archive that is being written.
pub(super) struct Cpio<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Cpio<W> {
    pub fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds a directory; those above it come first.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds a file that can be run.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, content)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = path.len() as u32 + 1;
        self.entries += 1;
        // Number, mode, owner, group, links, time, size, device and its own (two each), length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.padded(&[header.as_bytes(), path.as_bytes(), b"\0"].concat())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_begins_at_a_multiple_of_four() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.directory("bin").unwrap();
        cpio.file("init", b"#!/x\n").unwrap();
        let archive = cpio.finish().unwrap();
        let headers: Vec<usize> = archive
            .windows(6)
            .enumerate()
            .filter(|(_, window)| window == b"070701")
            .map(|(at, _)| at)
            .collect();
        // 110 bytes of header and 4 of name fill 116; then 110 and 5 fill 116, and 5 of content fill 8.
        assert_eq!(headers, [0, 116, 116 + 116 + 8]);
        assert_eq!(&archive[116 + 14..116 + 22], b"000081ed", "a file that can be run");
        assert_eq!(&archive[116 + 54..116 + 62], b"00000005", "of five bytes");
        assert!(archive.len().is_multiple_of(4));
    }
}
