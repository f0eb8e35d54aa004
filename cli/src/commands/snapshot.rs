//! `cluster snapshot …`: backups of the fleet. A file gets its name once it is whole, checked and on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use backup::{ReadError, Report};
use camino::{Utf8Path, Utf8PathBuf};
use indicatif::ProgressBar;
use proto::v1::SaveSnapshotRequest;
use serde_json::json;

use super::Context;
use crate::args::SnapshotCommand;
use crate::client::request_id;
use crate::console::{Cell, Console, Format, Record, Screen, column};
use crate::error::Error;

/// What is read at once.
const BUFFER_BYTES: usize = 1 << 20;

pub(super) async fn snapshot(context: &mut Context<'_>, command: SnapshotCommand) -> Result<(), Error> {
    match command {
        SnapshotCommand::Save { file, with_blobs } => save(context, &file, with_blobs).await,
        SnapshotCommand::Verify { file } => verify(&file, context.console),
    }
}

async fn save(context: &mut Context<'_>, place: &Utf8Path, with_blobs: bool) -> Result<(), Error> {
    let mut staged = Staged::create(place)?;
    let request = SaveSnapshotRequest { request_id: request_id(), with_blobs };
    let bar = match context.console.screen {
        Screen::Terminal { progress: true, .. } => ProgressBar::new_spinner(),
        _ => ProgressBar::hidden(),
    };
    let saved = context.fleet.save_snapshot(request, &mut staged.file, |bytes| {
        bar.set_message(format!("{} MiB", bytes >> 20));
        bar.tick();
    });
    let saved = saved.await;
    bar.finish_and_clear();
    saved.map_err(|error| match error {
        Error::Output(source) => Error::file("write", place)(source),
        other => other,
    })?;
    staged.file.sync_all().map_err(Error::file("write", &staged.path))?;
    let report = check(&staged.path)?;
    staged.keep()?;
    tell(context.console, place, &report)
}

/// Checks a backup and tells what is in it.
pub(super) fn verify(file: &Utf8Path, console: &mut Console) -> Result<(), Error> {
    let report = check(file)?;
    tell(console, file, &report)
}

fn check(path: &Utf8Path) -> Result<Report, Error> {
    let file = File::open(path).map_err(Error::file("read", path))?;
    let damaged = |damages| Err(Error::Backup { file: path.to_owned(), damages });
    match backup::verify(BufReader::with_capacity(BUFFER_BYTES, file)) {
        Ok(report) if report.damages.is_empty() => Ok(report),
        Ok(report) => damaged(report.damages),
        Err(ReadError::Io(source)) => Err(Error::file("read", path)(source)),
        Err(error) => damaged(vec![error.to_string()]),
    }
}

fn tell(console: &mut Console, file: &Utf8Path, report: &Report) -> Result<(), Error> {
    let (header, counts) = (&report.header, &report.counts);
    let bytes = fs::metadata(file).map_err(Error::file("read", file))?.len();
    let blobs = match header.with_blobs {
        true => {
            Cell::Both(format!("{} ({} MiB)", counts.blobs, counts.blob_bytes >> 20), json!(counts.blobs))
        }
        false => Cell::Both("not in it".into(), json!(null)),
    };
    console.record(&Record::new([
        (column("File", "file"), file.to_string().into()),
        (column("Size", "size_bytes"), Cell::Number(bytes)),
        (column("Format", "format"), Cell::Number(header.format.into())),
        (column("Fleet", "fleet"), header.fleet.clone().into()),
        (column("Cluster", "cluster_id"), header.cluster_id.clone().into()),
        (column("Index", "index"), Cell::Number(header.index)),
        (column("Term", "term"), Cell::Number(header.term)),
        (column("Taken", "taken_at"), Cell::Time(header.taken_at_unix_ms)),
        (column("By version", "version"), header.version.clone().into()),
        (column("Rows", "rows"), Cell::Number(counts.rows)),
        (column("Blobs", "blobs"), blobs),
        (column("SHA-256", "sha256"), report.sha256.clone().unwrap_or_default().into()),
    ]))?;
    if console.format == Format::People && !counts.absent.is_empty() {
        let lost = counts.absent.join(", ");
        writeln!(console.err, "No replica has these blobs, so they are not in it: {lost}")?;
    }
    Ok(())
}

/// A file beside its place; gone again unless it is kept.
struct Staged {
    file: File,
    path: Utf8PathBuf,
    place: Utf8PathBuf,
}

impl Staged {
    fn create(place: &Utf8Path) -> Result<Self, Error> {
        let name = place.file_name().ok_or_else(|| Error::Usage(format!("`{place}` names no file")))?;
        let path = place.with_file_name(format!(".{name}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        // Password hashes and manifests are in it.
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Error::file("write", &path))?;
        Ok(Self { file, path, place: place.to_owned() })
    }

    fn keep(&self) -> Result<(), Error> {
        fs::rename(&self.path, &self.place).map_err(Error::file("write", &self.place))?;
        let folder = self.place.parent().filter(|folder| !folder.as_str().is_empty());
        let folder = folder.unwrap_or(Utf8Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::file("write", folder))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing is there any more if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_in_its_place_whole_or_not_at_all_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let place = Utf8PathBuf::from_path_buf(folder.path().join("fleet.backup")).unwrap();
        fs::write(&place, "an older one").unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        drop(Staged::create(&place).unwrap());
        assert_eq!((names(), fs::read_to_string(&place).unwrap()), (1, "an older one".into()));
        let mut staged = Staged::create(&place).unwrap();
        staged.file.write_all(b"a newer one").unwrap();
        staged.keep().unwrap();
        drop(staged);
        assert_eq!((names(), fs::read_to_string(&place).unwrap()), (1, "a newer one".into()));
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Staged::create("/".into()), Err(Error::Usage(_))));
    }

    #[test]
    fn what_is_no_backup_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("x")).unwrap();
        assert!(matches!(check(&path), Err(Error::File { action: "read", .. })));
        fs::write(&path, "something else").unwrap();
        let Err(Error::Backup { damages, .. }) = check(&path) else { panic!("it was taken") };
        assert!(damages[0].contains("no backup"), "{damages:?}");
    }
}
