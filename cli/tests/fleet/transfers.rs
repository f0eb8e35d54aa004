//! Files up and blobs down, over directors that fail on the way.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use camino::Utf8PathBuf;
use dctl::client::hash_file;
use dctl::error::Error;
use futures::FutureExt as _;
use proto::v1::*;
use sha2::Digest as _;
use tonic::Status;

use crate::binary::run;
use crate::director::{AMPLE, Answer, Director, Script, answer, client, parts};
use crate::following::{LOG, ended, piece};

/// Several messages long, and not a multiple of one.
fn content() -> Vec<u8> {
    (0..300_007_u32).map(|at| (at * 7 % 251) as u8).collect()
}

fn file() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().join("release.tgz")).unwrap();
    std::fs::write(&path, content()).unwrap();
    (folder, path)
}

fn unknown() -> Answer<StatBlobRequest, StatBlobResponse> {
    answer(|_| Ok(StatBlobResponse::default()))
}

/// A director that keeps what is uploaded, and breaks off after `take` messages if that is given.
fn keeps(into: Arc<Mutex<Vec<u8>>>, digest: String, take: Option<usize>) -> Script {
    let upload: Answer<_, UploadBlobResponse> = Box::new(move |request| {
        let (into, digest) = (into.clone(), digest.clone());
        async move {
            let mut stream: tonic::Streaming<UploadBlobRequest> = request.into_inner();
            let (mut got, mut messages) = (Vec::new(), 0);
            while let Some(part) = stream.message().await? {
                got.extend_from_slice(&part.data);
                messages += 1;
                if take == Some(messages) {
                    return Err(Status::unavailable("this director is going down"));
                }
            }
            let size_bytes = got.len() as u64;
            *into.lock().unwrap() = got;
            Ok(UploadBlobResponse { digest, size_bytes })
        }
        .boxed()
    });
    Script { stat: unknown(), upload, ..Script::default() }
}

#[tokio::test]
async fn an_upload_begins_again_at_the_next_director() {
    let (_folder, path) = file();
    let local = hash_file(&path).unwrap();
    let dying = Director::start(keeps(Arc::default(), String::new(), Some(2))).await;
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let alive = Director::start(keeps(kept.clone(), local.digest.clone(), None)).await;
    let progress = Arc::new(AtomicUsize::new(0));
    let seen = progress.clone();
    let fleet = client(&[dying.address(), alive.address()], AMPLE);
    let uploaded =
        fleet.upload(&path, move |sent| seen.store(sent as usize, Ordering::SeqCst)).await.unwrap();
    assert_eq!(uploaded, local);
    assert!(*kept.lock().unwrap() == content());
    assert_eq!(progress.load(Ordering::SeqCst), content().len());
}

#[tokio::test]
async fn what_the_fleet_has_is_not_uploaded_again() {
    let (_folder, path) = file();
    let script = Script {
        stat: answer(|_| Ok(StatBlobResponse { exists: true, ..StatBlobResponse::default() })),
        ..Script::default()
    };
    let director = Director::start(script).await;
    let uploaded = client(&[director.address()], AMPLE).upload(&path, |_| ()).await.unwrap();
    assert_eq!(uploaded.size_bytes, content().len() as u64);
}

#[tokio::test]
async fn another_digest_than_the_files_is_an_error() {
    let (_folder, path) = file();
    let director = Director::start(keeps(Arc::default(), "0".repeat(64), None)).await;
    let error = client(&[director.address()], AMPLE).upload(&path, |_| ()).await.unwrap_err();
    assert!(matches!(error, Error::Usage(why) if why.contains("changed while")));
}

/// A director that sends the content from its beginning, and breaks off after `sent` bytes.
fn sends(sent: usize) -> Script {
    Script {
        download: answer(move |_| {
            let mut messages: Vec<_> = content()[..sent]
                .chunks(1000)
                .map(|part| Ok(BlobPart { data: part.to_vec().into() }))
                .collect();
            if sent < content().len() {
                messages.push(Err(Status::unavailable("this director is going down")));
            }
            Ok(parts(messages))
        }),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let (_folder, path) = file();
    let digest = hash_file(&path).unwrap().digest;
    let dying = Director::start(sends(123_456)).await;
    let alive = Director::start(sends(content().len())).await;
    let mut out = Vec::new();
    let fleet = client(&[dying.address(), alive.address()], AMPLE);
    assert_eq!(fleet.download(&digest, &mut out).await.unwrap(), content().len() as u64);
    assert!(out == content());
}

#[tokio::test]
async fn a_blob_with_another_content_than_its_address_says_is_an_error() {
    let director = Director::start(sends(content().len())).await;
    let fleet = client(&[director.address()], AMPLE);
    let error = fleet.download(&"0".repeat(64), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_download_that_never_gets_further_is_given_up() {
    let director = Director::start(sends(0)).await;
    let fleet = client(&[director.address()], AMPLE);
    let error = fleet.download(&"0".repeat(64), &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.exit() as u8, 3, "{error}");
}

/// A director that sends a backup of these parts.
fn backs_up(ids: Arc<Mutex<Vec<String>>>, sent: fn() -> Vec<Result<SnapshotPart, Status>>) -> Script {
    let save_snapshot = answer(move |request: SaveSnapshotRequest| {
        ids.lock().unwrap().push(request.request_id);
        Ok(parts(sent()))
    });
    Script { save_snapshot, ..Script::default() }
}

fn part(text: &'static str) -> Result<SnapshotPart, Status> {
    Ok(SnapshotPart { data: text.as_bytes().to_vec().into() })
}

#[tokio::test]
async fn a_backup_that_breaks_off_begins_again_from_nothing() {
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let dying = || vec![part("more than the other one sends"), Err(Status::unavailable("going down"))];
    let dying = Director::start(backs_up(ids.clone(), dying)).await;
    let alive = Director::start(backs_up(ids.clone(), || vec![part("a "), part("backup")])).await;
    let mut file = tempfile::tempfile().unwrap();
    let request = SaveSnapshotRequest { request_id: "once".into(), with_blobs: false };
    let fleet = client(&[dying.address(), alive.address()], AMPLE);
    fleet.save_snapshot(request, &mut file, |_| ()).await.unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a backup");
    assert_eq!(*ids.lock().unwrap(), ["once", "once"]);
}

#[tokio::test]
async fn a_backup_that_is_refused_is_not_asked_for_again() {
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let refuses = || vec![part("some"), Err(Status::internal("reading the state failed"))];
    let director = Director::start(backs_up(ids.clone(), refuses)).await;
    let request = SaveSnapshotRequest::default();
    let saved = client(&[director.address()], AMPLE)
        .save_snapshot(request, &mut tempfile::tempfile().unwrap(), |_| ())
        .await;
    assert!(matches!(saved, Err(Error::Refused { .. })), "{saved:?}");
    assert_eq!(ids.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn logs_are_a_file_with_the_name_of_whose_they_are() {
    let digest =
        |bytes: &[u8]| sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let packed = digest(b"packed");
    let (asked, known) = (Arc::new(Mutex::new(Vec::new())), packed.clone());
    let heard = asked.clone();
    let director = Director::start(Script {
        fetch_logs: answer(move |request: FetchLogsRequest| {
            heard.lock().unwrap().push(request);
            Ok(TaskStarted { task_id: 3 })
        }),
        follow: answer(move |_: FollowTaskRequest| {
            let mut last = ended("done");
            last.task.as_mut().unwrap().result = packed.clone();
            Ok(parts(vec![Ok(piece(0, LOG.len())), Ok(last)]))
        }),
        download: answer(move |request: DownloadBlobRequest| {
            assert_eq!(request.digest, known);
            Ok(parts(vec![Ok(BlobPart { data: "packed".into() })]))
        }),
        ..Script::default()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (address, dir) = (director.address(), folder.path().to_str().unwrap().to_owned());
    for (arguments, logs, file) in [
        (vec![], "job", "web.task-3.tgz"),
        (vec!["api", "--agent"], "agent", "web.api.task-3.tgz"),
        (vec!["api/0", "--all-logs", "--only", "a*"], "agent,job,system", "web.api.0.task-3.tgz"),
    ] {
        let all = [vec!["-e", &address, "-d", "web", "logs", "--dir", &dir], arguments].concat();
        let output = run(&all).await;
        assert!(output.status.success(), "{output:?}");
        let path = folder.path().join(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"packed", "{file}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(path.to_str().unwrap()), "{output:?}");
        assert_eq!(asked.lock().unwrap().last().unwrap().logs, logs);
    }
    assert_eq!(asked.lock().unwrap().last().unwrap().filters, ["a*"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left");
    assert!(!run(&["-e", &address, "-d", "web", "logs", "--agent", "--system"]).await.status.success());
}

/// Where the archive is says the result output, not the task's result.
#[tokio::test]
async fn an_exported_release_is_a_file_with_its_name() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let packed: String = sha2::Sha256::digest(b"packed").iter().map(|b| format!("{b:02x}")).collect();
    let told = format!("{{\"blobstore_id\":\"{packed}\",\"sha1\":\"sha256:{packed}\"}}\n");
    let director = Director::start(Script {
        export: answer(move |request: ExportReleaseRequest| {
            heard.lock().unwrap().push(request);
            Ok(TaskStarted { task_id: 3 })
        }),
        follow: answer(move |request: FollowTaskRequest| {
            let output = match request.kind() {
                follow_task_request::Kind::Result => {
                    TaskOutput { data: told.clone().into(), ..TaskOutput::default() }
                }
                _ => piece(0, LOG.len()),
            };
            let last = TaskOutput { offset: output.data.len() as u64, ..ended("done") };
            Ok(parts(vec![Ok(output), Ok(last)]))
        }),
        download: answer(move |request: DownloadBlobRequest| {
            assert_eq!(request.digest, packed);
            Ok(parts(vec![Ok(BlobPart { data: "packed".into() })]))
        }),
        ..Script::default()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (address, dir) = (director.address(), folder.path().to_str().unwrap().to_owned());
    let to = ["-e", &address, "-d", "web"];
    let arguments =
        ["export-release", "golden/1", "ubuntu-jammy/1.2", "--job", "a", "--job", "b", "--dir", &dir];
    let output = run(&[&to[..], &arguments[..]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    let file = folder.path().join("golden-1-ubuntu-jammy-1.2.task-3.tgz");
    assert_eq!(std::fs::read(&file).unwrap(), b"packed");
    let request = asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (request.deployment.as_str(), request.name.as_str(), request.version.as_str()),
        ("web", "golden", "1")
    );
    assert_eq!((request.stemcell_os.as_str(), request.stemcell_version.as_str()), ("ubuntu-jammy", "1.2"));
    assert_eq!(request.jobs, ["a", "b"]);
    for wrong in [["golden", "os/1"], ["golden/1", "os"], ["golden/1", "os/1/2"]] {
        let output = run(&[&to[..], &["export-release"][..], &wrong[..]].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    assert_eq!(asked.lock().unwrap().len(), 0);
}
