//! Runs one scenario: every step is planned and carried out on a world that lives through the whole scenario.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::Plan;
use model::release::CompiledPackage;
use model::step::PackageRefKey;
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskError};
use model::{instance::InstanceState, *};
use scheduler::input::{Deletion, PlanInput};
use serde_json::Value;

use super::compare::{self, Labels, Sequence};
use super::fixture;
use super::perform::{Faults, Performed, perform};
use super::render::render;
use super::world::{View, World};

/// What a request asks for.
struct Request {
    deployment: DeploymentName,
    options: DeployOptions,
    change: Option<(StateChange, InstanceFilter)>,
    delete: bool,
}

/// Addresses that the recorded director still held from the scenario before.
const HELD_BEFORE: &[(&str, &[&str])] =
    &[("dns-custom-provider", &["10.1.1.5", "10.1.1.6", "10.1.2.5", "10.1.2.6"])];

/// Values of the recorded config server from a step on, as later calls show them.
const SECRETS: &[(&str, usize, &str, &str)] = &[
    ("variables-errors", 0, "/TestDirector/p/pw", "generated-password-1"),
    ("variables-env-and-cloud-properties", 0, "/TestDirector/p/pw", "generated-password-14"),
    ("variables-env-and-cloud-properties", 0, "/cp", "one"),
    ("variables-env-and-cloud-properties", 1, "/TestDirector/p/pw", "other"),
    ("variables-env-and-cloud-properties", 2, "/cp", "two"),
];

/// Runs a scenario; the error says which step differs and how.
pub fn run(name: &str, scenario: &Value, skipped: &[usize]) -> Result<(), String> {
    let mut world = World::new();
    // The recordings say it: these ran with local DNS on, those with a config server as well.
    world.director.local_dns = name.starts_with("dns-") || name.starts_with("variables-");
    world.variables.available = name.starts_with("variables-");
    for ip in HELD_BEFORE.iter().filter(|(scenario, _)| *scenario == name).flat_map(|(_, ips)| *ips) {
        world.hold(ip);
    }
    compile_what_was_compiled_before(&mut world, scenario);
    let mut labels = Labels::default();
    for (at, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let action = step["action"].as_str().unwrap_or_default();
        if !step["cloud_config"].is_null() {
            world.put_config("cloud", "default", step["cloud_config"].to_string());
        }
        for (_, _, name, value) in SECRETS.iter().filter(|s| (s.0, s.1) == (name, at)) {
            world.put_secret(name, value);
        }
        if skipped.contains(&at) {
            compare::remember_vms(&mut labels, &step["outcome"]);
            continue;
        }
        run_step(&mut world, &mut labels, step, action)
            .map_err(|why| format!("step {at} ({action}): {why}"))?;
    }
    Ok(())
}

/// The recorded director had compiled packages in earlier scenarios: all but those that this one compiles.
fn compile_what_was_compiled_before(world: &mut World, scenario: &Value) {
    let mut later = BTreeSet::new();
    for step in scenario["steps"].as_array().unwrap() {
        let versions: Vec<&Value> =
            step["manifest"]["stemcells"].as_array().into_iter().flatten().map(|s| &s["version"]).collect();
        for event in step["outcome"]["event_log"].as_array().into_iter().flatten() {
            if event["stage"] == "Compiling packages" {
                for version in &versions {
                    let newest =
                        if version.as_str() == Some("latest") { "1.1" } else { version.as_str().unwrap() };
                    later.insert((event["task"].as_str().unwrap().to_owned(), newest.to_owned()));
                }
            }
        }
    }
    let all: Vec<_> = world.stemcells.iter().map(|s| s.stemcell.clone()).collect();
    for (key, stemcell) in
        fixture::packages(&world.releases).into_iter().flat_map(|k| all.iter().map(move |s| (k.clone(), s)))
    {
        let label = format!("{}/{}", key.name, key.fingerprint);
        if later.contains(&(label, stemcell.version.to_string())) {
            continue;
        }
        let key =
            PackageRefKey { os: stemcell.os.clone(), stemcell_version: stemcell.version.clone(), ..key };
        world.compiled.push(CompiledPackage {
            key,
            build: 1,
            blob: "b".into(),
            digest: String::new(),
            size_bytes: 1,
        });
    }
}

fn run_step(world: &mut World, labels: &mut Labels, step: &Value, action: &str) -> Result<(), String> {
    if !step["runtime_config"].is_null() {
        let name = step["name"].as_str().unwrap_or("default");
        world.put_config("runtime", name, step["runtime_config"].to_string());
        return Ok(());
    }
    if let Some(slug) = action.strip_prefix("ignore ") {
        let (group, index) = slug.split_once('/').unwrap();
        for instance in &mut world.instances {
            if instance.spec.group.as_str() == group && instance.spec.index.to_string() == index {
                instance.ignore = true;
            }
        }
        return Ok(());
    }
    let Some(request) = parse_request(step) else { return Ok(()) };
    let faults = faults(world, action, step);
    let parallel = step["manifest"].to_string().contains("\"serial\":false");
    let sequence = if parallel { Sequence::Parallel } else { Sequence::Serial };
    let before = Snapshot::of(world);
    let failing = if action.contains("failing") { faults.failing.clone() } else { Vec::new() };
    let view = world.view(&request.deployment, &failing);
    let outcome = match plan(world, &view, step, &request) {
        Ok(plan) if request.options.dry_run => Outcome { plan: Some(plan), ..Outcome::default() },
        Ok(plan) => {
            let performed = perform(world, &plan, &faults);
            Outcome { error: performed.error.clone(), plan: Some(plan), performed }
        }
        Err(error) => Outcome { error: Some(error), ..Outcome::default() },
    };
    compare::outcome(world, &before, labels, &request.deployment, &step["outcome"], &outcome, sequence)
}

/// What came of a step.
#[derive(Default)]
pub struct Outcome {
    pub error: Option<TaskError>,
    pub plan: Option<Plan>,
    pub performed: Performed,
}

/// The world before a step: which agent belonged to whom.
pub struct Snapshot {
    pub agents: BTreeMap<AgentId, InstanceId>,
}

impl Snapshot {
    fn of(world: &World) -> Self {
        Self { agents: world.vms.iter().map(|v| (v.agent.clone(), v.instance.clone())).collect() }
    }
}

fn faults(world: &World, action: &str, step: &Value) -> Faults {
    let mut faults = Faults::default();
    let message = step["outcome"]["error"]["message"].as_str().unwrap_or_default();
    if action.starts_with("g/2 ") {
        faults.failing =
            world.instances.iter().filter(|i| i.spec.index == 2).map(|i| i.spec.id.clone()).collect();
    }
    if message.contains("no room") {
        faults.no_room.push("h".into());
    }
    faults
}

fn plan(world: &World, view: &View, step: &Value, request: &Request) -> Result<Plan, TaskError> {
    let facts = view.facts();
    if request.delete {
        return scheduler::plan_delete_deployment(&world.director, &facts, Deletion::Orderly);
    }
    let manifest = match &step["manifest"] {
        Value::Null => view.record.as_ref().map(|r| r.manifest_text.clone()).unwrap_or_default(),
        manifest => manifest.to_string(),
    };
    let input = PlanInput {
        director: &world.director,
        deployment: facts,
        manifest_text: &manifest,
        options: &request.options,
        change: request.change.as_ref().map(|(change, filter)| (*change, filter)),
        configs: &world.configs,
        addresses: &world.addresses,
        releases: &world.releases,
        stemcells: &world.stemcells,
        compiled: &world.compiled,
        others: &view.others,
        teams: &[],
        variables: &world.variables,
    };
    let draft = scheduler::draft(&input)?;
    let rendered = draft.to_render().map(|spec| (spec.id.clone(), render(spec))).collect();
    scheduler::plan(&input, &draft, &rendered)
}

fn parse_request(step: &Value) -> Option<Request> {
    let (method, target) = step["request"].as_str()?.split_once(' ')?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|p| p.split_once('=')).collect();
    let flag = |key: &str| query.get(key) == Some(&"true");
    let options = DeployOptions {
        recreate: flag("recreate"),
        dry_run: flag("dry_run"),
        fix: flag("fix"),
        max_in_flight: query.get("max_in_flight").map(|s| (*s).to_owned()),
        ..DeployOptions::default()
    };
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let change = (method == "PUT").then(|| {
        let part = |at: usize| parts.get(at).copied().filter(|p| *p != "*").map(str::to_owned);
        let filter = InstanceFilter { group: part(3).map(GroupName::new), id_or_index: part(4) };
        let change = match query["state"] {
            "started" => StateChange::Become(InstanceState::Started),
            "stopped" => StateChange::Become(InstanceState::Stopped),
            "detached" => StateChange::Become(InstanceState::Detached),
            "restart" => StateChange::Restart,
            "recreate" => StateChange::Recreate,
            other => panic!("state {other}"),
        };
        (change, filter)
    });
    let name = match &step["manifest"]["name"] {
        Value::String(name) => name.as_str(),
        _ => parts.get(1).copied().unwrap_or("p"),
    };
    if !matches!(method, "POST" | "PUT" | "DELETE") {
        return None;
    }
    Some(Request { deployment: name.into(), options, change, delete: method == "DELETE" })
}
