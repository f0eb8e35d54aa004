//! Files of a shared directory: each is replaced in one step or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::HostError;

/// Whether a write must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must: it is what lets us find an object again.
    Synced,
    /// It need not: it speaks of processes, which end with the machine.
    UntilReboot,
}

/// Returns `id` as a file name: our own ids come out as they are, anything odd is escaped byte by byte.
pub fn file_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            odd => name.push_str(&format!("%{odd:02x}")),
        }
    }
    name
}

/// Reads a record; none if there is no such file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HostError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| HostError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::os("read", path)(error)),
    }
}

/// Replaces a file in one step, readable by its owner alone: some hold tokens.
pub fn write(path: &Path, value: &impl Serialize, durability: Durability) -> Result<(), HostError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| HostError::Damaged { path: path.to_owned(), source })?;
    let replace = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&bytes)?;
        if durability == Durability::Synced {
            file.as_file().sync_all()?;
        }
        file.persist(path)?;
        match durability {
            Durability::Synced => File::open(dir)?.sync_all(),
            Durability::UntilReboot => Ok(()),
        }
    };
    replace().map_err(HostError::os("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_escapes_its_folder_or_meets_another() {
        assert_eq!(file_name("vm-0f3c"), "vm-0f3c");
        assert_eq!(file_name("../x;y z"), "%2e%2e%2fx%3by%20z");
        assert_ne!(file_name("a%2e"), file_name("a."));
    }
}
