//! Keys that nobody reads are passed over at every level, as BOSH does it; keys of the past are not.

use std::collections::BTreeSet;

use model::CpiName;
use model::cloud_config::VmResources;
use model::release::CompiledPackage;
use model::step::PackageRefKey;
use model::task::DeployOptions;
use serde_json::{Map, Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest};
use crate::fixture;

/// Mappings whose keys are names that people choose, or that somebody behind the director reads.
const FREE: [&str; 5] = ["cloud_properties", "env", "options", "properties", "tags"];

/// Mappings of mappings by a name that people choose.
const BY_NAME: [&str; 2] = ["consumes", "provides"];

/// What a deploy is planned from: every kind of entry that the director reads, once at least.
#[derive(Clone)]
struct Documents {
    manifest: Value,
    cloud: Value,
    runtime: Value,
}

impl Documents {
    fn new() -> Self {
        let mut cloud = cloud_config();
        cloud["vm_extensions"] = json!([{"name": "lb", "cloud_properties": {"balanced": true}}]);
        cloud["networks"].as_array_mut().unwrap().extend([
            json!({"name": "d", "type": "dynamic", "subnets": [{"azs": ["z1", "z2", "z3"], "dns": ["8.8.8.8"]}]}),
            json!({"name": "v", "type": "vip", "subnets": [{"azs": ["z1", "z2", "z3"], "static": ["1.1.1.1"]}]}),
        ]);
        let runtime = json!({
            "releases": [{"name": "golden", "version": "1"}],
            "addons": [{
                "name": "everywhere", "jobs": [{"name": "dump", "release": "golden"}],
                "include": {"deployments": ["p"], "azs": ["z1"]}, "exclude": {"networks": ["nowhere"]},
            }],
            "variables": [{"name": "of-all", "type": "password"}],
        });
        Self { manifest: rich_manifest(), cloud, runtime }
    }

    fn all_mut(&mut self) -> [&mut Value; 3] {
        [&mut self.manifest, &mut self.cloud, &mut self.runtime]
    }

    fn director(&self) -> Director {
        let mut director = Director::new(&self.cloud);
        director.world.put_config("runtime", "default", self.runtime.to_string());
        director.world.variables.available = true;
        let size = VmResources { cpu: 1, ram_mib: 2, ephemeral_disk_mib: 3 };
        director.world.vm_properties.insert((CpiName::default(), size), json!({"size": 1}));
        director
    }

    /// Returns everything that is decided about a first deploy, without the manifest's own text.
    #[track_caller]
    fn decided(&self) -> String {
        self.decided_in(&mut self.director())
    }

    #[track_caller]
    fn decided_in(&self, director: &mut Director) -> String {
        let view = director.view();
        let (draft, mut plan) = director.plan_both(&view, &self.manifest, &DeployOptions::default()).unwrap();
        let record = plan.record.as_mut().unwrap();
        assert_eq!(record.manifest_text, self.manifest.to_string(), "it is stored as it was posted");
        (record.manifest_text, record.manifest) = (String::new(), Value::Null);
        format!("{plan:#?}\n{:#?}\n{:#?}", draft.variables, draft.references)
    }
}

fn rich_manifest() -> Value {
    let mut server = group(2);
    let jobs = json!([{
        "name": "server", "release": "golden", "properties": {"port": 1}, "provides": {"endpoint": {"as": "api"}},
        "custom_provider_definitions": [{"name": "extra", "type": "t", "properties": ["port"]}],
    }]);
    let networks = json!([{"name": "a", "default": ["dns", "gateway"]}, {"name": "d"}]);
    let parts = json!({
        "jobs": jobs, "networks": networks, "update": {"canaries": 2}, "persistent_disk_type": "disk",
        "vm_extensions": ["lb"], "migrated_from": [{"name": "old"}], "env": {"a": 1},
        "instance_states": {"0": "started"},
    });
    server.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    let mut client = group(1);
    client["name"] = json!("client");
    client["jobs"] =
        json!([{"name": "client", "release": "golden", "consumes": {"endpoint": {"from": "api"}}}]);
    client["networks"] = json!([{"name": "a", "default": ["dns", "gateway"]}, {"name": "v"}]);
    client.as_object_mut().unwrap().remove("vm_type");
    client["vm_resources"] = json!({"cpu": 1, "ram": 2, "ephemeral_disk_size": 3});
    let mut manifest = manifest(&[server, client]);
    let include =
        json!({"jobs": [{"name": "server", "release": "golden"}], "stemcell": [{"os": "toronto-os"}]});
    manifest["addons"] = json!([{
        "name": "beside-servers", "jobs": [{"name": "check", "release": "golden", "properties": {"seconds": 1}}],
        "include": include, "exclude": {"instance_groups": ["client"]},
    }]);
    manifest["variables"] = json!([
        {"name": "pw", "type": "password", "options": {"length": 9}, "update": {"strategy": "on-deploy"}},
    ]);
    manifest["features"] = json!({"converge_variables": true});
    manifest["tags"] = json!({"team": "blue"});
    manifest
}

/// Returns where in a document there are mappings with keys that the director knows.
fn levels(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(at.to_owned());
            for (key, item) in map.iter().filter(|(key, _)| !is_free(key)) {
                let at = format!("{at}/{key}");
                match item.as_object().filter(|_| BY_NAME.contains(&key.as_str())) {
                    Some(links) => {
                        links.iter().for_each(|(name, link)| levels(link, &format!("{at}/{name}"), found));
                    }
                    None => levels(item, &at, found),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| levels(item, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

fn is_free(key: &str) -> bool {
    FREE.contains(&key) || key == "instance_states"
}

fn levels_of(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    levels(document, "", &mut found);
    found
}

/// Adds keys that mean nothing there, with values of every type.
fn add_surplus(document: &mut Value, level: &str) {
    let level: &mut Map<String, Value> = document.pointer_mut(level).unwrap().as_object_mut().unwrap();
    let surplus = json!({
        "zzz": {"q": 1}, "Name": "x", "instance": 3, "intances": null, "a.b": true, "extra_list": [{"name": "x"}, null],
    });
    level.extend(surplus.as_object().unwrap().clone());
}

/// Returns the kinds of levels: places in lists do not matter.
fn kinds(levels: &[String]) -> BTreeSet<String> {
    let is_place = |part: &&str| part.parse::<usize>().is_err();
    levels.iter().map(|at| at.split('/').filter(is_place).collect::<Vec<_>>().join("/")).collect()
}

#[test]
fn surplus_keys_change_nothing_at_any_level() {
    let usual = Documents::new();
    let decided = usual.decided();
    assert_eq!(usual.decided(), decided, "nothing else makes a difference");
    let mut larger = usual.clone();
    larger.manifest["instance_groups"][0]["instances"] = json!(3);
    assert!(larger.decided() != decided, "and what is read does");
    for document in 0..3 {
        let levels = levels_of(usual.clone().all_mut()[document]);
        for level in &levels {
            let mut changed = usual.clone();
            add_surplus(changed.all_mut()[document], level);
            assert!(changed.decided() == decided, "document {document}, level '{level}'");
        }
    }
}

#[test]
fn the_levels_are_those_that_a_director_reads() {
    let [manifest, cloud, runtime] = Documents::new().all_mut().map(|document| kinds(&levels_of(document)));
    let wanted = [
        "",
        "/addons",
        "/addons/exclude",
        "/addons/include",
        "/addons/include/jobs",
        "/addons/include/stemcell",
        "/addons/jobs",
        "/features",
        "/instance_groups",
        "/instance_groups/jobs",
        "/instance_groups/jobs/consumes/endpoint",
        "/instance_groups/jobs/custom_provider_definitions",
        "/instance_groups/jobs/provides/endpoint",
        "/instance_groups/migrated_from",
        "/instance_groups/networks",
        "/instance_groups/update",
        "/instance_groups/vm_resources",
        "/releases",
        "/stemcells",
        "/update",
        "/variables",
        "/variables/update",
    ];
    assert_eq!(manifest, wanted.map(str::to_owned).into());
    let wanted = [
        "",
        "/azs",
        "/compilation",
        "/disk_types",
        "/networks",
        "/networks/subnets",
        "/vm_extensions",
        "/vm_types",
    ];
    assert_eq!(cloud, wanted.map(str::to_owned).into());
    let wanted =
        ["", "/addons", "/addons/exclude", "/addons/include", "/addons/jobs", "/releases", "/variables"];
    assert_eq!(runtime, wanted.map(str::to_owned).into());
}

#[test]
fn surplus_keys_everywhere_leave_nothing_to_do() {
    let mut documents = Documents::new();
    let mut director = documents.director();
    director.deploy(&documents.manifest);
    for document in documents.all_mut() {
        levels_of(document).iter().for_each(|level| add_surplus(document, level));
    }
    director.world.put_config("cloud", "default", documents.cloud.to_string());
    director.world.put_config("runtime", "default", documents.runtime.to_string());
    let plan = director.deploy(&documents.manifest);
    assert!(is_empty(&plan), "{}", scheduler::explain(&plan));
    assert_eq!(plan.record.unwrap().manifest["zzz"], json!({"q": 1}), "for the next diff");
}

#[test]
fn keys_that_only_the_cli_reads_change_nothing() {
    let mut documents = Documents::new();
    let decided = documents.decided();
    documents.manifest["director_uuid"] = json!("another director's");
    let release =
        json!({"url": "https://example.org/r.tgz", "sha1": "0", "stemcell": {"os": "x", "version": "9"}});
    documents.manifest["releases"][0].as_object_mut().unwrap().extend(release.as_object().unwrap().clone());
    assert!(documents.decided() == decided);
}

#[test]
fn surplus_keys_of_an_exported_release_change_nothing() {
    let mut documents = Documents::new();
    documents.manifest["releases"][0]["exported_from"] = json!([{"os": "toronto-os", "version": "1"}]);
    let director = |documents: &Documents| {
        let mut director = documents.director();
        director.world.compiled =
            fixture::packages(&director.world.releases).into_iter().map(compiled).collect();
        director
    };
    let decided = documents.decided_in(&mut director(&documents));
    let level = "/releases/0/exported_from/0";
    assert!(levels_of(&documents.manifest).iter().any(|at| at == level));
    add_surplus(&mut documents.manifest, level);
    assert!(documents.decided_in(&mut director(&documents)) == decided);
}

fn compiled(key: PackageRefKey) -> CompiledPackage {
    let key = PackageRefKey { os: "toronto-os".into(), stemcell_version: "1".into(), ..key };
    CompiledPackage { key, build: 1, blob: "b".into(), digest: String::new(), size_bytes: 1 }
}

/// What was at a manifest's top once, and with which code it is refused.
const FORBIDDEN: [(&str, u32); 8] = [
    ("vm_types", 190014),
    ("azs", 190014),
    ("disk_types", 190014),
    ("compilation", 190014),
    ("networks", 140026),
    ("disk_pools", 140027),
    ("jobs", 140023),
    ("resource_pools", 140028),
];

#[test]
fn keys_of_the_past_are_refused_whatever_they_say() {
    for (key, code) in FORBIDDEN {
        for value in [json!(null), json!([]), json!([{"name": "x"}]), json!({"workers": 1})] {
            let mut manifest = manifest(&[group(1)]);
            manifest[key] = value;
            let (told_code, told) = Director::new(&cloud_config()).complaint(&manifest);
            assert_eq!(told_code, code, "{key}: {told}");
            let words = key.replace('_', " ");
            assert!(told.to_lowercase().contains(&words) || told.contains(key), "{key}: {told}");
        }
    }
}

#[test]
fn keys_of_the_past_are_refused_in_order_and_before_anything_else() {
    // Neither this cloud config nor the rest of the manifest is any good.
    let mut director = Director::new(&json!({"networks": 3}));
    let mut manifest = json!({"name": "p"});
    for (key, code) in FORBIDDEN.iter().rev() {
        manifest[key] = json!([]);
        let (told_code, told) = director.complaint(&manifest);
        assert_eq!(told_code, *code, "{key}: {told}");
        assert!(*code != 190014 || told.contains(&format!("'{key}'")), "{key}: {told}");
    }
}

#[test]
fn keys_of_the_past_are_refused_in_groups() {
    let past = [
        ("template", 140024, json!("server")),
        ("templates", 140024, json!([])),
        ("resource_pool", 140025, json!("small")),
        ("persistent_disk_pool", 140027, json!("disk")),
    ];
    for (key, code, value) in past {
        let mut group = group(1);
        group[key] = value;
        let (told_code, told) = Director::new(&cloud_config()).complaint(&manifest(&[group]));
        assert_eq!(told_code, code, "{key}: {told}");
        assert!(told.contains(&format!("'{key}'")), "{key}: {told}");
    }
}
