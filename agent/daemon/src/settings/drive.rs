//! A file on a disk that is not mounted.

use std::ffi::OsStr;
use std::path::{Component, Path};

use crate::children;
use crate::error::ActionError;

/// Reads a file on a disk, mounted for just that long, for reading only.
pub(super) async fn file_on(disk: &Path, file: &Path) -> Result<Vec<u8>, ActionError> {
    if file.components().any(|part| part == Component::ParentDir) {
        return Err(ActionError::failed(format!("`{}` leaves the disk", file.display())));
    }
    tokio::fs::metadata(disk).await.map_err(ActionError::file("find", disk))?;
    let at =
        tempfile::tempdir().map_err(|error| ActionError::failed(format!("no place to mount: {error}")))?;
    run("mount", &[OsStr::new("-o"), OsStr::new("ro"), disk.as_os_str(), at.path().as_os_str()]).await?;
    let path = at.path().join(file.strip_prefix("/").unwrap_or(file));
    let content = tokio::fs::read(&path).await.map_err(ActionError::file("read", file));
    run("umount", &[at.path().as_os_str()]).await?;
    content
}

async fn run(program: &str, arguments: &[&OsStr]) -> Result<(), ActionError> {
    let arguments: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    children::run(program, &arguments, OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin")).await
}
