//! Files that get their name once they are whole and on the disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::Error;

/// A file beside its place; gone again unless it is kept.
pub(super) struct Staged {
    /// What is written.
    pub file: File,
    /// Where it is until then.
    pub path: Utf8PathBuf,
    place: Utf8PathBuf,
}

impl Staged {
    /// Opens it, for its owner only.
    pub fn create(place: &Utf8Path) -> Result<Self, Error> {
        let name = place.file_name().ok_or_else(|| Error::Usage(format!("`{place}` names no file")))?;
        let path = place.with_file_name(format!(".{name}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        // Backups and logs may hold secrets.
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Error::file("write", &path))?;
        Ok(Self { file, path, place: place.to_owned() })
    }

    /// Gives it its name.
    pub fn keep(&self) -> Result<(), Error> {
        fs::rename(&self.path, &self.place).map_err(Error::file("write", &self.place))?;
        let folder = self.place.parent().filter(|folder| !folder.as_str().is_empty());
        let folder = folder.unwrap_or(Utf8Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::file("write", folder))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing is there any more if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_in_its_place_whole_or_not_at_all_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let place = Utf8PathBuf::from_path_buf(folder.path().join("fleet.backup")).unwrap();
        fs::write(&place, "an older one").unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        drop(Staged::create(&place).unwrap());
        assert_eq!((names(), fs::read_to_string(&place).unwrap()), (1, "an older one".into()));
        let mut staged = Staged::create(&place).unwrap();
        staged.file.write_all(b"a newer one").unwrap();
        staged.keep().unwrap();
        drop(staged);
        assert_eq!((names(), fs::read_to_string(&place).unwrap()), (1, "a newer one".into()));
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Staged::create("/".into()), Err(Error::Usage(_))));
    }
}
