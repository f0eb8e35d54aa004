//! A container: a machine with a root of its own, as [`linux`](super::linux) has one, but without the right to mount. Its
//! disks are put into it from outside, as directories, and used behind a symlink, as plain [processes](super::process) do.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use regex::Regex;

use super::linux::LinuxPlatform;
use super::process::ProcessPlatform;
use super::{Credentials, DiskSource, FileSystem, Platform, Unmounted};
use crate::error::ActionError;

/// See the module's header.
#[derive(Debug, Default)]
pub struct ContainerPlatform {
    machine: LinuxPlatform,
    disks: ProcessPlatform,
}

#[async_trait]
impl Platform for ContainerPlatform {
    fn give(&self, path: &Path) -> io::Result<()> {
        self.machine.give(path)
    }

    fn hosts(&self) -> Option<&'static Path> {
        self.machine.hosts()
    }

    fn credentials(
        &self,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Credentials>, ActionError> {
        self.machine.credentials(user, group)
    }

    fn is_mounted(&self, at: &Path) -> bool {
        self.disks.is_mounted(at)
    }

    async fn mount(
        &self,
        source: &DiskSource,
        at: &Path,
        file_system: &FileSystem,
    ) -> Result<(), ActionError> {
        self.disks.mount(source, at, file_system).await
    }

    async fn unmount(&self, at: &Path) -> Result<Unmounted, ActionError> {
        self.disks.unmount(at).await
    }

    async fn make_read_only(&self, at: &Path) -> Result<(), ActionError> {
        self.disks.make_read_only(at).await
    }

    async fn trust(&self, certificates: &[String], bosh: &Path) -> Result<(), ActionError> {
        self.machine.trust(certificates, bosh).await
    }

    async fn add_operator(&self, user: &str, public_key: &str, homes: &Path) -> Result<String, ActionError> {
        self.machine.add_operator(user, public_key, homes).await
    }

    async fn remove_operators(&self, names: &Regex) -> Result<(), ActionError> {
        self.machine.remove_operators(names).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_used_behind_a_link_and_never_without_being_there() {
        let (platform, dir) = (ContainerPlatform::default(), tempfile::tempdir().unwrap());
        let (disk, store) = (dir.path().join("disk/data"), dir.path().join("store"));
        let source = DiskSource::Directory(disk.clone());
        platform.mount(&source, &store, &FileSystem::default()).await.unwrap_err();
        std::fs::create_dir_all(&disk).unwrap();
        platform.mount(&source, &store, &FileSystem::default()).await.unwrap();
        assert!(platform.is_mounted(&store));
        std::fs::write(store.join("kept"), "").unwrap();
        assert_eq!(platform.unmount(&store).await.unwrap(), Unmounted::Now);
        assert_eq!(platform.unmount(&store).await.unwrap(), Unmounted::Already);
        assert!(disk.join("kept").exists() && !platform.is_mounted(&store));
    }
}
