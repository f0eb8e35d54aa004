//! Uploading a release whose name and version are known already, and deleting one.

use model::release::ReleaseVersion;
use model::task::TaskKind;
use model::{BlobDigest, ErrorCode, NodeId, Timestamp};
use release::archive::pack::TgzWriter;
use release::digest::{Algorithm, Hashed};
use serde_json::{Value, json};
use state::command::Command;

use crate::ended::Ended;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

/// A build of the release `built`: `mark` makes its archives others.
struct Build {
    version: &'static str,
    mark: &'static str,
    commit: &'static str,
    fingerprint: &'static str,
    compiled: bool,
}

const BUILD: Build =
    Build { version: "1+dev.3", mark: "", commit: "c", fingerprint: "fp-built", compiled: false };

impl Build {
    /// Returns what is in the archive: the job and the package.
    fn parts(&self) -> [Vec<u8>; 2] {
        let tgz = |files: &[(&str, &str)]| {
            let mut archive = TgzWriter::new(Vec::new());
            files.iter().for_each(|(name, content)| archive.file(name, 0o644, content.as_bytes()).unwrap());
            archive.finish().unwrap()
        };
        let job = tgz(&[("job.MF", "name: j\npackages: [p]\n"), ("monit", self.mark)]);
        [job, tgz(&[("packaging", self.mark)])]
    }

    fn archive(&self) -> Vec<u8> {
        let sha = |content: &[u8]| format!("sha256:{}", Hashed::of(content).hex(Algorithm::Sha256));
        let [job, package] = self.parts();
        let print = self.fingerprint;
        let job_row = json!({"name": "j", "version": print, "fingerprint": print, "sha1": sha(&job)});
        let mut package_row =
            json!({"name": "p", "version": print, "fingerprint": print, "sha1": sha(&package)});
        let folder = if self.compiled { "compiled_packages" } else { "packages" };
        if self.compiled {
            package_row["stemcell"] = json!("toronto-os/1");
        }
        let mut manifest = json!({
            "name": "built", "version": self.version, "commit_hash": self.commit, "uncommitted_changes": false,
            "jobs": [job_row],
        });
        manifest[folder] = Value::from(vec![package_row]);
        let mut archive = TgzWriter::new(Vec::new());
        archive.file("release.MF", 0o644, manifest.to_string().as_bytes()).unwrap();
        archive.file("jobs/j.tgz", 0o644, &job).unwrap();
        archive.file(&format!("{folder}/p.tgz"), 0o644, &package).unwrap();
        archive.finish().unwrap()
    }

    async fn upload(&self, world: &TestWorld, rebase: bool, fix: bool) -> Ended {
        let blob = world.put(self.archive()).await;
        world.run(TaskKind::UploadRelease { blob, rebase, fix }).await
    }
}

fn stored(world: &TestWorld) -> Vec<ReleaseVersion> {
    world.read(|state| state.releases().into_iter().filter(|r| r.release.name.as_str() == "built").collect())
}

/// Returns where the job and the package's source are.
fn blobs(world: &TestWorld) -> (BlobDigest, Option<BlobDigest>) {
    let [release] = &stored(world)[..] else { panic!("one version is expected") };
    (release.jobs[0].blob.clone(), release.packages[0].source.clone())
}

#[tokio::test]
async fn fix_puts_another_build_in_the_place_of_the_stored_one() {
    let world = TestWorld::seed().await;
    BUILD.upload(&world, false, false).await.done();
    let first = blobs(&world);
    let other = Build { mark: "# built later", ..BUILD };
    other.upload(&world, false, false).await.done();
    assert_eq!(blobs(&world), first, "what is stored is good enough");
    other.upload(&world, false, true).await.done();
    let second = blobs(&world);
    assert!(second.0 != first.0 && second.1 != first.1);
    let kept: Vec<bool> = {
        let store = &world.ports.blobs;
        vec![store.has(&second.0).await.unwrap(), store.has(&second.1.unwrap()).await.unwrap()]
    };
    assert_eq!(kept, [true, true]);
}

#[tokio::test]
async fn sources_and_compiled_packages_of_a_version_come_together() {
    let world = TestWorld::seed().await;
    let compiled = Build { compiled: true, ..BUILD };
    compiled.upload(&world, false, false).await.done();
    let compiled_packages = |world: &TestWorld| {
        let all = world.read(|state| state.compiled_packages());
        all.into_iter().filter(|p| p.key.name.as_str() == "p").collect::<Vec<_>>()
    };
    assert_eq!((blobs(&world).1, compiled_packages(&world).len()), (None, 1));
    BUILD.upload(&world, false, false).await.done();
    let source = blobs(&world).1;
    assert!(source.is_some());
    compiled.upload(&world, false, false).await.done();
    assert_eq!(blobs(&world).1, source, "a compiled release takes no source away");
    let before = compiled_packages(&world);
    Build { mark: "# again", ..compiled }.upload(&world, false, true).await.done();
    let after = compiled_packages(&world);
    assert_eq!((after.len(), after[0].build), (1, before[0].build));
    assert_ne!(after[0].blob, before[0].blob);
}

#[tokio::test]
async fn another_release_under_the_same_version_is_refused() {
    let world = TestWorld::seed().await;
    BUILD.upload(&world, false, false).await.done();
    let refused = async |build: Build, fix| {
        let ended = build.upload(&world, false, fix).await;
        let code = ended.task.error.as_ref().map(|error| error.code);
        (ended.error(), code)
    };
    for fix in [false, true] {
        let (text, code) = refused(Build { commit: "d", ..BUILD }, fix).await;
        assert_eq!(code, Some(ErrorCode::ReleaseVersionCommitHashMismatch.number()), "{text}");
        let (text, code) = refused(Build { fingerprint: "other", ..BUILD }, fix).await;
        assert_eq!(code, Some(ErrorCode::ReleaseInvalidPackage.number()), "{text}");
        assert_eq!(
            text,
            "package 'p' had different fingerprint in previously uploaded release 'built/1+dev.3'"
        );
    }
}

#[tokio::test]
async fn a_rebased_release_gets_the_next_version() {
    let world = TestWorld::seed().await;
    let versions =
        |world: &TestWorld| stored(world).iter().map(|r| r.release.version.to_string()).collect::<Vec<_>>();
    let done = BUILD.upload(&world, true, false).await.done();
    assert_eq!(done.task.result.as_deref(), Some("Created release 'built/1+dev.1'"));
    BUILD.upload(&world, true, false).await.done();
    assert_eq!(versions(&world), ["1+dev.1"], "the same one is not filed twice");
    Build { fingerprint: "later", ..BUILD }.upload(&world, true, false).await.done();
    assert_eq!(versions(&world), ["1+dev.1", "1+dev.2"]);
    let text = Build { version: "1", ..BUILD }.upload(&world, true, false).await.error();
    assert!(text.starts_with("Failed to Rebase - Invalid Version"), "{text}");
}

/// Has the state know the blobs of the one release, as the fleet's store does; returns them.
fn known_blobs(world: &TestWorld) -> Vec<BlobDigest> {
    let (job, source) = blobs(world);
    let blobs = vec![job, source.expect("it has sources")];
    for digest in &blobs {
        let (digest, nodes) = (digest.clone(), vec![NodeId(1)]);
        world.apply(Command::BlobHeld { digest, size_bytes: 1, nodes });
    }
    blobs
}

#[tokio::test]
async fn another_leader_finishes_a_deletion_and_knows_what_is_left_to_forget() {
    let delete = TaskKind::DeleteRelease { name: "built".into(), version: Some(BUILD.version.into()) };
    for (name, side) in [
        ("log:release_delete", Side::Before),
        ("log:release_delete", Side::After),
        ("log:task_finish", Side::Before),
    ] {
        let world = TestWorld::seed().await;
        BUILD.upload(&world, false, false).await.done();
        let blobs = known_blobs(&world);
        let ended = world.run_through(delete.clone(), Point { name: name.into(), nth: 1, side }).await.done();
        let expected = [
            "Deleting packages: p/fp-built 1/1 started",
            "Deleting packages: p/fp-built 1/1 finished",
            "Deleting jobs: j/fp-built 1/1 started",
            "Deleting jobs: j/fp-built 1/1 finished",
        ];
        assert_eq!(ended.lines(), expected, "{name} {side:?}");
        let before = Timestamp(i64::MAX);
        let digests: Vec<BlobDigest> =
            world.read(|state| state.forgettable_blobs(before)).into_iter().collect();
        assert_eq!(digests.len(), blobs.len(), "{name} {side:?}");
        world.apply(Command::BlobsForget { digests, before });
        let known = world.read(|state| blobs.iter().filter_map(|digest| state.blob(digest)).count());
        assert_eq!(known, 0, "{name} {side:?}");
    }
}

#[tokio::test]
async fn what_an_upload_stored_that_is_refused_goes_whoever_leads() {
    for (name, side) in [
        ("log:blobs_leave", Side::Before),
        ("log:blobs_leave", Side::After),
        ("log:task_finish", Side::Before),
    ] {
        let world = TestWorld::seed().await;
        BUILD.upload(&world, false, false).await.done();
        let filed = known_blobs(&world);
        let refused = Build { fingerprint: "other", mark: "other", ..BUILD };
        let archive = refused.archive();
        let stored = refused.parts().into_iter().chain([archive.clone()]);
        let stored: Vec<BlobDigest> =
            stored.map(|content| BlobDigest::new(Hashed::of(&content).hex(Algorithm::Sha256))).collect();
        for digest in &stored {
            let (digest, nodes) = (digest.clone(), vec![NodeId(1)]);
            world.apply(Command::BlobHeld { digest, size_bytes: 1, nodes });
        }
        let blob = world.put(archive).await;
        let upload = TaskKind::UploadRelease { blob, rebase: false, fix: false };
        world.run_through(upload, Point { name: name.into(), nth: 1, side }).await.error();
        let before = Timestamp(i64::MAX);
        let digests: Vec<BlobDigest> =
            world.read(|state| state.forgettable_blobs(before)).into_iter().collect();
        world.apply(Command::BlobsForget { digests, before });
        let known = |digests: &[BlobDigest]| {
            world.read(|state| digests.iter().filter(|digest| state.blob(digest).is_some()).count())
        };
        assert_eq!((known(&stored), known(&filed)), (0, filed.len()), "{name} {side:?}");
    }
}
