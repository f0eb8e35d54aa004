//! Clouds behind executables: the conformance suite, and every way in which a CPI can be unwell, with real processes.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cpi_api::conformance::Subject;
use cpi_api::*;
use cpi_external::{ExternalCpi, Limits, Pace, Program};
use model::*;
use serde_json::{Value, json};

/// Writes a wrapper as CPIs' jobs have them, and returns its path.
fn wrapper(dir: &Path, more: &str) -> PathBuf {
    let (path, half) = (dir.join("cpi"), dir.join("cpi.new"));
    let text = format!(
        "#!/bin/sh\nexec {} --file {}/cloud.json --script {} {more}\n",
        env!("CARGO_BIN_EXE_sim-cpi"),
        dir.display(),
        dir.display()
    );
    std::fs::write(&half, text).unwrap();
    std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(half, &path).unwrap();
    path
}

fn cpi(dir: &Path) -> ExternalCpi {
    cpi_with(dir, &json!({}), Limits::default())
}

fn cpi_with(dir: &Path, properties: &Value, limits: Limits) -> ExternalCpi {
    let path = dir.join("cpi");
    let path = if path.exists() { path } else { wrapper(dir, "") };
    let properties = properties.as_object().unwrap().clone();
    ExternalCpi::new(
        Program { path, guard: Vec::new(), director_uuid: "a-director".into(), properties },
        limits,
        QUICK,
    )
}

/// As usual, but tests do not wait for minutes.
const QUICK: Pace = Pace {
    calls_at_once: 32,
    calls_per_minute: None,
    again: retry::Policy {
        initial: Duration::from_millis(10),
        max: Duration::from_millis(40),
        total: Some(Duration::from_secs(2)),
    },
};

cpi_api::conformance!(bosh | dir | Ok(Subject::new(cpi(dir))));

fn context(within: Duration) -> CallContext {
    CallContext {
        director_uuid: "a-director".into(),
        request_id: "t1-s2".into(),
        epoch: Epoch(1),
        stemcell_api_version: Some(3),
        timeout: within,
        log: Default::default(),
    }
}

/// A context, and all that is told in it.
fn listening(within: Duration) -> (CallContext, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let ear = heard.clone();
    let log = CallLog::new(move |line| {
        let mut heard = ear.lock().unwrap();
        heard.push_str(line);
        heard.push('\n');
    });
    (CallContext { log, ..context(within) }, heard)
}

fn fault(dir: &Path, method: &str, fault: &Value) {
    std::fs::write(dir.join(format!("{method}.json")), fault.to_string()).unwrap();
}

fn calls(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("calls.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn methods(dir: &Path) -> Vec<String> {
    calls(dir).iter().map(|call| call["method"].as_str().unwrap().to_owned()).collect()
}

const PATIENT: Duration = Duration::from_secs(60);

fn image() -> CreateStemcell {
    CreateStemcell { image: "/i".into(), cloud_properties: json!({}), tags: Metadata::new() }
}

async fn with_stemcell(cpi: ExternalCpi) -> ExternalCpi {
    assert_eq!(cpi.create_stemcell(&context(PATIENT), image()).await.unwrap().as_str(), "stemcell-1");
    cpi
}

fn vm() -> CreateVm {
    CreateVm {
        agent_id: "agent-1".into(),
        stemcell: "stemcell-1".into(),
        cloud_properties: json!({ "instance_type": "t2.huge-secret" }),
        networks: vec![],
        disks: vec![],
        env: json!({ "bosh": { "group": "d-web", "password": "$6$hash" } }),
        bootstrap: AgentBootstrap { token: "a-token-once".into(), ..AgentBootstrap::default() },
    }
}

#[tokio::test]
async fn info_is_asked_once_for_each_executable() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = cpi(dir.path());
    for _ in 0..3 {
        assert!(!cpi.has_vm(&context(PATIENT), &"vm-1".into()).await.unwrap());
    }
    assert_eq!(methods(dir.path()), ["info", "has_vm", "has_vm", "has_vm"]);
    assert_eq!(calls(dir.path())[0].get("api_version"), None);
    assert_eq!(calls(dir.path())[1]["api_version"], 3);
    // A release of the CPI is upgraded in place.
    wrapper(dir.path(), "--api-version 2");
    cpi.has_vm(&context(PATIENT), &"vm-1".into()).await.unwrap();
    assert_eq!(methods(dir.path())[4..], ["info", "has_vm"]);
    assert_eq!(calls(dir.path())[5]["api_version"], 2);
}

#[tokio::test]
async fn requests_have_the_contracts_shape_and_properties_come_last() {
    let dir = tempfile::tempdir().unwrap();
    let properties = json!({ "region": "eu", "request_id": "overwritten" });
    let cpi = with_stemcell(cpi_with(dir.path(), &properties, Limits::default())).await;
    let made = cpi.create_vm(&context(PATIENT), vm()).await.unwrap();
    cpi.set_vm_metadata(&context(PATIENT), &made.cid, &Metadata::new()).await.unwrap();
    let seen = calls(dir.path());
    let create = &seen[2];
    assert_eq!(create["context"]["region"], "eu");
    assert_eq!(create["context"]["request_id"], "overwritten");
    assert_eq!(create["context"]["director_uuid"], "a-director");
    assert_eq!(create["context"]["vm"], json!({ "stemcell": { "api_version": 3 } }));
    assert_eq!(create["arguments"].as_array().unwrap().len(), 6);
    assert_eq!(create["arguments"][5]["bosh"]["directorate"]["token"], "a-token-once");
    assert_eq!(seen[3]["context"].get("vm"), None, "nobody says of which stemcell it is");
    // The third argument came with the third contract.
    wrapper(dir.path(), "--api-version 2");
    cpi.create_stemcell(&context(PATIENT), image()).await.unwrap();
    let stemcells: Vec<usize> = calls(dir.path())
        .iter()
        .filter(|call| call["method"] == "create_stemcell")
        .map(|call| call["arguments"].as_array().unwrap().len())
        .collect();
    assert_eq!(stemcells, [3, 2]);
}

#[tokio::test]
async fn a_cpi_has_nothing_but_one_line_and_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let (program, seen) = (dir.path().join("cpi"), dir.path().join("seen"));
    // Reads its input to the end, as most do: it must come.
    let text = format!(
        "#!/bin/sh\n{{ /usr/bin/env; echo lines; cat | wc -l; }} > {}\n\
         echo '{{\"result\":{{\"api_version\":2}},\"error\":null,\"log\":\"\"}}'\n",
        seen.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    cpi(dir.path()).info().await.unwrap();
    let seen = std::fs::read_to_string(seen).unwrap();
    let (environment, lines) = seen.split_once("lines\n").unwrap();
    // The shell adds what it needs itself.
    let known = ["PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"];
    let strange = environment.lines().filter(|line| !known.contains(&line.split('=').next().unwrap()));
    assert_eq!(strange.collect::<Vec<_>>(), [] as [&str; 0]);
    assert!(environment.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"), "{environment}");
    assert_eq!(lines.trim(), "1");
}

#[tokio::test]
async fn what_hangs_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = with_stemcell(cpi(dir.path())).await;
    fault(dir.path(), "create_vm", &json!({ "hang": true, "with_child": true }));
    let late = cpi.create_vm(&context(Duration::from_secs(2)), vm()).await.unwrap_err();
    assert_eq!(late.kind, CpiErrorKind::TimedOut, "the deed may be done: {late}");
    none_left(dir.path()).await;
    // Whoever loses the right to act drops the call.
    let context = context(PATIENT);
    let call = cpi.create_vm(&context, vm());
    let dropped = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert!(dropped.is_err());
    none_left(dir.path()).await;
}

/// Waits until no process has the folder in its command line, nor `sleep 600` ours for a parent's group.
async fn none_left(dir: &Path) {
    let begun = Instant::now();
    let ours = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let folder = dir.to_str().unwrap().to_owned();
        lines.filter(|line| String::from_utf8_lossy(line).contains(&folder)).count()
    };
    while ours() > 0 {
        assert!(begun.elapsed() < PATIENT, "a process was left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = cpi_with(dir.path(), &json!({}), Limits { answer_bytes_max: 4096, ..Limits::default() });
    let wide = "x".repeat(5000);
    for (answer, why) in [
        ("debug: hello {}", "Invalid CPI response - expected value"),
        (r#"{"result":true,"error":null,"log":null}"#, "Invalid CPI response - invalid type: null"),
        (r#"{"result":"yes","error":null,"log":""}"#, "Invalid CPI response - \"yes\" is neither"),
        (&wide, "Invalid CPI response - more than 4096 bytes"),
    ] {
        fault(dir.path(), "has_vm", &json!({ "answer": answer }));
        let error = cpi.has_vm(&context(PATIENT), &"vm-1".into()).await.unwrap_err();
        assert_eq!(error.kind, CpiErrorKind::InvalidResponse, "{error}");
        assert!(error.message.starts_with(why), "{error}");
        assert!(error.request_id.contains("t1-s2"), "{error}");
    }
    fault(dir.path(), "has_vm", &json!({ "die_after": true }));
    let error = cpi.has_vm(&context(PATIENT), &"vm-1".into()).await.unwrap_err();
    assert_eq!(error.message, "Invalid CPI response - it has ended without an answer");
}

#[tokio::test]
async fn standard_error_is_heard_up_to_a_limit_and_never_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = cpi_with(dir.path(), &json!({}), Limits { log_bytes_max: 10_000, ..Limits::default() });
    fault(dir.path(), "has_vm", &json!({ "stderr_bytes": 20 << 20 }));
    let (context, heard) = listening(PATIENT);
    assert!(!cpi.has_vm(&context, &"vm-1".into()).await.unwrap());
    let heard = heard.lock().unwrap();
    assert!(
        heard.len() < 12_000 && heard.contains("more bytes of standard error are left out"),
        "{}",
        heard.len()
    );
}

#[tokio::test]
async fn secrets_are_not_told_whoever_repeats_them() {
    let dir = tempfile::tempdir().unwrap();
    let properties = json!({ "access_key": "AKIA-0123456" });
    let cpi = with_stemcell(cpi_with(dir.path(), &properties, Limits::default())).await;
    fault(dir.path(), "create_vm", &json!({ "repeats_request": true }));
    let (context, heard) = listening(PATIENT);
    cpi.create_vm(&context, vm()).await.unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard.contains("got {") && heard.contains("\"method\":\"create_vm\""), "{heard}");
    assert!(heard.contains("d-web") && heard.contains("agent-1"), "{heard}");
    for secret in ["AKIA-0123456", "t2.huge-secret", "$6$hash", "a-token-once"] {
        assert!(!heard.contains(secret), "{secret} in {heard}");
    }
}

#[tokio::test]
async fn an_executable_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    let program = Program {
        path: path.clone(),
        guard: Vec::new(),
        director_uuid: String::new(),
        properties: Default::default(),
    };
    let cpi = ExternalCpi::new(program, Limits::default(), QUICK);
    for _ in 0..2 {
        let error = cpi.info().await.unwrap_err();
        assert_eq!(error.message, format!("Failed to run cpi: '{}' is not executable", path.display()));
        // There, but not to be run.
        std::fs::write(&path, "").unwrap();
    }
}

#[tokio::test]
async fn a_method_that_has_worked_does_not_become_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = cpi(dir.path());
    let unknown = json!({ "result": null, "log": "",
        "error": { "type": "Bosh::Clouds::NotImplemented", "message": "Must call", "ok_to_retry": false } });
    fault(dir.path(), "has_vm", &json!({ "answer": unknown.to_string(), "times": 1 }));
    let has_vm = async || cpi.has_vm(&context(PATIENT), &"vm-1".into()).await;
    assert_eq!(has_vm().await.unwrap_err().kind, CpiErrorKind::NotImplemented);
    assert!(!has_vm().await.unwrap());
    fault(dir.path(), "has_vm", &json!({ "answer": unknown.to_string() }));
    assert_eq!(has_vm().await.unwrap_err().kind, CpiErrorKind::Other);
}

#[tokio::test]
async fn a_cloud_that_is_asked_too_often_is_asked_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let cpi = with_stemcell(cpi(dir.path())).await;
    let too_often = json!({ "result": null, "log": "",
        "error": { "type": "Unknown", "message": "Request limit exceeded.", "ok_to_retry": false } });
    fault(dir.path(), "create_vm", &json!({ "answer": too_often.to_string(), "times": 3 }));
    let (context, heard) = listening(PATIENT);
    let made = cpi.create_vm(&context, vm()).await.unwrap();
    assert!(cpi.has_vm(&context, &made.cid).await.unwrap());
    assert_eq!(methods(dir.path()).iter().filter(|method| *method == "create_vm").count(), 4);
    assert_eq!(heard.lock().unwrap().matches("asked too often: again in").count(), 3);
    // One that never has time is told of.
    fault(dir.path(), "has_vm", &json!({ "answer": too_often.to_string() }));
    let error = cpi.has_vm(&context, &made.cid).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (CpiErrorKind::Other, "Request limit exceeded."));
    // What fails otherwise is not asked for again.
    let quota = json!({ "result": null, "log": "",
        "error": { "type": "Unknown", "message": "Quota exceeded", "ok_to_retry": false } });
    fault(dir.path(), "delete_vm", &json!({ "answer": quota.to_string() }));
    cpi.delete_vm(&context, &made.cid).await.unwrap_err();
    assert_eq!(methods(dir.path()).iter().filter(|method| *method == "delete_vm").count(), 1);
}
