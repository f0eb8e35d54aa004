//! Exporting a release: what is missing is compiled, and everything is packed, once, whoever leads; and what was exported can be
//! uploaded and deployed where nothing can be compiled.

use std::io::Read as _;

use model::instance::ReleaseRef;
use model::stemcell::StemcellVersion;
use model::task::{DigestKind, ReleaseExport, TaskKind};
use model::{BlobDigest, ErrorCode};
use release::digest::{Algorithm, Hashed};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::artifacts::{self, Shape, tgz};
use crate::ended::Ended;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

/// The stemcell that nothing was compiled for yet.
pub const OTHER: &str = "2";

pub fn export_for(version: &str) -> TaskKind {
    export_of("tiny", version, &[])
}

fn export_of(name: &str, version: &str, jobs: &[&str]) -> TaskKind {
    let export = ReleaseExport {
        release: ReleaseRef { name: name.into(), version: "1".into() },
        stemcell: StemcellVersion { os: "toronto-os".into(), version: version.into() },
        jobs: jobs.iter().map(|job| (*job).into()).collect(),
        digest: DigestKind::Sha256,
    };
    TaskKind::ExportRelease { export: Box::new(export) }
}

/// Has the agents compile into something that is there: the simplest archive.
pub async fn with_compiled_archives(world: &TestWorld) {
    let content = tgz(&[("bin/app", "compiled\n")]);
    let size = content.len();
    let blob = world.put(content).await;
    let result = json!({ "blobstore_id": blob, "sha1": format!("sha256:{blob}"), "size": size });
    world.outside.answer("compile_package", json!({ "result": result }));
}

/// Brings a second stemcell.
pub async fn with_other_stemcell(world: &TestWorld) {
    let blob = world.put(artifacts::stemcell_with(OTHER, "not a disk either")).await;
    world.run(TaskKind::UploadStemcell { blob, fix: false }).await.done();
}

/// A world with a deployment on stemcell 1, and a second stemcell.
async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    with_compiled_archives(&world).await;
    world.run(Shape::default().deploy()).await.done();
    with_other_stemcell(&world).await;
    world
}

/// What a task has left.
struct Archive {
    blob: BlobDigest,
    content: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
}

async fn archive(world: &TestWorld, ended: &Ended) -> Archive {
    let result: Value = serde_json::from_str(&ended.result).unwrap();
    assert_eq!(ended.result.lines().count(), 1, "told once: {}", ended.result);
    let blob = BlobDigest::new(result["blobstore_id"].as_str().unwrap());
    let mut content = Vec::new();
    world.ports.blobs.get(&blob).await.unwrap().read_to_end(&mut content).await.unwrap();
    let sha256 = format!("sha256:{}", Hashed::of(&content).hex(Algorithm::Sha256));
    assert_eq!(result["sha1"], sha256.as_str());
    let mut files = Vec::new();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(content.as_slice()));
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        files.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), body));
    }
    Archive { blob, content, files }
}

fn exports(world: &TestWorld) -> Vec<BlobDigest> {
    world.read(|state| state.exports()).into_iter().map(|(digest, _)| digest).collect()
}

#[tokio::test]
async fn what_is_missing_is_compiled_and_everything_is_packed() {
    let world = deployed().await;
    let before = world.outside.done("compile_package");
    let ended = world.run(export_for(OTHER)).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("Exported release: tiny/1 for toronto-os/2"));
    assert_eq!(world.outside.done("compile_package"), before + 2);
    let archive = archive(&world, &ended).await;
    let names: Vec<&str> = archive.files.iter().map(|(name, _)| name.as_str()).collect();
    let all = ["./release.MF", "./jobs/", "./jobs/server.tgz", "./jobs/check.tgz", "./compiled_packages/"];
    assert_eq!(names[..5], all);
    assert_eq!(names[5..], ["./compiled_packages/app.tgz", "./compiled_packages/lib.tgz"]);
    let manifest = model::yaml::parse(std::str::from_utf8(&archive.files[0].1).unwrap()).unwrap();
    let of_package =
        |package: &Value| format!("{} {} {}", package["name"], package["stemcell"], package["dependencies"]);
    let packages: Vec<String> =
        manifest["compiled_packages"].as_array().unwrap().iter().map(of_package).collect();
    assert_eq!(packages, [r#""app" "toronto-os/2" ["lib"]"#, r#""lib" "toronto-os/2" []"#]);
    assert_eq!((&manifest["name"], &manifest["version"]), (&json!("tiny"), &json!("1")));
    assert_eq!(exports(&world), vec![archive.blob.clone()]);
    let lines = ended.lines();
    let told: Vec<&str> =
        lines.iter().filter(|line| line.ends_with("finished")).map(String::as_str).collect();
    let expected = [
        "Preparing package compilation: Finding packages to compile 1/1 finished",
        "Compiling packages: lib/fp-lib 1/2 finished",
        "Compiling packages: app/fp-app 2/2 finished",
        "copying packages: app/fp-app 1/2 finished",
        "copying packages: lib/fp-lib 2/2 finished",
        "copying jobs: server/fp-server 1/2 finished",
        "copying jobs: check/fp-check 2/2 finished",
    ];
    assert_eq!(told, expected);
    let again = world.run(export_for(OTHER)).await.done();
    assert_eq!(again.result, ended.result, "the same release gives the same archive");
    assert_eq!(world.outside.done("compile_package"), before + 2);
    world.assert_consistent();
}

#[tokio::test]
async fn one_job_is_exported_with_what_it_needs_and_old_clients_get_an_old_digest() {
    let world = deployed().await;
    let ended = world.run(export_of("tiny", "1", &["check"])).await.done();
    let archive = archive(&world, &ended).await;
    let names: Vec<&str> = archive.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["./release.MF", "./jobs/", "./jobs/check.tgz", "./compiled_packages/"]);
    let TaskKind::ExportRelease { mut export } = export_of("tiny", "1", &["check"]) else { unreachable!() };
    export.digest = DigestKind::Sha1;
    let ended = world.run(TaskKind::ExportRelease { export }).await.done();
    let result: Value = serde_json::from_str(&ended.result).unwrap();
    assert_eq!(result["sha1"], Hashed::of(&archive.content).hex(Algorithm::Sha1));
}

/// Both halves: steps of a plan, and what comes after them.
#[tokio::test]
async fn another_leader_goes_on_with_an_export() {
    let undisturbed = {
        let world = deployed().await;
        world.run(export_for(OTHER)).await.done()
    };
    let at = |name: &str, nth, side| Point { name: name.into(), nth, side };
    for point in [
        at("started:compile_package", 1, Side::After),
        at("agent:compile_package", 1, Side::After),
        at("finished:compile_package", 2, Side::Before),
        at("finished:delete_instance", 1, Side::After),
    ] {
        let world = deployed().await;
        let ended = world.run_through(export_for(OTHER), point.clone()).await.done();
        assert_eq!((&ended.result, ended.told()), (&undisturbed.result, undisturbed.told()), "{point:?}");
        assert_eq!(exports(&world), [archive(&world, &ended).await.blob], "{point:?}");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn what_was_exported_is_deployed_elsewhere_without_compiling() {
    let exported = {
        let world = deployed().await;
        let ended = world.run(export_for("1")).await.done();
        archive(&world, &ended).await
    };
    let world = TestWorld::seed().await;
    world.run(TaskKind::DeleteRelease { name: "tiny".into(), version: None }).await.done();
    let blob = world.put(exported.content).await;
    assert_eq!(blob, exported.blob);
    let upload = TaskKind::UploadRelease { blob, rebase: false, fix: false };
    let ended = world.run(upload.clone()).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("Created release 'tiny/1'"));
    let finished = |ended: &Ended| -> Vec<String> {
        let lines = ended.lines().into_iter().filter(|line| line.ends_with("finished"));
        lines.map(|line| line.trim_end_matches(" finished").to_owned()).collect()
    };
    let expected = [
        "Extracting release: Extracting release 1/1",
        "Verifying manifest: Verifying manifest 1/1",
        "Resolving package dependencies: Resolving package dependencies 1/1",
        "Creating new packages: app/fp-app 1/2",
        "Creating new packages: lib/fp-lib 2/2",
        "Creating new compiled packages: app/fp-app for toronto-os/1 1/2",
        "Creating new compiled packages: lib/fp-lib for toronto-os/1 2/2",
        "Creating new jobs: server/fp-server 1/2",
        "Creating new jobs: check/fp-check 2/2",
        "Compiled Release has been created: tiny/1 1/1",
    ];
    assert_eq!(finished(&ended), expected);
    let ended = world.run(upload).await.done();
    let expected = [
        "Extracting release: Extracting release 1/1",
        "Verifying manifest: Verifying manifest 1/1",
        "Resolving package dependencies: Resolving package dependencies 1/1",
        "Processing 2 existing jobs: Processing 2 existing jobs 1/1",
        "Compiled Release has been created: tiny/1 1/1",
    ];
    assert_eq!(finished(&ended), expected);
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.done("compile_package"), 0);
    world.assert_consistent();
}

/// What was compiled is gone with the release, and comes back with the export.
#[tokio::test]
async fn what_was_exported_takes_the_place_of_the_release() {
    let world = deployed().await;
    let ended = world.run(export_for("1")).await.done();
    let archive = archive(&world, &ended).await;
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    world.run(TaskKind::DeleteRelease { name: "tiny".into(), version: None }).await.done();
    assert_eq!(world.read(|state| state.compiled_packages()), vec![]);
    let (blob, compilations) = (archive.blob, world.outside.done("compile_package"));
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.done("compile_package"), compilations);
    world.assert_consistent();
}

#[tokio::test]
async fn what_has_no_source_is_not_deployed_on_another_line_of_stemcells() {
    let exported = {
        let world = deployed().await;
        let ended = world.run(export_for(OTHER)).await.done();
        archive(&world, &ended).await
    };
    let world = TestWorld::seed().await;
    world.run(TaskKind::DeleteRelease { name: "tiny".into(), version: None }).await.done();
    let blob = world.put(exported.content).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
    let ended = world.run(Shape::default().deploy()).await;
    assert_eq!(
        ended.task.error.as_ref().map(|error| error.code),
        Some(ErrorCode::PackageMissingSourceCode.number())
    );
    let text = ended.error();
    let first = "Can't use release 'tiny/1'. It references packages without source code and are not compiled against the \
                 stemcell:\n - app/fp-app";
    assert!(text.starts_with(first), "{text}");
}

/// An export of one job is uploaded where the whole release is, and the other way round.
#[tokio::test]
async fn a_part_of_a_release_meets_the_whole() {
    let (some, whole) = {
        let world = deployed().await;
        let some = world.run(export_of("tiny", "1", &["check"])).await.done();
        let whole = world.run(export_for("1")).await.done();
        (archive(&world, &some).await.content, archive(&world, &whole).await.content)
    };
    let world = TestWorld::seed().await;
    let upload = async |content: &Vec<u8>| {
        let blob = world.put(content.clone()).await;
        world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
        let stored = world.read(|state| state.release(&"tiny".into(), &"1".into())).unwrap();
        let sources = stored.packages.iter().filter(|package| package.source.is_some()).count();
        (stored.jobs.len(), stored.packages.len(), sources)
    };
    assert_eq!(upload(&some).await, (2, 2, 2), "the source release lacks nothing");
    world.run(TaskKind::DeleteRelease { name: "tiny".into(), version: None }).await.done();
    assert_eq!(upload(&some).await, (1, 0, 0));
    assert_eq!(upload(&whole).await, (2, 2, 0));
    assert_eq!(upload(&artifacts::release("tiny")).await, (2, 2, 2), "sources complete a compiled release");
}

#[tokio::test]
async fn what_cannot_be_exported_fails_the_task() {
    let world = deployed().await;
    for (task, code) in [
        (export_of("none", "1", &[]), ErrorCode::ReleaseNotFound),
        (export_of("tiny", "9", &[]), ErrorCode::StemcellNotFound),
        (export_of("tiny", "1", &["none"]), ErrorCode::JobNotFound),
    ] {
        let ended = world.run(task).await;
        assert_eq!(ended.task.error.as_ref().map(|error| error.code), Some(code.number()));
    }
    let elsewhere = world.queue_in("none", export_for("1"));
    let ended = world.ended(elsewhere).await;
    assert_eq!(
        ended.task.error.as_ref().map(|error| error.code),
        Some(ErrorCode::DeploymentNotFound.number())
    );
    let server = world.read(|state| state.release(&"tiny".into(), &"1".into())).unwrap().jobs[0].blob.clone();
    world.ports.blobs.delete(&server).await.unwrap();
    let ended = world.run(export_for("1")).await;
    assert!(
        ended.lines().contains(&"copying jobs: server/fp-server 1/2 failed".to_owned()),
        "{:?}",
        ended.lines()
    );
    assert!(ended.error().contains("server/fp-server"));
    assert_eq!(exports(&world), Vec::<BlobDigest>::new());
}

#[tokio::test]
async fn a_cleanup_takes_what_was_exported() {
    let world = deployed().await;
    let ended = world.run(export_for("1")).await.done();
    let archive = archive(&world, &ended).await;
    let leftovers = model::task::Leftovers { exports: exports(&world), ..Default::default() };
    let clean_up = TaskKind::CleanUp { all: false, leftovers: Box::new(leftovers) };
    let point = Point { name: "log".into(), nth: 3, side: Side::After };
    let ended = world.run_through(clean_up, point).await.done();
    assert!(
        ended.task.result.clone().unwrap().contains(", 1 exported release(s),"),
        "{:?}",
        ended.task.result
    );
    let line = format!("Deleting exported releases: {} 1/1 finished", archive.blob);
    let line = line.replace(archive.blob.as_str(), "<id>");
    let lines: Vec<String> =
        ended.lines().iter().map(|line| line.replace(archive.blob.as_str(), "<id>")).collect();
    assert!(lines.contains(&line), "{lines:?}");
    assert_eq!(exports(&world), Vec::<BlobDigest>::new());
}
