use std::path::Path;

use model::instance::{Instance, InstanceSpec, InstanceState, Vm};
use serde_json::{Value, json};

use super::*;
use crate::apply;
use crate::command::{Actor, Command, Entry, Outcome};
use crate::kv::MemoryKv;
use crate::records::Deployment;

/// Deployments as the reference has them after a step: who has which address, and what the manifest says of each group.
struct Standing<'a> {
    manifests: &'a BTreeMap<String, Value>,
    instances: &'a [Value],
}

fn stemcell() -> Value {
    json!({ "name": "s", "os": "o", "version": "1", "cpi": "", "cid": "c", "api_version": 2 })
}

fn network(name: &str, ip: &str) -> Value {
    json!({
        "name": name, "kind": "manual", "ip": ip, "address": "automatic", "prefix": "32", "netmask": null, "gateway": null,
        "dns": [], "defaults": [], "cloud_properties": {},
    })
}

fn job(provides: &[(&str, &str)]) -> Value {
    let provides: Vec<Value> =
        provides.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
    json!({
        "name": "j", "release": { "name": "r", "version": "1" }, "fingerprint": "f", "digest": "d", "blob": "b",
        "properties": {}, "links": {}, "provides": provides,
    })
}

fn instance(id: &str, place: (&str, &str, u64), az: Option<&str>, rest: (Vec<Value>, Value)) -> Instance {
    let ((deployment, group, index), (networks, job)) = (place, rest);
    let watch = json!({ "min_ms": 1, "max_ms": 2 });
    let spec: InstanceSpec = serde_json::from_value(json!({
        "id": id, "deployment": deployment, "group": group, "index": index, "az": az, "bootstrap": false,
        "lifecycle": "service", "jobs": [job], "packages": [], "networks": networks, "stemcell": stemcell(), "cpi": "",
        "vm_type": null, "cloud_properties": {}, "env": {}, "persistent_disk": null, "canary_watch_time": watch,
        "update_watch_time": watch, "tags": {}, "configuration_hash": null, "template_hashes": {},
    }))
    .unwrap();
    Instance {
        spec,
        state: InstanceState::Started,
        update_completed: true,
        ignore: false,
        compilation: false,
        variable_set: VariableSetId(1),
    }
}

fn put(kv: &mut MemoryKv, instance: &Instance, agent: Option<&str>) {
    let spec = &instance.spec;
    INSTANCES.put(kv, &spec.id, instance);
    INSTANCES_OF.put(kv, &(spec.deployment.clone(), spec.id.clone()), &());
    let Some(agent) = agent.map(AgentId::from) else { return };
    let vm = Vm {
        agent: agent.clone(),
        instance: spec.id.clone(),
        cid: Some("vm".into()),
        cpi: "".into(),
        stemcell: spec.stemcell.clone(),
        cloud_properties: json!({}),
        env: json!({}),
        networks: spec.networks.clone(),
        created_at: Timestamp(0),
        active: true,
        bound: true,
        variable_set: VariableSetId(1),
    };
    VMS.put(kv, &agent, &vm);
    VMS_OF.put(kv, &(spec.id.clone(), agent), &());
}

/// Which deployment, group and network have an address of the recorded cloud config.
fn networks_of(ips: &[Value]) -> Vec<Value> {
    let name = |ip: &str| if ip.starts_with("10.1.") { "a" } else { "b" };
    ips.iter().map(|ip| network(name(ip.as_str().unwrap()), ip.as_str().unwrap())).collect()
}

fn state_of(standing: &Standing<'_>) -> MemoryKv {
    let mut kv = MemoryKv::new();
    for row in standing.instances {
        let group = row["group"].as_str().unwrap();
        let has = |manifest: &Value| {
            manifest["instance_groups"].as_array().unwrap().iter().any(|of| of["name"] == json!(group))
        };
        let (deployment, _) = standing.manifests.iter().find(|(_, manifest)| has(manifest)).unwrap();
        let job = job(if group == "srv" { &[("endpoint", "http")] } else { &[] });
        let place = (deployment.as_str(), group, row["index"].as_u64().unwrap());
        let networks = networks_of(row["ips"].as_array().unwrap());
        let id = row["instance"].as_str().unwrap();
        put(&mut kv, &instance(id, place, row["az"].as_str(), (networks, job)), Some(&format!("agent-{id}")));
    }
    kv
}

/// Numbers whatever has none, as the leader does.
fn number(kv: &mut MemoryKv) {
    let subjects = State::new(kv).dns_records("bosh").unnumbered;
    for deployment in ["p", "q"] {
        let name = DeploymentName::from(deployment);
        let row = Deployment {
            name: name.clone(),
            generation: 0,
            record: None,
            created_at: Timestamp(0),
            teams: Vec::new(),
        };
        DEPLOYMENTS.put(kv, &name, &row);
    }
    let entry = Entry {
        version: 1,
        request_id: None,
        actor: Actor::default(),
        proposed_at: Timestamp(1),
        command: Command::DnsNumber { epoch: Epoch(0), subjects },
    };
    assert_eq!(apply(kv, Revision(1), &entry).outcome, Outcome::Done);
}

/// Puts instances' own names in place of what is made anew in every run, and numbers in the order of their first use.
fn comparable(records: &Value) -> Vec<String> {
    let mut rows: Vec<Vec<Value>> = records["record_infos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_array().unwrap().clone())
        .collect();
    rows.sort_by_key(|row| row[9].as_str().unwrap().to_owned());
    let mut seen: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for row in &mut rows {
        row[11] = json!("agent");
        for at in [1, 3, 5, 7] {
            let mut rank = |value: &mut Value| {
                if let Some(text) = value.as_str() {
                    assert!(text.parse::<u32>().is_ok(), "{text} is no number");
                    let next = seen.len();
                    *value = json!(*seen.entry((at, text.to_owned())).or_insert(next));
                }
            };
            match &mut row[at] {
                Value::Array(all) => all.iter_mut().for_each(rank),
                one => rank(one),
            }
        }
    }
    let mut names: Vec<String> =
        records["records"].as_array().unwrap().iter().map(ToString::to_string).collect();
    names.sort();
    names.into_iter().chain(rows.into_iter().map(|row| Value::Array(row).to_string())).collect()
}

#[test]
fn records_are_those_of_the_reference() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scheduler/tests/golden/planning/dns-records.json");
    let scenario: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut manifests = BTreeMap::new();
    let mut standing: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let steps = scenario["steps"].as_array().unwrap();
    for step in steps {
        let (manifest, outcome) = (&step["manifest"], &step["outcome"]);
        let name = manifest["name"].as_str().unwrap().to_owned();
        manifests.insert(name.clone(), manifest.clone());
        // A step tells of its own deployment; the others are as they were.
        standing.insert(name, outcome["instances"].as_array().unwrap().clone());
        let instances: Vec<Value> = standing.values().flatten().cloned().collect();
        let mut kv = state_of(&Standing { manifests: &manifests, instances: &instances });
        number(&mut kv);
        let found = State::new(&kv).dns_records("bosh");
        assert_eq!(found.unnumbered, []);
        let records = model::dns::Records { version: 1, records: found.records, ..Default::default() };
        let document: Value = serde_json::from_slice(&records.to_bytes()).unwrap();
        let wanted = &outcome["dns_records"];
        assert_eq!(comparable(&document), comparable(wanted), "{}", step["action"]);
        assert_eq!(document["record_keys"], wanted["record_keys"]);
        let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&document), keys(wanted));
    }
    assert_eq!(steps.len(), 5);
}

#[test]
fn only_instances_with_a_vm_of_their_own_have_records() {
    let mut kv = MemoryKv::new();
    let at = |id: &str, ip: &str| instance(id, ("p", "g", 0), None, (vec![network("a", ip)], job(&[])));
    put(&mut kv, &at("i-1", "10.1.0.1"), Some("a-1"));
    put(&mut kv, &at("i-2", "10.1.0.2"), None);
    let worker = Instance { compilation: true, ..at("i-3", "10.1.0.3") };
    put(&mut kv, &worker, Some("a-3"));
    // One whose creation was broken off is nobody's.
    put(&mut kv, &at("i-4", "10.1.0.4"), Some("a-4"));
    let vm = VMS.get(&kv, &"a-4".into()).unwrap();
    VMS.put(&mut kv, &"a-4".into(), &Vm { bound: false, ..vm });
    let found = State::new(&kv).dns_records("bosh");
    let names: Vec<String> = found.records.iter().map(Record::long_name).collect();
    assert_eq!(names, ["i-1.g.a.p.bosh"]);
    // Until it has numbers it is known by its names alone.
    assert_eq!((found.records[0].num_id.clone(), found.records[0].group_ids.len()), (None, 0));
    assert_eq!(found.unnumbered.len(), 3, "{:?}", found.unnumbered);
    assert_eq!(found.records[0].az, None);
}
