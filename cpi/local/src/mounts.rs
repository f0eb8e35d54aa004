//! What is mounted where, as the kernel tells in `mountinfo`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cpi_host::HostError;

/// Our own mounts.
const OWN: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The file system's device, `major:minor`.
    pub device: String,
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where it is.
    pub place: PathBuf,
}

/// Returns the mounts that this process sees.
pub(crate) fn own() -> Result<Vec<Mount>, HostError> {
    fs::read_to_string(OWN).map(|table| parse(&table)).map_err(HostError::os("read", OWN))
}

/// Returns the mounts that a text in the form of `mountinfo` tells of.
pub(crate) fn parse(table: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        Some(Mount {
            device: (*fields.get(2)?).to_owned(),
            root: unescaped(fields.get(3)?).into(),
            place: unescaped(fields.get(4)?).into(),
        })
    };
    table.lines().filter_map(mount).collect()
}

/// Returns whether a directory of ours, or one below it, is mounted somewhere by itself: in any mount namespace with a process
/// that we may look at.
pub(crate) fn is_mounted_anywhere(dir: &Path) -> Result<bool, HostError> {
    let Some((device, root)) = as_root(&own()?, dir) else { return Ok(false) };
    let is_of_dir = |mount: &Mount| mount.device == device && mount.root.starts_with(&root);
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/proc").map_err(HostError::os("list", "/proc"))?.flatten() {
        // Most processes share their mounts with others; some can't be looked at, or have ended.
        let namespace = fs::read_link(entry.path().join("ns/mnt"));
        let Some(namespace) = namespace.ok().filter(|namespace| !seen.contains(namespace)) else { continue };
        let Ok(table) = fs::read_to_string(entry.path().join("mountinfo")) else { continue };
        if parse(&table).iter().any(is_of_dir) {
            return Ok(true);
        }
        // Only now: of a process that has just ended nothing is told, and others may have the same mounts.
        seen.insert(namespace);
    }
    Ok(false)
}

/// Returns how a mount of a directory alone would be told of: by which device, and by which root.
fn as_root(mounts: &[Mount], dir: &Path) -> Option<(String, PathBuf)> {
    // Of several at one place the last one is seen.
    let around = mounts.iter().filter(|mount| dir.starts_with(&mount.place));
    let mount = around.max_by_key(|mount| mount.place.components().count())?;
    Some((mount.device.clone(), mount.root.join(dir.strip_prefix(&mount.place).ok()?)))
}

/// Undoes what the kernel does to blanks and backslashes in paths.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    const TABLE: &str = "22 1 0:20 / /proc rw - proc proc rw\n\
                         30 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                         40 30 8:2 /@vols /var/lib rw,relatime shared:1 - btrfs /dev/sda2 rw\n\
                         42 30 8:1 /a /with\\040blank rw - ext4 /dev/sda1 rw\n";

    #[test]
    fn a_directory_is_known_by_its_file_system_and_its_path_in_there() {
        let root = |dir: &str| as_root(&parse(TABLE), Path::new(dir));
        assert_eq!(root("/var/lib/cloud/d"), Some(("8:2".into(), "/@vols/cloud/d".into())));
        assert_eq!(root("/var/cloud"), Some(("8:1".into(), "/var/cloud".into())));
        assert_eq!(root("/with blank/d"), Some(("8:1".into(), "/a/d".into())));
    }

    #[test]
    fn a_directory_that_nobody_has_mounted_is_not_mounted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mounted_anywhere(dir.path()).unwrap());
    }

    #[test]
    fn a_directory_is_mounted_while_another_process_alone_has_it_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let script = "mount --bind \"$0/below\" \"$0/place\" && echo mounted && read word";
        for name in ["below", "place"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut other = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(other.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "mounted\n" {
            return println!("skipped: no mount namespace can be made here: {:?}", other.wait().unwrap());
        }
        assert!(is_mounted_anywhere(dir.path()).unwrap());
        assert!(is_mounted_anywhere(&dir.path().join("below")).unwrap());
        assert!(!is_mounted_anywhere(&dir.path().join("place")).unwrap(), "that is only where");
        // Its words are over, and so is it.
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(!is_mounted_anywhere(dir.path()).unwrap());
    }
}
