//! A file system inside a disk, filled without being mounted.
//!
//! `mke2fs` makes it empty, and `debugfs` puts one entry after the other into it, in the archive's order: `mke2fs -d` would take
//! them in the order in which a folder on this machine happens to list them, and their times from this machine's clock.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::refuse;
use super::tree::{CAPABILITY, Entry, Kind, Tree};
use crate::archive::EPOCH;
use crate::error::StemcellError;

/// What the file system can do. Named, so that it is the same wherever it is made, and nothing that GRUB can't read.
const FEATURES: &str = "sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr,has_journal,extent,huge_file,\
                        flex_bg,metadata_csum,64bit,dir_nlink,extra_isize";

/// Where in a disk, and as what.
pub(super) struct FileSystem<'a> {
    pub disk: &'a Path,
    /// Where it begins.
    pub at_mib: u64,
    pub mib: u64,
    pub uuid: String,
}

impl FileSystem<'_> {
    /// Makes it, with everything that is in a tree; `scratch` is a folder to work in.
    pub fn make(&self, tree: &Tree, scratch: &Path) -> Result<(), StemcellError> {
        let script = scratch.join("debugfs.script");
        let text = script_for(tree, scratch)?;
        fs::write(&script, text).map_err(StemcellError::os("write", &script))?;
        let offset = self.at_mib << 20;
        let within = format!("{}?offset={offset}", self.disk.display());
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-O", FEATURES, "-b", "4096", "-I", "256", "-i", "16384", "-m", "0"])
            .args(["-U", &self.uuid, "-E", &format!("offset={offset},hash_seed={}", self.uuid)])
            .arg(self.disk)
            .arg(format!("{}M", self.mib));
        run(make)?;
        let mut fill = Command::new("debugfs");
        fill.args(["-w", "-f"]).arg(&script).arg(&within);
        let said = run(fill)?;
        // It goes on after errors, and ends well. The first line says who it is.
        if let Some(error) = said.lines().find(|line| !line.starts_with("debugfs ")) {
            return Err(refuse(format!("debugfs could not fill the file system: {error}")));
        }
        let mut check = Command::new("e2fsck");
        check.args(["-f", "-n"]).arg(&within);
        run(check).map(drop)
    }
}

/// Runs a program of e2fsprogs at a fixed time, by its own defaults; returns what it complains about.
fn run(mut command: Command) -> Result<String, StemcellError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("E2FSPROGS_FAKE_TIME", EPOCH.to_string())
        .env("MKE2FS_CONFIG", "/dev/null")
        .env("LC_ALL", "C")
        // Not everybody has root's programs on the search path.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(StemcellError::os("run", &program))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(refuse(format!("{program} failed: {}", said.trim()))),
    }
}

/// Returns the commands that make a tree's entries.
fn script_for(tree: &Tree, scratch: &Path) -> Result<String, StemcellError> {
    let mut script = String::new();
    let mut links: BTreeMap<&str, u32> = BTreeMap::new();
    for (number, entry) in tree.entries.iter().enumerate() {
        let at = quoted(&format!("/{}", entry.path));
        let kind_bits = match &entry.kind {
            Kind::Directory => 0o040_000,
            Kind::File => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Link(to) => {
                let count = links.entry(to).or_insert(1);
                *count += 1;
                let to = quoted(&format!("/{to}"));
                // `ln` does not make a full folder larger. What does leaves a place in it for this name.
                let _ = writeln!(
                    script,
                    "symlink {at} place\nrm {at}\nln {to} {at}\nsif {to} links_count {count}"
                );
                continue;
            }
        };
        let _ = match &entry.kind {
            Kind::Directory if entry.path.is_empty() => Ok(()),
            Kind::Directory => writeln!(script, "mkdir {at}"),
            Kind::Symlink(to) => writeln!(script, "symlink {at} {}", quoted(to)),
            _ => writeln!(script, "write {} {at}", quoted(&tree.folder.join(&entry.path).to_string_lossy())),
        };
        attributes(&mut script, entry, &at, kind_bits);
        if let Some(value) = &entry.capability {
            let path = scratch.join(format!("attribute-{number}"));
            fs::write(&path, value).map_err(StemcellError::os("write", &path))?;
            let _ = writeln!(script, "ea_set -f {} {at} {CAPABILITY}", quoted(&path.to_string_lossy()));
        }
    }
    Ok(script)
}

fn attributes(script: &mut String, entry: &Entry, at: &str, kind_bits: u32) {
    let Entry { mode, uid, gid, modified_at_seconds, .. } = entry;
    let _ = writeln!(script, "sif {at} mode 0{:o}", kind_bits | mode);
    for (field, id) in [("uid", uid), ("gid", gid)] {
        if *id != 0 {
            let _ = writeln!(script, "sif {at} {field} {id}");
        }
    }
    let _ = writeln!(script, "sif {at} mtime @{modified_at_seconds}");
}

/// Returns a word as `debugfs` reads it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn entry(path: String, kind: Kind) -> Entry {
        Entry { path, kind, mode: 0o644, uid: 0, gid: 0, modified_at_seconds: EPOCH, capability: None }
    }

    #[test]
    fn a_folder_that_is_full_takes_another_name_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, folder) = (dir.path().join("disk"), dir.path().join("root"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "text").unwrap();
        // A block of a folder has room for nineteen of them.
        let names = (0..50).map(|n| format!("full/{n:0>200}"));
        let links = names.map(|name| entry(name, Kind::Link("file".into())));
        let mut entries = vec![entry("file".into(), Kind::File), entry("full".into(), Kind::Directory)];
        entries.extend(links);
        let tree = Tree { folder, entries, digest: [0; 32] };
        File::create(&disk).unwrap().set_len(17 << 20).unwrap();
        let uuid = "00000000-0000-8000-8000-000000000000".into();
        FileSystem { disk: &disk, at_mib: 1, mib: 16, uuid }.make(&tree, dir.path()).unwrap();

        let within = format!("{}?offset={}", disk.display(), 1 << 20);
        let mut ask = Command::new("debugfs");
        ask.args(["-R", "ls -p /full", &within]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let listed = String::from_utf8(ask.output().unwrap().stdout).unwrap();
        let missing = tree.entries[2..].iter().find(|link| !listed.contains(&link.path["full/".len()..]));
        assert!(missing.is_none(), "{missing:?} is not in: {listed}");
    }
}
