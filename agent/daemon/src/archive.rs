//! Archives to directories, whole or not at all, and directories to archives.

use std::fs::{self, File};
use std::io::{self, BufRead as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::error::ActionError;

/// A directory that is removed unless it is put in its place.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory within `parent`, which must be on the file system of its later place.
    pub(crate) fn new(parent: &Path) -> Result<Self, ActionError> {
        fs::create_dir_all(parent).map_err(ActionError::file("create", parent))?;
        let path = parent.join(format!("scratch-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).map_err(ActionError::file("create", &path))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&path, private).map_err(ActionError::file("protect", &path))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs are swept by the next boot.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a tgz, or a plain tar (of a package with `no_compression`), into an existing directory. Entries that would end
/// up outside are an error of the archive.
pub(crate) fn unpack(archive: &Path, to: &Path) -> Result<(), ActionError> {
    let file = File::open(archive).map_err(ActionError::file("open", archive))?;
    let mut packed = io::BufReader::new(file);
    let is_gzip = packed.fill_buf().map_err(ActionError::file("read", archive))?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn io::Read> = if is_gzip { Box::new(GzDecoder::new(packed)) } else { Box::new(packed) };
    let mut tar = tar::Archive::new(plain);
    tar.set_preserve_permissions(true);
    tar.set_overwrite(true);
    let mut entries = tar.entries().map_err(ActionError::file("read", archive))?;
    while let Some(entry) = entries.next().transpose().map_err(ActionError::file("read", archive))? {
        let mut entry = entry;
        let inside = entry.unpack_in(to).map_err(ActionError::file("unpack", archive))?;
        if !inside {
            return Err(ActionError::failed(format!(
                "archive `{}` reaches outside its directory",
                archive.display()
            )));
        }
    }
    Ok(())
}

/// Packs everything within a directory.
pub(crate) fn pack(directory: &Path, archive: &Path) -> Result<(), ActionError> {
    pack_paths(directory, archive, &[PathBuf::from(".")])
}

/// Packs some of the files within a directory, by their paths relative to it.
pub(crate) fn pack_paths(directory: &Path, archive: &Path, paths: &[PathBuf]) -> Result<(), ActionError> {
    let file = File::create(archive).map_err(ActionError::file("create", archive))?;
    let mut tar = tar::Builder::new(GzEncoder::new(io::BufWriter::new(file), Compression::fast()));
    tar.follow_symlinks(false);
    for path in paths {
        let from = directory.join(path);
        let appended = if from.is_dir() && !from.is_symlink() {
            tar.append_dir_all(path, &from)
        } else {
            tar.append_path_with_name(&from, path)
        };
        appended.map_err(ActionError::file("pack", &from))?;
    }
    let encoder = tar.into_inner().map_err(ActionError::file("write", archive))?;
    let mut buffered = encoder.finish().map_err(ActionError::file("write", archive))?;
    io::Write::flush(&mut buffered).map_err(ActionError::file("write", archive))
}

/// Puts a finished directory in its place with one rename. What is already there was put there whole: it stays.
pub(crate) fn put_in_place(finished: &Path, place: &Path) -> Result<(), ActionError> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(ActionError::file("create", parent))?;
    match fs::rename(finished, place) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Ok(())
        }
        renamed => renamed.map_err(ActionError::file("put in place", place)),
    }
}

/// Makes `link` lead to `target`, replacing another link at once: nobody ever sees it missing.
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), ActionError> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let parent = link.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(ActionError::file("create", parent))?;
    let temporary = parent.join(format!(".link-{}", uuid::Uuid::new_v4()));
    std::os::unix::fs::symlink(target, &temporary).map_err(ActionError::file("link", &temporary))?;
    fs::rename(&temporary, link).map_err(|error| {
        // Already reporting the real trouble.
        let _ = fs::remove_file(&temporary);
        ActionError::file("link", link)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_with_its_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("bin")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("bin/run"), "x").unwrap();
        fs::set_permissions(from.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("bin/run", from.join("run")).unwrap();
        let archive = dir.path().join("a.tgz");
        pack(&from, &archive).unwrap();
        unpack(&archive, &to).unwrap();
        assert_eq!(fs::metadata(to.join("bin/run")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(to.join("run")).unwrap(), Path::new("bin/run"));
    }

    #[test]
    fn a_plain_tar_is_unpacked_as_a_tgz_is() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("plain.tgz");
        let mut tar = tar::Builder::new(File::create(&archive).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "./packaging", &b"x"[..]).unwrap();
        tar.into_inner().unwrap();
        unpack(&archive, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("packaging")).unwrap(), "x");
    }

    #[test]
    fn an_archive_that_reaches_outside_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("evil.tgz");
        let mut tar = tar::Builder::new(GzEncoder::new(File::create(&archive).unwrap(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..7].copy_from_slice(b"../evil");
        header.set_size(1);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        assert!(unpack(&archive, &to).is_err());
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn a_link_is_replaced_and_a_place_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("deep/link");
        link(Path::new("/one"), &at).unwrap();
        link(Path::new("/two"), &at).unwrap();
        assert_eq!(fs::read_link(&at).unwrap(), Path::new("/two"));

        let place = dir.path().join("place");
        for content in ["first", "second"] {
            let scratch = Scratch::new(dir.path()).unwrap();
            fs::write(scratch.path().join("f"), content).unwrap();
            put_in_place(scratch.path(), &place).unwrap();
        }
        assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "first");
    }
}
