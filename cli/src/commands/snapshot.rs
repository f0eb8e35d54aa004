//! `cluster snapshot …`: backups of the fleet. A file gets its name once it is whole, checked and on the disk.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};

use backup::{ReadError, Report};
use camino::Utf8Path;
use indicatif::ProgressBar;
use proto::v1::SaveSnapshotRequest;
use serde_json::json;

use super::Context;
use super::staged::Staged;
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

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

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
