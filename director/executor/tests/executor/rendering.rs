//! What templates see of their instance.

use model::task::TaskKind;
use serde_json::{Value, json};

use crate::artifacts::{Shape, cloud_config, release_of, tgz};
use crate::world::TestWorld;

/// Uploads the release `shown`, whose job `show` fails with what the template gives.
async fn with_template(world: &TestWorld, template: &str) {
    let show = json!({"name": "show", "templates": {"t.erb": "t"}, "packages": []});
    let template = format!("<% raise(({template}).to_s) %>");
    let jobs =
        [("show", tgz(&[("job.MF", &show.to_string()), ("monit", ""), ("templates/t.erb", &template)]))];
    let blob = world.put(release_of("shown", &jobs, &[])).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
}

/// Returns what the template gives for the first instance of a group with these networks.
async fn shown(networks: Value, template: &str) -> String {
    let world = TestWorld::seed().await;
    with_template(&world, template).await;
    let mut config: Value = serde_json::from_str(&cloud_config()).unwrap();
    let cloud_chooses = json!({"name": "dyn_1", "type": "dynamic", "subnets": [{"az": "z1"}]});
    config["networks"].as_array_mut().unwrap().push(cloud_chooses);
    world.put_cloud_config(&config);
    let mut manifest: Value =
        serde_json::from_str(&Shape { instances: 1, ..Shape::default() }.manifest()).unwrap();
    manifest["releases"] = json!([{"name": "shown", "version": "1"}, {"name": "tiny", "version": "1"}]);
    manifest["instance_groups"][0]["jobs"] = json!([{"name": "show", "release": "shown"}]);
    manifest["instance_groups"][0]["networks"] = networks;
    let deploy = TaskKind::Deploy { manifest_text: manifest.to_string(), options: Default::default() };
    let text = world.run(deploy).await.error();
    let (_, text) = text.split_once("(line 1: ").unwrap_or_else(|| panic!("{text}"));
    text.trim_end_matches(')').to_owned()
}

#[tokio::test]
async fn an_address_that_the_cloud_has_yet_to_choose_can_be_taken_apart() {
    let template = "n = spec.networks.dyn_1; [spec.ip, n.ip.split('.').size, n.netmask, n.gateway].join(' ')";
    let networks = json!([{"name": "dyn_1"}]);
    assert_eq!(shown(networks.clone(), template).await, "127.0.0.1 4 127.0.0.1 127.0.0.1");
    let address = shown(networks, "spec.address.sub(spec.id, 'ID')").await;
    assert_eq!(address, "ID.web.dyn-1.p.bosh");
}

#[tokio::test]
async fn networks_have_the_name_of_the_instance_in_them() {
    let template = "[spec.networks.a.dns_record_name, spec.networks.a.ip, spec.address].join(' ')";
    assert_eq!(shown(json!([{"name": "a"}]), template).await, "0.web.a.p.bosh 10.0.0.2 10.0.0.2");
}
