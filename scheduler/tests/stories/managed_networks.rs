//! Networks that directors make: asked for before anything is placed, then planned with what the cloud said.

use model::instance::NetworkKind;
use model::managed_network::{MadeSubnet, ManagedNetwork, ManagedSubnet};
use model::plan::Plan;
use model::task::DeployOptions;
use scheduler::WantedNetwork;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};

/// A second network, which directors make, with this subnet.
fn director(subnet: &Value) -> Director {
    let mut config = cloud_config();
    config["networks"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "m", "managed": true, "subnets": [subnet]}));
    let mut director = Director::new(&config);
    director.world.managed_networks = Some(Vec::new());
    director
}

fn subnet() -> Value {
    json!({"name": "s", "azs": ["z1", "z2", "z3"], "netmask_bits": 24, "cloud_properties": {"vlan": 7}})
}

fn in_network(name: &str) -> Value {
    let mut group = group(2);
    group["networks"] = json!([{"name": name}]);
    manifest(&[group])
}

fn wanted(director: &mut Director, manifest: &Value) -> Vec<WantedNetwork> {
    let (view, text) = (director.view(), manifest.to_string());
    scheduler::managed_networks(&view.input(&director.world, &text, &DeployOptions::default())).unwrap()
}

fn made(range: &str, gateway: &str) -> ManagedNetwork {
    let made = MadeSubnet {
        cid: "net-1".into(),
        range: range.into(),
        gateway: Some(gateway.into()),
        reserved: vec!["10.7.0.2".into()],
        cloud_properties: json!({"vlan": 7, "net": "net-1"}),
    };
    let subnet = ManagedSubnet {
        name: "s".into(),
        id: "id".into(),
        cpi: Default::default(),
        task: Default::default(),
        made: Some(made),
    };
    ManagedNetwork {
        name: "m".into(),
        kind: NetworkKind::Manual,
        created_at: Default::default(),
        deployments: Default::default(),
        orphaned_at: None,
        retired_by: None,
        subnets: vec![subnet],
    }
}

/// Every instance's address and gateway, and what its cloud is told of the network.
fn settings(plan: &Plan) -> Vec<String> {
    let targets = plan.targets.iter().filter(|target| target.spec.group.as_str() == "g");
    let mut told: Vec<String> = targets
        .flat_map(|target| &target.spec.networks)
        .map(|n| format!("{} via {} {}", n.ip.unwrap(), n.gateway.unwrap(), n.cloud_properties))
        .collect();
    told.sort();
    told
}

#[test]
fn only_networks_that_are_used_are_asked_for() {
    let mut director = director(&subnet());
    assert_eq!(wanted(&mut director, &in_network("a")), []);
    let asked = wanted(&mut director, &in_network("m"));
    assert_eq!(asked.len(), 1);
    let wish = &asked[0].subnets[0];
    assert_eq!((asked[0].name.as_str(), wish.name.as_str(), wish.netmask_bits), ("m", "s", Some(24)));
    assert_eq!(wish.cloud_properties, json!({"vlan": 7}));
    director.world.managed_networks = None;
    let mut people = in_network("m");
    people["name"] = json!("p");
    let told = director.complaint(&people).1;
    assert!(told.contains("dctl managed-networks on"), "{told}");
}

#[test]
fn packages_are_compiled_in_a_network_that_is_made_for_it() {
    let mut config = cloud_config();
    config["networks"][0]["managed"] = json!(true);
    for (at, subnet) in config["networks"][0]["subnets"].as_array_mut().unwrap().iter_mut().enumerate() {
        subnet["name"] = json!(format!("s{at}"));
    }
    let mut director = Director::new(&config);
    director.world.managed_networks = Some(Vec::new());
    let asked = wanted(&mut director, &manifest(&[]));
    assert_eq!(asked.iter().map(|network| network.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(asked[0].subnets[0].range.as_deref(), Some("10.1.0.0/24"), "people may still choose");
}

#[test]
fn a_plan_has_the_addresses_that_the_cloud_gave() {
    let mut director = director(&subnet());
    let told = director.complaint(&in_network("m")).1;
    assert!(told.contains("has not been made yet"), "{told}");
    director.world.managed_networks = Some(vec![made("10.7.0.0/24", "10.7.0.1")]);
    let plan = director.plan(&in_network("m")).unwrap();
    let properties = r#"{"vlan":7,"net":"net-1"}"#;
    let wanted = [".3", ".4"].map(|ip| format!("10.7.0{ip} via 10.7.0.1 {properties}"));
    assert_eq!(settings(&plan), wanted, "not the gateway, and not what the cloud keeps");
    let record = plan.record.unwrap();
    assert_eq!(record.managed_networks.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["m"]);
    let plan = director.plan(&in_network("a")).unwrap();
    assert_eq!(plan.record.unwrap().managed_networks, []);
}

#[test]
fn static_addresses_lie_where_the_cloud_has_made_the_network() {
    let mut with_pool = subnet();
    with_pool["static"] = json!(["10.7.0.10", "10.7.0.11"]);
    let mut director = director(&with_pool);
    let mut manifest = in_network("m");
    manifest["instance_groups"][0]["networks"][0]["static_ips"] = json!(["10.7.0.10", "10.7.0.11"]);
    assert_eq!(wanted(&mut director, &manifest).len(), 1, "nobody knows better yet");
    director.world.managed_networks = Some(vec![made("10.7.0.0/24", "10.7.0.1")]);
    director.plan(&manifest).unwrap();
    director.world.managed_networks = Some(vec![made("10.7.1.0/24", "10.7.1.1")]);
    assert_eq!(director.refusal(&manifest), 160005, "what the cloud keeps is elsewhere, too");
}
