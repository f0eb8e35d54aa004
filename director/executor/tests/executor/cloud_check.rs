//! Cloud check: what a scan finds, and what becomes of it.

use agent_api::fake::Behaviour;
use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::instance::Vm;
use model::problem::Standing;
use model::task::{Choice, TaskKind};
use model::{DeploymentName, InstanceId, ProblemId};
use serde_json::json;

use crate::artifacts::Shape;
use crate::ended::{Ended, without_ids};
use crate::gate::{Point, Side};
use crate::summary::{instances_of, summary};
use crate::world::TestWorld;

pub fn problems(world: &TestWorld) -> Vec<Standing> {
    world.read(|state| state.problems(&DeploymentName::new("p")))
}

/// Returns the task that does the same about all problems that there are.
pub fn resolve_all(world: &TestWorld, resolution: &str) -> TaskKind {
    let choice = |standing: Standing| choice(standing.problem.id, Some(resolution));
    apply(problems(world).into_iter().map(choice).collect())
}

fn choice(problem: ProblemId, resolution: Option<&str>) -> Choice {
    Choice { problem, resolution: resolution.map(str::to_owned) }
}

fn apply(resolutions: Vec<Choice>) -> TaskKind {
    TaskKind::ApplyResolutions { resolutions, max_in_flight: Default::default() }
}

async fn scan(world: &TestWorld) -> Ended {
    world.run(TaskKind::ScanCloud).await.done()
}

fn vm_of(world: &TestWorld, instance: &InstanceId) -> Vm {
    world.read(|state| state.active_vm(instance).unwrap())
}

/// Makes an agent silent, and has that found.
pub async fn hushed(world: &TestWorld) {
    world.outside.hush(&vm_of(world, &world.first_web()).agent);
    scan(world).await;
}

/// Destroys a VM, and has that found.
pub async fn killed(world: &TestWorld) {
    world.kill_a_vm();
    scan(world).await;
}

/// Has a deploy give disks, of which one is mounted without the director's ever having been told; and has that found.
pub async fn with_disk_of_lost_answer(world: &TestWorld) {
    world.run(Shape { disk_mib: 0, ..Shape::default() }.deploy()).await.done();
    // The leader is lost once the disk is mounted, and its successor gets no answer.
    let point = Point { name: "finished:mount_disk".into(), nth: 1, side: Side::Before };
    world.gate.arm(Some(point));
    let id = world.queue(Shape { instances: 1, ..Shape::default() }.deploy());
    assert!(world.stopped_before_end_of(id).await);
    world.depose().await;
    *world.outside.failing.lock().unwrap() = Some("mount_disk".to_owned());
    world.gate.arm(None);
    world.lead();
    world.ended(id).await.error();
    *world.outside.failing.lock().unwrap() = None;
    scan(world).await;
}

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape { instances: 3, ..Shape::default() }.deploy()).await.done();
    world
}

fn told(world: &TestWorld) -> Vec<String> {
    problems(world)
        .iter()
        .map(|standing| {
            let names: Vec<&str> = standing.resolutions().iter().map(|r| r.name()).collect();
            let words: Vec<String> = without_ids(&standing.description())
                .split(' ')
                .map(|word| {
                    if word.starts_with("'vm-") || word.starts_with("'disk-") { "CID" } else { word }
                        .to_owned()
                })
                .collect();
            format!("{}: {}", words.join(" "), names.join(" "))
        })
        .collect()
}

#[tokio::test]
async fn a_scan_of_what_is_well_finds_nothing() {
    let world = deployed().await;
    let ended = scan(&world).await;
    assert_eq!(
        ended.lines(),
        [
            "Scanning 3 VMs: Checking VM states 1/2 started",
            "Scanning 3 VMs: Checking VM states 1/2 finished",
            "Scanning 3 VMs: 3 OK, 0 unresponsive, 0 missing, 0 unbound 2/2 started",
            "Scanning 3 VMs: 3 OK, 0 unresponsive, 0 missing, 0 unbound 2/2 finished",
            "Scanning 3 persistent disks: Looking for inactive disks 1/2 started",
            "Scanning 3 persistent disks: Looking for inactive disks 1/2 finished",
            "Scanning 3 persistent disks: 3 OK, 0 missing, 0 inactive, 0 mount-info mismatch 2/2 started",
            "Scanning 3 persistent disks: 3 OK, 0 missing, 0 inactive, 0 mount-info mismatch 2/2 finished",
        ]
    );
    assert_eq!(ended.task.result.as_deref(), Some("scan complete"));
    assert!(problems(&world).is_empty());
}

/// One VM is gone, one agent is silent, one instance is ignored.
async fn troubled() -> (TestWorld, Vec<InstanceId>) {
    let world = deployed().await;
    let mut web = world.read(|state| state.instances(&DeploymentName::new("p")));
    web.retain(|instance| instance.spec.group.as_str() == "web");
    web.sort_by_key(|instance| instance.spec.index);
    let web: Vec<InstanceId> = web.into_iter().map(|instance| instance.spec.id).collect();
    world.destroy_vm(vm_of(&world, &web[0]).cid.unwrap());
    world.outside.hush(&vm_of(&world, &web[1]).agent);
    world.apply(state::command::Command::InstanceIgnore { instance: web[2].clone(), ignore: true });
    (world, web)
}

#[tokio::test]
async fn a_scan_finds_what_is_missing_and_what_is_silent_and_leaves_out_what_is_ignored() {
    let (world, web) = troubled().await;
    world.destroy_vm(vm_of(&world, &web[2]).cid.unwrap());
    let ended = scan(&world).await;
    let lines = ended.lines();
    assert!(lines[3].contains("0 OK, 1 unresponsive, 1 missing, 0 unbound, 1 ignored"), "{lines:?}");
    assert!(lines[4].starts_with("Scanning 2 persistent disks") && lines[7].contains("2 OK"), "{lines:?}");
    let mut told = told(&world);
    told.sort();
    assert_eq!(
        told,
        [
            "VM for 'web/<id> (0)' with cloud ID CID missing.: ignore recreate_vm_without_wait recreate_vm delete_vm_reference",
            "VM for 'web/<id> (1)' with cloud ID CID is not responding.: \
             ignore reboot_vm recreate_vm_without_wait recreate_vm delete_vm delete_vm_reference",
        ]
    );
    let before: Vec<ProblemId> = problems(&world).iter().map(|s| s.problem.id).collect();
    scan(&world).await;
    assert!(problems(&world).iter().all(|standing| !before.contains(&standing.problem.id)), "found anew");
}

#[tokio::test]
async fn what_nobody_chooses_is_chosen() {
    let (world, web) = troubled().await;
    scan(&world).await;
    let ids: Vec<ProblemId> = problems(&world).iter().map(|s| s.problem.id).collect();
    let ended = world.run(apply(ids.iter().map(|id| choice(*id, None)).collect())).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("2 resolved"));
    assert!(ended.events.contains("Recreate VM without waiting for processes to start"), "{}", ended.events);
    assert!(ended.events.contains(": Skip for now"), "{}", ended.events);
    assert!(problems(&world).is_empty());
    assert!(vm_of(&world, &web[0]).is_current());
    world.assert_consistent();
    scan(&world).await;
    assert!(told(&world)[0].contains("is not responding"), "{:?}", told(&world));
    // Those of before are closed by now.
    let ended = world.run(apply(vec![choice(ids[0], None)])).await.done();
    assert!(ended.events.contains(&format!("Ignoring problem {} (state is 'closed')", ids[0])));
    assert_eq!(ended.task.result.as_deref(), Some("0 resolved"));
}

#[tokio::test]
async fn a_silent_vm_is_recreated_with_its_disk() {
    let world = deployed().await;
    let up = summary(&world);
    let disks = world.outside.disks_ever();
    for resolution in ["recreate_vm", "recreate_vm_without_wait"] {
        hushed(&world).await;
        let waits = world.outside.requests().iter().filter(|name| **name == "post-start").count();
        world.run(resolve_all(&world, resolution)).await.done();
        let waited = world.outside.requests().iter().filter(|name| **name == "post-start").count() - waits;
        assert_eq!(waited, usize::from(resolution == "recreate_vm"), "{resolution}");
        assert_eq!(summary(&world), up, "{resolution}");
        world.assert_consistent();
    }
    assert_eq!(world.outside.disks_ever(), disks);
}

#[tokio::test]
async fn a_silent_vm_is_rebooted() {
    let world = deployed().await;
    hushed(&world).await;
    world.run(resolve_all(&world, "reboot_vm")).await.done();
    assert_eq!(world.outside.cloud.count("reboot_vm"), 1);
    scan(&world).await;
    assert!(problems(&world).is_empty(), "{:?}", told(&world));
}

#[tokio::test]
async fn an_agent_that_answers_by_now_is_left_alone() {
    let world = deployed().await;
    hushed(&world).await;
    let vm = vm_of(&world, &world.first_web());
    let id = problems(&world)[0].problem.id;
    // Somebody has rebooted it meanwhile.
    world.outside.wake(&vm.agent);
    for resolution in ["delete_vm", "delete_vm_reference", "recreate_vm"] {
        let error = world.run(apply(vec![choice(id, Some(resolution))])).await;
        match resolution {
            "delete_vm" => {
                let text =
                    format!("Error resolving problem '{id}': Agent is responding now, skipping resolution");
                assert_eq!(error.error(), text);
            }
            // It is closed by then.
            _ => assert_eq!(error.done().task.result.as_deref(), Some("0 resolved")),
        }
    }
    assert_eq!(vm_of(&world, &world.first_web()).cid, vm.cid);
    assert!(problems(&world).is_empty());
}

#[tokio::test]
async fn a_vm_is_deleted_or_only_forgotten() {
    let world = deployed().await;
    hushed(&world).await;
    world.run(resolve_all(&world, "delete_vm")).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    world.assert_consistent();
    scan(&world).await;
    assert!(told(&world)[0].starts_with("VM for 'web/<id> (0)' missing."), "{:?}", told(&world));
    world.run(resolve_all(&world, "recreate_vm")).await.done();

    hushed(&world).await;
    world.run(resolve_all(&world, "delete_vm_reference")).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 3, "it runs on");
    let (vms, leaks) = world.read(|state| (state.vms(&world.first_web()), state.leaks()));
    assert!(vms.is_empty() && leaks.len() == 1 && leaks[0].what.contains("may still run"), "{leaks:?}");
}

#[tokio::test]
async fn one_that_can_not_be_resolved_does_not_keep_the_others_from_it() {
    let (world, web) = troubled().await;
    scan(&world).await;
    let (gone, silent) = {
        let found = problems(&world);
        let of =
            |id: &InstanceId| found.iter().find(|s| s.problem.finding.instance == *id).unwrap().problem.id;
        (of(&web[0]), of(&web[1]))
    };
    let posts = world.outside.requests().iter().filter(|name| **name == "post-deploy").count();
    let choices = vec![choice(silent, Some("dance")), choice(gone, Some("recreate_vm"))];
    let error = world.run(apply(choices)).await.error();
    let expected =
        format!("Error resolving problem '{silent}': Cannot find 'dance' resolution for 'VM for 'web/");
    assert!(error.starts_with(&expected), "{error}");
    assert!(vm_of(&world, &web[0]).is_current());
    let after = world.outside.requests().iter().filter(|name| **name == "post-deploy").count();
    assert_eq!(after, posts, "no post-deploy scripts after a failure");
    assert!(problems(&world).is_empty(), "both are closed");

    scan(&world).await;
    world.outside.cloud.inject("reboot_vm", Fault::Fail(CpiErrorKind::Other));
    let error = world.run(resolve_all(&world, "reboot_vm")).await.error();
    assert!(error.contains("injected failure"), "{error}");
    assert_eq!(problems(&world).len(), 1, "a problem with the cloud leaves it open");
}

#[tokio::test]
async fn an_agent_that_answers_with_an_error_fails_the_scan() {
    let world = deployed().await;
    hushed(&world).await;
    world.outside.behave("get_state", Behaviour::Fail("no room for a state".into()));
    let error = world.run(TaskKind::ScanCloud).await.error();
    assert!(error.contains("no room for a state"), "{error}");
    assert_eq!(problems(&world).len(), 1, "what was found before stays");
}

#[tokio::test]
async fn an_instance_that_is_not_there_fails_what_is_to_fix_it() {
    let world = deployed().await;
    let unknown = vec!["p/web/77".to_owned()];
    let ended = world.run(TaskKind::ScanAndFix { instances: Vec::new(), unknown }).await;
    assert_eq!(ended.task.error.as_ref().unwrap().code, 70001);
    assert_eq!(ended.error(), "'p/web/77' doesn't exist");
}

#[tokio::test]
async fn another_leader_goes_on_with_a_scan_and_with_what_was_decided() {
    let at = |name: &str, side| Point { name: name.into(), nth: 1, side };
    for point in [at("cpi:has_vm", Side::After), at("cpi:has_disk", Side::Before)] {
        let (world, _) = troubled().await;
        let ended = world.run_through(TaskKind::ScanCloud, point).await.done();
        assert_eq!(ended.lines().len(), 8, "{:?}", ended.lines());
        assert_eq!(problems(&world).len(), 2);
    }
    for (resolution, point) in [
        ("recreate_vm", at("cpi:create_vm", Side::After)),
        ("recreate_vm", at("finished:close_problem", Side::Before)),
        ("recreate_vm_without_wait", at("agent:start", Side::Before)),
    ] {
        let world = deployed().await;
        hushed(&world).await;
        let before = instances_of(&world);
        let ended = world.run_through(resolve_all(&world, resolution), point).await.done();
        assert_eq!(ended.task.result.as_deref(), Some("1 resolved"));
        assert_eq!(instances_of(&world), before, "{resolution}");
        assert_eq!(world.outside.vms_ever(), 3 + 1 + compiled(&world), "one more VM");
        assert!(problems(&world).is_empty());
        world.assert_consistent();
    }
}

/// Returns how many VMs were made to compile.
fn compiled(world: &TestWorld) -> usize {
    world.outside.cloud.count("create_vm") - 4
}

#[tokio::test]
async fn a_disk_that_is_gone_is_given_up_and_the_next_deploy_makes_another() {
    let world = deployed().await;
    let disk = world.read(|state| state.disks(&world.first_web())[0].clone());
    let cid = disk.cid.clone().unwrap();
    world.outside.cloud.tamper(|cloud| {
        cloud.disks.remove(&cid);
    });
    scan(&world).await;
    assert_eq!(told(&world), ["Disk CID (web/<id>, 1024M) is missing: ignore delete_disk_reference"]);
    world.run(resolve_all(&world, "delete_disk_reference")).await.done();
    let left = world.read(|state| (state.disks(&world.first_web()).len(), state.orphaned_disks().len()));
    assert_eq!(left, (0, 1));
    world.run(Shape { instances: 3, ..Shape::default() }.deploy()).await.done();
    assert!(world.read(|state| state.disks(&world.first_web())).iter().any(|disk| disk.active));
    scan(&world).await;
    assert!(problems(&world).is_empty(), "{:?}", told(&world));
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_mounted_again() {
    for (resolution, reboots) in [("reattach_disk", 0), ("reattach_disk_and_reboot", 1)] {
        let world = deployed().await;
        world.outside.answer("list_disk", json!([]));
        scan(&world).await;
        assert_eq!(problems(&world).len(), 3);
        assert!(told(&world)[0].contains("Not mounted in any VM"), "{:?}", told(&world));
        world.outside.behave_as_usual();
        let before = world.outside.done("mount_disk");
        let only = problems(&world)[0].problem.id;
        world.run(apply(vec![choice(only, Some(resolution))])).await.done();
        assert_eq!(world.outside.done("mount_disk"), before + 1);
        assert_eq!(world.outside.cloud.count("reboot_vm"), reboots);
        assert_eq!(problems(&world).len(), 2, "the others were not decided about");
    }
}

#[tokio::test]
async fn a_disk_that_is_not_used_is_used_again_or_given_up() {
    for (resolution, disks) in [("activate_disk", 1), ("delete_disk", 0)] {
        let world = TestWorld::seed().await;
        with_disk_of_lost_answer(&world).await;
        let found = told(&world);
        assert!(
            found.len() == 1 && found[0].ends_with("is inactive: ignore delete_disk activate_disk"),
            "{found:?}"
        );
        let ended = world.run(resolve_all(&world, resolution)).await;
        match resolution {
            "activate_disk" => drop(ended.done()),
            _ => assert!(ended.error().contains("Disk is currently in use")),
        }
        let active = world.read(|state| state.disks(&world.first_web()).iter().filter(|d| d.active).count());
        assert_eq!(active, disks, "{resolution}");
        world.assert_consistent();
    }
}
