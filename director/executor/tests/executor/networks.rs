//! Networks that directors make: there before a plan is made of them, orphaned with their last user, deleted when somebody
//! asks; and nothing of them is lost, whatever becomes of leaders and answers.

use std::collections::BTreeSet;
use std::time::Duration;

use cpi_api::fake::Fault;
use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CpiErrorKind};
use model::managed_network::ManagedNetwork;
use model::task::{DeployOptions, TaskKind, TaskState};
use serde_json::{Value, json};
use state::command::Command;
use state::records::Setting;

use crate::artifacts::{Shape, cloud_config};
use crate::gate::{Point, Side};
use crate::world::TestWorld;

const DELETE_DEPLOYMENT: TaskKind = TaskKind::DeleteDeployment { force: false };

/// A config with a second network, `m`, that directors make with this subnet.
fn config(subnet: Value) -> Value {
    let mut config: Value = serde_json::from_str(&cloud_config()).unwrap();
    let managed = json!({"name": "m", "managed": true, "subnets": [subnet]});
    config["networks"].as_array_mut().unwrap().push(managed);
    config
}

fn subnet() -> Value {
    json!({"name": "s", "az": "z1", "netmask_bits": 24, "cloud_properties": {"vlan": 7}})
}

/// A world whose directors make networks.
async fn world() -> TestWorld {
    let world = TestWorld::seed().await;
    world.apply(Command::SettingPut { setting: Setting::ManagedNetworks(true) });
    world.put_cloud_config(&config(subnet()));
    world
}

/// A deploy of instances in this network.
fn deploy_in(network: &str, shape: Shape, options: DeployOptions) -> TaskKind {
    let mut manifest: Value = serde_json::from_str(&shape.manifest()).unwrap();
    for group in manifest["instance_groups"].as_array_mut().unwrap() {
        group["networks"] = json!([{"name": network}]);
    }
    TaskKind::Deploy { manifest_text: manifest.to_string(), options }
}

fn deploy(network: &str) -> TaskKind {
    deploy_in(network, Shape::default(), DeployOptions::default())
}

fn deletion() -> TaskKind {
    TaskKind::DeleteOrphanedNetworks { networks: vec!["m".into()] }
}

/// Fails unless the state knows every network of the cloud, and the cloud everything that the state knows.
#[track_caller]
pub fn assert_known(world: &TestWorld, cloud: &MemoryCloud) {
    let networks = world.read(|state| state.networks()).into_iter();
    let made = networks.flat_map(|network| network.subnets).filter_map(|subnet| subnet.made);
    let made: BTreeSet<_> = made.map(|made| made.cid).collect();
    assert_eq!(cloud.networks.keys().cloned().collect::<BTreeSet<_>>(), made, "networks\n{}", world.debug());
}

fn row(world: &TestWorld) -> Option<ManagedNetwork> {
    world.read(|state| state.network(&"m".into()))
}

fn is_orphaned(world: &TestWorld) -> bool {
    row(world).unwrap().orphaned_at.is_some()
}

/// What lines of a stage say.
fn told(ended: &crate::ended::Ended, stage: &str) -> Vec<String> {
    ended.lines().into_iter().filter(|line| line.starts_with(stage)).collect()
}

#[tokio::test]
async fn a_network_is_made_for_its_first_deployment_and_deleted_after_its_last() {
    let world = world().await;
    let ended = world.run(deploy("m")).await.done();
    let lines = ["Creating managed networks: m 1/1 started", "Creating managed networks: m 1/1 finished"];
    assert_eq!(told(&ended, "Creating managed"), lines);
    let made = row(&world).unwrap().subnets[0].made.clone().unwrap();
    let spec = world.read(|state| state.instance(&world.first_web()).unwrap().spec);
    let network = &spec.networks[0];
    assert_eq!(made.range, "10.200.1.0/24");
    assert!(network.ip.unwrap().to_string().starts_with("10.200.1."), "{:?}", network.ip);
    assert_eq!(network.gateway.unwrap().to_string(), made.gateway.unwrap());
    assert_eq!(network.cloud_properties, json!({"vlan": 7, "network": made.cid}));
    world.assert_consistent();

    // It is there.
    let again =
        world.run(deploy_in("m", Shape { instances: 3, ..Shape::default() }, DeployOptions::default()));
    assert_eq!(told(&again.await.done(), "Creating managed"), Vec::<String>::new());
    world.run(deploy("a")).await.done();
    assert!(is_orphaned(&world));
    world.run(deploy("m")).await.done();
    assert!(!is_orphaned(&world));
    assert_eq!(world.outside.cloud.count("create_network"), 1);
    let error = world.run(deletion()).await.error();
    assert_eq!(error, "Network 'm' can't be deleted: it is in use by deployment p");

    world.run(DELETE_DEPLOYMENT).await.done();
    assert!(is_orphaned(&world));
    let deleted = world.run(deletion()).await.done();
    assert_eq!(deleted.task.result.as_deref(), Some("Deleted 1 orphaned network(s)"));
    let lines = ["Deleting orphaned networks: m 1/1 started", "Deleting orphaned networks: m 1/1 finished"];
    assert_eq!(told(&deleted, "Deleting"), lines);
    assert_eq!((row(&world), world.outside.cloud.cloud().networks.len()), (None, 0));
    let ended = world.run(deletion()).await;
    assert_eq!(ended.task.error.as_ref().unwrap().code, 16012);
    assert_eq!(ended.error(), "Network 'm' not found");
}

#[tokio::test]
async fn a_leader_lost_while_a_network_is_made_leaves_one_network() {
    for name in ["log:network_take", "cpi:create_network", "log:subnet_put"] {
        for side in [Side::Before, Side::After] {
            let world = world().await;
            let ended = world.run_through(deploy("m"), Point { name: name.into(), nth: 1, side }).await;
            let case = format!("lost {side:?} {name}");
            assert_eq!(ended.task.state, TaskState::Done, "{case}: {:?}", ended.task.error);
            let lines =
                ["Creating managed networks: m 1/1 started", "Creating managed networks: m 1/1 finished"];
            assert_eq!(told(&ended, "Creating managed"), lines, "{case}");
            assert_eq!(world.outside.cloud.cloud().networks.len(), 1, "{case}");
            assert_eq!(world.read(|state| state.leaks()), [], "{case}");
            world.assert_consistent();
        }
    }
}

#[tokio::test]
async fn what_a_cloud_may_have_made_that_can_not_search_is_listed() {
    let may_be_there = [
        ("log:network_take", Side::Before, 0),
        ("log:network_take", Side::After, 1),
        ("cpi:create_network", Side::Before, 1),
        ("cpi:create_network", Side::After, 1),
        ("log:subnet_put", Side::Before, 1),
        ("log:subnet_put", Side::After, 0),
    ];
    for (name, side, leaks) in may_be_there {
        let world = world().await;
        *world.outside.blind.lock().unwrap() = true;
        world.run_through(deploy("m"), Point { name: name.into(), nth: 1, side }).await.done();
        let listed = world.read(|state| state.leaks());
        assert_eq!(listed.len(), leaks, "lost {side:?} {name}: {listed:?}");
        let is_named = |what: &str| what.starts_with("subnet 's' of network 'm' may have been made");
        assert!(listed.iter().all(|leak| is_named(&leak.what)), "{listed:?}");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_leader_lost_while_a_network_is_deleted_is_followed_by_one_that_ends_it() {
    for name in ["log:network_retire", "cpi:delete_network", "log:subnet_put"] {
        for side in [Side::Before, Side::After] {
            let world = world().await;
            world.run(deploy("m")).await.done();
            world.run(DELETE_DEPLOYMENT).await.done();
            let ended = world.run_through(deletion(), Point { name: name.into(), nth: 1, side }).await;
            let case = format!("lost {side:?} {name}");
            assert_eq!(ended.task.state, TaskState::Done, "{case}: {:?}", ended.task.error);
            assert_eq!((row(&world), world.outside.cloud.cloud().networks.len()), (None, 0), "{case}");
            assert_eq!(world.read(|state| state.leaks()), [], "{case}");
        }
    }
}

#[tokio::test]
async fn a_network_that_can_not_be_made_fails_the_deploy_and_leaves_nothing() {
    let world = world().await;
    world.outside.cloud.inject("create_network", Fault::Fail(CpiErrorKind::NotImplemented));
    let error = world.run(deploy("m")).await.error();
    assert!(
        error.contains("'Bosh::Clouds::NotImplemented'") && error.contains("'create_network'"),
        "{error}"
    );
    assert_eq!(row(&world).unwrap().subnets, []);
    world.run(DELETE_DEPLOYMENT).await.done();
    assert!(is_orphaned(&world));
    world.run(deletion()).await.done();
    assert_eq!((row(&world), world.outside.cloud.count("delete_network")), (None, 0));
    world.run(deploy("m")).await.done();
    assert_eq!(world.read(|state| state.leaks()), []);
    world.assert_consistent();
}

#[tokio::test]
async fn a_network_whose_answer_was_lost_is_found() {
    let world = world().await;
    world.outside.cloud.inject("create_network", Fault::LoseAnswer);
    world.run(deploy("m")).await.done();
    assert_eq!(world.outside.cloud.count("create_network"), 1);
    world.assert_consistent();
}

#[tokio::test]
async fn a_network_that_comes_late_is_found_by_the_next_deploy() {
    let world = world().await;
    world.outside.cloud.inject("create_network", Fault::Late);
    let error = world.run(deploy("m")).await.error();
    assert!(error.contains("no answer in time"), "{error}");
    assert_eq!(row(&world).unwrap().subnets[0].made, None, "it is looked for by this row");
    world.outside.cloud.carry_out_late_calls();
    world.run(deploy("m")).await.done();
    assert_eq!(
        (world.outside.cloud.count("create_network"), world.outside.cloud.cloud().networks.len()),
        (1, 1)
    );
    world.assert_consistent();
}

#[tokio::test]
async fn what_may_still_come_of_a_deleted_network_is_listed() {
    let world = world().await;
    world.outside.cloud.inject("create_network", Fault::Late);
    world.run(deploy("m")).await.error();
    world.run(DELETE_DEPLOYMENT).await.done();
    world.run(deletion()).await.done();
    let leaks = world.read(|state| state.leaks());
    assert!(leaks.len() == 1 && leaks[0].what.contains("may have been made"), "{leaks:?}");
}

#[tokio::test]
async fn a_deletion_that_failed_is_ended_by_whoever_needs_the_network() {
    let world = world().await;
    world.run(deploy("m")).await.done();
    world.run(DELETE_DEPLOYMENT).await.done();
    world.outside.cloud.inject("delete_network", Fault::Fail(CpiErrorKind::Other));
    assert!(world.run(deletion()).await.error().contains("injected failure"));
    assert!(row(&world).unwrap().retired_by.is_some());
    world.run(deploy("m")).await.done();
    assert_eq!(
        (world.outside.cloud.count("create_network"), world.outside.cloud.count("delete_network")),
        (2, 2)
    );
    let range = row(&world).unwrap().subnets[0].made.clone().unwrap().range;
    assert_eq!(range, "10.200.2.0/24", "it is another one");
    world.assert_consistent();
}

#[tokio::test]
async fn two_deployments_have_one_network_made() {
    let world = world().await;
    world.outside.cloud.inject("create_network", Fault::Delay(Duration::from_millis(300)));
    let tasks = ["p", "q"].map(|name| {
        world.queue(deploy_in(
            "m",
            Shape { name, instances: 1, ..Shape::default() },
            DeployOptions::default(),
        ))
    });
    for task in tasks {
        world.ended(task).await.done();
    }
    assert_eq!(world.outside.cloud.count("create_network"), 1);
    assert_eq!(row(&world).unwrap().deployments.len(), 2);
    world.run(DELETE_DEPLOYMENT).await.done();
    assert!(!is_orphaned(&world), "the other one uses it");
    world.assert_consistent();
}

#[tokio::test]
async fn a_network_in_which_somebody_lives_is_not_deleted() {
    let world = world().await;
    world.run(deploy("m")).await.done();
    // Somebody takes the word away and says what is there: the VMs stay as they are.
    let mut people = config(json!({"range": "10.200.1.0/24", "gateway": "10.200.1.1", "az": "z1",
        "cloud_properties": {"vlan": 7, "network": row(&world).unwrap().subnets[0].made.as_ref().unwrap().cid}}));
    people["networks"][1].as_object_mut().unwrap().remove("managed");
    world.put_cloud_config(&people);
    world.run(deploy("m")).await.done();
    assert!(is_orphaned(&world));
    let error = world.run(deletion()).await.error();
    assert!(error.contains("it is in use by web/") && error.contains("with address 10.200.1."), "{error}");
    world.assert_consistent();
}

#[tokio::test]
async fn a_dry_run_makes_no_network() {
    let world = world().await;
    let dry =
        || deploy_in("m", Shape::default(), DeployOptions { dry_run: true, ..DeployOptions::default() });
    assert!(world.run(dry()).await.error().contains("Network 'm' has not been made yet"));
    world.put_cloud_config(&config(
        json!({"name": "s", "az": "z1", "range": "10.3.0.0/24", "gateway": "10.3.0.1"}),
    ));
    world.run(dry()).await.done();
    assert_eq!((row(&world), world.outside.cloud.count("create_network")), (None, 0));
    world.run(deploy("m")).await.done();
    assert_eq!(row(&world).unwrap().subnets[0].made.clone().unwrap().range, "10.3.0.0/24");
}

#[tokio::test]
async fn secrets_in_cloud_properties_reach_the_cloud_and_not_the_state() {
    let world = world().await;
    let variables = json!([{"name": "/token", "type": "password"}]);
    world.run(deploy_in("a", Shape { variables, ..Shape::default() }, DeployOptions::default())).await.done();
    let mut secret = subnet();
    secret["cloud_properties"] = json!({"token": "((/token))"});
    world.put_cloud_config(&config(secret));
    world.run(deploy("m")).await.done();
    let calls = world.outside.cloud.calls();
    let asked = calls.iter().find_map(|call| match &call.call {
        Call::CreateNetwork(request) => request.cloud_properties["token"].as_str().map(str::to_owned),
        _ => None,
    });
    let asked = asked.unwrap();
    assert!(!asked.contains("((") && asked.len() > 10, "it is resolved: {asked}");
    let made = row(&world).unwrap().subnets[0].made.clone().unwrap();
    assert_eq!(made.cloud_properties["token"], "((/token))");
    assert!(made.cloud_properties["network"].is_string());
    let cloud = world.outside.cloud.cloud();
    let of_vms = cloud.vms.values().map(|vm| vm.request.networks[0].cloud_properties["token"].clone());
    assert!(of_vms.into_iter().all(|token| token == asked.as_str()), "VMs are made with it");
}
