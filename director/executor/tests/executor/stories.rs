//! Tasks that nothing disturbs.

use expect_test::expect;
use model::instance::InstanceState;
use model::task::{DeployOptions, StateChange, TaskKind};
use serde_json::json;
use state::command::Command;

use crate::artifacts::{Shape, become_state, change};
use crate::summary::summary;
use crate::world::TestWorld;

/// A world in which the usual deployment is up.
async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

#[tokio::test]
async fn a_fresh_deploy_compiles_creates_and_starts() {
    let world = TestWorld::seed().await;
    let ended = world.run(Shape::default().deploy()).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("/deployments/p"));
    expect![[r#"
        Preparing deployment: Preparing deployment 1/1 started
        Preparing deployment: Preparing deployment 1/1 finished
        Preparing deployment: Rendering templates 2/1 started
        Preparing deployment: Rendering templates 2/1 finished
        Preparing package compilation: Finding packages to compile 1/1 started
        Preparing package compilation: Finding packages to compile 1/1 finished
        Compiling packages: lib/fp-lib 1/2 started
        Compiling packages: lib/fp-lib 1/2 finished
        Compiling packages: app/fp-app 2/2 started
        Compiling packages: app/fp-app 2/2 finished
        Creating missing vms: web/<id> (0) 1/2 started
        Creating missing vms: web/<id> (1) 2/2 started
        Creating missing vms: web/<id> (0) 1/2 finished
        Creating missing vms: web/<id> (1) 2/2 finished
        Updating instance [web]: web/<id> (0) (canary) 1/2 started
        Updating instance [web]: web/<id> (0) (canary) 1/2 executing pre-stop
        Updating instance [web]: web/<id> (0) (canary) 1/2 executing drain
        Updating instance [web]: web/<id> (0) (canary) 1/2 stopping jobs
        Updating instance [web]: web/<id> (0) (canary) 1/2 executing post-stop
        Updating instance [web]: web/<id> (0) (canary) 1/2 installing packages
        Updating instance [web]: web/<id> (0) (canary) 1/2 executing pre-start
        Updating instance [web]: web/<id> (0) (canary) 1/2 starting jobs
        Updating instance [web]: web/<id> (0) (canary) 1/2 executing post-start
        Updating instance [web]: web/<id> (0) (canary) 1/2 finished
        Updating instance [web]: web/<id> (1) 2/2 started
        Updating instance [web]: web/<id> (1) 2/2 executing pre-stop
        Updating instance [web]: web/<id> (1) 2/2 executing drain
        Updating instance [web]: web/<id> (1) 2/2 stopping jobs
        Updating instance [web]: web/<id> (1) 2/2 executing post-stop
        Updating instance [web]: web/<id> (1) 2/2 installing packages
        Updating instance [web]: web/<id> (1) 2/2 executing pre-start
        Updating instance [web]: web/<id> (1) 2/2 starting jobs
        Updating instance [web]: web/<id> (1) 2/2 executing post-start
        Updating instance [web]: web/<id> (1) 2/2 finished"#]]
    .assert_eq(&ended.lines().join("\n"));
    expect![[r#"
        deployment p deployed
          smoke/0 Started dirty 10.0.0.4 config=none
          web/0 Started clean 10.0.0.2 config=4013c0652a8346a56f174cd0b307d8ca08f8233b vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
          web/1 Started clean 10.0.0.3 config=42a5b15395130cbddfd33da1d0c8ae8999fb3cba vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
        addresses 10.0.0.2=web/<id> 10.0.0.3=web/<id> 10.0.0.4=smoke/<id>
        compiled app lib
        orphans none
        locks 0 leaks 0
        agents 2
        cloud 2 VMs 2 disks 1 stemcells
    "#]].assert_eq(&summary(&world));
}

#[tokio::test]
async fn the_same_deploy_again_only_looks() {
    let world = deployed().await;
    let before = (summary(&world), world.outside.deeds().len(), world.outside.cloud.calls().len());
    let asked = world.outside.requests().len();
    let ended = world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.requests()[asked..], ["get_state", "get_state"]);
    let after = (summary(&world), world.outside.deeds().len(), world.outside.cloud.calls().len());
    assert_eq!(before, after);
    assert!(!ended.events.contains("Updating instance"), "{}", ended.events);
}

#[tokio::test]
async fn a_changed_property_updates_in_place() {
    let world = deployed().await;
    let ended = world.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    assert_eq!((world.outside.vms_ever(), world.outside.disks_ever()), (3, 2), "nothing is made anew");
    assert_eq!(ended.events.matches("\"state\":\"finished\"").count(), 5, "{:#?}", ended.lines());
    let hashes =
        |world: &TestWorld| summary(world).lines().filter(|l| l.contains("config=")).collect::<String>();
    let changed = hashes(&world);
    world.run(Shape::default().deploy()).await.done();
    assert_ne!(hashes(&world), changed);
}

#[tokio::test]
async fn scaling_down_deletes_the_last_instance_and_keeps_its_disk_for_a_while() {
    let world = deployed().await;
    world.run(Shape { instances: 1, ..Shape::default() }.deploy()).await.done();
    expect![[r#"
        deployment p deployed
          smoke/0 Started dirty 10.0.0.4 config=none
          web/0 Started clean 10.0.0.2 config=4013c0652a8346a56f174cd0b307d8ca08f8233b vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
        addresses 10.0.0.2=web/<id> 10.0.0.4=smoke/<id>
        compiled app lib
        orphans 1024
        locks 0 leaks 0
        agents 1
        cloud 1 VMs 2 disks 1 stemcells
    "#]].assert_eq(&summary(&world));
}

#[tokio::test]
async fn recreation_brings_new_vms_and_keeps_disks() {
    let world = deployed().await;
    let options = DeployOptions { recreate: true, ..DeployOptions::default() };
    world.run(Shape::default().deploy_with(options)).await.done();
    assert_eq!((world.outside.vms_ever(), world.outside.disks_ever()), (5, 2));
    expect![[r#"
        deployment p deployed
          smoke/0 Started dirty 10.0.0.4 config=none
          web/0 Started clean 10.0.0.2 config=4013c0652a8346a56f174cd0b307d8ca08f8233b vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
          web/1 Started clean 10.0.0.3 config=42a5b15395130cbddfd33da1d0c8ae8999fb3cba vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
        addresses 10.0.0.2=web/<id> 10.0.0.3=web/<id> 10.0.0.4=smoke/<id>
        compiled app lib
        orphans none
        locks 0 leaks 0
        agents 2
        cloud 2 VMs 2 disks 1 stemcells
    "#]].assert_eq(&summary(&world));
}

#[tokio::test]
async fn another_disk_size_moves_the_content_and_orphans_the_old_disk() {
    let world = deployed().await;
    world.run(Shape { disk_mib: 2048, ..Shape::default() }.deploy()).await.done();
    assert_eq!(world.outside.done("migrate_disk"), 2);
    expect![[r#"
        deployment p deployed
          smoke/0 Started dirty 10.0.0.4 config=none
          web/0 Started clean 10.0.0.2 config=4013c0652a8346a56f174cd0b307d8ca08f8233b vm(active cpu=null disks=1 tags=8) disk(active 2048MiB attached=true)
          web/1 Started clean 10.0.0.3 config=42a5b15395130cbddfd33da1d0c8ae8999fb3cba vm(active cpu=null disks=1 tags=8) disk(active 2048MiB attached=true)
        addresses 10.0.0.2=web/<id> 10.0.0.3=web/<id> 10.0.0.4=smoke/<id>
        compiled app lib
        orphans 1024 1024
        locks 0 leaks 0
        agents 2
        cloud 2 VMs 4 disks 1 stemcells
    "#]].assert_eq(&summary(&world));
    let orphans = world.read(|state| state.orphaned_disks().into_iter().map(|d| d.disk.id).collect());
    world.run(TaskKind::DeleteOrphanedDisks { disks: orphans }).await.done();
    assert_eq!(world.outside.cloud.cloud().disks.len(), 2);
    assert!(world.read(|state| state.orphaned_disks()).is_empty());
}

#[tokio::test]
async fn workers_are_left_and_deleted_later() {
    let world = TestWorld::seed().await;
    world.leave_workers();
    world.run(Shape::default().deploy()).await.done();
    expect![[r#"
        deployment p deployed
          smoke/0 Started dirty 10.0.0.4 config=none
          web/0 Started clean 10.0.0.2 config=4013c0652a8346a56f174cd0b307d8ca08f8233b vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
          web/1 Started clean 10.0.0.3 config=42a5b15395130cbddfd33da1d0c8ae8999fb3cba vm(active cpu=null disks=1 tags=8) disk(active 1024MiB attached=true)
        addresses 10.0.0.2=web/<id> 10.0.0.3=web/<id> 10.0.0.4=smoke/<id> 10.0.0.5=compilation-<id>/<id>
        compiled app lib
        orphans none
        orphaned VMs small-stemcell
        locks 0 leaks 0
        agents 2
        cloud 3 VMs 2 disks 1 stemcells
    "#]]
    .assert_eq(&summary(&world));
    world.assert_consistent();
    let kind = world.deletion_of_workers();
    world.run(kind.clone()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    assert!(world.read(|state| state.orphaned_vms()).is_empty());
    assert_eq!(world.read(|state| state.addresses()).len(), 3, "two web and one smoke");
    // One that is gone already is no reason to fail.
    world.run(kind).await.done();
}

#[tokio::test]
async fn deleting_the_deployment_leaves_nothing_but_orphaned_disks() {
    let world = deployed().await;
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    expect![[r#"
        addresses none
        compiled app lib
        orphans 1024 1024
        locks 0 leaks 0
        agents 0
        cloud 0 VMs 2 disks 1 stemcells
    "#]]
    .assert_eq(&summary(&world));
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
}

#[tokio::test]
async fn stop_start_restart_and_recreate_use_the_stored_spec() {
    let world = deployed().await;
    let up = summary(&world);
    world.run(become_state(InstanceState::Stopped)).await.done();
    assert!(summary(&world).contains("web/0 Stopped clean"), "{}", summary(&world));
    world.run(become_state(InstanceState::Detached)).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 1);
    assert!(summary(&world).contains("web/0 Detached clean"), "{}", summary(&world));
    world.run(become_state(InstanceState::Started)).await.done();
    assert_eq!(summary(&world), up);
    world.run(change(StateChange::Restart)).await.done();
    assert_eq!(summary(&world), up);
    world.run(change(StateChange::Recreate)).await.done();
    assert_eq!(summary(&world), up);
    assert_eq!((world.outside.vms_ever(), world.outside.disks_ever()), (5, 2));
}

#[tokio::test]
async fn a_cloud_that_says_nothing_does_not_keep_a_dead_instance_from_its_new_vm() {
    let world = deployed().await;
    let up = summary(&world);
    let instance = world.kill_a_vm();
    *world.outside.mute.lock().unwrap() = true;
    world.run(TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() }).await.done();
    assert_eq!(summary(&world), up);
    let said = world.debug();
    assert!(said.contains("have not said in time of 1 silent agents' VMs"), "{said}");
}

#[tokio::test]
async fn a_dead_instance_gets_a_new_vm_with_its_disk() {
    let world = deployed().await;
    let up = summary(&world);
    let instance = world.kill_a_vm();
    world.run(TaskKind::ScanAndFix { instances: vec![instance.clone()], unknown: Vec::new() }).await.done();
    assert_eq!(summary(&world), up);
    let said = world.debug();
    assert!(said.contains("does not answer; the cloud has no VM vm-"), "{said}");
    let (vms, disks) = (world.outside.vms_ever(), world.outside.disks_ever());
    let ended =
        world.run(TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() }).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("scan and fix complete"));
    assert_eq!((world.outside.vms_ever(), world.outside.disks_ever()), (vms, disks));
}

#[tokio::test]
async fn a_dead_agent_fails_a_deploy_unless_it_may_fix() {
    let world = deployed().await;
    let up = summary(&world);
    world.kill_a_vm();
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.contains("can't be reached"), "{error}");
    let options = DeployOptions { fix: true, ..DeployOptions::default() };
    world.run(Shape::default().deploy_with(options)).await.done();
    assert_eq!(summary(&world), up);
}

#[tokio::test]
async fn a_cloud_says_what_a_vm_of_a_size_needs() {
    let world = TestWorld::seed().await;
    let mut manifest: serde_json::Value = serde_json::from_str(&Shape::default().manifest()).unwrap();
    let web = manifest["instance_groups"][0].as_object_mut().unwrap();
    web.remove("vm_type");
    web.insert("vm_resources".into(), json!({"cpu": 7, "ram": 512, "ephemeral_disk_size": 1024}));
    let options = DeployOptions::default();
    world.run(TaskKind::Deploy { manifest_text: manifest.to_string(), options }).await.done();
    assert_eq!(summary(&world).matches("cpu=7").count(), 2, "{}", summary(&world));
    assert_eq!(world.outside.cloud.count("calculate_vm_cloud_properties"), 1, "once for both");
}

#[tokio::test]
async fn a_start_brings_up_what_was_deployed_while_it_was_stopped() {
    let world = deployed().await;
    world.run(become_state(InstanceState::Detached)).await.done();
    world.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    let started = world.run(become_state(InstanceState::Started)).await.done();
    assert!(started.events.contains("Creating missing vms"), "{}", started.events);
    let after = summary(&world);
    let fresh = TestWorld::seed().await;
    fresh.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    let hashes = |text: &str| -> Vec<String> {
        let of_line =
            |l: &str| l.split("config=").nth(1).and_then(|l| l.split(' ').next()).map(str::to_owned);
        text.lines().filter_map(of_line).collect()
    };
    assert_eq!(hashes(&after), hashes(&summary(&fresh)));
}

#[tokio::test]
async fn a_deploy_uses_the_configs_that_it_was_shown_with() {
    let world = TestWorld::seed().await;
    let latest = || world.read(|state| state.latest_config("cloud", "default").unwrap());
    let shown = latest();
    // Somebody changes the cloud config, and deletes it, after it was looked at: without the VM type there is no deploy.
    world.put_cloud_config(&json!({ "azs": [] }));
    let (kind, name) = ("cloud".to_owned(), "default".to_owned());
    world.run(Shape::default().deploy()).await.error();
    world.apply(Command::ConfigDelete { kind, name });
    let pinned = DeployOptions { configs: Some(vec![shown.id]), ..DeployOptions::default() };
    world.run(Shape::default().deploy_with(pinned)).await.done();
    let record = world.read(|state| state.deployment(&"p".into()).unwrap().record.unwrap());
    assert_eq!(record.configs, [shown.id]);
    world.assert_consistent();
}
