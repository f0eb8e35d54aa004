//! How VMs live and end, on every rung that works here.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Stage, context, ordinary};
use cpi_api::*;
use cpi_local::{LocalCpi, LockWaits, Rung};
use model::*;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const RUNGS: [(Rung, [u8; 2]); 3] =
    [(Rung::Process, [127, 94]), (Rung::Namespaces, [10, 94]), (Rung::UserNamespaces, [10, 98])];

/// Tells where it is, as all rungs see it: the directory that the last argument names.
const BASE: &str = "base=${@: -1}";

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn an_ordinary_users_vms_live_and_end_alike() {
    ordinary::run_the_others("an_ordinary_users_vms_live_and_end_alike", &[common::helper()]);
}

#[tokio::test]
async fn an_agent_that_dies_is_started_again_and_jobs_live_on() {
    // The first agent starts a job and dies; later ones look for it.
    let agent = format!(
        "{BASE}; if [ ! -e $base/job ]; then setsid sleep 1000000 & echo $! > $base/job; exit 1; fi\n\
         kill -0 $(cat $base/job) && echo lives > $base/verdict; exec sleep 1000000"
    );
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 1], &agent).await else { continue };
        stage.create(2, json!({})).await;
        stage.wait_for(2, "verdict", |text| text == "lives\n").await;
        stage.close(2).await;
    }
}

#[tokio::test]
async fn an_agent_that_switches_its_vm_off_is_not_started_again() {
    let code = model::agent_settings::SWITCHED_OFF;
    let agent =
        format!("{BASE}; echo up >> $base/lives; while [ ! -e $base/off ]; do sleep 0.02; done; exit {code}");
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 7], &agent).await else { continue };
        let vm = stage.create(2, json!({})).await;
        stage.wait_for(2, "lives", |text| text == "up\n").await;
        let supervisor = supervisor(&stage);
        assert!(is_alive(&supervisor));
        std::fs::write(stage.vcap(2, "off"), "").unwrap();
        let off = async {
            while is_alive(&supervisor) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), off).await.expect("the VM goes off");
        assert_eq!(std::fs::read_to_string(stage.vcap(2, "lives")).unwrap(), "up\n");
        assert!(stage.cpi.has_vm(&context(1), &vm).await.unwrap(), "{rung}: off, and still there");
        stage.cpi.delete_vm(&context(1), &vm).await.unwrap();
        stage.close(2).await;
    }
}

fn supervisor(stage: &Stage) -> String {
    let record = std::fs::read(stage.vcap(2, "../vm.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["processes"]["supervisor"]["pid"].to_string()
}

#[tokio::test]
async fn deleting_a_vm_ends_its_processes_and_no_others() {
    // A daemon in a session of its own whose parent has ended, as jobs are, and one with an empty environment.
    let agent = format!(
        "{BASE}; (setsid env -i sleep 1000000 & echo $! > $base/daemon); sleep 1000000 & echo $! > $base/child\n\
         exec sleep 1000000"
    );
    let Some(stage) = Stage::open(Rung::Process, [127, 94, 2], &agent).await else { return };
    let mut bystander = Command::new("sleep").arg("1000000").spawn().unwrap();
    let vm = stage.create(2, json!({})).await;
    let daemon = stage.wait_for(2, "daemon", |text| text.ends_with('\n')).await;
    let child = stage.wait_for(2, "child", |text| text.ends_with('\n')).await;
    assert!(is_alive(&daemon) && is_alive(&child));
    stage.cpi.delete_vm(&context(1), &vm).await.unwrap();
    assert!(!is_alive(&daemon) && !is_alive(&child));
    assert!(is_alive(&bystander.id().to_string()));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    stage.close(2).await;
}

#[tokio::test]
async fn a_vm_whose_supervisor_was_killed_is_still_deleted() {
    let agent = format!("{BASE}; echo $$ > $base/agent; exec sleep 1000000");
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 3], &agent).await else { continue };
        let vm = stage.create(2, json!({})).await;
        stage.wait_for(2, "agent", |text| text.ends_with('\n')).await;
        let supervisor = supervisor(&stage);
        assert!(Command::new("kill").args(["-9", &supervisor]).status().unwrap().success());
        stage.cpi.delete_vm(&context(1), &vm).await.unwrap();
        let mark = format!("DIRECTORATE_VM={}", stage.dir.path().join("cloud/vms/vm-agent-2").display());
        assert_eq!(processes_with(&mark), Vec::<String>::new());
        stage.close(2).await;
    }
}

fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let carries = |pid: &String| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
    };
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(carries).collect()
}

/// Not a test by itself: the replica that other tests kill or stop.
#[tokio::test]
#[ignore = "started by tests that need a process of its own for a replica"]
async fn a_replica() {
    let Ok(dir) = std::env::var("STAGE_DIR") else { return };
    let request: CreateVm = serde_json::from_str(&std::env::var("STAGE_REQUEST").unwrap()).unwrap();
    let cpi = open_again(std::path::Path::new(&dir), &std::env::var("STAGE_RUNG").unwrap());
    loop {
        let vm = cpi.create_vm(&context(1), request.clone()).await.unwrap().cid;
        cpi.delete_vm(&context(1), &vm).await.unwrap();
    }
}

fn open_again(dir: &std::path::Path, rung: &str) -> LocalCpi {
    let rung = RUNGS.into_iter().map(|(r, _)| r).find(|r| r.name() == rung).unwrap();
    let mut options = common::options(dir, cpi_local::Isolation::Exactly(rung));
    options.dagent = dir.join("agent");
    if let Some(helper) = std::env::var_os("STAGE_HELPER") {
        options.helper = vec![helper];
    }
    LocalCpi::open(options).unwrap()
}

/// Starts a replica of the stage's cloud in a process of its own; it makes and deletes the VM of `request`.
fn replica_process(stage: &Stage, rung: Rung, request: &CreateVm) -> Command {
    let mut replica = Command::new(std::env::current_exe().unwrap());
    replica
        .args(["--exact", "a_replica", "--ignored"])
        .env("STAGE_DIR", stage.dir.path())
        .env("STAGE_REQUEST", serde_json::to_string(request).unwrap())
        .env("STAGE_RUNG", rung.name())
        .stdout(Stdio::null());
    replica
}

#[tokio::test]
async fn a_replica_killed_at_any_moment_leaves_no_half_vm() {
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 4], "exec sleep 1000000").await else { continue };
        let mark = format!("DIRECTORATE_VM={}", stage.dir.path().join("cloud/vms/vm-agent-2").display());
        let request = stage.request(2, json!({}));
        for round in 0..20 {
            let mut replica = replica_process(&stage, rung, &request).spawn().unwrap();
            // The one wait for a time: the moment of the kill is what is varied.
            tokio::time::sleep(Duration::from_millis(40 + 17 * round)).await;
            replica.kill().unwrap();
            replica.wait().unwrap();
            let found = stage.cpi.find_vm(&context(2 + round), &request.agent_id).await.unwrap();
            match found {
                Found::These(found) if found.len() == 1 => {
                    assert!(!processes_with(&mark).is_empty(), "round {round}: found, and not running")
                }
                _ => assert_eq!(
                    processes_with(&mark),
                    Vec::<String>::new(),
                    "round {round}: gone, and running"
                ),
            }
            stage.cpi.delete_vm(&context(2 + round), &VmCid::new("vm-agent-2")).await.unwrap();
            // The next replica comes under the old epoch: let it.
            std::fs::write(stage.dir.path().join("cloud/epoch"), "1").unwrap();
        }
        stage.close(2).await;
    }
}

/// Makes a VM's record say that its removal was begun and not finished.
fn mark_as_half_removed(stage: &Stage, n: u8) {
    let path = stage.vcap(n, "../vm.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["state"] = json!("deleting");
    std::fs::write(&path, record.to_string()).unwrap();
}

#[tokio::test]
async fn a_half_made_vm_gives_its_address_to_the_next_attempt() {
    let agent = format!("{BASE}; echo $$ > $base/agent; exec sleep 1000000");
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 5], &agent).await else { continue };
        stage.create(2, json!({})).await;
        stage.wait_for(2, "agent", |text| text.ends_with('\n')).await;
        mark_as_half_removed(&stage, 2);
        let next = CreateVm { agent_id: AgentId::new("agent-3"), ..stage.request(2, json!({})) };
        // Somebody may be at work on it still: it is not ours then.
        let lock = stage.dir.path().join("cloud/locks/vm-agent-2");
        let lock = std::fs::File::options().create(true).append(true).open(lock).unwrap();
        let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let error = stage.cpi.create_vm(&context(1), next.clone()).await.unwrap_err();
        assert!(error.message.contains("is in use by another VM"), "{error}");
        drop(held);
        stage.cpi.create_vm(&context(1), next).await.unwrap();
        assert!(!stage.vcap(2, "../vm.json").exists(), "the half-made VM is still there");
        let mark = format!("DIRECTORATE_VM={}", stage.dir.path().join("cloud/vms/vm-agent-2").display());
        assert_eq!(processes_with(&mark), Vec::<String>::new());
        stage.close(3).await;
    }
}

#[tokio::test]
async fn a_stopped_replica_is_named_to_those_who_wait_for_it() {
    let Some(stage) = Stage::open(Rung::Process, [127, 94, 6], "exec sleep 1000000").await else { return };
    // A helper that never gets anywhere: its replica is in the middle of `create_vm` from then on.
    let (helper, started) = (stage.dir.path().join("helper"), stage.dir.path().join("helper.pid"));
    std::fs::write(&helper, format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000000\n", started.display()))
        .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let request = stage.request(2, json!({}));
    let mut replica =
        replica_process(&stage, Rung::Process, &request).env("STAGE_HELPER", &helper).spawn().unwrap();
    let pid = Pid::from_raw(replica.id() as i32);
    let helper_pid = poll(|| std::fs::read_to_string(&started).ok()?.trim().parse().ok()).await;
    kill(pid, Signal::SIGSTOP).unwrap();
    let is_stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    poll(|| is_stopped().then_some(())).await;

    let lock_waits = LockWaits { to_look: Duration::from_millis(50), ..LockWaits::default() };
    let options = common::options(stage.dir.path(), cpi_local::Isolation::Exactly(Rung::Process));
    let successor = LocalCpi::open(cpi_local::LocalOptions { lock_waits, ..options }).unwrap();
    let patient = CallContext { timeout: Duration::from_secs(3600), ..context(2) };
    let error = successor.find_vm(&patient, &request.agent_id).await.unwrap_err();
    assert_eq!((error.kind, error.ok_to_retry), (CpiErrorKind::TimedOut, true), "{error}");
    assert!(error.message.contains(&format!("process {pid}, which is stopped")), "{error}");

    replica.kill().unwrap();
    replica.wait().unwrap();
    kill(Pid::from_raw(helper_pid), Signal::SIGKILL).unwrap();
    assert_eq!(successor.find_vm(&patient, &request.agent_id).await.unwrap(), Found::none());
    stage.close(2).await;
}

/// Waits until `probe` gives something.
async fn poll<T>(probe: impl Fn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            match probe() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the condition comes true")
}

#[tokio::test]
async fn a_director_that_the_vm_could_never_reach_is_refused_by_name() {
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 7], "exec sleep 1000000").await else { continue };
        let endpoints = vec!["127.0.0.1:1".to_owned(), "d1.example:2".to_owned()];
        let bootstrap = AgentBootstrap { endpoints, ..Default::default() };
        let created =
            stage.cpi.create_vm(&context(1), CreateVm { bootstrap, ..stage.request(2, json!({})) }).await;
        match rung {
            // It shares the host's network, and its names.
            Rung::Process => assert!(created.is_ok(), "{created:?}"),
            _ => {
                let error = created.unwrap_err();
                assert!(error.message.contains("could not reach the director `d1.example:2`"), "{error}");
                assert!(!stage.vcap(2, "..").exists(), "something of the VM was made");
            }
        }
        stage.close(2).await;
    }
}
