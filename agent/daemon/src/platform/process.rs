//! A plain process beside others: disks are directories behind a symlink, and everything belongs to whoever runs us.

use std::path::Path;

use async_trait::async_trait;
use regex::Regex;

use super::{Credentials, DiskSource, FileSystem, Platform, Unmounted};
use crate::error::ActionError;

/// See the module's header.
#[derive(Debug, Default)]
pub struct ProcessPlatform;

#[async_trait]
impl Platform for ProcessPlatform {
    fn give(&self, _path: &Path) -> std::io::Result<()> {
        Ok(())
    }

    fn hosts(&self) -> Option<&'static Path> {
        // Others live by it, too.
        None
    }

    fn credentials(
        &self,
        _user: Option<&str>,
        _group: Option<&str>,
    ) -> Result<Option<Credentials>, ActionError> {
        Ok(None)
    }

    fn is_mounted(&self, at: &Path) -> bool {
        at.is_symlink()
    }

    async fn mount(&self, source: &DiskSource, at: &Path, _: &FileSystem) -> Result<(), ActionError> {
        let DiskSource::Directory(directory) = source else {
            return Err(ActionError::failed(format!(
                "disk `{}` is not a directory: a plain process can't mount anything else",
                source.path().display()
            )));
        };
        if !directory.is_dir() {
            return Err(ActionError::failed(format!("disk `{}` is not there", directory.display())));
        }
        if at.is_dir() && !at.is_symlink() {
            // An empty mount point makes way; one with content is somebody's data.
            std::fs::remove_dir(at).map_err(ActionError::file("mount a disk over", at))?;
        }
        std::os::unix::fs::symlink(directory, at).map_err(ActionError::file("link a disk to", at))
    }

    async fn unmount(&self, at: &Path) -> Result<Unmounted, ActionError> {
        if !at.is_symlink() {
            return Ok(Unmounted::Already);
        }
        std::fs::remove_file(at).map_err(ActionError::file("unlink a disk from", at))?;
        Ok(Unmounted::Now)
    }

    async fn make_read_only(&self, _at: &Path) -> Result<(), ActionError> {
        // A directory can't be made read-only for those who own it: the jobs have been stopped, which must do.
        Ok(())
    }

    async fn trust(&self, certificates: &[String], bosh: &Path) -> Result<(), ActionError> {
        // The machine belongs to others: the certificates are kept where its jobs can find them.
        let directory = bosh.join("trusted_certs");
        super::write_trusted(&directory, certificates)?;
        super::trusted_in_use(&directory)
    }

    async fn add_operator(
        &self,
        _user: &str,
        _public_key: &str,
        _homes: &Path,
    ) -> Result<String, ActionError> {
        Err(ActionError::failed("this VM is a process among others: there are no users to log in as"))
    }

    async fn remove_operators(&self, _names: &Regex) -> Result<(), ActionError> {
        // Nobody was ever made.
        Ok(())
    }
}
