//! Manifests made up by chance, and a world with room for them.

use std::net::IpAddr;

use model::instance::InstanceState;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::World;

/// Zones, types and networks as in the recordings, but with room for thousands. Network `a` has static addresses in a
/// subnet of each zone and in one over all of them.
fn cloud_config() -> Value {
    let zones = ["z1", "z2", "z3"];
    let subnet = |network: u8, n: u8, azs: &[&str]| {
        json!({
            "range": format!("10.{network}{n}.0.0/16"), "gateway": format!("10.{network}{n}.0.1"), "azs": azs,
            "reserved": [format!("10.{network}{n}.0.2-10.{network}{n}.0.9")],
            "static": [format!("10.{network}{n}.1.0-10.{network}{n}.1.255")],
        })
    };
    let of_zones = |network| -> Vec<Value> {
        (1..=3).map(|n| subnet(network, n, &zones[usize::from(n) - 1..][..1])).collect()
    };
    let mut a = of_zones(1);
    a.push(subnet(1, 9, &zones));
    let dynamic: Vec<Value> = zones.iter().map(|az| json!({"az": az})).collect();
    let vips: Vec<Value> =
        zones.iter().zip(1..).map(|(az, n)| json!({"az": az, "static": [format!("1.{n}.0.0/16")]})).collect();
    json!({
        "azs": [{"name": "z1"}, {"name": "z2"}, {"name": "z3"}],
        "vm_types": [{"name": "small", "cloud_properties": {"ram": 1}}, {"name": "large"}],
        "disk_types": [{"name": "disk", "disk_size": 1000}],
        "networks": [
            {"name": "a", "subnets": a}, {"name": "b", "subnets": of_zones(2)},
            {"name": "d", "type": "dynamic", "subnets": dynamic}, {"name": "v", "type": "vip", "subnets": vips},
        ],
        "compilation": {"workers": 2, "network": "a", "az": "z1", "vm_type": "small"},
    })
}

pub fn new_world() -> World {
    let mut world = World::new();
    world.put_config("cloud", "default", cloud_config().to_string());
    world
}

/// Which addresses a group lists in network `a`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statics {
    /// None.
    Picked,
    /// Some of the subnets of its zones, dealt out evenly.
    OfZones,
    /// Some of the subnet over all zones.
    Shared,
}

/// What a group of a made-up manifest can be like.
#[derive(Clone, Debug)]
pub struct Group {
    pub instances: usize,
    pub azs: Vec<usize>,
    pub disk: bool,
    pub statics: Statics,
    /// Lists the addresses that are meant for the first group.
    pub clash: bool,
    /// Networks besides `a`.
    pub more: Vec<&'static str>,
    pub port: u8,
    pub large: bool,
    pub env: u8,
    pub state: Option<InstanceState>,
    /// Consumes the link of the group at this place.
    pub client_of: Option<usize>,
    /// Has its other name, and takes over the instances of the one.
    pub renamed: bool,
}

impl Group {
    /// Returns the simplest of groups, as large as that.
    pub fn plain(instances: usize) -> Self {
        Self {
            instances,
            azs: vec![1, 2, 3],
            disk: true,
            statics: Statics::Picked,
            clash: false,
            more: Vec::new(),
            port: 1,
            large: false,
            env: 0,
            state: None,
            client_of: None,
            renamed: false,
        }
    }

    pub fn name(&self, at: usize) -> String {
        format!("g{at}{}", if self.renamed { "x" } else { "" })
    }

    /// The name that its instances may have had before.
    pub fn other_name(&self, at: usize) -> String {
        format!("g{at}{}", if self.renamed { "" } else { "x" })
    }

    pub fn zones(&self) -> Vec<String> {
        self.azs.iter().map(|az| format!("z{az}")).collect()
    }

    /// How many addresses an instance holds.
    pub fn addresses(&self) -> usize {
        1 + self.more.iter().filter(|n| **n != "d").count()
    }

    /// The addresses that it lists.
    pub fn listed(&self, at: usize) -> Vec<IpAddr> {
        let first = if self.clash { 0 } else { at * 20 };
        let ip = |i: usize| match self.statics {
            Statics::Picked => None,
            Statics::OfZones => Some(format!("10.1{}.1.{}", self.azs[i % self.azs.len()], first + i)),
            Statics::Shared => Some(format!("10.19.1.{}", first + i)),
        };
        (0..self.instances).filter_map(ip).map(|text| text.parse().unwrap()).collect()
    }
}

pub fn group() -> impl Strategy<Value = Group> {
    let azs = prop::sample::subsequence(vec![1_usize, 2, 3], 1..=3).prop_shuffle();
    let statics =
        prop_oneof![2 => Just(Statics::Picked), 1 => Just(Statics::OfZones), 1 => Just(Statics::Shared)];
    let more = prop::sample::subsequence(vec!["b", "d", "v"], 0..=3);
    let state = prop_oneof![
        6 => Just(None),
        1 => Just(Some(InstanceState::Started)),
        1 => Just(Some(InstanceState::Stopped)),
        1 => Just(Some(InstanceState::Detached)),
    ];
    let shape = (0..7_usize, azs, any::<bool>(), statics, prop::bool::weighted(0.1), more);
    let content = (1..3_u8, any::<bool>(), 0..2_u8, state, prop::option::weighted(0.3, 0..4_usize));
    (shape, content, prop::bool::weighted(0.2)).prop_map(|(shape, content, renamed)| {
        let (instances, azs, disk, statics, clash, more) = shape;
        let (port, large, env, state, client_of) = content;
        Group { instances, azs, disk, statics, clash, more, port, large, env, state, client_of, renamed }
    })
}

pub fn manifest(groups: &[Group]) -> String {
    let groups: Vec<Value> = groups.iter().enumerate().map(|(at, g)| describe(g, at, groups.len())).collect();
    json!({
        "name": "p", "releases": [{"name": "golden", "version": "1"}],
        "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
        "update": {
            "canaries": 1, "max_in_flight": "30%", "canary_watch_time": 1000, "update_watch_time": 1000,
        },
        "instance_groups": groups,
    })
    .to_string()
}

fn describe(group: &Group, at: usize, count: usize) -> Value {
    let mut first = json!({"name": "a", "default": ["dns", "gateway"]});
    if group.statics != Statics::Picked {
        first["static_ips"] = json!(group.listed(at));
    }
    let networks: Vec<Value> =
        [first].into_iter().chain(group.more.iter().map(|name| json!({"name": name}))).collect();
    let mut jobs = vec![json!({
        "name": "server", "release": "golden", "properties": {"port": group.port},
        "provides": {"endpoint": {"as": format!("ep{at}")}},
    })];
    if let Some(of) = group.client_of {
        let consumes = json!({"endpoint": {"from": format!("ep{}", of % count)}});
        jobs.push(json!({"name": "client", "release": "golden", "consumes": consumes}));
    }
    let mut out = json!({
        "name": group.name(at), "instances": group.instances, "stemcell": "default", "azs": group.zones(),
        "vm_type": if group.large { "large" } else { "small" }, "networks": networks, "jobs": jobs,
        "env": {"k": group.env}, "migrated_from": [{"name": group.other_name(at)}],
    });
    if group.disk {
        out["persistent_disk_type"] = json!("disk");
    }
    if let Some(state) = group.state {
        out["state"] = json!(state);
    }
    out
}
