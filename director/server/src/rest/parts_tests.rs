//! Jobs by fingerprint, sources of packages, and when the fleet's own certificates end.

use model::BlobDigest;
use model::release::{JobInfo, PackageInfo, ReleaseVersion};
use release::Blobstore as _;
use release::archive::JobArchive;
use release::archive::pack::TgzWriter;
use serde_json::json;
use state::command::Command;

use super::tests::Client;
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, release};

const SPEC: &str = "name: j\ntemplates: {a.erb: bin/a}\npackages: [p]\nproperties: {port: {default: 80}}\n";

fn job_archive() -> Vec<u8> {
    let mut archive = TgzWriter::new(Vec::new());
    for (name, content) in [("job.MF", SPEC), ("monit", ""), ("templates/a.erb", "x")] {
        archive.file(name, 0o644, content.as_bytes()).unwrap();
    }
    archive.finish().unwrap()
}

async fn put(replica: &Replica, content: &[u8]) -> BlobDigest {
    replica.door.blobs.put(&mut &*content).await.unwrap().digest
}

/// Starts a replica that has a release with a job and a package; returns also where their archives are.
async fn with_release() -> (Replica, BlobDigest, BlobDigest) {
    let replica = Replica::start().await;
    let task = replica.begin_vm().await;
    let archive = job_archive();
    let (job, source) = (put(&replica, &archive).await, put(&replica, b"source").await);
    let info: JobInfo =
        JobArchive::read(&"j".into(), &archive[..]).unwrap().info("fp".into(), String::new(), job.clone());
    let package = PackageInfo {
        name: "p".into(),
        fingerprint: "fp".into(),
        digest: String::new(),
        source: Some(source.clone()),
        dependencies: Vec::new(),
    };
    let content = ReleaseVersion { jobs: vec![info], packages: vec![package], ..release("golden", "1") };
    let (release, compiled, fix, partial) = (Box::new(content), Vec::new(), false, false);
    replica.must(Command::ReleasePut { task, epoch: EPOCH, release, compiled, fix, partial }).await;
    (replica, job, source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_found_by_its_fingerprint() {
    let (replica, ..) = with_release().await;
    let reader = Client::of(&replica, "reader");
    let found = reader.get("/jobs?release_name=golden&name=j&fingerprint=fp").await;
    let spec = json!({
        "name": "j", "templates": { "a.erb": "bin/a" }, "packages": ["p"], "properties": { "port": { "default": 80 } },
    });
    assert_eq!(
        (found.status.as_u16(), found.json()),
        (200, json!([{ "name": "j", "fingerprint": "fp", "spec": spec }]))
    );
    for (other, status) in [
        ("release_name=golden&name=j&fingerprint=other", 404),
        ("release_name=golden&name=other&fingerprint=fp", 404),
        ("release_name=other&name=j&fingerprint=fp", 404),
        ("release_name=golden&name=j", 400),
        ("", 400),
    ] {
        assert_eq!(reader.get(&format!("/jobs?{other}")).await.status.as_u16(), status, "{other}");
    }
    assert_eq!(Client::of(&replica, "nobody").get("/jobs").await.status.as_u16(), 401);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_sources_of_packages_and_no_other_blob() {
    let (replica, job, source) = with_release().await;
    let reader = Client::of(&replica, "reader");
    let found = reader.get(&format!("/packages/blobs/{source}")).await;
    assert_eq!((found.status.as_u16(), found.body.as_str()), (200, "source"));
    assert_eq!(found.header("content-type"), "application/octet-stream");
    let file = format!("attachment; filename=\"package-blob-{source}\"");
    assert_eq!(found.header("content-disposition"), file);
    for other in [job.as_str(), "none", "..%2Fraft"] {
        let refused = reader.get(&format!("/packages/blobs/{other}")).await;
        let text = format!("Package with blobstore id: {} does not exist", other.replace("%2F", "/"));
        assert_eq!((refused.status.as_u16(), refused.body), (400, text));
    }
    let path = format!("/packages/blobs/{source}");
    assert_eq!(Client::of(&replica, "nobody").get(&path).await.status.as_u16(), 401);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_tells_when_its_own_certificates_end() {
    let replica = Replica::start().await;
    let found = Client::of(&replica, "reader").get("/director/certificate_expiry").await.json();
    let rows = found.as_array().unwrap();
    let paths: Vec<_> = rows.iter().map(|row| row["certificate_path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["fleet.authority", "replica.1.certificate"]);
    for row in rows {
        assert!(
            row["expiry"].as_str().unwrap().ends_with('Z') && row["days_left"].as_i64().unwrap() >= 0,
            "{row}"
        );
    }
    assert_eq!(Client::of(&replica, "nobody").get("/director/certificate_expiry").await.status.as_u16(), 401);
    replica.stop().await;
}
