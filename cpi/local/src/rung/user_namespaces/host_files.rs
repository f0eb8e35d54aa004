//! The root of a VM on the host's own files, where nobody is root of the host.
//!
//! An overlay over all of the host would be the host's root's to write to, and where something is mounted below, there can't be
//! one. So the VM has a skeleton of its own, with a copy of what everybody may read of `/etc`, and shares the directories with
//! programs, which it can't change.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpi_host::{HostError, Scope};
use model::StemcellCid;

use crate::cloud::Cloud;
use crate::store::create_for_all;

/// Where programs are, on one system or another.
const PROGRAMS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];

/// Directories of its own, with their modes.
const OWN: [(&str, u32); 16] = [
    ("etc", 0o755),
    ("home", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("mnt", 0o755),
    ("srv", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Links that programs expect.
const LINKS: [(&str, &str); 2] = [("var/run", "/run"), ("var/lock", "/run/lock")];

/// Where the agent puts certificates that the VM trusts: the one place among the programs that it changes.
const TRUSTED: &str = "/usr/local/share/ca-certificates";

/// What is kept of a copied directory's mode: everything but that others become its owner or group.
const MODE_KEPT: u32 = 0o1777;

/// Returns where the skeleton of a stemcell's VMs is.
pub(super) fn skeleton(cloud: &Cloud, stemcell: &StemcellCid) -> PathBuf {
    cloud.store.stemcell_dir(stemcell).join("skeleton")
}

/// Returns the directories that VMs share with the host.
pub(super) fn shared() -> Vec<PathBuf> {
    PROGRAMS.map(PathBuf::from).into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

/// Returns the directory and which of the shared ones it lies below, if it does. What is mounted over it in a VM, root in there
/// can take away.
pub(super) fn shared_with(shared: &[PathBuf], dir: &Path) -> Option<(PathBuf, PathBuf)> {
    shared.iter().find(|shared| dir.starts_with(shared)).map(|shared| (dir.to_owned(), shared.clone()))
}

/// Returns the directories of the host in whose place VMs have empty ones of their own.
pub(super) fn emptied() -> Option<PathBuf> {
    // Where it is missing, it could not be made either.
    Path::new(TRUSTED).ancestors().take(2).find(|place| place.is_dir()).map(Path::to_owned)
}

/// Makes the skeleton of a stemcell, unless it is there.
pub(super) fn prepare(cloud: &Cloud, scope: &Scope, stemcell: &StemcellCid) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(stemcell.as_str(), scope)?;
    let done = skeleton(cloud, stemcell);
    if done.exists() {
        return Ok(());
    }
    let half = done.with_extension("half");
    // A maker that died left half of one.
    cloud.store.discard(&half)?;
    make(&half).map_err(HostError::os("make a root file system in", &half))?;
    // Before it has its name: what has it is whole, also after a power cut.
    let made = File::open(&half).map_err(HostError::os("open", &half))?;
    nix::unistd::syncfs(&made).map_err(HostError::os("sync", &half))?;
    fs::rename(&half, &done).map_err(HostError::os("create", &done))
}

fn make(root: &Path) -> io::Result<()> {
    create_for_all(root)?;
    for (name, mode) in OWN {
        let path = root.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (name, target) in LINKS {
        symlink(target, root.join(name))?;
    }
    for program in PROGRAMS.map(Path::new) {
        let path = root.join(program.strip_prefix("/").unwrap_or(program));
        match fs::read_link(program) {
            Ok(target) => symlink(target, path)?,
            Err(_) if program.is_dir() => create_for_all(&path)?,
            Err(_) => {}
        }
    }
    copy_public(Path::new("/etc"), &root.join("etc"))
}

/// Copies what everybody may read in a directory. What goes meanwhile is left out.
fn copy_public(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let Ok(about) = entry.metadata() else { continue };
        let (kind, mode) = (about.file_type(), about.permissions().mode());
        let copied = if kind.is_symlink() {
            fs::read_link(&source).and_then(|target| symlink(target, &copy))
        } else if kind.is_dir() && mode & 0o5 == 0o5 {
            fs::create_dir(&copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(mode & MODE_KEPT | 0o700))?;
            copy_public(&source, &copy)
        } else if kind.is_file() && mode & 0o4 == 0o4 {
            fs::copy(&source, &copy).map(drop)
        } else {
            Ok(())
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_shared_directory_is_seen_there() {
        let shared = ["/usr", "/opt"].map(PathBuf::from);
        let seen = |dir: &str| shared_with(&shared, Path::new(dir)).map(|(_, shared)| shared);
        assert_eq!(seen("/opt/fleet/data"), Some("/opt".into()));
        assert_eq!(seen("/usr"), Some("/usr".into()));
        assert_eq!(seen("/optional/fleet"), None);
    }

    #[test]
    fn only_what_everybody_may_read_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("open")).unwrap();
        fs::create_dir_all(from.join("closed")).unwrap();
        fs::create_dir(&to).unwrap();
        for (name, mode) in [("open/public", 0o644), ("open/private", 0o640), ("closed/public", 0o644)] {
            fs::write(from.join(name), name).unwrap();
            fs::set_permissions(from.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("open/public", from.join("link")).unwrap();
        fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(from.join("open"), fs::Permissions::from_mode(0o1775)).unwrap();
        copy_public(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "open/public");
        assert!(!to.join("open/private").exists() && !to.join("closed").exists());
        assert_eq!(fs::metadata(to.join("open")).unwrap().permissions().mode() & 0o7777, 0o1775);
    }
}
