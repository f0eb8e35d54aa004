//! Runs one scenario: every step is planned and carried out on a world that lives through the whole scenario.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::Plan;
use model::release::CompiledPackage;
use model::step::PackageRefKey;
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskError};
use model::{instance::InstanceState, *};
use scheduler::input::{Deletion, DrainMode, StateChangeRequest};
use serde_json::Value;

use super::compare::{self, Labels, Sequence, list};
use super::fixture;
use super::perform::{Performed, perform};
use super::recorded;
use super::render::render;
use super::world::{View, World};

/// What a request asks for.
struct Request {
    deployment: DeploymentName,
    options: DeployOptions,
    change: Option<Change>,
    delete: bool,
}

/// A change of state.
struct Change {
    change: StateChange,
    filter: InstanceFilter,
    max_in_flight: Option<String>,
}

/// How a scenario went.
pub struct Verdict {
    /// Which step differs and how, if one does.
    pub agreement: Result<(), String>,
    /// The steps that were left out and would have agreed.
    pub left_out_in_vain: Vec<usize>,
}

/// Runs a scenario without the steps that are left out. Those are tried aside, where they change nothing.
pub fn run(scenario: &Value, left_out: &[usize]) -> Verdict {
    let mut left_out_in_vain = Vec::new();
    let agreement = run_steps(scenario, left_out, &mut left_out_in_vain);
    Verdict { agreement, left_out_in_vain }
}

fn run_steps(scenario: &Value, left_out: &[usize], in_vain: &mut Vec<usize>) -> Result<(), String> {
    let steps = list(&scenario["steps"]);
    let mut world = World::new();
    world.director.local_dns = recorded::has_local_dns(steps);
    world.variables.available = recorded::has_config_server(steps);
    for ip in recorded::held_by_others(steps) {
        world.hold(ip);
    }
    compile_what_was_compiled_before(&mut world, scenario);
    let mut labels = Labels::default();
    let mut cloud_config = &Value::Null;
    for (at, step) in steps.iter().enumerate() {
        let action = step["action"].as_str().unwrap_or_default();
        if !step["cloud_config"].is_null() {
            cloud_config = &step["cloud_config"];
            world.put_config("cloud", "default", cloud_config.to_string());
        }
        let deployment = parse_request(step).map(|r| r.deployment).unwrap_or_default();
        world.variables.rotated.clear();
        for (name, value) in recorded::secrets(steps, at, cloud_config, deployment.as_str()) {
            world.put_secret(&name, value);
        }
        for (resources, properties) in recorded::sizes(step) {
            world.vm_properties.insert((CpiName::default(), resources), properties);
        }
        if left_out.contains(&at) {
            if run_step(&mut world.clone(), &mut labels.clone(), step, action).is_ok() {
                in_vain.push(at);
            }
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
    let trouble = recorded::trouble(world, &request.deployment, step);
    let parallel = step["manifest"].to_string().contains("\"serial\":false");
    let sequence = if parallel { Sequence::Parallel } else { Sequence::Serial };
    let before = Snapshot::of(world);
    let view = world.view(&request.deployment, &trouble.failing_before);
    let outcome = match plan(world, &view, step, &request) {
        Ok(plan) if request.options.dry_run => Outcome { plan: Some(plan), ..Outcome::default() },
        Ok(plan) => {
            let plan = world.with_snapshots(plan);
            let performed = perform(world, &plan, &trouble.faults);
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

fn plan(world: &World, view: &View, step: &Value, request: &Request) -> Result<Plan, TaskError> {
    let facts = view.facts();
    if request.delete {
        return scheduler::plan_delete_deployment(&world.director, &facts, Deletion::Orderly);
    }
    let change = request.change.as_ref().map(|change| StateChangeRequest {
        change: change.change,
        filter: &change.filter,
        drain: DrainMode::Drain,
        max_in_flight: change.max_in_flight.as_deref(),
        canaries: None,
        created_before: None,
    });
    let (manifest, options) = match &change {
        Some(change) => (scheduler::stored_manifest(&facts)?, change.options()),
        None => (step["manifest"].to_string(), request.options.clone()),
    };
    let mut input = view.input(world, &manifest, &options);
    input.change = change.as_ref();
    let draft = scheduler::draft(&input)?;
    let numbers = draft.unnumbered.iter().cloned().zip(1..).collect();
    input.dns_numbers = &numbers;
    let draft = if draft.unnumbered.is_empty() { draft } else { scheduler::draft(&input)? };
    let rendered = draft.to_render().map(|spec| (spec.id.clone(), render(spec, world))).collect();
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
        Change { change, filter, max_in_flight: query.get("max_in_flight").map(|s| (*s).to_owned()) }
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
