//! What the replicas share beside the daemon: locks, the highest epoch, and what changes after an object was made.
//!
//! ```text
//! ROOT/epoch                 the highest epoch heard from
//!      locks/                one file per object being worked on
//!      records/CID.json      a VM's metadata; a disk's size, metadata and VM
//! ```
//! Invariant: a record is replaced in one step or not at all, and whoever changes one holds its object's lock. An object
//! without a record is one of which nothing has been said yet: it is the daemon that knows what there is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cpi_api::Metadata;
use cpi_host::records::{self, Durability};
use cpi_host::{NamedLock, Scope, SharedDir};
use model::VmCid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::DockerError;

/// Where records are.
const RECORDS: &str = "records";

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
    dir: SharedDir,
}

impl Store {
    /// Opens the directory, making what is missing.
    pub fn open(root: &Path) -> Result<Self, DockerError> {
        Ok(Self { dir: SharedDir::open(root, &[RECORDS])? })
    }

    /// Errs if a call may act no more.
    pub fn check(&self, scope: &Scope) -> Result<(), DockerError> {
        Ok(scope.check(&self.dir)?)
    }

    /// Takes an object's lock and makes sure that the caller may still act.
    pub fn lock_object(&self, cid: &str, scope: &Scope) -> Result<NamedLock, DockerError> {
        Ok(self.dir.lock_object(cid, scope)?)
    }

    /// Returns what has been said of an object.
    pub fn record<T: DeserializeOwned + Default>(&self, cid: &str) -> Result<T, DockerError> {
        Ok(records::read(&self.record_path(cid))?.unwrap_or_default())
    }

    /// Replaces what has been said of an object.
    pub fn put_record(&self, cid: &str, record: &impl Serialize) -> Result<(), DockerError> {
        Ok(records::write(&self.record_path(cid), record, Durability::Synced)?)
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
        let dir = self.dir.root().join(RECORDS);
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(DockerError::os("list", &dir))? {
            let path = entry.map_err(DockerError::os("list", &dir))?.path();
            let Some(cid) = path.file_stem().and_then(|stem| stem.to_str()).filter(|cid| is_disk(cid)) else {
                continue;
            };
            let record: Option<DiskRecord> = records::read(&path)?;
            if record.is_some_and(|record| record.attached_to.as_ref() == Some(vm)) {
                found.push(cid.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }

    fn record_path(&self, cid: &str) -> PathBuf {
        self.dir.root().join(RECORDS).join(format!("{}.json", records::file_name(cid)))
    }
}
