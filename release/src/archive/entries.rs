//! Reading a tar, plain or gzipped, entry by entry and within bounds.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use model::ErrorCode;
use tar::{Archive, EntryType};

use super::ArchiveError;

/// What an archive may expand to. A bound is there to stop a bomb, not to judge a release: each is far above what
/// releases in the field have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries in the archive: the largest known release has some thousand files in one package.
    pub entries_max: u64,
    /// Bytes after decompression.
    pub bytes_max: u64,
    /// Bytes out per byte in, once [`Self::ratio_from_bytes`] have come out. Source code reaches 10, zeros 1000.
    pub ratio_max: u64,
    /// Below this size no ratio is alarming.
    pub ratio_from_bytes: u64,
}

impl Limits {
    /// For release and stemcell tarballs: their parts are compressed already, so the outer layer gains little.
    pub const TARBALL: Self =
        Self { entries_max: 20_000, bytes_max: 64 << 30, ratio_max: 100, ratio_from_bytes: 64 << 20 };
    /// For a package's files, which are only counted here and unpacked in a VM.
    pub const PACKAGE: Self =
        Self { entries_max: 1_000_000, bytes_max: 64 << 30, ratio_max: 300, ratio_from_bytes: 64 << 20 };
    /// For a job: texts that people wrote, read into memory one by one.
    pub const JOB: Self =
        Self { entries_max: 10_000, bytes_max: 64 << 20, ratio_max: 300, ratio_from_bytes: 1 << 20 };
}

/// Bytes of headers before an entry: its own, and extensions with long names, which the library reads into memory before
/// it says what the entry is. Linux has paths of 4 KiB.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// An entry of an archive.
pub(super) struct Item<'a> {
    /// The path without `./` in front and `/` at the end; never absolute, never with `..`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// The content, for files.
    pub content: &'a mut dyn Read,
    /// The content's length.
    pub bytes: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link to this path inside the archive, written like [`Item::path`].
    Link(String),
}

/// Whether to go on with the next entry.
pub(super) enum Next {
    Continue,
    Stop,
}

/// Why a walk through an archive ended early.
pub(super) enum Halt {
    /// The archive is broken or beyond its bounds.
    Broken(io::Error),
    /// An entry was refused for what it is.
    Refused(ArchiveError),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<ArchiveError> for Halt {
    fn from(error: ArchiveError) -> Self {
        Self::Refused(error)
    }
}

impl Halt {
    /// Returns the refusal, with `code` and `what` ("Extracting release archive") if the archive itself is broken.
    pub(super) fn refuse(self, code: ErrorCode, what: &str) -> ArchiveError {
        match self {
            Self::Refused(error) => error,
            Self::Broken(error) => ArchiveError::caused(code, format!("{what} failed: {error}"), error),
        }
    }
}

/// Calls `visit` for each entry. Errors of kind [`io::ErrorKind::InvalidData`] say what is wrong with the archive.
pub(super) fn for_each(
    source: impl Read,
    limits: Limits,
    mut visit: impl FnMut(Item<'_>) -> Result<Next, Halt>,
) -> Result<(), Halt> {
    let (read_bytes, header_bytes_left) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let mut source = BufReader::new(Counted { inner: source, bytes: read_bytes.clone() });
    let is_gzip = source.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read + '_> =
        if is_gzip { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
    let header_bytes = header_bytes_left.clone();
    let mut archive = Archive::new(Bounded { inner: plain, out: 0, read_bytes, header_bytes_left, limits });
    let mut count = 0;
    let mut entries = archive.entries()?;
    loop {
        header_bytes.set(Some(HEADER_BYTES_MAX));
        let Some(entry) = entries.next() else { break };
        header_bytes.set(None);
        let mut entry = entry?;
        count += 1;
        if count > limits.entries_max {
            return Err(invalid(format!("it has more than {} entries", limits.entries_max)).into());
        }
        let path = clean_path(&entry.path_bytes())?;
        let kind = kind_of(&entry, &path)?;
        let bytes = entry.size();
        if let Next::Stop = visit(Item { path, kind, content: &mut entry, bytes })? {
            return Ok(());
        }
        // What nobody wanted is passed over here: left to the library, it would count as the next entry's headers.
        io::copy(&mut entry, &mut io::sink())?;
    }
    header_bytes.set(None);
    if count == 0 {
        return Err(invalid("it is not a tar archive, or an empty one".into()).into());
    }
    // What follows the last entry belongs to the stream too: a cut-off gzip shows only here.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Reads a whole entry that has to fit into memory.
pub(super) fn read_small(item: &mut Item<'_>, bytes_max: u64) -> io::Result<Vec<u8>> {
    if item.bytes > bytes_max {
        return Err(invalid(format!("`{}` has {} bytes, more than {bytes_max}", item.path, item.bytes)));
    }
    let mut content = Vec::with_capacity(item.bytes as usize);
    item.content.read_to_end(&mut content)?;
    if content.len() as u64 != item.bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{}` is cut off", item.path)));
    }
    Ok(content)
}

pub(super) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn kind_of<R: Read>(entry: &tar::Entry<'_, R>, path: &str) -> io::Result<Kind> {
    let link = || -> io::Result<String> {
        let target =
            entry.link_name_bytes().ok_or_else(|| invalid(format!("`{path}` is a link to nothing")))?;
        String::from_utf8(target.into_owned())
            .map_err(|_| invalid(format!("`{path}` links to a name that is not text")))
    };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => Ok(Kind::File),
        // Its holes would come from nowhere, beyond every bound on what comes out of the archive.
        EntryType::GNUSparse => Err(invalid(format!(
            "`{path}` is a sparse file: pack it without holes (`tar` without `--sparse`)"
        ))),
        EntryType::Directory => Ok(Kind::Folder),
        EntryType::Symlink => {
            let target = link()?;
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let joined = if target.starts_with('/') { None } else { resolve(folder, &target) };
            let inside = joined
                .ok_or_else(|| invalid(format!("`{path}` links to `{target}`, outside of the archive")))?;
            Ok(Kind::Link(inside))
        }
        // A hard link's target is written from the archive's root.
        EntryType::Link => clean_path(link()?.as_bytes()).map(Kind::Link),
        other => Err(invalid(format!("`{path}` is neither a file nor a folder nor a link (type {other:?})"))),
    }
}

/// Follows a relative link as text; none if it leaves the archive.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn clean_path(raw: &[u8]) -> io::Result<String> {
    let shown = || String::from_utf8_lossy(raw).chars().take(200).collect::<String>();
    let text =
        std::str::from_utf8(raw).map_err(|_| invalid(format!("the name `{}` is not UTF-8", shown())))?;
    if text.starts_with('/') {
        return Err(invalid(format!("`{}` is an absolute name", shown())));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(invalid(format!("`{}` leads out of the archive", shown()))),
            part if part.contains('\0') => return Err(invalid(format!("`{}` holds a NUL", shown()))),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Counts what is read, for the ratio.
struct Counted<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + n as u64);
        Ok(n)
    }
}

/// Stops a stream that expands beyond its limits.
struct Bounded<R> {
    inner: R,
    out: u64,
    read_bytes: Rc<Cell<u64>>,
    /// While headers are read: how many bytes of them may still come.
    header_bytes_left: Rc<Cell<Option<u64>>>,
    limits: Limits,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.out += n as u64;
        if let Some(left) = self.header_bytes_left.get() {
            let left = left.checked_sub(n as u64).ok_or_else(|| {
                invalid(format!("the headers of an entry have more than {HEADER_BYTES_MAX} bytes"))
            })?;
            self.header_bytes_left.set(Some(left));
        }
        if self.out > self.limits.bytes_max {
            return Err(invalid(format!("it expands to more than {} bytes", self.limits.bytes_max)));
        }
        let suspicious = self.out > self.limits.ratio_from_bytes;
        if suspicious && self.out / self.read_bytes.get().max(1) > self.limits.ratio_max {
            return Err(invalid(format!("it expands to more than {} times its size", self.limits.ratio_max)));
        }
        Ok(n)
    }
}
