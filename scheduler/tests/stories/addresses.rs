//! Addresses that networks give out: blocks, vips, and those that nobody gets.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, ip, is_empty, manifest};

/// One network `a` in zone z1 with this subnet, for instances and workers.
fn one_subnet(subnet: Value) -> Director {
    let mut config = cloud_config();
    let mut whole = json!({"range": "10.1.0.0/24", "gateway": "10.1.0.1", "az": "z1"});
    whole.as_object_mut().unwrap().extend(subnet.as_object().unwrap().clone());
    config["networks"] = json!([{"name": "a", "subnets": [whole]}]);
    config["compilation"]["workers"] = json!(1);
    Director::new(&config)
}

fn in_z1(instances: usize, network: Value) -> Value {
    let mut group = group(instances);
    group["azs"] = json!(["z1"]);
    group["networks"] = json!([network]);
    manifest(&[group])
}

#[test]
fn an_instance_is_given_the_next_free_block() {
    let mut director = one_subnet(json!({"prefix": 28, "reserved": ["10.1.0.40"]}));
    let three = in_z1(3, json!({"name": "a"}));
    let plan = director.deploy(&three);
    // The first block has the gateway in it, the third one an address that is reserved.
    assert_eq!(director.seats(), ["0 z1 10.1.0.16", "1 z1 10.1.0.48", "2 z1 10.1.0.64"]);
    assert!(plan.reservations.iter().all(|r| r.prefix == Some(28)));
    assert_eq!(director.instances()[0].spec.networks[0].prefix, "28");
    assert_eq!(director.instances()[0].spec.networks[0].netmask.as_deref(), Some("255.255.255.0"));
    assert!(is_empty(&director.deploy(&three)), "and keeps it");
    // 16 blocks, less the first, the third and the last.
    assert_eq!(director.refusal(&in_z1(14, json!({"name": "a"}))), 130011);
}

#[test]
fn a_block_leaves_out_what_somebody_holds_in_another_network() {
    let mut director = one_subnet(json!({"prefix": 28}));
    director.world.hold(ip("10.1.0.20"));
    director.deploy(&in_z1(1, json!({"name": "a"})));
    assert_eq!(director.seats(), ["0 z1 10.1.0.32"]);
    let listed = in_z1(1, json!({"name": "a", "static_ips": ["10.1.0.16"]}));
    let mut director = one_subnet(json!({"prefix": 28, "static": ["10.1.0.16-10.1.0.31"]}));
    director.world.hold(ip("10.1.0.20"));
    let complaint = director.complaint(&listed);
    assert_eq!(complaint.0, 130008);
    assert!(complaint.1.contains("'10.1.0.16/28'"), "{}", complaint.1);
}

#[test]
fn static_addresses_are_the_beginnings_of_blocks() {
    let mut director = one_subnet(json!({"prefix": 28, "static": ["10.1.0.64-10.1.0.127"]}));
    let listed = |instances, ips: &[&str]| in_z1(instances, json!({"name": "a", "static_ips": ips}));
    assert_eq!(director.refusal(&listed(1, &["10.1.0.65"])), 150009);
    assert_eq!(director.refusal(&listed(1, &["10.1.0.64-10.1.0.70"])), 150009);
    assert_eq!(director.refusal(&listed(1, &["10.1.0.128"])), 150002);
    director.deploy(&listed(3, &["10.1.0.64-10.1.0.95", "10.1.0.112"]));
    assert_eq!(director.seats(), ["0 z1 10.1.0.64", "1 z1 10.1.0.80", "2 z1 10.1.0.112"]);
}

#[test]
fn another_length_of_block_is_another_network() {
    let mut director = one_subnet(json!({}));
    let one = in_z1(1, json!({"name": "a"}));
    director.deploy(&one);
    let mut config: Value = serde_json::from_str(&director.world.configs[0].content).unwrap();
    config["networks"][0]["subnets"][0]["prefix"] = json!(28);
    director.world.put_config("cloud", "default", config.to_string());
    let plan = director.deploy(&one);
    let changes = serde_json::to_value(&plan.targets[0].changes).unwrap();
    assert_eq!(changes, json!(["network"]));
    assert_eq!(director.seats(), ["0 z1 10.1.0.16"]);
    assert_eq!(director.world.addresses.len(), 1, "the old one is free again");
}

/// Network `v` gives vips in z1 and z2.
fn with_vips() -> (Director, Value) {
    let mut config = cloud_config();
    let subnets = json!([
        {"static": ["1.1.1.1", "1.1.1.8-1.1.1.9"], "az": "z1"}, {"static": ["2.2.2.2"], "azs": ["z2"]},
    ]);
    let vip = json!({"name": "v", "type": "vip", "subnets": subnets, "cloud_properties": {"pool": 7}});
    config["networks"].as_array_mut().unwrap().push(vip);
    (Director::new(&config), json!([{"name": "a", "default": ["dns", "gateway"]}, {"name": "v"}]))
}

#[test]
fn vips_are_given_out_by_zone_and_kept() {
    let (mut director, networks) = with_vips();
    let of = |instances| {
        let mut group = group(instances);
        group["azs"] = json!(["z1", "z2"]);
        group["networks"] = networks.clone();
        manifest(&[group])
    };
    director.deploy(&of(3));
    let three = ["0 z1 10.1.0.2 1.1.1.1", "1 z2 10.2.0.2 2.2.2.2", "2 z1 10.1.0.3 1.1.1.8"];
    assert_eq!(director.seats(), three);
    let vip = &director.instances()[0].spec.networks[1];
    assert_eq!((&vip.prefix[..], &vip.cloud_properties), ("32", &json!({"pool": 7})));
    assert!(is_empty(&director.deploy(&of(3))));
    assert_eq!(director.refusal(&of(4)), 130011, "z2 has no more");
    director.deploy(&of(1));
    director.deploy(&of(3));
    assert_eq!(director.seats()[0], three[0], "it was kept");
}

#[test]
fn a_group_does_not_name_vips_that_are_given_out() {
    let (mut director, mut networks) = with_vips();
    networks[1]["static_ips"] = json!(["1.1.1.1"]);
    let mut group = group(1);
    group["networks"] = networks;
    assert_eq!(director.refusal(&manifest(&[group])), 130014);
}

#[test]
fn nobody_is_given_an_address_of_a_director() {
    let mut director = one_subnet(json!({"static": ["10.1.0.100"]}));
    director.world.director.addresses = vec![ip("10.1.0.2"), ip("192.168.0.1")];
    director.deploy(&in_z1(1, json!({"name": "a"})));
    assert_eq!(director.seats(), ["0 z1 10.1.0.3"]);
    director.world.director.addresses.push(ip("10.1.0.100"));
    assert_eq!(director.refusal(&in_z1(1, json!({"name": "a"}))), 160006);
}
