//! The cloud's state: records in one directory that all replicas of the machine share.
//!
//! ```text
//! ROOT/epoch                 the highest epoch heard from
//!      locks/                one file per object being worked on
//!      stemcells/CID/        stemcell.json, rootfs/
//!      vms/CID/              vm.json, launch.json, console.log, vcap/ (the VM's /var/vcap), upper/, work/, dagent
//!      disks/CID/            disk.json, data/ or image
//!      snapshots/CID/        snapshot.json, data/ or image
//!      trash/                what is being removed
//! ```
//! Invariant: a record is replaced in one step or not at all, and whoever changes one holds its object's lock.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cpi_host::records::{self, Durability, file_name};
use cpi_host::{Chain, HostError, NamedLock, Scope, SharedDir};
use model::{AgentId, DiskCid, DiskId, SnapshotCid, SnapshotId, StemcellCid, VmCid};
use nix::unistd::geteuid;

use crate::helper::Errand;
use crate::record::{DiskRecord, SnapshotRecord, StemcellRecord, VmRecord};

/// The folders of the state directory.
const FOLDERS: [&str; 5] = ["stemcells", "vms", "disks", "snapshots", "trash"];

/// The mode of a directory that all users of a VM may enter.
const FOR_ALL: u32 = 0o755;

/// The state directory.
pub(crate) struct Store {
    dir: SharedDir,
    /// The program, with its first arguments, that removes what is not ours to remove.
    helper: Vec<OsString>,
    trash_next: AtomicU64,
}

impl Store {
    /// Opens the directory, making what is missing. `helper` is as in [`crate::LocalOptions`].
    pub fn open(root: &Path, helper: &[OsString]) -> Result<Self, HostError> {
        let dir = SharedDir::open(root, &FOLDERS)?;
        Ok(Self { dir, helper: helper.to_vec(), trash_next: AtomicU64::new(0) })
    }

    /// Returns where what is being removed lies, and what should be once its maker has died: under names that begin with its
    /// maker's number and a dash.
    pub fn trash(root: &Path) -> PathBuf {
        root.join("trash")
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        self.dir.root()
    }

    /// Returns a VM's folder.
    pub fn vm_dir(&self, cid: &VmCid) -> PathBuf {
        self.root().join("vms").join(file_name(cid.as_str()))
    }

    /// Returns a disk's folder.
    pub fn disk_dir(&self, cid: &DiskCid) -> PathBuf {
        self.root().join("disks").join(file_name(cid.as_str()))
    }

    /// Returns a snapshot's folder.
    pub fn snapshot_dir(&self, cid: &SnapshotCid) -> PathBuf {
        self.root().join("snapshots").join(file_name(cid.as_str()))
    }

    /// Returns a stemcell's folder.
    pub fn stemcell_dir(&self, cid: &StemcellCid) -> PathBuf {
        self.root().join("stemcells").join(file_name(cid.as_str()))
    }

    /// Errs if a call may act no more.
    pub fn check(&self, scope: &Scope) -> Result<(), HostError> {
        scope.check(&self.dir)
    }

    /// Takes a lock that is not an object's.
    pub fn lock(&self, name: &str, scope: &Scope) -> Result<NamedLock, HostError> {
        self.dir.lock(name, scope)
    }

    /// Takes an object's lock and makes sure that the caller may still act.
    pub fn lock_object(&self, cid: &str, scope: &Scope) -> Result<NamedLock, HostError> {
        self.dir.lock_object(cid, scope)
    }

    /// Like [`Self::lock_object`], but gives nothing where somebody else is at work.
    pub fn try_lock_object(&self, cid: &str, scope: &Scope) -> Result<Option<NamedLock>, HostError> {
        self.dir.try_lock_object(cid, scope)
    }

    /// Returns a VM's record.
    pub fn vm(&self, cid: &VmCid) -> Result<Option<VmRecord>, HostError> {
        records::read(&self.vm_dir(cid).join("vm.json"))
    }

    /// Writes a VM's record, making its folder.
    pub fn put_vm(&self, vm: &VmRecord, durability: Durability) -> Result<(), HostError> {
        let dir = self.vm_dir(&vm.cid);
        fs::create_dir_all(&dir).map_err(HostError::os("create", &dir))?;
        records::write(&dir.join("vm.json"), vm, durability)
    }

    /// Returns the records of all VMs, half-made ones among them.
    pub fn vms(&self) -> Result<Vec<VmRecord>, HostError> {
        let dir = self.root().join("vms");
        let entries = fs::read_dir(&dir).map_err(HostError::os("list", &dir))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(HostError::os("list", &dir))?;
            found.extend(records::read(&entry.path().join("vm.json"))?);
        }
        Ok(found)
    }

    /// Returns a disk's record.
    pub fn disk(&self, cid: &DiskCid) -> Result<Option<DiskRecord>, HostError> {
        records::read(&self.disk_dir(cid).join("disk.json"))
    }

    /// Writes a disk's record.
    pub fn put_disk(&self, disk: &DiskRecord) -> Result<(), HostError> {
        records::write(&self.disk_dir(&disk.cid).join("disk.json"), disk, Durability::Synced)
    }

    /// Returns a snapshot's record.
    pub fn snapshot(&self, cid: &SnapshotCid) -> Result<Option<SnapshotRecord>, HostError> {
        records::read(&self.snapshot_dir(cid).join("snapshot.json"))
    }

    /// Writes a snapshot's record.
    pub fn put_snapshot(&self, snapshot: &SnapshotRecord) -> Result<(), HostError> {
        let path = self.snapshot_dir(&snapshot.cid).join("snapshot.json");
        records::write(&path, snapshot, Durability::Synced)
    }

    /// Returns a stemcell's record.
    pub fn stemcell(&self, cid: &StemcellCid) -> Result<Option<StemcellRecord>, HostError> {
        records::read(&self.stemcell_dir(cid).join("stemcell.json"))
    }

    /// Removes a folder of the cloud: out of sight in one step, off the disk after it.
    pub fn discard(&self, dir: &Path) -> Result<(), HostError> {
        let number = self.trash_next.fetch_add(1, Ordering::Relaxed);
        let trash = Self::trash(self.root()).join(format!("{}-{number}", std::process::id()));
        match fs::rename(dir, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(HostError::os("remove", dir)(error)),
        }
        self.remove_now_or_later(&trash);
        Ok(())
    }

    /// Removes what is in the trash. Nobody looks in there: what can't be removed, the next [`Self::sweep_trash`] tries again.
    fn remove_now_or_later(&self, trash: &Path) {
        if let Err(error) = self.remove(trash) {
            tracing::warn!(path = %trash.display(), error = %Chain(&error), "left some rubbish behind");
        }
    }

    fn remove(&self, dir: &Path) -> Result<(), HostError> {
        match fs::remove_dir_all(dir) {
            Ok(()) => Ok(()),
            // Without root on the host, what users of a VM wrote is theirs.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() => {
                Errand::Remove { dir: dir.to_owned() }.run(&self.helper)
            }
            Err(error) => Err(HostError::os("remove", dir)(error)),
        }
    }

    /// Removes what earlier processes did not finish removing.
    pub fn sweep_trash(&self) {
        let own = format!("{}-", std::process::id());
        for entry in fs::read_dir(Self::trash(self.root())).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|n| n.split('-').next()).and_then(|pid| pid.parse::<i32>().ok());
            let owner_lives = owner.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
            if !owner_lives && !name.to_string_lossy().starts_with(&own) {
                self.remove_now_or_later(&entry.path());
            }
        }
    }
}

/// Makes a directory that all users of a VM may enter, whatever our umask is. One that is there stays as it is.
pub(crate) fn create_for_all(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(FOR_ALL)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
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
