//! Habits that a program can watch over: file sizes and names, headers, notes left behind, traces of a machine.
//!
//! A rule looks at one file at a time and knows nothing of git or the disk ([`rules`]); reading the tree happens once
//! ([`Tree::read`]). Deliberately not here: everything that clippy or rustfmt already says.

pub mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::Complaint;

/// The files that a commit would take, with their text.
#[derive(Debug, Default)]
pub struct Tree {
    /// Text files, by path from the root.
    pub files: Vec<TextFile>,
}

/// One text file.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// The path from the root.
    pub path: Utf8PathBuf,
    /// What it says.
    pub text: String,
}

impl Tree {
    /// Reads what git tracks or would add at `root`. Files that are not UTF-8 are left out: no rule is about them.
    pub fn read(root: &Utf8Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("failed to start `git ls-files`")?;
        if !output.status.success() {
            bail!("`git ls-files` failed in `{root}`: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let listed = String::from_utf8(output.stdout).context("git lists a path that is not UTF-8")?;
        let paths: BTreeSet<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
        let mut files = Vec::new();
        for path in paths {
            let full = root.join(path);
            // Deleted but still in the index, or a link: nothing of ours to read.
            if !full.symlink_metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            let bytes = fs::read(&full).with_context(|| format!("failed to read `{full}`"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile { path: path.into(), text });
            }
        }
        Ok(Self { files })
    }

    /// Returns whether a folder beside `file` bears its name, which makes `file` the head of a module of several files.
    fn heads_a_folder(&self, file: &Utf8Path) -> bool {
        let folder = file.with_extension("");
        let is_submodule = |other: &TextFile| {
            other.path.parent() == Some(folder.as_path()) && other.path.file_name() != Some("tests.rs")
        };
        self.files.iter().any(is_submodule)
    }
}

/// Texts that must not be committed because they tell of one machine.
#[derive(Clone, Debug, Default)]
pub struct Private {
    /// Folders of the machine.
    pub folders: Vec<String>,
    /// Hosts that packages are fetched from here.
    pub hosts: Vec<String>,
}

impl Private {
    /// Returns what is private on this machine: where the checkout at `root` lies and what the package managers here
    /// are told to use. Asked of the machine each time, because a list kept in the tree would itself tell.
    pub fn of_this_machine(root: &Utf8Path) -> Self {
        Self { folders: private_folders(root), hosts: package_hosts() }
    }
}

/// The checkout's own folder, and the one around it unless that is a common one of every system.
fn private_folders(root: &Utf8Path) -> Vec<String> {
    const COMMON: &[&str] = &["etc", "home", "mnt", "opt", "root", "run", "srv", "tmp", "usr", "var"];
    let Ok(root) = root.canonicalize_utf8() else { return Vec::new() };
    let around = root.parent().filter(|parent| {
        let first = parent.components().nth(1).map(|part| part.as_str().to_owned());
        first.is_some_and(|first| !COMMON.contains(&first.as_str()))
    });
    [Some(root.as_path()), around].into_iter().flatten().map(ToString::to_string).collect()
}

/// Hosts in the configuration of cargo, apt, pip and npm.
fn package_hosts() -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let mut sources: Vec<Utf8PathBuf> = vec![
        format!("{cargo_home}/config.toml").into(),
        format!("{home}/.npmrc").into(),
        format!("{home}/.config/pip/pip.conf").into(),
        "/etc/pip.conf".into(),
        "/etc/apt/sources.list".into(),
    ];
    if let Ok(folder) = Utf8Path::new("/etc/apt/sources.list.d").read_dir_utf8() {
        sources.extend(folder.flatten().map(|entry| entry.path().to_owned()));
    }
    let texts = sources.iter().filter_map(|path| fs::read_to_string(path).ok());
    let hosts: BTreeSet<String> = texts.flat_map(|text| hosts_in(&text)).collect();
    hosts.into_iter().collect()
}

/// Returns the host of every URL in `text` that is not commented out. Bare names without a dot are too short to search.
fn hosts_in(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let after_scheme = lines.flat_map(|line| line.split("://").skip(1));
    let hosts = after_scheme.map(|rest| {
        let authority = rest.split(['/', ' ', '"', '\'']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        host.split(':').next().unwrap_or_default().to_owned()
    });
    hosts.filter(|host| host.contains('.')).collect()
}

/// Looks at every file; returns what is not in order.
pub fn check(tree: &Tree, private: &Private) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in &tree.files {
        complaints.extend(rules::name(file));
        complaints.extend(rules::length(file));
        complaints.extend(rules::header(file, tree.heads_a_folder(&file.path)));
        complaints.extend(rules::leftovers(file));
        complaints.extend(rules::whitespace(file));
        complaints.extend(rules::traces(file, private));
    }
    complaints.sort();
    complaints
}

#[cfg(test)]
mod tests;
