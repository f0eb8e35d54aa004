//! What the replicas share beside the daemon: locks, the highest epoch, and what changes after an object was made.
//!
//! ```text
//! ROOT/epoch                 the highest epoch heard from
//!      locks/                one file per object being worked on
//!      records/CID.json      a VM's metadata; a disk's size, metadata and VM
//! ```
//! Invariant: a record is replaced in one step or not at all, and whoever changes one holds its object's lock. An object
//! without a record is one of which nothing has been said yet: it is the daemon that knows what there is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cpi_api::{CpiErrorKind, Metadata};
use model::{Epoch, VmCid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::DockerError;
use crate::lock::NamedLock;
use crate::scope::Scope;

/// What has been said of a VM. Only gains optional fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VmRecord {
    pub metadata: Metadata,
}

/// What has been said of a disk or a snapshot. Only gains optional fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DiskRecord {
    /// Its size, if it is no longer the one that it was made with.
    pub size_mib: Option<u64>,
    pub attached_to: Option<VmCid>,
    pub metadata: Metadata,
}

/// The directory.
pub(crate) struct Store {
    root: PathBuf,
    /// The highest epoch this process has seen in the file: saves a lock per call.
    epoch_seen: AtomicU64,
}

impl Store {
    /// Opens the directory, making what is missing.
    pub fn open(root: &Path) -> Result<Self, DockerError> {
        for folder in ["locks", "records"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(DockerError::os("create", &path))?;
        }
        Ok(Self { root: root.to_owned(), epoch_seen: AtomicU64::new(0) })
    }

    /// Takes an object's lock and makes sure that the caller may still act.
    pub fn lock_object(&self, cid: &str, scope: &Scope) -> Result<NamedLock, DockerError> {
        let lock = NamedLock::take(&self.root.join("locks").join(file_name(cid)), scope)?;
        scope.check(self)?;
        Ok(lock)
    }

    /// Makes `epoch` known; errs if a higher one is known already.
    pub fn raise_epoch(&self, epoch: Epoch, scope: &Scope) -> Result<(), DockerError> {
        let path = self.root.join("epoch");
        let known = self.known_epoch(&path)?;
        if epoch < known {
            let message = format!("epoch {epoch} is over: this cloud has heard from epoch {known}");
            return Err(DockerError::refused(CpiErrorKind::Fenced, message));
        }
        if epoch > known {
            let _lock = NamedLock::take(&self.root.join("epoch.lock"), scope)?;
            if self.known_epoch(&path)? < epoch {
                write_json(&path, &epoch)?;
            }
            // Another replica may have raised it further meanwhile.
            return self.raise_epoch(epoch, scope);
        }
        self.epoch_seen.fetch_max(epoch.0, Ordering::Relaxed);
        Ok(())
    }

    fn known_epoch(&self, path: &Path) -> Result<Epoch, DockerError> {
        let on_disk: Epoch = read_json(path)?.unwrap_or_default();
        Ok(on_disk.max(Epoch(self.epoch_seen.load(Ordering::Relaxed))))
    }

    /// Returns what has been said of an object.
    pub fn record<T: DeserializeOwned + Default>(&self, cid: &str) -> Result<T, DockerError> {
        Ok(read_json(&self.record_path(cid))?.unwrap_or_default())
    }

    /// Replaces what has been said of an object.
    pub fn put_record(&self, cid: &str, record: &impl Serialize) -> Result<(), DockerError> {
        write_json(&self.record_path(cid), record)
    }

    /// Forgets what has been said of an object.
    pub fn forget(&self, cid: &str) -> Result<(), DockerError> {
        let path = self.record_path(cid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DockerError::os("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the cids of the disks that are attached to a VM. The caller holds the VM's lock.
    pub fn disks_of(&self, vm: &VmCid, is_disk: impl Fn(&str) -> bool) -> Result<Vec<String>, DockerError> {
        let dir = self.root.join("records");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(DockerError::os("list", &dir))? {
            let path = entry.map_err(DockerError::os("list", &dir))?.path();
            let Some(cid) = path.file_stem().and_then(|stem| stem.to_str()).filter(|cid| is_disk(cid)) else {
                continue;
            };
            let record: Option<DiskRecord> = read_json(&path)?;
            if record.is_some_and(|record| record.attached_to.as_ref() == Some(vm)) {
                found.push(cid.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }

    fn record_path(&self, cid: &str) -> PathBuf {
        self.root.join("records").join(format!("{}.json", file_name(cid)))
    }
}

/// Returns a cid as a file name: ours come out as they are, what others say may hold anything.
fn file_name(cid: &str) -> String {
    let mut name = String::with_capacity(cid.len());
    for byte in cid.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            odd => name.push_str(&format!("%{odd:02x}")),
        }
    }
    name
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DockerError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| DockerError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DockerError::os("read", path)(error)),
    }
}

/// Replaces a file in one step, so that it survives a power cut.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), DockerError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| DockerError::Damaged { path: path.to_owned(), source })?;
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(DockerError::os("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cid_escapes_the_directory() {
        assert_eq!(file_name("fleet-vm-0f3c"), "fleet-vm-0f3c");
        assert_eq!(file_name("../x:y"), "%2e%2e%2fx%3ay");
    }
}
