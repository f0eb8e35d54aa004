//! What is in a root file system: its entries in the archive's order, and the contents of its files beside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::refuse;
use crate::archive::EPOCH;
use crate::error::StemcellError;

/// The attribute that is kept: rights that a program has whoever runs it. Access lists of Debian's are made at each boot.
pub(super) const CAPABILITY: &str = "security.capability";
/// How an archive names it.
const CAPABILITY_IN_ARCHIVES: &str = "SCHILY.xattr.security.capability";

/// One of them.
#[derive(Debug)]
pub(super) struct Entry {
    /// Without a slash in front; empty for the root itself.
    pub path: String,
    pub kind: Kind,
    /// The lower twelve bits.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// In Unix seconds.
    pub modified_at_seconds: u64,
    /// The value of [`CAPABILITY`].
    pub capability: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// Its content is in the tree's folder, at the same path.
    File,
    Symlink(String),
    /// Another name of a file that came before.
    Link(String),
}

/// The archive of a root file system.
pub(crate) struct RootArchive<'a, R> {
    /// Which file it is, or is in, for people who read errors.
    pub of: &'a Path,
    pub content: R,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where the contents are. They belong to whoever runs this, and what is no file is not there.
    pub folder: PathBuf,
    pub entries: Vec<Entry>,
    /// The digest of the archive.
    pub digest: [u8; 32],
}

impl Tree {
    /// Unpacks an archive. Devices are left out: a kernel makes its own.
    pub fn unpack(root: RootArchive<'_, impl Read>, folder: PathBuf) -> Result<Self, StemcellError> {
        let mut hashed = Hashed { inner: root.content, hasher: Sha256::new() };
        let (mut entries, mut places) = (Vec::new(), BTreeMap::new());
        let mut archive = tar::Archive::new(&mut hashed);
        let failed = || StemcellError::os("unpack the root file system of", root.of);
        for entry in archive.entries().map_err(failed())? {
            let unpacked = unpack_entry(entry.map_err(failed())?, &folder).map_err(failed())?;
            let Some(entry) = unpacked else { continue };
            // What comes later in an archive takes the place of what is called the same.
            match places.insert(entry.path.clone(), entries.len()) {
                Some(place) => {
                    places.insert(entry.path.clone(), place);
                    entries[place] = entry;
                }
                None => entries.push(entry),
            }
        }
        // What pads the end is part of the digest.
        io::copy(&mut hashed, &mut io::sink()).map_err(failed())?;
        let digest = hashed.hasher.finalize().into();
        Ok(Self { folder, entries, digest })
    }

    /// Returns a file's content.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, StemcellError> {
        fs::read(self.folder.join(path)).map_err(StemcellError::os("find in the root file system", path))
    }

    /// Adds a file of root's, or gives the one that is there another content.
    pub fn put(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), StemcellError> {
        let at = self.folder.join(path);
        let write = || -> io::Result<()> {
            fs::create_dir_all(at.parent().unwrap_or(&at))?;
            fs::write(&at, content)
        };
        write().map_err(StemcellError::os("write", &at))?;
        self.set(path, Kind::File, mode);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.set(path, Kind::Symlink(target.to_owned()), 0o777);
    }

    /// Returns how much room the files take, each with a block for what is known of it.
    pub fn bytes(&self) -> Result<u64, StemcellError> {
        let mut bytes = 0;
        for entry in &self.entries {
            bytes += 4096;
            if entry.kind == Kind::File {
                let path = self.folder.join(&entry.path);
                bytes += fs::metadata(&path)
                    .map_err(StemcellError::os("look at", &path))?
                    .len()
                    .next_multiple_of(4096);
            }
        }
        Ok(bytes)
    }

    fn set(&mut self, path: &str, kind: Kind, mode: u32) {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        // The root is there in any file system, whether an archive says so or not.
        if !parent.is_empty() && !self.entries.iter().any(|entry| entry.path == parent) {
            self.set(parent, Kind::Directory, 0o755);
        }
        self.entries.retain(|entry| entry.path != path);
        let (path, modified_at_seconds) = (path.to_owned(), EPOCH);
        self.entries.push(Entry { path, kind, mode, uid: 0, gid: 0, modified_at_seconds, capability: None });
    }
}

fn unpack_entry(mut entry: tar::Entry<'_, impl Read>, folder: &Path) -> io::Result<Option<Entry>> {
    let path = plain(&entry.path()?)?;
    let target = entry.link_name()?.map(|target| text(&target)).transpose()?.unwrap_or_default();
    let kind = match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target),
        EntryType::Link => Kind::Link(plain(Path::new(&target))?),
        EntryType::Regular | EntryType::Continuous => {
            let at = folder.join(&path);
            fs::create_dir_all(at.parent().unwrap_or(folder))?;
            io::copy(&mut entry, &mut File::create(at)?)?;
            Kind::File
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Ok(None),
        other => return Err(io::Error::other(format!("`{path}` is of a kind that is not known: {other:?}"))),
    };
    let mut capability = None;
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        // So is a value with the end of a line in it, by the library that reads archives: better no disk than one with less.
        let extension =
            extension.map_err(|error| io::Error::other(format!("attributes of `{path}`: {error}")))?;
        if extension.key_bytes() == CAPABILITY_IN_ARCHIVES.as_bytes() {
            capability = Some(extension.value_bytes().to_vec());
        }
    }
    let header = entry.header();
    Ok(Some(Entry {
        path,
        kind,
        mode: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        modified_at_seconds: header.mtime()?,
        capability,
    }))
}

/// Returns a path below the root, as text.
fn plain(path: &Path) -> io::Result<String> {
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let parts: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    match inside {
        true => text(&parts),
        false => Err(io::Error::other(format!("`{}` leads out of the root", path.display()))),
    }
}

/// Returns a path as text of one line: what fills the file system reads lines.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().filter(|text| !text.contains('\n'));
    text.map(str::to_owned).ok_or_else(|| io::Error::other(format!("`{}` is not plain text", path.display())))
}

/// Something that is read, and its digest.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..size]);
        Ok(size)
    }
}

/// Returns the version of the newest kernel in a tree.
pub(super) fn kernel_version(tree: &Tree) -> Result<String, StemcellError> {
    let kernels = tree.entries.iter().filter_map(|entry| entry.path.strip_prefix("boot/vmlinuz-"));
    kernels.max().map(str::to_owned).ok_or_else(|| {
        refuse("the root file system has no kernel, so no machine can boot it: `dctl build-stemcell --debian` makes one that does")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(dir: &Path, extensions: &[(&str, &[u8])]) -> Result<Tree, String> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions(extensions.iter().copied()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(4);
        archive.append_data(&mut header, "program", &b"text"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        let root = RootArchive { of: Path::new("archive"), content: archive.as_slice() };
        Tree::unpack(root, dir.join("root")).map_err(|error| match error {
            StemcellError::Os { source, .. } => source.to_string(),
            StemcellError::Refused(message) => message,
        })
    }

    #[test]
    fn files_are_added_to_an_archive_that_has_no_entry_for_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = unpack(dir.path(), &[]).unwrap();
        tree.put("etc/hosts", 0o644, b"").unwrap();
        tree.link("bin", "usr/bin");
        let paths: Vec<&str> = tree.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["program", "etc", "etc/hosts", "bin"]);
    }

    #[test]
    fn rights_that_can_not_be_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let tree = unpack(dir.path(), &[(CAPABILITY_IN_ARCHIVES, b"\x01\x00")]).unwrap();
        assert_eq!(tree.entries[0].capability.as_deref(), Some(&b"\x01\x00"[..]));
        let error = unpack(dir.path(), &[(CAPABILITY_IN_ARCHIVES, b"\x01\n\x00")]).unwrap_err();
        assert_eq!(error, "attributes of `program`: malformed pax extension");
    }
}
