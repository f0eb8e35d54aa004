//! Stemcells: the one of the host's own files, and ones with a root file system.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use common::{Stage, context, ordinary};
use cpi_api::*;
use cpi_local::Rung;
use serde_json::json;
use sha1::{Digest as _, Sha1};

#[test]
fn an_ordinary_user_makes_vms_from_them_too() {
    ordinary::run_the_others("an_ordinary_user_makes_vms_from_them_too", &[common::helper()]);
}

fn unpack(stemcell: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(stemcell).unwrap()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    };
    archive.entries().unwrap().map(read).collect()
}

fn check_manifest(files: &BTreeMap<String, Vec<u8>>, format: &str) {
    let manifest = String::from_utf8(files["stemcell.MF"].clone()).unwrap();
    let sha1: String = Sha1::digest(&files["image"]).iter().map(|byte| format!("{byte:02x}")).collect();
    for line in [
        &format!("sha1: {sha1}"),
        "version: \"1.0\"",
        "api_version: 3",
        "agent: directorate",
        &format!("stemcell_formats: [{format}]"),
    ] {
        assert!(manifest.lines().any(|l| l == line), "no `{line}` in\n{manifest}");
    }
}

#[tokio::test]
async fn the_host_stemcell_is_made_in_a_blink_and_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.tgz"), dir.path().join("two.tgz"));
    stemcell::build_host(&one, &stemcell::StemcellNames::host()).unwrap();
    stemcell::build_host(&two, &stemcell::StemcellNames::host()).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap(), "the same stemcell is the same bytes");
    let files = unpack(&one);
    check_manifest(&files, "directorate-host");
    let Some(stage) = Stage::open(Rung::Process, [127, 96, 1], "exec sleep 1000000").await else { return };
    let image = dir.path().join("image");
    fs::write(&image, &files["image"]).unwrap();
    let request = |version: &str| CreateStemcell {
        image: image.clone(),
        cloud_properties: json!({ "version": version }),
        tags: Metadata::new(),
    };
    let create = async |version| stage.cpi.create_stemcell(&context(1), request(version)).await.unwrap();
    let first = create("1").await;
    assert_eq!(create("1").await, first);
    assert_ne!(create("2").await, first, "deleting one version must not delete the other");
    fs::write(&image, "something else").unwrap();
    let error = stage.cpi.create_stemcell(&context(1), request("1")).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::NotSupported);
    stage.close(0).await;
}

/// Puts bash and what it needs into a root file system's archive.
fn tiny_rootfs(out: &Path) {
    let programs = ["/bin/bash", "/bin/sleep", "/bin/ls"];
    let libraries = Command::new("ldd").args(programs).output().unwrap().stdout;
    let libraries = String::from_utf8(libraries).unwrap();
    let libraries = libraries.split_ascii_whitespace().filter(|word| word.starts_with("/lib"));
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        File::create(out).unwrap(),
        flate2::Compression::fast(),
    ));
    for path in programs.into_iter().chain(libraries).map(|path| path.trim_end_matches(':')) {
        archive.append_path_with_name(fs::canonicalize(path).unwrap(), path.trim_start_matches('/')).unwrap();
    }
    // One that belongs to somebody else, where nobody else may look.
    let mut header = tar::Header::new_gnu();
    for (path, mode, kind) in
        [("vcaps", 0o700, tar::EntryType::Directory), ("vcaps/own", 0o600, tar::EntryType::Regular)]
    {
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_size(0);
        archive.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

#[tokio::test]
async fn a_vm_has_the_root_of_its_stemcell_and_nothing_of_the_host() {
    let agent = "ls -d /usr/bin/perl /root 2>/dev/null > /var/vcap/host; echo $BASH_VERSION > /var/vcap/up
                 ls -ln /vcaps > /var/vcap/owners; exec sleep 1000000";
    for (rung, subnet) in [(Rung::Namespaces, [10, 96, 1]), (Rung::UserNamespaces, [10, 96, 2])] {
        let Some(stage) = Stage::open(rung, subnet, agent).await else { continue };
        let image = stage.dir.path().join("rootfs.tgz");
        tiny_rootfs(&image);
        let request = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        let stemcell = stage.cpi.create_stemcell(&context(1), request).await.unwrap();
        let request = CreateVm { stemcell: stemcell.clone(), ..stage.request(2, json!({})) };
        stage.cpi.create_vm(&context(1), request).await.unwrap();
        stage.wait_for(2, "up", |text| text.ends_with('\n')).await;
        assert_eq!(fs::read_to_string(stage.vcap(2, "host")).unwrap(), "");
        let owners = stage.wait_for(2, "owners", |text| text.ends_with('\n')).await;
        assert!(owners.contains(" 1000 1000 "), "{owners}");
        stage.cpi.delete_stemcell(&context(1), &stemcell).await.expect_err("a VM stands on it");
        stage.cpi.delete_vm(&context(1), &"vm-agent-2".into()).await.unwrap();
        stage.cpi.delete_stemcell(&context(1), &stemcell).await.unwrap();
        stage.close(2).await;
    }
}
