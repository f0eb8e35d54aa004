//! `fetch_logs`: packs logs and uploads them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::archive::{self, Scratch};
use crate::error::{ActionError, blocking};
use crate::machine::{Order, Work};
use crate::real::RealMachine;

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    let kinds = order.text(0)?;
    let filters = match order.arguments.get(1) {
        None | Some(Value::Null) => vec![],
        Some(_) => order.argument::<Vec<String>>(1, "a list of globs")?,
    };
    let filters = if filters.is_empty() { vec!["**/*".to_owned()] } else { filters };
    let sources =
        kinds.split(',').map(|kind| source(machine, kind)).collect::<Result<Vec<_>, ActionError>>()?;
    let scratch = Scratch::new(&machine.layout.tmp())?;
    let (staging, archive) = (scratch.path().join("logs"), scratch.path().join("logs.tgz"));
    let to = archive.clone();
    let packing = blocking(move || {
        std::fs::create_dir(&staging).map_err(ActionError::file("create", &staging))?;
        for (from, below) in &sources {
            stage(from, &staging.join(below), &filters)?;
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

/// Returns where logs of a kind are, and below which directory they go in the archive.
fn source(machine: &RealMachine, kind: &str) -> Result<(PathBuf, PathBuf), ActionError> {
    match kind {
        "job" => Ok((machine.layout.log(), PathBuf::new())),
        "agent" => Ok((machine.layout.bosh().join("log"), PathBuf::new())),
        "system" => Ok((PathBuf::from("/var/log"), PathBuf::from("var/log"))),
        _ => Err(ActionError::failed("Invalid log type")),
    }
}

/// Copies the files that match; a log that vanishes meanwhile was rotated away.
fn stage(from: &Path, to: &Path, filters: &[String]) -> Result<(), ActionError> {
    for entry in WalkDir::new(from).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let Ok(relative) = entry.path().strip_prefix(from) else { continue };
        let text = relative.to_string_lossy();
        if !filters.iter().any(|filter| matches(filter, &text)) {
            continue;
        }
        let target = to.join(relative);
        let parent = target.parent().unwrap_or(to);
        std::fs::create_dir_all(parent).map_err(ActionError::file("create", parent))?;
        match std::fs::copy(entry.path(), &target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ActionError::file("copy", entry.path())(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether a path matches a glob: `**/` any directories, `*` and `?` within one name.
fn matches(glob: &str, path: &str) -> bool {
    if let Some(rest) = glob.strip_prefix("**/") {
        let deeper = path.match_indices('/').any(|(at, _)| matches(rest, &path[at + 1..]));
        return matches(rest, path) || deeper;
    }
    match (glob.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &glob[1..];
            let within = path.find('/').unwrap_or(path.len());
            path[..within]
                .char_indices()
                .map(|(at, _)| at)
                .chain([within])
                .any(|at| matches(rest, &path[at..]))
        }
        (Some(want), Some(have)) if want == have || (want == '?' && have != '/') => {
            matches(&glob[want.len_utf8()..], &path[have.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_select_paths() {
        for (glob, path, expect) in [
            ("**/*", "a.log", true),
            ("**/*", "x/y/a.log", true),
            ("*.log", "a.log", true),
            ("*.log", "x/a.log", false),
            ("x/*.log", "x/a.log", true),
            ("**/*.std???.log", "web/pre-start.stdout.log", true),
            ("**/*.std???.log", "web/pre-start.log", false),
            ("x/**/a.log", "x/y/z/a.log", true),
            ("x/**/a.log", "x/a.log", true),
            ("a?.log", "a/.log", false),
        ] {
            assert_eq!(matches(glob, path), expect, "{glob} {path}");
        }
    }
}
