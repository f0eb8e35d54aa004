//! `fetch_logs`: packs logs and uploads them. Jobs own their logs, the agent is root: no link that a job makes, before or
//! while logs are packed, leads out of their directories.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use model::agent_settings::AgentPlatform;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::archive::{self, Scratch};
use crate::error::{ActionError, blocking};
use crate::globs::Globs;
use crate::machine::{Order, Work};
use crate::real::RealMachine;

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    let kinds = order.text(0)?;
    let filters = match order.arguments.get(1) {
        None | Some(Value::Null) => vec![],
        Some(_) => order.argument::<Vec<String>>(1, "a list of globs")?,
    };
    let globs = Globs::parse(&filters)?;
    let sources =
        kinds.split(',').map(|kind| source(machine, kind)).collect::<Result<Vec<_>, ActionError>>()?;
    let scratch = Scratch::new(&machine.layout.tmp())?;
    let (staging, archive) = (scratch.path().join("logs"), scratch.path().join("logs.tgz"));
    let to = archive.clone();
    let packing = blocking(move || {
        std::fs::create_dir(&staging).map_err(ActionError::file("create", &staging))?;
        for (from, below) in sources.iter().flatten() {
            stage(from, &staging.join(below), &globs)?;
        }
        archive::pack(&staging, &to)
    });
    tokio::select! {
        packed = packing => packed?,
        () = work.cancel.cancelled() => return Err(ActionError::Cancelled),
    }
    let stored = machine.blobs.store(&archive).await?;
    Ok(json!({ "blobstore_id": stored.digest, "sha1": format!("sha256:{}", stored.digest) }))
}

/// Returns where logs of a kind are, and below which directory they go in the archive. A machine that is a process among
/// others has no logs of a system of its own.
fn source(machine: &RealMachine, kind: &str) -> Result<Option<(PathBuf, PathBuf)>, ActionError> {
    match (kind, machine.settings.platform) {
        ("job", _) => Ok(Some((machine.layout.log(), PathBuf::new()))),
        ("agent", _) => Ok(Some((machine.layout.bosh().join("log"), PathBuf::new()))),
        ("system", AgentPlatform::Linux | AgentPlatform::Container) => {
            Ok(Some((PathBuf::from("/var/log"), PathBuf::from("var/log"))))
        }
        ("system", AgentPlatform::Process) => Ok(None),
        _ => Err(ActionError::failed("Invalid log type")),
    }
}

/// Copies the files that match; a log that vanishes meanwhile was rotated away.
fn stage(from: &Path, to: &Path, globs: &Globs) -> Result<(), ActionError> {
    let Ok(root) = from.canonicalize() else { return Ok(()) };
    for entry in WalkDir::new(&root).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let Ok(relative) = entry.path().strip_prefix(&root) else { continue };
        if !globs.choose(&relative.to_string_lossy()) {
            continue;
        }
        let target = to.join(relative);
        let parent = target.parent().unwrap_or(to);
        std::fs::create_dir_all(parent).map_err(ActionError::file("create", parent))?;
        if let Some(mut log) = open_within(&root, entry.path()) {
            let mut copy = File::create(&target).map_err(ActionError::file("create", &target))?;
            std::io::copy(&mut log, &mut copy).map_err(ActionError::file("copy", entry.path()))?;
        }
    }
    Ok(())
}

/// Opens a file, if it is one by now and is still below `root`: a link may have taken its place, or its directory's.
fn open_within(root: &Path, path: &Path) -> Option<File> {
    let flags = O_NOFOLLOW | O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    (opened.starts_with(root) && file.metadata().ok()?.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(from: &Path, globs: &[&str]) -> Vec<String> {
        let to = tempfile::tempdir().unwrap();
        let globs: Vec<String> = globs.iter().map(ToString::to_string).collect();
        stage(from, to.path(), &Globs::parse(&globs).unwrap()).unwrap();
        let files = WalkDir::new(to.path()).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|e| e.path().strip_prefix(to.path()).unwrap().display().to_string()).collect()
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, outside) = (dir.path().join("log"), dir.path().join("secret"));
        std::fs::create_dir_all(logs.join("web")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("key"), "key").unwrap();
        std::fs::write(logs.join("web/a.log"), "a").unwrap();
        std::fs::write(logs.join("b.log"), "b").unwrap();
        std::os::unix::fs::symlink(outside.join("key"), logs.join("key.log")).unwrap();
        std::os::unix::fs::symlink(&outside, logs.join("more")).unwrap();
        assert_eq!(staged(&logs, &[]), ["b.log", "web/a.log"]);
        assert_eq!(staged(&logs, &["web/*"]), ["web/a.log"]);
        assert_eq!(staged(&logs, &["more/*", "key.log"]), [""; 0]);
        // What was a file when the directory was read.
        let root = logs.canonicalize().unwrap();
        assert!(open_within(&root, &root.join("web/a.log")).is_some());
        assert!(open_within(&root, &root.join("key.log")).is_none());
        assert!(open_within(&root, &root.join("more/key")).is_none());
        assert_eq!(staged(&dir.path().join("none"), &[]), [""; 0], "no logs at all");
    }
}
