//! Persistent disks: which are attached, which is mounted where, and the copy from an old one to a new one.
//!
//! What should be mounted is recorded before the mounts change; after a crash [`Disks::reconcile`] makes the mounts what
//! the record says. So a migration that had copied everything completes its swap, and an earlier one starts over with the
//! old disk still in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{info, warn};

use crate::archive;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::layout::Layout;
use crate::platform::{DiskSource, FileSystem, Platform, Unmounted};

/// Which disks are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Mounted {
    /// The one at `store`.
    store: Option<String>,
    /// The one that `store` is to be copied to.
    target: Option<String>,
}

/// See the module's header. The caller holds the lock on disks.
pub(crate) struct Disks {
    layout: Layout,
    platform: Arc<dyn Platform>,
    file_system: FileSystem,
    /// Disks that the VM was made with.
    initial: BTreeMap<String, Value>,
}

impl Disks {
    pub(crate) fn new(
        layout: Layout,
        platform: Arc<dyn Platform>,
        file_system: FileSystem,
        initial: BTreeMap<String, Value>,
    ) -> Self {
        Self { layout, platform, file_system, initial }
    }

    /// Remembers where a disk is attached.
    pub(crate) fn add(&self, cid: &str, hint: Value) -> Result<(), ActionError> {
        let mut hints = self.hints()?;
        hints.insert(cid.to_owned(), hint);
        self.write(&self.layout.disk_hints(), &hints)
    }

    /// Forgets a disk.
    pub(crate) fn remove(&self, cid: &str) -> Result<(), ActionError> {
        let mut hints = self.hints()?;
        if hints.remove(cid).is_some() {
            self.write(&self.layout.disk_hints(), &hints)?;
        }
        Ok(())
    }

    /// Links a dynamic disk, which its jobs use as they like. Nothing else is remembered of it, as in BOSH's agent.
    pub(crate) fn link(&self, cid: &str, hint: &Value) -> Result<(), ActionError> {
        let at = self.dynamic(cid)?;
        let source = DiskSource::of(hint).filter(|source| source.path().exists()).ok_or_else(|| {
            ActionError::failed(format!("the hint of dynamic disk {cid} does not say where it is"))
        })?;
        archive::link(source.path(), &at)
    }

    /// Takes the link away, if there is one.
    pub(crate) fn unlink(&self, cid: &str) -> Result<(), ActionError> {
        let at = self.dynamic(cid)?;
        match std::fs::remove_file(&at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ActionError::file("unlink", &at)(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns where jobs find a dynamic disk.
    fn dynamic(&self, cid: &str) -> Result<PathBuf, ActionError> {
        if cid.is_empty() || cid.contains('/') || cid.starts_with('.') {
            return Err(ActionError::failed(format!("`{cid}` is no name for a link to a disk")));
        }
        Ok(self.layout.dynamic_disks().join(cid))
    }

    /// Returns whether a disk is attached, as far as we were told.
    pub(crate) fn is_known(&self, cid: &str) -> Result<bool, ActionError> {
        Ok(self.hints()?.contains_key(cid) || self.initial.contains_key(cid))
    }

    /// Returns the cids of the disks that are mounted, the one at `store` first.
    pub(crate) fn list(&self) -> Result<Vec<String>, ActionError> {
        let mounted = self.mounted()?;
        let places =
            [(mounted.store, self.layout.store()), (mounted.target, self.layout.store_migration_target())];
        Ok(places.into_iter().filter_map(|(cid, at)| cid.filter(|_| self.platform.is_mounted(&at))).collect())
    }

    /// Mounts a disk at `store`, or beside the one that is there, to copy that one to it.
    pub(crate) async fn mount(&self, cid: &str) -> Result<(), ActionError> {
        self.source(cid)?;
        let mut mounted = self.mounted()?;
        match &mounted.store {
            Some(store) if store != cid => mounted.target = Some(cid.to_owned()),
            _ => mounted.store = Some(cid.to_owned()),
        }
        self.record(&mounted)?;
        self.reconcile().await
    }

    /// Unmounts a disk; returns what there is to say about it.
    pub(crate) async fn unmount(&self, cid: &str) -> Result<String, ActionError> {
        if !self.is_known(cid)? {
            return Err(not_found(cid));
        }
        let mut mounted = self.mounted()?;
        let at = match cid {
            cid if mounted.store.as_deref() == Some(cid) => self.layout.store(),
            cid if mounted.target.as_deref() == Some(cid) => self.layout.store_migration_target(),
            _ => return Ok(format!("Partition of {cid} is not mounted")),
        };
        let unmounted = self.platform.unmount(&at).await?;
        if mounted.store.as_deref() == Some(cid) {
            mounted.store = None;
        } else {
            mounted.target = None;
        }
        // After the deed: a crash in between leaves a disk recorded as mounted, which a repeat finds unmounted.
        self.record(&mounted)?;
        Ok(match unmounted {
            Unmounted::Now => format!("Unmounted partition of {cid}"),
            Unmounted::Already => format!("Partition of {cid} is not mounted"),
        })
    }

    /// Copies the disk at `store` to the one beside it and swaps them. A swap that is already done is success.
    pub(crate) async fn migrate(&self, from: &str, to: &str) -> Result<(), ActionError> {
        let mounted = self.mounted()?;
        if mounted == (Mounted { store: Some(to.to_owned()), target: None }) {
            info!(from, to, "the disks were already swapped");
            return self.reconcile().await;
        }
        if mounted != (Mounted { store: Some(from.to_owned()), target: Some(to.to_owned()) }) {
            return Err(ActionError::failed(format!(
                "cannot copy disk {from} to {to}: mounted are {:?} at store and {:?} beside it",
                mounted.store, mounted.target
            )));
        }
        self.reconcile().await?;
        let (store, target) = (self.layout.store(), self.layout.store_migration_target());
        self.platform.make_read_only(&store).await?;
        if let Err(error) = copy(&store, &target).await {
            // The jobs may be started again with the old disk: it must not stay read-only.
            let writable = async {
                self.platform.unmount(&store).await.map(drop)?;
                self.reconcile().await
            };
            if let Err(error) = writable.await {
                warn!(error = error.chain(), "the old disk can't be made writable again");
            }
            return Err(error);
        }
        // From here on the new disk is the disk: whatever happens now, the swap is only ever completed.
        self.record(&Mounted { store: Some(to.to_owned()), target: None })?;
        self.platform.unmount(&target).await?;
        self.platform.unmount(&store).await?;
        self.reconcile().await
    }

    /// Makes the mounts what the record says.
    pub(crate) async fn reconcile(&self) -> Result<(), ActionError> {
        let mounted = self.mounted()?;
        for (cid, at) in
            [(mounted.store, self.layout.store()), (mounted.target, self.layout.store_migration_target())]
        {
            match cid {
                None => {
                    self.platform.unmount(&at).await?;
                }
                Some(cid) if !self.holds(&at, &cid) => {
                    self.platform.unmount(&at).await?;
                    self.platform.mount(&self.source(&cid)?, &at, &self.file_system).await?;
                    let marked = durable::write(&self.marker(&at), cid.as_bytes(), Readers::Owner);
                    marked.map_err(ActionError::file("mark the disk at", &at))?;
                    self.give(&at);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Mounts again what a reboot unmounted. A disk that is not there must not keep the agent from being asked about it.
    pub(crate) async fn boot(&self) {
        if let Err(error) = self.reconcile().await {
            warn!(error = error.chain(), "the persistent disk can't be mounted");
        }
    }

    /// Returns whether it is this disk that is mounted there.
    fn holds(&self, at: &Path, cid: &str) -> bool {
        self.platform.is_mounted(at) && std::fs::read_to_string(self.marker(at)).is_ok_and(|held| held == cid)
    }

    /// Returns where it is noted which disk was last mounted at a place.
    fn marker(&self, at: &Path) -> PathBuf {
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        self.layout.bosh().join(format!("disk_at_{name}"))
    }

    fn give(&self, at: &Path) {
        if let Err(error) = self.platform.give(at) {
            warn!(path = %at.display(), error = %error, "a mounted disk can't be given to the jobs");
        }
    }

    /// Returns what stands behind an attached disk.
    pub(crate) fn source(&self, cid: &str) -> Result<DiskSource, ActionError> {
        let hints = self.hints()?;
        let hint = hints.get(cid).or_else(|| self.initial.get(cid)).ok_or_else(|| not_found(cid))?;
        DiskSource::of(hint)
            .ok_or_else(|| ActionError::failed(format!("the hint of disk {cid} does not say where it is")))
    }

    fn hints(&self) -> Result<BTreeMap<String, Value>, ActionError> {
        let path = self.layout.disk_hints();
        Ok(durable::read_json(&path).map_err(ActionError::file("read", &path))?.unwrap_or_default())
    }

    fn mounted(&self) -> Result<Mounted, ActionError> {
        let path = self.layout.mounted_disks();
        Ok(durable::read_json(&path).map_err(ActionError::file("read", &path))?.unwrap_or_default())
    }

    fn record(&self, mounted: &Mounted) -> Result<(), ActionError> {
        self.write(&self.layout.mounted_disks(), mounted)
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), ActionError> {
        durable::write_json(path, value, Readers::Owner).map_err(ActionError::file("write", path))
    }
}

fn not_found(cid: &str) -> ActionError {
    ActionError::failed(format!("Persistent disk with volume id '{cid}' could not be found"))
}

/// Copies everything, with owners, holes and extended attributes, and waits until it is on the disk.
async fn copy(from: &Path, to: &Path) -> Result<(), ActionError> {
    // With `/.`, a link to a directory is followed.
    let (from_contents, to_contents) = (from.join("."), to.join("."));
    let script = r#"set -o pipefail; tar -C "$1" --xattrs --sparse -cf - . | tar -C "$2" --xattrs -xpf - && sync -f "$2""#;
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", script, "copy"]).arg(&from_contents).arg(&to_contents).kill_on_drop(true);
    let output = command.output().await.map_err(ActionError::file("copy", from))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ActionError::failed(format!("copying `{}` to `{}` failed: {said}", from.display(), to.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::process::ProcessPlatform;

    struct Fixture {
        dir: tempfile::TempDir,
        disks: Disks,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path().join("base"));
            std::fs::create_dir_all(layout.bosh()).unwrap();
            let disks = Disks::new(layout, Arc::new(ProcessPlatform), FileSystem::default(), BTreeMap::new());
            let fixture = Self { dir, disks };
            for cid in ["old", "new"] {
                std::fs::create_dir(fixture.disk(cid)).unwrap();
                let hint = json!({ "path": fixture.disk(cid), "kind": "directory" });
                fixture.disks.add(cid, hint).unwrap();
            }
            fixture
        }

        fn disk(&self, cid: &str) -> PathBuf {
            self.dir.path().join(cid)
        }

        fn store(&self) -> PathBuf {
            self.disks.layout.store()
        }
    }

    #[tokio::test]
    async fn a_disk_is_copied_to_a_new_one_which_takes_its_place() {
        let fixture = Fixture::new();
        fixture.disks.mount("old").await.unwrap();
        fixture.disks.mount("old").await.unwrap();
        std::fs::create_dir(fixture.store().join("db")).unwrap();
        std::fs::write(fixture.store().join("db/rows"), "precious").unwrap();
        fixture.disks.mount("new").await.unwrap();
        assert_eq!(fixture.disks.list().unwrap(), ["old", "new"]);

        for _ in 0..2 {
            fixture.disks.migrate("old", "new").await.unwrap();
            assert_eq!(fixture.disks.list().unwrap(), ["new"]);
            assert_eq!(std::fs::read_link(fixture.store()).unwrap(), fixture.disk("new"));
            assert_eq!(std::fs::read_to_string(fixture.store().join("db/rows")).unwrap(), "precious");
        }
        assert_eq!(std::fs::read_to_string(fixture.disk("old").join("db/rows")).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_swap_that_a_crash_interrupted_is_completed_at_boot() {
        let fixture = Fixture::new();
        fixture.disks.mount("old").await.unwrap();
        fixture.disks.mount("new").await.unwrap();
        // Everything was copied and recorded; then the agent died.
        fixture.disks.record(&Mounted { store: Some("new".into()), target: None }).unwrap();
        fixture.disks.boot().await;
        assert_eq!(fixture.disks.list().unwrap(), ["new"]);
        assert_eq!(std::fs::read_link(fixture.store()).unwrap(), fixture.disk("new"));
        assert!(!fixture.disks.layout.store_migration_target().exists());
    }

    #[tokio::test]
    async fn unknown_disks_and_wrong_roles_are_refused() {
        let fixture = Fixture::new();
        let error = fixture.disks.mount("other").await.unwrap_err().to_string();
        assert_eq!(error, "Persistent disk with volume id 'other' could not be found");
        fixture.disks.mount("old").await.unwrap();
        assert!(fixture.disks.migrate("old", "new").await.is_err());
        fixture.disks.mount("new").await.unwrap();
        assert!(fixture.disks.migrate("new", "old").await.is_err(), "the roles are the other way round");
        assert_eq!(fixture.disks.list().unwrap(), ["old", "new"]);
    }

    #[test]
    fn a_dynamic_disk_is_linked_as_long_as_it_is_there() {
        let fixture = Fixture::new();
        let hint = |name: &str| json!({ "path": fixture.disk(name), "kind": "directory" });
        for name in ["old", "new", "new"] {
            fixture.disks.link("d-1", &hint(name)).unwrap();
            let link = fixture.disks.layout.dynamic_disks().join("d-1");
            assert_eq!(std::fs::read_link(link).unwrap(), fixture.disk(name));
        }
        assert!(!fixture.disks.is_known("d-1").unwrap(), "it is none that is mounted");
        for _ in 0..2 {
            fixture.disks.unlink("d-1").unwrap();
            assert_eq!(std::fs::read_dir(fixture.disks.layout.dynamic_disks()).unwrap().count(), 0);
        }
        for (cid, hint) in [("", hint("old")), ("../x", hint("old")), ("..", hint("old")), ("d", json!(7))] {
            assert!(fixture.disks.link(cid, &hint).is_err(), "{cid} {hint}");
        }
        assert!(fixture.disks.link("d-1", &hint("nowhere")).is_err());
        assert!(fixture.disks.unlink("../old").is_err());
    }

    #[tokio::test]
    async fn unmounting_says_what_it_did() {
        let fixture = Fixture::new();
        fixture.disks.mount("old").await.unwrap();
        assert_eq!(fixture.disks.unmount("old").await.unwrap(), "Unmounted partition of old");
        assert_eq!(fixture.disks.unmount("old").await.unwrap(), "Partition of old is not mounted");
        assert_eq!(fixture.disks.list().unwrap(), Vec::<String>::new());
        fixture.disks.remove("old").unwrap();
        assert!(fixture.disks.mount("old").await.is_err());
    }
}
