//! Files of a job, package or licence: their fingerprint and their archive.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use model::Fingerprint;
use sha2::{Digest as _, Sha256};

use super::CreateError;
use crate::archive::pack::{Packing, TgzWriter};

/// Bytes read at once while hashing.
const CHUNK_BYTES: usize = 64 * 1024;

/// A file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name in the archive and in the fingerprint.
    pub label: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether its mode is part of the fingerprint.
    pub mode: ModeCounts,
    /// What a symbolic link stands for.
    pub links: Links,
}

/// Whether a file's mode is part of the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModeCounts {
    Yes,
    /// For scripts that are run through an interpreter anyway, and for licences.
    No,
}

/// What a symbolic link stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// For itself: its text is hashed and archived.
    Kept,
    /// For the file it leads to, under the link's own mode.
    Followed,
}

/// Returns the fingerprint of files and the names of direct dependencies.
pub(super) fn fingerprint(files: &[Source], dependencies: &[String]) -> Result<Fingerprint, CreateError> {
    let mut sorted: Vec<&Source> = files.iter().collect();
    sorted.sort_by(|a, b| a.label.cmp(&b.label));
    let mut text = "v2".to_owned();
    for file in sorted {
        let facts = file.facts().map_err(CreateError::file("read", &file.path))?;
        text.push_str(&file.label);
        text.push_str("sha256:");
        text.push_str(&facts.sha256);
        if file.mode == ModeCounts::Yes {
            text.push_str(facts.mode);
        }
        if facts.only_others_execute {
            let why = "may be executed by its group or others but not by its owner: Expected source and staging fingerprints to match";
            return Err(CreateError::invalid(&file.path, why));
        }
    }
    let mut names = dependencies.to_vec();
    names.sort();
    text.push_str(&names.join(","));
    Ok(Fingerprint::new(hex::encode(Sha256::digest(text))))
}

/// Archives files under `./`, with the folders they are in.
pub(super) fn archive(files: &[Source], packing: Packing, to: &Path) -> Result<(), CreateError> {
    let failed = |e| CreateError::file("write", to)(e);
    let mut sorted: Vec<&Source> = files.iter().collect();
    sorted.sort_by(|a, b| a.label.cmp(&b.label));
    let mut tgz = TgzWriter::packed(File::create(to).map_err(failed)?, packing);
    tgz.folder("./").map_err(failed)?;
    let mut folders = std::collections::BTreeSet::new();
    for file in sorted {
        for (i, _) in file.label.match_indices('/') {
            if folders.insert(file.label[..i].to_owned()) {
                tgz.folder(&format!("./{}/", &file.label[..i])).map_err(failed)?;
            }
        }
        file.add_to(&mut tgz).map_err(CreateError::file("archive", &file.path))?;
    }
    tgz.finish().map(drop).map_err(failed)
}

struct Facts {
    sha256: String,
    mode: &'static str,
    only_others_execute: bool,
}

impl Source {
    fn facts(&self) -> io::Result<Facts> {
        let metadata = fs::symlink_metadata(&self.path)?;
        if metadata.is_symlink() && self.links == Links::Kept {
            let target = fs::read_link(&self.path)?;
            let sha256 = hex::encode(Sha256::digest(target.as_os_str().as_bytes()));
            return Ok(Facts { sha256, mode: "symlink", only_others_execute: false });
        }
        let bits = metadata.permissions().mode();
        let mode = if bits & 0o111 != 0 { "100755" } else { "100644" };
        let mode_counts = self.mode == ModeCounts::Yes;
        let only_others_execute = mode_counts && bits & 0o111 != 0 && bits & 0o100 == 0;
        Ok(Facts { sha256: sha256_of(&self.path)?, mode, only_others_execute })
    }

    fn add_to(&self, tgz: &mut TgzWriter<File>) -> io::Result<()> {
        let name = format!("./{}", self.label);
        let metadata = fs::symlink_metadata(&self.path)?;
        if metadata.is_symlink() && self.links == Links::Kept {
            return tgz.symlink(&name, &fs::read_link(&self.path)?);
        }
        let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        let content = File::open(&self.path)?;
        tgz.stream(&name, mode, content.metadata()?.len(), content)
    }
}

/// Returns the SHA-256 of a file's content, in hex.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&chunk[..n]),
        }
    }
}

/// Returns the relative paths of all files and links below `root`, sorted. Linked folders are not entered: such a link
/// is one entry.
pub(super) fn walk(root: &Path) -> Result<Vec<String>, CreateError> {
    let (mut found, mut open) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).map_err(CreateError::file("list", &path))? {
            let entry = entry.map_err(CreateError::file("list", &path))?;
            let name = entry.file_name().into_string();
            let name =
                name.map_err(|n| CreateError::invalid(&path.join(n), "has a name that is not UTF-8"))?;
            let relative = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(CreateError::file("look at", &entry.path()))?;
            if kind.is_dir() { open.push(relative) } else { found.push(relative) }
        }
    }
    found.sort();
    Ok(found)
}
