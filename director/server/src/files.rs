//! Small files that must be whole or absent, whatever happens in between.

use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;

/// Replaces a file in one step, readable by its owner only, and on disk when this returns.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Fails if a folder that is there belongs to somebody else: what we put into it, the replica could not read.
pub fn check_owner(folder: &Path) -> anyhow::Result<()> {
    let Ok(found) = std::fs::metadata(folder) else { return Ok(()) };
    // Our own process belongs to whom we act for.
    let us = std::fs::metadata("/proc/self").context("find out who we are")?.uid();
    let (owner, name) = (found.uid(), user_name(found.uid()));
    anyhow::ensure!(
        owner == us,
        "`{}` belongs to {name}: run this as that user, as whom the replica will run (`sudo -u {name} directord …`)",
        folder.display(),
    );
    Ok(())
}

fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_it = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(uid);
    let name = users.lines().find(is_it).and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("#{uid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_refused_by_their_name() {
        let folder = tempfile::tempdir().unwrap();
        check_owner(folder.path()).unwrap();
        check_owner(&folder.path().join("not there yet")).unwrap();
        // `/proc/1` is root's, for whoever is not root; root can give folders away.
        let (others, name) = match std::os::unix::fs::chown(folder.path(), Some(1), None) {
            Ok(()) => (folder.path(), user_name(1)),
            Err(_) => (Path::new("/proc/1"), user_name(0)),
        };
        let refused = check_owner(others).unwrap_err().to_string();
        assert!(refused.contains(&format!("belongs to {name}")), "{refused}");
    }
}
