//! The cloud's state: records in one directory that all replicas of the machine share.
//!
//! ```text
//! ROOT/epoch                 the highest epoch heard from
//!      locks/                one file per object being worked on
//!      stemcells/CID/        stemcell.json, rootfs/
//!      vms/CID/              vm.json, launch.json, console.log, vcap/ (the VM's /var/vcap), upper/, work/
//!      disks/CID/            disk.json, data/ or image
//!      snapshots/CID/        snapshot.json, data/ or image
//!      trash/                what is being removed
//! ```
//! Invariant: a record is replaced in one step or not at all, and whoever changes one holds its object's lock.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cpi_api::CpiErrorKind;
use model::{AgentId, DiskCid, DiskId, Epoch, SnapshotCid, SnapshotId, StemcellCid, VmCid};
use nix::unistd::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Chain, LocalError};
use crate::helper::Errand;
use crate::lock::NamedLock;
use crate::record::{DiskRecord, SnapshotRecord, StemcellRecord, VmRecord};
use crate::scope::Scope;

/// Whether a write must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must: it is what lets us find an object again.
    Synced,
    /// It need not: it speaks of processes, which end with the machine.
    UntilReboot,
}

/// The state directory.
pub(crate) struct Store {
    root: PathBuf,
    /// The program, with its first arguments, that removes what is not ours to remove.
    helper: Vec<OsString>,
    /// The highest epoch this process has seen in the file: saves a lock per call.
    epoch_seen: AtomicU64,
    trash_next: AtomicU64,
}

impl Store {
    /// Opens the directory, making what is missing. `helper` is as in [`crate::LocalOptions`].
    pub fn open(root: &Path, helper: &[OsString]) -> Result<Self, LocalError> {
        for folder in ["locks", "stemcells", "vms", "disks", "snapshots", "trash"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(LocalError::os("create", &path))?;
        }
        let root = root.canonicalize().map_err(LocalError::os("resolve", root))?;
        let (epoch_seen, trash_next) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { root, helper: helper.to_vec(), epoch_seen, trash_next })
    }

    /// Returns where what is being removed lies, and what should be once its maker has died: under names that begin with its
    /// maker's number and a dash.
    pub fn trash(root: &Path) -> PathBuf {
        root.join("trash")
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a VM's folder.
    pub fn vm_dir(&self, cid: &VmCid) -> PathBuf {
        self.root.join("vms").join(file_name(cid.as_str()))
    }

    /// Returns a disk's folder.
    pub fn disk_dir(&self, cid: &DiskCid) -> PathBuf {
        self.root.join("disks").join(file_name(cid.as_str()))
    }

    /// Returns a snapshot's folder.
    pub fn snapshot_dir(&self, cid: &SnapshotCid) -> PathBuf {
        self.root.join("snapshots").join(file_name(cid.as_str()))
    }

    /// Returns a stemcell's folder.
    pub fn stemcell_dir(&self, cid: &StemcellCid) -> PathBuf {
        self.root.join("stemcells").join(file_name(cid.as_str()))
    }

    /// Takes a lock that is not an object's.
    pub fn lock(&self, name: &str, scope: &Scope) -> Result<NamedLock, LocalError> {
        NamedLock::take(&self.root.join("locks").join(name), scope)
    }

    /// Takes an object's lock and makes sure that the caller may still act.
    pub fn lock_object(&self, cid: &str, scope: &Scope) -> Result<NamedLock, LocalError> {
        let lock = self.lock(&file_name(cid), scope)?;
        scope.check(self)?;
        Ok(lock)
    }

    /// Like [`Self::lock_object`], but gives nothing where somebody else is at work.
    pub fn try_lock_object(&self, cid: &str, scope: &Scope) -> Result<Option<NamedLock>, LocalError> {
        let lock = NamedLock::try_take(&self.root.join("locks").join(file_name(cid)))?;
        scope.check(self)?;
        Ok(lock)
    }

    /// Makes `epoch` known; errs if a higher one is known already.
    pub fn raise_epoch(&self, epoch: Epoch, scope: &Scope) -> Result<(), LocalError> {
        let path = self.root.join("epoch");
        let known = self.read_epoch(&path)?;
        if epoch < known {
            let message = format!("epoch {epoch} is over: this cloud has heard from epoch {known}");
            return Err(LocalError::refused(CpiErrorKind::Fenced, message));
        }
        if epoch > known {
            let _lock = self.lock("epoch.lock", scope)?;
            if self.read_epoch(&path)? < epoch {
                write_json(&path, &epoch, Durability::Synced)?;
            }
            // Another replica may have raised it further meanwhile.
            return self.raise_epoch(epoch, scope);
        }
        self.epoch_seen.fetch_max(epoch.0, Ordering::Relaxed);
        Ok(())
    }

    fn read_epoch(&self, path: &Path) -> Result<Epoch, LocalError> {
        let on_disk: Epoch = read_json(path)?.unwrap_or_default();
        Ok(on_disk.max(Epoch(self.epoch_seen.load(Ordering::Relaxed))))
    }

    /// Returns a VM's record.
    pub fn vm(&self, cid: &VmCid) -> Result<Option<VmRecord>, LocalError> {
        read_json(&self.vm_dir(cid).join("vm.json"))
    }

    /// Writes a VM's record, making its folder.
    pub fn put_vm(&self, vm: &VmRecord, durability: Durability) -> Result<(), LocalError> {
        let dir = self.vm_dir(&vm.cid);
        fs::create_dir_all(&dir).map_err(LocalError::os("create", &dir))?;
        write_json(&dir.join("vm.json"), vm, durability)
    }

    /// Returns the records of all VMs, half-made ones among them.
    pub fn vms(&self) -> Result<Vec<VmRecord>, LocalError> {
        let dir = self.root.join("vms");
        let entries = fs::read_dir(&dir).map_err(LocalError::os("list", &dir))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(LocalError::os("list", &dir))?;
            found.extend(read_json(&entry.path().join("vm.json"))?);
        }
        Ok(found)
    }

    /// Returns a disk's record.
    pub fn disk(&self, cid: &DiskCid) -> Result<Option<DiskRecord>, LocalError> {
        read_json(&self.disk_dir(cid).join("disk.json"))
    }

    /// Writes a disk's record.
    pub fn put_disk(&self, disk: &DiskRecord) -> Result<(), LocalError> {
        write_json(&self.disk_dir(&disk.cid).join("disk.json"), disk, Durability::Synced)
    }

    /// Returns a snapshot's record.
    pub fn snapshot(&self, cid: &SnapshotCid) -> Result<Option<SnapshotRecord>, LocalError> {
        read_json(&self.snapshot_dir(cid).join("snapshot.json"))
    }

    /// Writes a snapshot's record.
    pub fn put_snapshot(&self, snapshot: &SnapshotRecord) -> Result<(), LocalError> {
        let path = self.snapshot_dir(&snapshot.cid).join("snapshot.json");
        write_json(&path, snapshot, Durability::Synced)
    }

    /// Returns a stemcell's record.
    pub fn stemcell(&self, cid: &StemcellCid) -> Result<Option<StemcellRecord>, LocalError> {
        read_json(&self.stemcell_dir(cid).join("stemcell.json"))
    }

    /// Removes a folder of the cloud: out of sight in one step, off the disk after it.
    pub fn discard(&self, dir: &Path) -> Result<(), LocalError> {
        let number = self.trash_next.fetch_add(1, Ordering::Relaxed);
        let trash = Self::trash(&self.root).join(format!("{}-{number}", std::process::id()));
        match fs::rename(dir, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(LocalError::os("remove", dir)(error)),
        }
        if let Err(error) = self.remove(&trash) {
            // Nobody looks in there; the next `sweep_trash` tries again.
            tracing::warn!(path = %trash.display(), error = %Chain(&error), "left some rubbish behind");
        }
        Ok(())
    }

    fn remove(&self, dir: &Path) -> Result<(), LocalError> {
        match fs::remove_dir_all(dir) {
            Ok(()) => Ok(()),
            // Without root on the host, what users of a VM wrote is theirs.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() => {
                Errand::Remove { dir: dir.to_owned() }.run(&self.helper)
            }
            Err(error) => Err(LocalError::os("remove", dir)(error)),
        }
    }

    /// Removes what earlier processes did not finish removing.
    pub fn sweep_trash(&self) {
        let own = format!("{}-", std::process::id());
        for entry in fs::read_dir(Self::trash(&self.root)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|n| n.split('-').next()).and_then(|pid| pid.parse::<i32>().ok());
            let owner_lives = owner.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
            if !owner_lives && !name.to_string_lossy().starts_with(&own) {
                let _ = self.remove(&entry.path());
            }
        }
    }
}

/// Returns the cid of the VM of an agent. It follows from the agent's id: a repeat makes the same VM, a search finds it.
pub(crate) fn vm_cid(agent: &AgentId) -> VmCid {
    VmCid::new(format!("vm-{agent}"))
}

/// Returns the cid of a disk; see [`vm_cid`].
pub(crate) fn disk_cid(disk: &DiskId) -> DiskCid {
    DiskCid::new(format!("disk-{disk}"))
}

/// Returns the cid of a snapshot; see [`vm_cid`].
pub(crate) fn snapshot_cid(snapshot: &SnapshotId) -> SnapshotCid {
    SnapshotCid::new(format!("snapshot-{snapshot}"))
}

/// Returns `id` as a file name: our own ids come out as they are, anything odd is escaped byte by byte.
pub(crate) fn file_name(id: &str) -> String {
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
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LocalError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| LocalError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LocalError::os("read", path)(error)),
    }
}

/// Replaces a file in one step, readable by its owner alone: some hold tokens.
pub(crate) fn write_json(
    path: &Path,
    value: &impl Serialize,
    durability: Durability,
) -> Result<(), LocalError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| LocalError::Damaged { path: path.to_owned(), source })?;
    let write = || -> io::Result<()> {
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
    write().map_err(LocalError::os("write", path))
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
