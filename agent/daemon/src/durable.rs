//! Small files that must be whole or absent, whenever the process or the machine dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner only.
    Owner,
    /// Its group, too.
    Group,
    /// Everybody.
    All,
}

/// Writes a file so that a reader, also one after a crash, sees the old content or the new one.
pub fn write(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file has a directory"))?;
    fs::create_dir_all(parent)?;
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Group => 0o640,
        Readers::All => 0o644,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // Without this the rename itself may be lost.
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        // Already reporting the real trouble.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a value as JSON; see [`write`].
pub fn write_json<T: Serialize>(path: &Path, value: &T, readers: Readers) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?, readers)
}

/// Reads a JSON file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaces_a_file_and_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/secret.json");
        write_json(&path, &"one", Readers::Owner).unwrap();
        write_json(&path, &"two", Readers::Owner).unwrap();
        assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }
}
