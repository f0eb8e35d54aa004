//! What differs between machines: owners, users and mounts.
//!
//! [`linux`] has a root of its own; [`process`] is a plain process beside others and may change nothing outside its base
//! directory; [`container`] has a root of its own and may not mount. Not here: what is mounted when, which is `disks`.

pub mod container;
pub mod linux;
pub mod process;
mod sessions;
pub(crate) mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use regex::Regex;
use serde_json::Value;

use crate::error::ActionError;

/// A user and group to run a program as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What stands behind a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A directory.
    Directory(PathBuf),
    /// A block device.
    Device(PathBuf),
}

impl DiskSource {
    /// Reads a hint: text or a map with `path`, and `kind: directory` for a directory.
    pub fn of(hint: &Value) -> Option<Self> {
        let (path, kind) = match hint {
            Value::String(path) => (path.as_str(), None),
            Value::Object(map) => (map.get("path")?.as_str()?, map.get("kind").and_then(Value::as_str)),
            _ => return None,
        };
        let path = PathBuf::from(path);
        Some(match kind {
            Some("directory") => Self::Directory(path),
            // A device may also be told by what is there.
            None if path.is_dir() => Self::Directory(path),
            _ => Self::Device(path),
        })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Device(path) => path,
        }
    }
}

/// How to make and mount a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// `ext4` or `xfs`; `ext4` where nothing is said.
    pub kind: Option<String>,
    /// Mount options.
    pub options: Vec<String>,
}

/// Whether something had to be unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It was mounted.
    Now,
    /// It was not.
    Already,
}

/// What differs between machines.
#[async_trait]
pub trait Platform: Send + Sync + 'static {
    /// Gives a file or directory to `root:vcap`: jobs may read what its mode allows, and not change it.
    fn give(&self, path: &Path) -> std::io::Result<()>;

    /// Returns the file that names hosts, if it is this machine's own.
    fn hosts(&self) -> Option<&'static Path>;

    /// Returns whom to run a program as; `None`: as the agent itself.
    fn credentials(
        &self,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Credentials>, ActionError>;

    /// Returns whether something is mounted at `at`.
    fn is_mounted(&self, at: &Path) -> bool;

    /// Mounts a disk, making a file system only where there is none, and growing it to the disk's size. The caller has
    /// made sure that nothing is mounted there.
    async fn mount(
        &self,
        source: &DiskSource,
        at: &Path,
        file_system: &FileSystem,
    ) -> Result<(), ActionError>;

    /// Unmounts what is mounted at `at`, waiting a while for those who use it.
    async fn unmount(&self, at: &Path) -> Result<Unmounted, ActionError>;

    /// Keeps everybody from writing to what is mounted at `at`, before it is copied. Fails while files are open for
    /// writing.
    async fn make_read_only(&self, at: &Path) -> Result<(), ActionError>;

    /// Makes exactly these certificates, PEM, trusted by what runs on the machine. `bosh` is the agent's own directory.
    async fn trust(&self, certificates: &[String], bosh: &Path) -> Result<(), ActionError>;

    /// Makes a user below `homes` who may log in with a key, and returns by which key the machine is known. The caller has
    /// checked name and key. Twice is once.
    async fn add_operator(&self, user: &str, public_key: &str, homes: &Path) -> Result<String, ActionError>;

    /// Removes the users that were made like that and whose names match, and ends their sessions.
    async fn remove_operators(&self, names: &Regex) -> Result<(), ActionError>;
}

/// Makes the `bosh-trusted-cert-N.crt` of a directory exactly these. Returns whether anything has to be done about it: until
/// [`trusted_in_use`] is called, an interrupted change counts as one.
fn write_trusted(directory: &Path, certificates: &[String]) -> Result<bool, ActionError> {
    std::fs::create_dir_all(directory).map_err(ActionError::file("create", directory))?;
    let wanted: BTreeMap<PathBuf, &str> = (certificates.iter().enumerate())
        .map(|(at, text)| (directory.join(format!("{TRUSTED_PREFIX}{}.crt", at + 1)), text.as_str()))
        .collect();
    let entries = std::fs::read_dir(directory).map_err(ActionError::file("read", directory))?;
    let there: BTreeMap<PathBuf, String> = (entries.flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(TRUSTED_PREFIX))
        .map(|entry| (entry.path(), std::fs::read_to_string(entry.path()).unwrap_or_default()))
        .collect();
    let pending = directory.join(PENDING);
    let same = there.iter().map(|(path, text)| (path, text.as_str())).eq(wanted.iter().map(|(p, t)| (p, *t)));
    if same && !pending.exists() {
        return Ok(false);
    }
    std::fs::write(&pending, []).map_err(ActionError::file("write", &pending))?;
    for old in there.keys() {
        std::fs::remove_file(old).map_err(ActionError::file("remove", old))?;
    }
    for (path, certificate) in wanted {
        std::fs::write(&path, certificate).map_err(ActionError::file("write", &path))?;
    }
    Ok(true)
}

/// Notes that what [`write_trusted`] wrote is in use.
fn trusted_in_use(directory: &Path) -> Result<(), ActionError> {
    let pending = directory.join(PENDING);
    match std::fs::remove_file(&pending) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ActionError::file("remove", &pending)(error))
        }
        _ => Ok(()),
    }
}

/// What the names of trusted certificates' files start with.
const TRUSTED_PREFIX: &str = "bosh-trusted-cert-";

/// There while trusted certificates have been changed and are not in use yet.
const PENDING: &str = ".bosh-trusted-certs-pending";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn trusted_certificates_are_put_to_use_once() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (["A".to_owned()], ["A".to_owned(), "B".to_owned()]);
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        assert!(!write_trusted(folder.path(), &[]).unwrap(), "none before, none now");
        std::fs::write(folder.path().join("other.crt"), "not ours").unwrap();
        assert!(write_trusted(folder.path(), &two).unwrap());
        // Interrupted before they were in use.
        assert!(write_trusted(folder.path(), &two).unwrap());
        trusted_in_use(folder.path()).unwrap();
        assert!(!write_trusted(folder.path(), &two).unwrap());
        assert!(write_trusted(folder.path(), &one).unwrap());
        trusted_in_use(folder.path()).unwrap();
        assert_eq!(names(), ["bosh-trusted-cert-1.crt".to_owned(), "other.crt".to_owned()].into());
    }

    #[test]
    fn hints_are_text_or_maps() {
        let device = |path: &str| Some(DiskSource::Device(path.into()));
        assert_eq!(DiskSource::of(&json!("/dev/loop-x")), device("/dev/loop-x"));
        assert_eq!(DiskSource::of(&json!({ "path": "/dev/x", "volume_id": "7" })), device("/dev/x"));
        let directory = json!({ "path": "/not/there", "kind": "directory" });
        assert_eq!(DiskSource::of(&directory), Some(DiskSource::Directory("/not/there".into())));
        assert_eq!(DiskSource::of(&json!({ "lun": "0" })), None);
        assert_eq!(DiskSource::of(&json!(7)), None);
    }
}
