//! A directory that all replicas on the machine share: the locks of its objects, and the highest epoch.
//!
//! ```text
//! ROOT/epoch      the highest epoch heard from
//!      locks/     one file per object being worked on
//! ```
//! What else is in it is the cloud's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cpi_api::CpiErrorKind;
use model::Epoch;

use crate::error::HostError;
use crate::lock::NamedLock;
use crate::records::{self, Durability, file_name};
use crate::scope::Scope;

/// Where locks are.
const LOCKS: &str = "locks";

/// The directory.
pub struct SharedDir {
    root: PathBuf,
    /// The highest epoch this process has seen in the file: saves a lock per call.
    epoch_seen: AtomicU64,
}

impl SharedDir {
    /// Opens the directory, making what is missing of it and of these `folders`.
    pub fn open(root: &Path, folders: &[&str]) -> Result<Self, HostError> {
        for folder in [LOCKS].iter().chain(folders) {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(HostError::os("create", &path))?;
        }
        let root = root.canonicalize().map_err(HostError::os("resolve", root))?;
        Ok(Self { root, epoch_seen: AtomicU64::new(0) })
    }

    /// Returns where it is, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes a lock that is not an object's.
    pub fn lock(&self, name: &str, scope: &Scope) -> Result<NamedLock, HostError> {
        NamedLock::take(&self.root.join(LOCKS).join(name), scope)
    }

    /// Takes an object's lock and makes sure that the caller may still act.
    pub fn lock_object(&self, cid: &str, scope: &Scope) -> Result<NamedLock, HostError> {
        let lock = self.lock(&file_name(cid), scope)?;
        scope.check(self)?;
        Ok(lock)
    }

    /// Like [`Self::lock_object`], but gives nothing where somebody else is at work.
    pub fn try_lock_object(&self, cid: &str, scope: &Scope) -> Result<Option<NamedLock>, HostError> {
        let lock = NamedLock::try_take(&self.root.join(LOCKS).join(file_name(cid)))?;
        scope.check(self)?;
        Ok(lock)
    }

    /// Makes `epoch` known; errs if a higher one is known already.
    pub fn raise_epoch(&self, epoch: Epoch, scope: &Scope) -> Result<(), HostError> {
        let path = self.root.join("epoch");
        let known = self.read_epoch(&path)?;
        if epoch < known {
            let message = format!("epoch {epoch} is over: this cloud has heard from epoch {known}");
            return Err(HostError::refused(CpiErrorKind::Fenced, message));
        }
        if epoch > known {
            let lock = self.lock("epoch.lock", scope)?;
            if self.read_epoch(&path)? < epoch {
                records::write(&path, &epoch, Durability::Synced)?;
            }
            drop(lock);
            // Another replica may have raised it further meanwhile.
            return self.raise_epoch(epoch, scope);
        }
        self.epoch_seen.fetch_max(epoch.0, Ordering::Relaxed);
        Ok(())
    }

    fn read_epoch(&self, path: &Path) -> Result<Epoch, HostError> {
        let on_disk: Epoch = records::read(path)?.unwrap_or_default();
        Ok(on_disk.max(Epoch(self.epoch_seen.load(Ordering::Relaxed))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cpi_api::CallContext;

    use super::*;
    use crate::scope::Waiter;

    fn scope(epoch: u64) -> (Scope, Waiter) {
        let context = CallContext {
            director_uuid: "director".into(),
            request_id: "request".into(),
            epoch: Epoch(epoch),
            stemcell_api_version: None,
            timeout: Duration::from_secs(60),
            log: Default::default(),
        };
        Scope::new(&context, Duration::ZERO)
    }

    #[test]
    fn an_epoch_that_another_replica_has_raised_ends_the_calls_of_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let open = || SharedDir::open(folder.path(), &["vms"]).unwrap();
        let (ours, theirs) = (open(), open());
        let ((old, _waits), (new, _waits_too)) = (scope(3), scope(4));
        old.check(&ours).unwrap();
        new.check(&theirs).unwrap();
        let refused = old.check(&ours).unwrap_err();
        assert!(matches!(refused, HostError::Refused { kind: CpiErrorKind::Fenced, .. }), "{refused}");
        assert!(folder.path().join("vms").is_dir());
    }

    #[test]
    fn a_lock_is_one_s_alone_until_it_is_dropped_and_says_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SharedDir::open(folder.path(), &[]).unwrap();
        let (scope, _waits) = scope(1);
        let held = dir.lock_object("vm/a", &scope).unwrap();
        assert!(dir.try_lock_object("vm/a", &scope).unwrap().is_none());
        let busy = dir.lock("vm%2fa", &scope).err().unwrap().to_string();
        assert!(busy.starts_with(&format!("process {} has held the lock", std::process::id())), "{busy}");
        held.retire();
        assert!(!folder.path().join("locks/vm%2fa").exists());
        drop(dir.lock_object("vm/a", &scope).unwrap());
    }

    #[test]
    fn a_call_that_nobody_waits_for_does_not_begin() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SharedDir::open(folder.path(), &[]).unwrap();
        let (scope, waiter) = scope(1);
        drop(waiter);
        let refused = scope.check(&dir).unwrap_err();
        assert!(matches!(refused, HostError::Refused { kind: CpiErrorKind::TimedOut, .. }), "{refused}");
    }
}
