//! Listed addresses decide the zones.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};

/// Networks `one` and `two` with a subnet for each of the given sets of zones (`10.1.N.0/24` and `10.2.N.0/24`), all of
/// it static from .100 on.
fn two_networks(one: &[&[&str]], two: &[&[&str]]) -> Value {
    let network = |name: &str, which: u8, zones: &[&[&str]]| {
        let subnets: Vec<Value> = zones
            .iter()
            .enumerate()
            .map(|(n, azs)| {
                json!({
                    "range": format!("10.{which}.{n}.0/24"), "gateway": format!("10.{which}.{n}.1"), "azs": azs,
                    "static": [format!("10.{which}.{n}.100-10.{which}.{n}.199")],
                    "cloud_properties": {"segment": n},
                })
            })
            .collect();
        json!({"name": name, "subnets": subnets})
    };
    let mut config = cloud_config();
    let networks = config["networks"].as_array_mut().unwrap();
    networks.extend([network("one", 1, one), network("two", 2, two)]);
    networks.remove(0);
    config["compilation"]["network"] = json!("one");
    config["compilation"]["az"] = json!(one[0][0]);
    config
}

fn listing(one: &[&str], two: &[&str]) -> Value {
    let mut group = group(one.len());
    group["networks"] = json!([
        {"name": "one", "static_ips": one, "default": ["dns", "gateway"]}, {"name": "two", "static_ips": two},
    ]);
    manifest(&[group])
}

#[test]
fn zones_are_chosen_so_that_all_networks_agree() {
    // e1 in z1 or z2, e2 in z3; f1 in z2 or z3, f2 in z3: only z2 for e1 and f1 works.
    let mut director =
        Director::new(&two_networks(&[&["z1", "z2"], &["z3"]], &[&["z2", "z3"], &["z1", "z3"]]));
    director.deploy(&listing(&["10.1.0.100", "10.1.1.100"], &["10.2.0.100", "10.2.0.101"]));
    assert_eq!(director.seats(), ["0 z2 10.1.0.100 10.2.0.100", "1 z3 10.1.1.100 10.2.0.101"]);
}

#[test]
fn addresses_that_fit_no_zone_together_are_refused() {
    let mut director = Director::new(&two_networks(&[&["z1", "z2"], &["z3"]], &[&["z3"], &["z1", "z2"]]));
    let manifest = listing(&["10.1.0.100", "10.1.0.101"], &["10.2.0.100", "10.2.0.101"]);
    assert_eq!(director.refusal(&manifest), 150002);
}

#[test]
fn many_addresses_over_many_zones_are_settled_at_once() {
    let all: &[&str] = &["z1", "z2", "z3"];
    let mut director = Director::new(&two_networks(&[all], &[all, &["z1", "z2"]]));
    let ips = |network: u8, subnet: u8, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("10.{network}.{subnet}.{}", 100 + n)).collect()
    };
    let one = ips(1, 0, 90);
    let two = [ips(2, 0, 30), ips(2, 1, 60)].concat();
    let mut manifest = listing(&["10.1.0.100"], &["10.2.0.100"]);
    let group = &mut manifest["instance_groups"][0];
    group["instances"] = json!(one.len());
    group["networks"][0]["static_ips"] = json!(one);
    group["networks"][1]["static_ips"] = json!(two);
    director.deploy(&manifest);
    let in_zone = |zone: &str| director.seats().iter().filter(|s| s.contains(zone)).count();
    assert_eq!([in_zone("z1"), in_zone("z2"), in_zone("z3")], [30, 30, 30]);
}

#[test]
fn an_existing_instance_has_the_first_choice_of_a_zone() {
    let mut director = Director::new(&cloud_config());
    let mut before = group(1);
    before["azs"] = json!(["z2"]);
    director.deploy(&manifest(&[before]));
    let id = director.instances()[0].spec.id.clone();
    let mut after = group(1);
    after["networks"] = json!([{"name": "a", "static_ips": ["10.9.0.100"]}]);
    director.deploy(&manifest(&[after]));
    assert_eq!(director.seats(), ["0 z2 10.9.0.100"], "it was there, and the address can serve its zone");
    assert_eq!(director.instances()[0].spec.id, id);
}

#[test]
fn networks_of_one_card_take_addresses_in_one_segment() {
    let zones: &[&[&str]] = &[&["z1"], &["z1"]];
    let mut director = Director::new(&two_networks(zones, zones));
    let mut manifest = listing(&["10.1.1.100"], &["10.2.0.100"]);
    let networks = |manifest: &mut Value, card: Value| {
        for network in manifest["instance_groups"][0]["networks"].as_array_mut().unwrap() {
            network["nic_group"] = card.clone();
        }
    };
    manifest["instance_groups"][0]["azs"] = json!(["z1"]);
    assert!(director.plan(&manifest).is_ok(), "two cards may be in two segments");
    networks(&mut manifest, json!("1"));
    assert_eq!(director.refusal(&manifest), 130010);
    let mut crossed = listing(&["10.1.1.100", "10.1.0.100"], &["10.2.0.100", "10.2.1.100"]);
    crossed["instance_groups"][0]["azs"] = json!(["z1"]);
    networks(&mut crossed, json!("1"));
    director.deploy(&crossed);
    assert_eq!(director.seats(), ["0 z1 10.1.1.100 10.2.1.100", "1 z1 10.1.0.100 10.2.0.100"]);
}
