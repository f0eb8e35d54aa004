//! The cloud behind its socket: the program, shared by replicas, with all knobs.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cpi_api::conformance::Subject;
use cpi_api::*;
use cpi_sim::{Chances, Effect, Knobs, SimCpi, Span};
use model::*;
use serde_json::json;

/// Starts a `sim-cloud`; it ends with the returned process handle, or with the test at the latest.
fn start(dir: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sim-cloud"))
        .arg("--until-stdin-closes")
        .arg("--socket")
        .arg(dir.join("socket"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn end(served: &mut Child) {
    drop(served.stdin.take());
    assert!(served.wait().unwrap().success(), "it ends by itself once nobody holds its input");
}

fn context(timeout: Duration) -> CallContext {
    CallContext {
        director_uuid: "test".into(),
        request_id: "cpi-1".into(),
        epoch: Epoch(1),
        stemcell_api_version: None,
        timeout,
        log: Default::default(),
    }
}

fn disk(id: &str) -> CreateDisk {
    CreateDisk { disk_id: id.into(), size_mib: 1, cloud_properties: json!({}), vm: None }
}

#[tokio::test]
async fn replicas_share_the_cloud_and_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = start(dir.path());
    let (one, other) = (SimCpi::new(dir.path().join("socket")), SimCpi::new(dir.path().join("socket")));
    let patient = context(Duration::from_secs(30));
    let cid = one.create_disk(&patient, disk("d")).await.unwrap();
    let later = CallContext { epoch: Epoch(2), ..patient.clone() };
    assert_eq!(other.find_disk(&later, &"d".into()).await, Ok(Found::one(cid.clone())));
    let error = one.delete_disk(&patient, &cid).await.unwrap_err();
    assert_eq!(
        (error.kind, error.method, error.request_id.as_str()),
        (CpiErrorKind::Fenced, "delete_disk", "cpi-1")
    );
    let statistics = other.statistics().await.unwrap();
    assert_eq!((statistics.disks, statistics.calls["create_disk"]), (1, 1));
    end(&mut served);
}

#[tokio::test]
async fn each_knob_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = start(dir.path());
    let cpi = SimCpi::new(dir.path().join("socket"));
    let set = async |chances| {
        let methods = [("create_disk".to_owned(), chances)].into();
        cpi.set_knobs(Knobs { methods, ..Knobs::default() }).await.unwrap();
    };
    let patient = context(Duration::from_secs(30));
    set(Chances { failure: 1.0, ..Chances::default() }).await;
    let error = cpi.create_disk(&patient, disk("a")).await.unwrap_err();
    assert_eq!((error.kind, error.ok_to_retry), (CpiErrorKind::Other, true));
    assert_eq!(cpi.find_disk(&patient, &"a".into()).await, Ok(Found::none()));
    set(Chances { lost_answer: 1.0, ..Chances::default() }).await;
    let error = cpi.create_disk(&patient, disk("b")).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert_eq!(cpi.find_disk(&patient, &"b".into()).await, Ok(Found::one("disk-b".into())));
    set(Chances { hang: 1.0, ..Chances::default() }).await;
    let error = cpi.create_disk(&context(Duration::from_millis(50)), disk("c")).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert_eq!(cpi.find_disk(&patient, &"c".into()).await, Ok(Found::none()));
    end(&mut served);
}

#[tokio::test]
async fn what_comes_late_or_twice_is_done_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = start(dir.path());
    let cpi = SimCpi::new(dir.path().join("socket"));
    let set = async |chances| {
        let methods = [("create_disk".to_owned(), chances)].into();
        cpi.set_knobs(Knobs { methods, ..Knobs::default() }).await.unwrap();
    };
    let patient = context(Duration::from_secs(30));
    // Long enough to look in between.
    let late_by = Span { min_ms: 2_000, max_ms: 2_000 };
    set(Chances { late: 1.0, late_by, ..Chances::default() }).await;
    let error = cpi.create_disk(&patient, disk("late")).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert_eq!(cpi.find_disk(&patient, &"late".into()).await, Ok(Found::none()));
    // Whoever leads by then does not matter: a cloud knows no epochs.
    let later = CallContext { epoch: Epoch(2), ..patient };
    while cpi.find_disk(&later, &"late".into()).await == Ok(Found::none()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    set(Chances { twice: 1.0, ..Chances::default() }).await;
    assert_eq!(cpi.create_disk(&later, disk("twice")).await, Ok("disk-twice".into()));
    let hang_lasts = Some(Span { min_ms: 20, max_ms: 20 });
    set(Chances { hang: 1.0, hang_lasts, ..Chances::default() }).await;
    let error = cpi.create_disk(&later, disk("hangs")).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut, "the connection breaks before the caller gives up");
    let statistics = cpi.statistics().await.unwrap();
    assert_eq!(statistics.disks, 2);
    for fate in ["late", "twice", "hang"] {
        assert_eq!(statistics.fates[fate], 1, "{statistics:?}");
    }
    end(&mut served);
}

#[tokio::test]
async fn an_absent_cloud_is_no_lost_answer() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = SimCpi::new(dir.path().join("socket"));
    let error = cpi.create_disk(&context(Duration::from_secs(1)), disk("d")).await.unwrap_err();
    assert_eq!((error.kind, error.ok_to_retry), (CpiErrorKind::Other, true));
}

mod conformance {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;

    /// One process per directory; they end with this one, which holds their inputs.
    static SERVED: Mutex<BTreeMap<PathBuf, Child>> = Mutex::new(BTreeMap::new());

    fn through_the_socket(dir: &Path) -> Result<Subject, String> {
        SERVED.lock().unwrap().entry(dir.to_owned()).or_insert_with(|| start(dir));
        Ok(Subject::new(SimCpi::new(dir.join("socket"))))
    }

    cpi_api::conformance!(through_the_socket);
}

#[tokio::test]
async fn the_record_tells_what_was_done_whatever_its_caller_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = start(dir.path());
    let cpi = SimCpi::new(dir.path().join("socket"));
    let (old, new) = (context(Duration::from_secs(30)), context(Duration::from_secs(30)));
    let new = CallContext { epoch: Epoch(2), request_id: "cpi-2".into(), ..new };
    let lost = Chances { lost_answer: 1.0, ..Chances::default() };
    cpi.set_knobs(Knobs { methods: [("create_disk".to_owned(), lost)].into(), ..Knobs::default() })
        .await
        .unwrap();
    cpi.create_disk(&old, disk("d")).await.unwrap_err();
    cpi.set_knobs(Knobs::default()).await.unwrap();
    let cid = cpi.create_disk(&new, disk("d")).await.unwrap();
    cpi.create_disk(&new, disk("e")).await.unwrap();
    cpi.delete_disk(&old, &cid).await.unwrap_err();
    cpi.delete_disk(&new, &cid).await.unwrap();
    cpi.delete_disk(&new, &cid).await.unwrap();
    let record = cpi.record().await.unwrap();
    let told: Vec<_> = record
        .entries
        .iter()
        .map(|e| (e.method.as_str(), e.request_id.as_ref().unwrap().as_str(), e.effect.clone(), e.is_fenced))
        .collect();
    assert_eq!(
        told,
        [
            ("create_disk", "cpi-1", Effect::MadeDisk(cid.clone()), false),
            ("create_disk", "cpi-2", Effect::None, false),
            ("create_disk", "cpi-2", Effect::MadeDisk("disk-e".into()), false),
            ("delete_disk", "cpi-1", Effect::None, true),
            ("delete_disk", "cpi-2", Effect::DeletedDisk(cid), false),
            ("delete_disk", "cpi-2", Effect::None, false),
        ]
    );
    assert!(record.entries.is_sorted_by_key(|entry| entry.at_us));
    assert_eq!(record.disks, [("disk-e".into(), "e".into())].into());
    end(&mut served);
}
