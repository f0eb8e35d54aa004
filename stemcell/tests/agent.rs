//! A stemcell with another agent in it, and nothing else changed.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use common::{CAPABILITY, Row, files, write_stemcell};
use flate2::read::GzDecoder;
use sha1::{Digest as _, Sha1};
use stemcell::{DebianFormat, RepackedDebian, StemcellError, repack_debian};
use tar::EntryType;

const AGENT: Row<'_> =
    ("./var/vcap/bosh/bin/dagent", EntryType::Regular, 0o755, 0, b"the agent of an earlier version");

/// An entry's header and attributes, and its content.
type Entry = (Vec<u8>, Vec<Vec<u8>>, Vec<u8>);

fn exchanged(dir: &Path, more: &[Row<'_>]) -> Result<[PathBuf; 2], StemcellError> {
    let [from, out, agent] = ["from.tgz", "out.tgz", "agent"].map(|name| dir.join(name));
    write_stemcell(&from, more);
    fs::write(&agent, "another one").unwrap();
    let repacked = RepackedDebian { from: from.clone(), format: DebianFormat::Tar, dagent: Some(agent) };
    repack_debian(&out, &repacked)?;
    Ok([from, out])
}

/// Returns the entries of a stemcell's root file system, in their order.
fn entries(stemcell: &Path) -> Vec<(String, Entry)> {
    let image = files(fs::File::open(stemcell).unwrap()).remove("image").unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(Cursor::new(image)));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let attributes = entry.pax_extensions().unwrap();
        let attributes = attributes.into_iter().flatten().map(|one| one.unwrap().value_bytes().to_vec());
        let (attributes, header) = (attributes.collect(), entry.header().as_bytes().to_vec());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), (header, attributes, content))
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn only_the_agent_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("./{}/file", "folder/".repeat(40));
    let after: Row<'_> = (&long, EntryType::Regular, 0o600, 7, b"comes after it");
    let [from, out] = exchanged(dir.path(), &[AGENT, after]).unwrap();
    let (before, now) = (entries(&from), entries(&out));
    assert_eq!(before.len(), now.len());
    for (before, now) in before.iter().zip(&now) {
        match before.0.ends_with("/dagent") {
            true => {
                let without_size =
                    |header: &[u8]| [&header[..124], &header[136..148], &header[156..]].concat();
                assert_eq!(now.1.2, b"another one");
                assert_eq!(without_size(&now.1.0), without_size(&before.1.0), "mode, owner, time");
                assert_eq!(now.1.1, before.1.1);
            }
            false => assert_eq!(before, now),
        }
    }
    let capable = now.iter().find(|(path, _)| path.ends_with("low port")).unwrap();
    assert_eq!(capable.1.1, [CAPABILITY]);
    assert!(now.iter().any(|(path, _)| long.ends_with(path)), "a name that takes an entry of its own");

    let archive = files(fs::File::open(&out).unwrap());
    let sha1: String = Sha1::digest(&archive["image"]).iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = String::from_utf8(archive["stemcell.MF"].clone()).unwrap();
    assert!(manifest.contains(&format!("sha1: {sha1}\n")), "{manifest}");
    assert!(manifest.contains("stemcell_formats: [directorate-tar, warden-tar, general-tar]"), "{manifest}");
}

#[test]
fn where_there_is_none_none_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let refused = exchanged(dir.path(), &[]).unwrap_err().to_string();
    assert!(refused.ends_with("from.tgz` has no agent at `/var/vcap/bosh/bin/dagent`"), "{refused}");
    assert!(!dir.path().join("out.tgz").exists());
}
