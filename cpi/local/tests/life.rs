//! How VMs live and end, on every rung that works here.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Stage, context};
use cpi_api::*;
use cpi_local::{LocalCpi, Rung};
use model::*;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

const RUNGS: [(Rung, [u8; 2]); 2] = [(Rung::Process, [127, 94]), (Rung::Namespaces, [10, 94])];

/// Tells where it is, as both rungs see it: the directory that the last argument names.
const BASE: &str = "base=${@: -1}";

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
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
        let record = std::fs::read(stage.vcap(2, "../vm.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let supervisor = record["processes"]["supervisor"]["pid"].to_string();
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

/// Not a test by itself: the replica that the next test kills.
#[tokio::test]
#[ignore = "started by `a_replica_killed_at_any_moment_leaves_no_half_vm`"]
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
    let options = common::options(dir, cpi_local::Isolation::Exactly(rung));
    LocalCpi::open(cpi_local::LocalOptions { dagent: dir.join("agent"), ..options }).unwrap()
}

#[tokio::test]
async fn a_replica_killed_at_any_moment_leaves_no_half_vm() {
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 4], "exec sleep 1000000").await else { continue };
        let mark = format!("DIRECTORATE_VM={}", stage.dir.path().join("cloud/vms/vm-agent-2").display());
        let request = stage.request(2, json!({}));
        for round in 0..20 {
            let mut replica = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_replica", "--ignored"])
                .env("STAGE_DIR", stage.dir.path())
                .env("STAGE_REQUEST", serde_json::to_string(&request).unwrap())
                .env("STAGE_RUNG", rung.name())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // The one wait for a time: the moment of the kill is what is varied.
            tokio::time::sleep(Duration::from_millis(40 + 17 * round)).await;
            replica.kill().unwrap();
            replica.wait().unwrap();
            let found = stage.cpi.find_vm(&context(2 + round), &request.agent_id).await.unwrap();
            match found {
                Found::Yes(_) => {
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
