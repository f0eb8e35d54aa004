//! Which version of a secret is seen where: at deploys, between them, across deployments.

use model::task::{StateChange, TaskError, TaskKind, TaskState};
use model::{DeploymentName, VariableName};
use serde_json::{Value, json};
use state::State;
use state::command::Command;
use state::log::Proposal;

use crate::artifacts::{Shape, change, cloud_config, errand, release_of, stemcell_with, tgz};
use crate::uploads::rendered_file;
use crate::world::TestWorld;

/// A secret that every deploy makes anew.
fn rotating(name: &str) -> Value {
    json!({"name": name, "type": "password", "update_mode": "overwrite"})
}

/// A deployment without instances that owns the secret `/shared/key`; deploying it again rotates it.
fn owner() -> TaskKind {
    Shape {
        name: "owner",
        instances: 0,
        disk_mib: 0,
        variables: json!([rotating("/shared/key")]),
        ..Shape::default()
    }
    .deploy()
}

/// Returns a version of a secret, the newest if none is named.
fn secret(world: &TestWorld, name: &str, version: Option<u64>) -> Value {
    let name = VariableName::new(name);
    let variable = world.read(|state| match version {
        Some(version) => state.variable(&name, version),
        None => state.latest_variable(&name),
    });
    world.ports.vault.open(name.as_str(), &variable.unwrap().sealed).unwrap()
}

fn text(world: &TestWorld, name: &str) -> String {
    secret(world, name, None).as_str().unwrap().to_owned()
}

/// Returns the file `config` of a job as the agent of the first instance of a group got it last.
fn config(world: &TestWorld, deployment: &str, job: &str) -> String {
    let instances = world.read(|state| state.instances(&DeploymentName::new(deployment)));
    let first = instances.iter().find(|i| i.spec.group.as_str() == "web" && i.spec.index == 0).unwrap();
    rendered_file(world, first, &format!("{job}/config/config"))
}

/// Returns what the cloud was told of each VM that there is.
fn keys_of_vms(world: &TestWorld) -> Vec<Value> {
    let vms = world.outside.cloud.cloud().vms;
    vms.values().map(|vm| vm.request.cloud_properties["key"].clone()).collect()
}

#[tokio::test]
async fn a_rotated_secret_in_cloud_properties_makes_new_vms_at_the_next_deploy() {
    let world = TestWorld::seed().await;
    let mut config: Value = serde_json::from_str(&cloud_config()).unwrap();
    config["vm_types"][0]["cloud_properties"] = json!({"key": "((/shared/key))"});
    world.put_cloud_config(&config);
    world.run(owner()).await.done();
    world.run(Shape::default().deploy()).await.done();
    let first = secret(&world, "/shared/key", None);
    assert_eq!(keys_of_vms(&world), [first.clone(), first.clone()]);
    let vms = world.outside.vms_ever();
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.vms_ever(), vms, "nothing has changed");

    world.run(owner()).await.done();
    let second = secret(&world, "/shared/key", None);
    assert_ne!(first, second);
    world.run(change(StateChange::Recreate)).await.done();
    assert_eq!(keys_of_vms(&world), [first.clone(), first], "what does not deploy sees what was deployed");
    let shown = world.run(Shape::default().deploy_with(dry())).await.done().task.result.unwrap();
    assert!(shown.contains("Updating instance [web]"), "{shown}");
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(keys_of_vms(&world), [second.clone(), second]);
    let vms = world.outside.vms_ever();
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.vms_ever(), vms, "and that was that");
    world.assert_consistent();
}

fn dry() -> model::task::DeployOptions {
    model::task::DeployOptions { dry_run: true, ..Default::default() }
}

#[tokio::test]
async fn what_a_deploy_has_seen_is_seen_until_the_next_one() {
    let world = TestWorld::seed().await;
    world.run(owner()).await.done();
    let shape = Shape { password: "((/shared/key))", ..Shape::default() };
    world.run(shape.deploy()).await.done();
    let first = text(&world, "/shared/key");
    assert!(config(&world, "p", "server").contains(&format!("password={first} ")));

    world.run(owner()).await.done();
    let second = text(&world, "/shared/key");
    let instance = world.kill_a_vm();
    world.run(TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() }).await.done();
    assert!(config(&world, "p", "server").contains(&format!("password={first} ")), "nobody has deployed");
    world.run(shape.deploy()).await.done();
    assert!(config(&world, "p", "server").contains(&format!("password={second} ")));
}

#[tokio::test]
async fn an_instance_that_a_failed_deploy_has_changed_keeps_what_that_deploy_saw() {
    let world = TestWorld::seed().await;
    world.run(owner()).await.done();
    world.run(Shape::default().deploy()).await.done();
    // It changes the first instance and then fails: the second one was never told of the secret.
    *world.outside.failing.lock().unwrap() = Some("watch".into());
    let shape = Shape { password: "((/shared/key))", ..Shape::default() };
    world.run(shape.deploy()).await.error();
    *world.outside.failing.lock().unwrap() = None;
    let seen = text(&world, "/shared/key");
    world.run(owner()).await.done();
    let instance = world.kill_a_vm();
    world.run(TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() }).await.done();
    assert!(config(&world, "p", "server").contains(&format!("password={seen} ")));
}

#[tokio::test]
async fn a_name_that_no_deploy_has_seen_is_seen_by_nothing_else() {
    let world = TestWorld::seed().await;
    let mut manifest: Value = serde_json::from_str(&Shape::default().manifest()).unwrap();
    manifest["instance_groups"][1]["env"] = json!({"later": "((/shared/key))"});
    let deploy = TaskKind::Deploy {
        manifest_text: manifest.to_string(),
        options: model::task::DeployOptions::default(),
    };
    // The errand's VM is only made when the errand runs, so nothing fails.
    world.run(deploy.clone()).await.done();
    world.run(owner()).await.done();
    let refused = world.run(errand()).await;
    assert_eq!(refused.task.error.as_ref().unwrap().code, 540_008);
    let message = refused.error();
    assert!(message.contains("'/shared/key'") && message.contains("deploy first"), "{message}");
    world.run(deploy).await.done();
    world.run(errand()).await.done();
}

/// Uploads a release with a job `source`, whose link tells a password, and a job `reader`, which writes it down.
async fn with_links(world: &TestWorld) {
    let source = json!({
        "name": "source", "templates": {"pw.erb": "pw"}, "packages": [], "properties": {"password": {}},
        "provides": [{"name": "endpoint", "type": "conn", "properties": ["password"]}],
    });
    let reader = json!({
        "name": "reader", "templates": {"config.erb": "config/config"}, "packages": [],
        "properties": {"own": {}}, "consumes": [{"name": "endpoint", "type": "conn"}],
    });
    let config = "server=<%= link('endpoint').p('password') %> own=<%= p('own') %>\n";
    let jobs = [
        (
            "source",
            tgz(&[
                ("job.MF", &source.to_string()),
                ("monit", ""),
                ("templates/pw.erb", "<%= p('password') %>"),
            ]),
        ),
        ("reader", tgz(&[("job.MF", &reader.to_string()), ("monit", ""), ("templates/config.erb", config)])),
    ];
    let blob = world.put(release_of("pair", &jobs, &[])).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
}

/// Returns the deploy of a deployment with one job of that release.
fn pair(shape: &Shape, job: Value) -> TaskKind {
    let mut manifest: Value = serde_json::from_str(&shape.manifest()).unwrap();
    manifest["releases"] = json!([{"name": "pair", "version": "1"}, {"name": "tiny", "version": "1"}]);
    manifest["instance_groups"][0]["jobs"] = json!([job]);
    TaskKind::Deploy { manifest_text: manifest.to_string(), options: Default::default() }
}

/// The deployment `db`, which shares its endpoint, and with it a secret of its own.
fn provider() -> TaskKind {
    let job = json!({
        "name": "source", "release": "pair", "properties": {"password": "((pw))"},
        "provides": {"endpoint": {"as": "db", "shared": true}},
    });
    pair(&Shape { name: "db", variables: json!([rotating("pw")]), ..Shape::default() }, job)
}

/// A deployment that consumes it, and has another secret of the same name.
fn consumer() -> TaskKind {
    let job = json!({
        "name": "reader", "release": "pair", "properties": {"own": "((pw))"},
        "consumes": {"endpoint": {"from": "db", "deployment": "db"}},
    });
    pair(&Shape { variables: json!([{"name": "pw", "type": "password"}]), ..Shape::default() }, job)
}

#[tokio::test]
async fn a_link_from_another_deployment_brings_that_one_s_secrets() {
    let world = TestWorld::seed().await;
    with_links(&world).await;
    world.run(provider()).await.done();
    world.run(consumer()).await.done();
    let own = text(&world, "/directorate/p/pw");
    let first = text(&world, "/directorate/db/pw");
    let shown = |server: &str| format!("server={server} own={own}\n");
    assert_ne!(own, first);
    assert_eq!(config(&world, "p", "reader"), shown(&first));

    world.run(provider()).await.done();
    let second = text(&world, "/directorate/db/pw");
    world.run(change(StateChange::Restart)).await.done();
    assert_eq!(config(&world, "p", "reader"), shown(&first), "consumers see it at their own next deploy");
    world.run(consumer()).await.done();
    assert_eq!(config(&world, "p", "reader"), shown(&second));

    // A provider's deploy that fails has made a secret that its consumers must not see.
    *world.outside.failing.lock().unwrap() = Some("watch".into());
    world.run(provider()).await.error();
    *world.outside.failing.lock().unwrap() = None;
    assert_ne!(text(&world, "/directorate/db/pw"), second);
    world.run(consumer()).await.done();
    assert_eq!(config(&world, "p", "reader"), shown(&second));
}

#[tokio::test]
async fn a_secret_may_change_with_the_stemcell_only() {
    let world = TestWorld::seed().await;
    let mut variable = rotating("pw");
    variable["update"] = json!({"strategy": "on-stemcell-change"});
    let shape = Shape { password: "((pw))", variables: json!([variable]), ..Shape::default() };
    world.run(shape.deploy()).await.done();
    let first = text(&world, "/directorate/p/pw");
    world.run(shape.deploy()).await.done();
    assert_eq!(text(&world, "/directorate/p/pw"), first);

    let blob = world.put(stemcell_with("2", "not a disk")).await;
    world.run(TaskKind::UploadStemcell { blob, fix: false }).await.done();
    let mut manifest: Value = serde_json::from_str(&shape.manifest()).unwrap();
    manifest["stemcells"][0]["version"] = json!("2");
    world
        .run(TaskKind::Deploy { manifest_text: manifest.to_string(), options: Default::default() })
        .await
        .done();
    let second = text(&world, "/directorate/p/pw");
    assert_ne!(second, first);
    assert!(config(&world, "p", "server").contains(&format!("password={second} ")));
}

#[tokio::test]
async fn a_misspelt_update_mode_is_not_taken_for_another() {
    let world = TestWorld::seed().await;
    let mut variable = rotating("pw");
    variable["update_mode"] = json!("overwite");
    let shape = Shape { variables: json!([variable]), ..Shape::default() };
    let message = world.run(shape.deploy()).await.error();
    assert!(message.contains("unknown update_mode 'overwite'"), "{message}");
    assert_eq!(world.run(shape.deploy_with(dry())).await.error(), message);
}

#[tokio::test]
async fn secrets_of_all_kinds_are_generated_in_order() {
    let world = TestWorld::seed().await;
    let leaf = json!({"name": "leaf", "type": "certificate", "options": {"common_name": "leaf", "ca": "ca"}});
    let ca = json!({"name": "ca", "type": "certificate", "options": {"common_name": "ca", "is_ca": true}});
    let others = ["password", "user", "ssh", "rsa"].map(|kind| json!({"name": kind, "type": kind}));
    let shape = |variables: Vec<Value>| Shape { variables: Value::from(variables), ..Shape::default() };
    let early = shape(vec![leaf.clone(), ca.clone()]);
    let message = world.run(early.deploy()).await.error();
    assert!(message.contains("signed by '/directorate/p/ca', which has no value yet"), "{message}");
    let mut all = vec![ca, leaf];
    all.extend(others);
    world.run(shape(all).deploy()).await.done();
    let value = |name: &str| secret(&world, &format!("/directorate/p/{name}"), None);
    assert_eq!(value("leaf")["ca"], value("ca")["certificate"]);
    assert!(value("user")["password_hash"].is_string() && value("ssh")["public_key_fingerprint"].is_string());
    let pinned = world.read(|state| state.deployed_variable_set(&DeploymentName::new("p")).unwrap().pins);
    assert_eq!(pinned.len(), 6);
}

#[tokio::test]
async fn a_deploy_can_be_cancelled_while_a_key_is_made() {
    let world = TestWorld::seed().await;
    *world.log.ambush.lock().unwrap() = Some((
        "log:variable_set_open".to_owned(),
        Box::new(|log, command| {
            let Command::VariableSetOpen { task, .. } = command else { panic!("{command:?}") };
            log.apply(Proposal::own(Command::TaskCancel { task: *task })).outcome.accepted().unwrap();
        }),
    ));
    // It takes seconds, in which nothing but the key would be made if making it held up the runtime.
    let key = json!([{"name": "key", "type": "rsa", "options": {"key_length": 4096}}]);
    let ended = world.run(Shape { variables: key, ..Shape::default() }.deploy()).await;
    assert_eq!(ended.task.state, TaskState::Cancelled);
    let view = world.view();
    assert_eq!(State::new(&*view).latest_variable(&VariableName::new("/directorate/p/key")), None);
}

/// A deploy that fails over a secret that nobody has, after which there is nothing but the failed task.
async fn fails_over_nobody(world: &TestWorld, deploy: TaskKind) -> TaskError {
    let ended = world.run(deploy).await;
    let error = ended.task.error.clone().unwrap();
    assert_eq!(ended.lines().last().unwrap(), &format!("error {}", error.code), "{}", ended.events);
    let message = ended.error();
    assert!(message.contains("Failed to find variable '/directorate/p/nobody'"), "{message}");
    assert!(world.read(|state| state.locks()).is_empty());
    assert_eq!((world.outside.cloud.cloud().vms.len(), world.outside.disks_ever()), (0, 0));
    world.assert_consistent();
    error
}

#[tokio::test]
async fn a_property_that_names_no_secret_fails_the_deploy_before_anything_is_made() {
    let world = TestWorld::seed().await;
    let shape = Shape { password: "((nobody))", ..Shape::default() };
    let error = fails_over_nobody(&world, shape.deploy()).await;
    // As the reference told it: what goes wrong with templates has one code, and every layer a line.
    let wanted = "Unable to render instance groups for deployment. Errors are:
  - Unable to render jobs for instance group 'web'. Errors are:
    - Unable to render templates for job 'server'. Errors are:
      - Failed to find variable '/directorate/p/nobody' from config server: HTTP Code '404', Error: 'not found'";
    assert_eq!((error.code, error.message.as_str()), (100, wanted));
    assert_eq!(world.outside.vms_ever(), 0);
    // Once somebody has it, the same deploy is fine.
    let variables = json!([{"name": "nobody", "type": "password"}]);
    world.run(Shape { variables, ..shape }.deploy()).await.done();
    let password = text(&world, "/directorate/p/nobody");
    assert!(config(&world, "p", "server").contains(&format!("password={password} ")));
}

#[tokio::test]
async fn whatever_else_names_no_secret_fails_the_deploy_with_a_code_of_its_own() {
    let name = json!("((nobody))");
    for pointer in ["/instance_groups/0/env/token", "/instance_groups/0/azs", "/tags/team"] {
        let world = TestWorld::seed().await;
        let mut manifest: Value = serde_json::from_str(&Shape::default().manifest()).unwrap();
        manifest["instance_groups"][0]["env"] = json!({"token": ""});
        manifest["tags"] = json!({"team": ""});
        *manifest.pointer_mut(pointer).unwrap() = name.clone();
        let deploy = TaskKind::Deploy { manifest_text: manifest.to_string(), options: Default::default() };
        let error = fails_over_nobody(&world, deploy).await;
        assert_eq!(error.code, 540_001, "{pointer}: {}", error.message);
    }
}
