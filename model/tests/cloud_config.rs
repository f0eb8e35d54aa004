//! Mistakes in cloud configs, by the number that BOSH gives each.

use model::cloud_config::{CloudConfig, Surroundings, merge};
use model::managed_network::{MadeSubnet, ManagedNetwork, ManagedSubnet};
use serde_json::{Value, json};

fn good() -> Value {
    json!({
        "azs": [{"name": "z1"}, {"name": "z2"}],
        "vm_types": [{"name": "small"}],
        "disk_types": [{"name": "d", "disk_size": 10}],
        "networks": [{"name": "a", "subnets": [{
            "range": "10.0.0.0/24", "gateway": "10.0.0.1", "az": "z1", "dns": ["8.8.8.8"],
            "reserved": ["10.0.0.2-10.0.0.4"], "static": "10.0.0.10 - 10.0.0.19",
        }]}],
        "compilation": {"workers": 1, "network": "a", "az": "z1", "vm_type": "small"},
    })
}

fn code(config: &Value) -> Option<u32> {
    CloudConfig::parse(config.as_object().expect("a mapping"), &[]).err().map(|e| e.code)
}

#[track_caller]
fn check(pointer: &str, value: Value, wanted: u32) {
    let mut config = good();
    let (parent, key) = pointer.rsplit_once('/').expect("a path");
    match config.pointer_mut(parent).expect("a parent") {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(items) => items.push(value),
        _ => panic!("{pointer} leads nowhere"),
    }
    assert_eq!(code(&config), Some(wanted), "{pointer}");
}

#[test]
fn a_good_one_passes_and_its_subnet_knows_its_addresses() {
    let config = CloudConfig::parse(good().as_object().expect("a mapping"), &[]).expect("valid");
    let subnet = &config.networks[0].subnets[0];
    let ip = |text: &str| text.parse().expect("an address");
    assert!(subnet.is_static(ip("10.0.0.15")) && !subnet.is_static(ip("10.0.0.20")));
    for reserved in ["10.0.0.0", "10.0.0.1", "10.0.0.3", "10.0.0.255"] {
        assert!(subnet.is_reserved(ip(reserved)), "{reserved}");
    }
    assert!(config.networks[0].fits(&["z1".into()]));
    assert!(!config.networks[0].fits(&[]) && !config.networks[0].fits(&["z2".into()]));
}

#[test]
fn networks_are_checked() {
    const SUBNET: &str = "/networks/0/subnets/0";
    let subnet = |key: &str, value: Value, wanted| check(&format!("{SUBNET}/{key}"), value, wanted);
    subnet("range", json!("10.0.0.0/32"), 160002);
    subnet("range", json!("10.0.0"), 100);
    subnet("gateway", json!("10.0.1.1"), 160003);
    subnet("gateway", json!("10.0.0.0"), 160003);
    subnet("gateway", json!("10.0.0.255"), 160003);
    subnet("gateway", Value::Null, 40000);
    subnet("dns", json!(["8.8.8.0/24"]), 160004);
    subnet("reserved", json!(["10.0.1.1"]), 160005);
    subnet("reserved", json!(["10.0.0"]), 160010);
    subnet("static", json!(["10.0.1.1"]), 160006);
    subnet("static", json!(["10.0.0.1"]), 160006);
    subnet("static", json!(["10.0.0.3"]), 160006);
    subnet("az", json!("z9"), 160007);
    subnet("azs", json!(["z1"]), 160008);
    let overlapping = json!({"range": "10.0.0.128/25", "gateway": "10.0.0.129", "az": "z1"});
    check("/networks/0/subnets/-", overlapping, 160001);
    let zoneless = json!({"range": "10.0.1.0/24", "gateway": "10.0.1.1"});
    check("/networks/0/subnets/-", zoneless, 140016);
    check("/networks", json!([]), 190008);
    check("/networks/-", json!({"name": "A", "type": "vip"}), 190007);
    check("/networks/0/type", json!("odd"), 190010);
    check("/networks/-", json!({"name": "d", "type": "dynamic", "az": "z1"}), 160008);
    let dynamic =
        |prefix: u8| json!({"name": "d", "type": "dynamic", "subnets": [{"az": "z1", "prefix": prefix}]});
    check("/networks/-", dynamic(28), 160008);
    let mut config = good();
    config["networks"].as_array_mut().expect("a list").push(dynamic(32));
    assert_eq!(code(&config), None);
}

#[test]
fn subnets_may_give_blocks() {
    const SUBNET: &str = "/networks/0/subnets/0";
    check(&format!("{SUBNET}/prefix"), json!(20), 16013);
    for odd in [json!(0), json!(33), json!("x"), json!(-1)] {
        check(&format!("{SUBNET}/prefix"), odd, 160008);
    }
    let other = json!({"range": "10.0.1.0/24", "gateway": "10.0.1.1", "az": "z2", "prefix": 28});
    check("/networks/0/subnets/-", other, 16014);
    let mut config = good();
    let subnet = &mut config["networks"][0]["subnets"][0];
    subnet["prefix"] = json!("28");
    subnet["static"] = json!("10.0.0.32 - 10.0.0.70");
    let config = CloudConfig::parse(config.as_object().expect("a mapping"), &[]).expect("valid");
    let subnet = &config.networks[0].subnets[0];
    let ip = |text: &str| text.parse().expect("an address");
    assert!(subnet.is_static(ip("10.0.0.32")) && subnet.is_static(ip("10.0.0.48")));
    assert!(!subnet.is_static(ip("10.0.0.64")), "not all of its block is");
    assert!(subnet.is_reserved(ip("10.0.0.0")) && subnet.is_reserved(ip("10.0.0.240")));
    assert!(!subnet.is_reserved(ip("10.0.0.16")));
    let mut whole = good();
    whole["networks"][0]["subnets"][0]["prefix"] = json!(32);
    let whole = CloudConfig::parse(whole.as_object().expect("a mapping"), &[]).expect("valid");
    assert_eq!(whole.networks[0].subnets[0].prefix, None, "a block of one address is an address");
}

#[test]
fn vip_networks_may_have_addresses_of_their_own() {
    let vip = |subnets: Value| json!({"name": "v", "type": "vip", "subnets": subnets});
    check("/networks/-", vip(json!([{"static": ["1.1.1.1"], "az": "z9"}])), 160007);
    check("/networks/-", vip(json!([{"static": ["1.1.1.1"], "az": "z1"}, {"static": ["1.1.1.2"]}])), 140016);
    check("/networks/-", vip(json!([{"static": ["1.1.1.0/30"]}, {"static": ["1.1.1.2"]}])), 160001);
    check("/networks/-", vip(json!([{"static": ["1.1.1"]}])), 160010);
    let mut config = good();
    let subnets = json!([{"static": ["1.1.1.1"], "az": "z1"}, {"static": ["1.1.1.2"], "az": "z2"}]);
    config["networks"].as_array_mut().expect("a list").push(vip(subnets));
    config["networks"].as_array_mut().expect("a list").push(json!({"name": "w", "type": "vip"}));
    let config = CloudConfig::parse(config.as_object().expect("a mapping"), &[]).expect("valid");
    let gives: Vec<bool> = config.networks.iter().map(|n| n.gives_vips()).collect();
    assert_eq!(gives, [false, true, false]);
    assert!(config.networks[1].fits(&[]) && config.networks[1].fits(&["z2".into()]), "vips fit always");
}

#[test]
fn nobody_is_given_an_address_of_a_director() {
    let own = ["10.0.0.12", "10.0.0.50", "192.168.1.1"].map(|ip| ip.parse().expect("an address"));
    let clash = CloudConfig::parse(good().as_object().expect("a mapping"), &own).expect_err("refused");
    assert_eq!(clash.code, 160006, "a static pool must leave it out");
    let config = CloudConfig::parse(good().as_object().expect("a mapping"), &own[1..]).expect("valid");
    assert!(config.networks[0].subnets[0].is_reserved(own[1]));
}

#[test]
fn the_other_sections_are_checked() {
    check("/azs/-", json!({"name": "z1"}), 190017);
    check("/vm_types/-", json!({"name": "small"}), 190004);
    check("/disk_types/-", json!({"name": "d", "disk_size": 1}), 190013);
    check("/disk_types/-", json!({"name": "e", "disk_size": -1}), 200001);
    check("/compilation/workers", json!(0), 40002);
    check("/compilation/network", json!("zz"), 120001);
    check("/compilation/az", json!("z9"), 120002);
    check("/compilation/az", json!("z2"), 150006);
    check("/compilation/vm_type", json!("zz"), 120003);
    check("/compilation/cloud_properties", json!({"a": 1}), 120007);
    check("/compilation/vm_extensions", json!(["zz"]), 120005);
    check("/compilation/orphan_workers", json!("later"), 40000);
    let resources = json!({"cpu": 1, "ram": 2, "ephemeral_disk_size": 3});
    check("/compilation/vm_resources", resources.clone(), 120007);
    let mut sized = good();
    let compilation = sized["compilation"].as_object_mut().expect("a mapping");
    compilation.remove("vm_type");
    compilation.insert("vm_resources".into(), resources);
    assert_eq!(code(&sized), None);
    sized["compilation"]["vm_resources"]["ram"] = json!(-2);
    assert_eq!(code(&sized), Some(100));
    sized["compilation"]["vm_resources"] = json!({"cpu": 1});
    assert_eq!(code(&sized), Some(40001));
    let mut bare = good();
    bare.as_object_mut().expect("a mapping").remove("compilation");
    assert_eq!(code(&bare), Some(40001));
}

#[test]
fn several_configs_are_joined_but_compile_in_one_way() {
    let map = |value: Value| value.as_object().expect("a mapping").clone();
    let more = map(json!({"vm_types": [{"name": "large"}]}));
    let merged = merge(vec![map(good()), more]).expect("valid");
    assert_eq!(CloudConfig::parse(&merged, &[]).expect("valid").vm_types.len(), 2);
    assert_eq!(merge(vec![map(good()), map(good())]).expect_err("refused").code, 570000);
}

/// A config with a network that directors make; with what they have made of it, if they make networks at all.
fn managed(subnet: &Value, made: Option<&[ManagedNetwork]>) -> Result<CloudConfig, model::task::TaskError> {
    let mut config = good();
    config["azs"][1] = json!({"name": "z2", "cpi": "other", "cloud_properties": {"zone": "b", "vlan": 1}});
    config["networks"][0]["managed"] = json!(true);
    config["networks"][0]["subnets"] = json!([subnet]);
    config["compilation"]["az"] = json!("z2");
    CloudConfig::parse_in(config.as_object().expect("a mapping"), Surroundings { own: &[], made })
}

fn made(range: &str, gateway: &str, reserved: &[&str]) -> ManagedNetwork {
    let made = MadeSubnet {
        cid: "net-1".into(),
        range: range.into(),
        gateway: Some(gateway.into()),
        reserved: reserved.iter().map(ToString::to_string).collect(),
        cloud_properties: json!({"name": "net-1"}),
    };
    let subnet = ManagedSubnet {
        name: "s".into(),
        id: "id".into(),
        cpi: "other".into(),
        task: Default::default(),
        made: Some(made),
    };
    ManagedNetwork {
        name: "a".into(),
        kind: model::instance::NetworkKind::Manual,
        created_at: Default::default(),
        deployments: Default::default(),
        orphaned_at: None,
        retired_by: None,
        subnets: vec![subnet],
    }
}

#[test]
fn a_managed_subnet_needs_a_name_and_nothing_else() {
    let subnet = json!({"name": "s", "az": "z2", "netmask_bits": 24, "cloud_properties": {"vlan": 7},
        "static": ["10.9.0.10"]});
    let config = managed(&subnet, Some(&[])).expect("valid");
    let (network, subnet) = (&config.networks[0], &config.networks[0].subnets[0]);
    assert!(network.managed && subnet.range.is_none() && subnet.gateway.is_none());
    let wish = subnet.wish.as_ref().expect("it is to be made");
    assert_eq!((wish.cpi.as_str(), wish.netmask_bits, wish.range.as_deref()), ("other", Some(24), None));
    assert_eq!(wish.cloud_properties, json!({"zone": "b", "vlan": 7}), "the zone's, and its own over them");
    assert!(subnet.is_static("10.9.0.10".parse().expect("an address")));
    let code = |subnet: Value| managed(&subnet, Some(&[])).expect_err("refused").code;
    assert_eq!(code(json!({"az": "z2", "range": "10.0.0.0/24", "gateway": "10.0.0.1"})), 40001);
    assert_eq!(code(json!({"name": "s", "az": "z2", "netmask_bits": 0})), 160008);
    assert_eq!(code(json!({"name": "s", "azs": ["z1", "z2"]})), 160008, "two CPIs");
    assert_eq!(code(json!({"name": "s", "az": "z2", "range": "10.0.0.0/32"})), 160002);
    assert_eq!(code(json!({"name": "s", "az": "z2", "range": "10.0.0.0/24", "gateway": "10.0.1.1"})), 160003);
}

#[test]
fn what_the_cloud_made_counts_for_more_than_the_config() {
    let subnet = json!({"name": "s", "az": "z2", "static": ["10.9.0.10"], "cloud_properties": {"vlan": 7}});
    let rows = [made("10.9.0.0/24", "10.9.0.1", &["10.9.0.2 - 10.9.0.9"])];
    let config = managed(&subnet, Some(&rows)).expect("valid");
    let subnet_made = &config.networks[0].subnets[0];
    let ip = |text: &str| text.parse().expect("an address");
    assert_eq!((subnet_made.gateway, subnet_made.range.map(|r| r.1)), (Some(ip("10.9.0.1")), Some(24)));
    for reserved in ["10.9.0.0", "10.9.0.1", "10.9.0.5", "10.9.0.255"] {
        assert!(subnet_made.is_reserved(ip(reserved)), "{reserved}");
    }
    assert_eq!(subnet_made.cloud_properties, json!({"name": "net-1"}));
    let code = |rows: ManagedNetwork| managed(&subnet, Some(&[rows])).expect_err("refused").code;
    assert_eq!(code(made("10.8.0.0/24", "10.8.0.1", &[])), 160006, "the static address is elsewhere");
    assert_eq!(code(made("10.9.0.0/24", "10.9.0.10", &[])), 160006, "it is the gateway");
    assert_eq!(code(made("10.9.0.0/24", "10.9.0.1", &["10.8.0.1"])), 160005);
}

#[test]
fn a_managed_network_is_one_of_people_where_directors_make_none() {
    let whole = json!({"name": "s", "az": "z2", "range": "10.0.0.0/24", "gateway": "10.0.0.1"});
    let config = managed(&whole, None).expect("the key is passed over");
    assert!(!config.networks[0].managed && config.networks[0].subnets[0].wish.is_none());
    let error = managed(&json!({"name": "s", "az": "z2"}), None).expect_err("it has no range");
    assert!(error.message.contains("dctl managed-networks on"), "{}", error.message);
}
