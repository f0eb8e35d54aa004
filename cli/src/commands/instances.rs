//! Instances, their wanted state, and orphans.

use proto::v1::change_state_request::Change as WireChange;
use proto::v1::disks_client::DisksClient;
use proto::v1::instances_client::InstancesClient;
use proto::v1::*;
use serde_json::{Value, json};

use super::deployments::{self, parse_json, selector};
use super::{ALL, Context, pages};
use crate::args::{ChangeState, InstanceSlug, ListInstances, Recreate, Stop, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Format, Listing, column};
use crate::error::Error;

const INSTANCES: &[Column] = &[
    column("Instance", "instance"),
    column("Process state", "process_state"),
    column("AZ", "az"),
    column("IPs", "ips"),
    column("Deployment", "deployment"),
    column("", "group"),
    column("", "id"),
    column("Index", "index"),
    column("", "bootstrap"),
    column("Wanted", "wanted_state"),
    column("VM CID", "vm_cid"),
    column("VM type", "vm_type"),
    column("Disk CIDs", "disk_cids"),
    column("", "agent_id"),
    column("Ignore", "ignore"),
    column("", "update_completed"),
    column("", "lifecycle"),
    column("", "processes"),
    column("", "vitals"),
];

const PROCESSES: &[Column] = &[
    column("Instance", "instance"),
    column("Process", "process"),
    column("State", "state"),
    column("AZ", "az"),
    column("IPs", "ips"),
];

const VITALS: &[Column] = &[
    column("Instance", "instance"),
    column("Process state", "process_state"),
    column("AZ", "az"),
    column("IPs", "ips"),
    column("Load (1m, 5m, 15m)", "load"),
    column("CPU user, sys, wait", "cpu"),
    column("Memory", "memory"),
    column("Swap", "swap"),
    column("System disk", "system_disk"),
    column("Ephemeral disk", "ephemeral_disk"),
    column("Persistent disk", "persistent_disk"),
];

pub(super) async fn list(context: &mut Context<'_>, args: ListInstances) -> Result<(), Error> {
    let deployments = match context.deployment_or_all() {
        name if !name.is_empty() => vec![name],
        _ => deployments::all(context).await?.rows.into_iter().map(|deployment| deployment.name).collect(),
    };
    let (mut instances, mut revision) = (Vec::new(), None);
    for deployment in deployments {
        let of_one = pages(ALL, async |page| {
            let request = ListInstancesRequest {
                deployment: deployment.clone(),
                vitals: args.vitals || args.ps,
                page: Some(page),
                freshness: Freshness::Linearizable.into(),
            };
            let answer = call!(context.fleet, InstancesClient.list(request)).await?;
            Ok((answer.instances, answer.next_page_token, answer.as_of_revision))
        });
        let found = of_one.await?;
        instances.extend(found.rows);
        revision.get_or_insert(found.revision);
    }
    // The directors list them by UUID; people look for a group, and an index in it.
    instances.sort_by(|a, b| (&a.deployment, &a.group, a.index).cmp(&(&b.deployment, &b.group, b.index)));
    if args.failing {
        instances.retain(is_failing);
    }
    // Programs get everything there is in one shape, whatever people asked to see.
    let listing = match (context.console.format, args.ps, args.vitals) {
        (Format::People, true, _) => processes(&instances),
        (Format::People, false, true) => vitals(&instances)?,
        _ => {
            let mut listing = Listing::new("instances", INSTANCES);
            for instance in instances {
                let vitals = parse_json(&instance.vitals_json, "an instance's vitals")?;
                listing.row(row(instance, vitals));
            }
            listing
        }
    };
    context.console.list(&match revision {
        Some(revision) => listing.as_of(revision),
        None => listing,
    })
}

fn is_failing(instance: &Instance) -> bool {
    // An instance that was stopped on purpose is as it should be.
    let wanted_up = instance.wanted_state == "started" && instance.lifecycle != "errand";
    let process_down = instance.processes.iter().any(|process| process.state != "running");
    wanted_up && (instance.process_state != "running" || process_down)
}

fn name(instance: &Instance) -> String {
    format!("{}/{}", instance.group, instance.id)
}

fn row(instance: Instance, vitals: Value) -> [Cell; 19] {
    let name = name(&instance);
    let processes: Value = instance
        .processes
        .into_iter()
        .map(|process| json!({ "name": process.name, "state": process.state }))
        .collect();
    [
        name.into(),
        Cell::State(instance.process_state),
        instance.az.into(),
        Cell::Lines(instance.ips),
        instance.deployment.into(),
        instance.group.into(),
        instance.id.into(),
        Cell::Number(instance.index.into()),
        Cell::Flag(instance.bootstrap),
        instance.wanted_state.into(),
        instance.vm_cid.into(),
        instance.vm_type.into(),
        Cell::Lines(instance.disk_cids),
        instance.agent_id.into(),
        Cell::Flag(instance.ignore),
        Cell::Flag(instance.update_completed),
        instance.lifecycle.into(),
        Cell::Both(String::new(), processes),
        Cell::Both(String::new(), vitals),
    ]
}

fn processes(instances: &[Instance]) -> Listing {
    let mut listing = Listing::new("lines", PROCESSES);
    for instance in instances {
        listing.row([
            name(instance).into(),
            Cell::None,
            Cell::State(instance.process_state.clone()),
            instance.az.clone().into(),
            Cell::Lines(instance.ips.clone()),
        ]);
        for process in &instance.processes {
            // Indented below its instance, with the rest of the line left empty.
            let blank = || Cell::Both(String::new(), Value::Null);
            let state = Cell::State(process.state.clone());
            listing.row([blank(), format!("  {}", process.name).into(), state, blank(), blank()]);
        }
    }
    listing
}

fn vitals(instances: &[Instance]) -> Result<Listing, Error> {
    let mut listing = Listing::new("instances", VITALS);
    for instance in instances {
        let vitals = parse_json(&instance.vitals_json, "an instance's vitals")?;
        listing.row([
            name(instance).into(),
            Cell::State(instance.process_state.clone()),
            instance.az.clone().into(),
            Cell::Lines(instance.ips.clone()),
            load(&vitals).into(),
            cpu(&vitals).into(),
            amount(&vitals["mem"]).into(),
            amount(&vitals["swap"]).into(),
            disk(&vitals["disk"]["system"]).into(),
            disk(&vitals["disk"]["ephemeral"]).into(),
            disk(&vitals["disk"]["persistent"]).into(),
        ]);
    }
    Ok(listing)
}

/// Returns a figure that BOSH's agents send as text or as a number.
fn figure(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_number().map(ToString::to_string))
}

fn load(vitals: &Value) -> String {
    let figures: Vec<String> = vitals["load"].as_array().into_iter().flatten().filter_map(figure).collect();
    figures.join(", ")
}

pub(super) fn cpu(vitals: &Value) -> String {
    let figures: Vec<String> =
        ["user", "sys", "wait"].iter().filter_map(|key| figure(&vitals["cpu"][key])).collect();
    figures.iter().map(|figure| format!("{figure}%")).collect::<Vec<_>>().join(", ")
}

pub(super) fn amount(value: &Value) -> String {
    match (figure(&value["percent"]), figure(&value["kb"]).and_then(|kb| kb.parse::<u64>().ok())) {
        (Some(percent), Some(kb)) => format!("{percent}% ({} MiB)", kb >> 10),
        _ => String::new(),
    }
}

fn disk(value: &Value) -> String {
    match (figure(&value["percent"]), figure(&value["inode_percent"])) {
        (Some(percent), Some(inodes)) => format!("{percent}% ({inodes}i%)"),
        (Some(percent), None) => format!("{percent}%"),
        _ => String::new(),
    }
}

/// What to do to instances, but for stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Start,
    Restart,
}

pub(super) async fn change(
    context: &mut Context<'_>,
    args: ChangeState,
    change: Change,
) -> Result<(), Error> {
    let change = match change {
        Change::Start => WireChange::Start,
        Change::Restart => WireChange::Restart,
    };
    send(context, args, change, Recreation::default()).await
}

/// What is said of recreations alone.
#[derive(Clone, Copy, Debug, Default)]
struct Recreation {
    /// Also if the agent in the old VM does not answer.
    fix: bool,
    /// Only of VMs that were made before this; 0: of all.
    created_before: i64,
}

pub(super) async fn recreate(context: &mut Context<'_>, args: Recreate) -> Result<(), Error> {
    let recreation =
        Recreation { fix: args.fix, created_before: args.vms_created_before.unwrap_or_default() };
    send(context, args.change, WireChange::Recreate, recreation).await
}

pub(super) async fn stop(context: &mut Context<'_>, args: Stop) -> Result<(), Error> {
    let change = if args.hard { WireChange::StopHard } else { WireChange::Stop };
    send(context, args.change, change, Recreation::default()).await
}

async fn send(
    context: &mut Context<'_>,
    args: ChangeState,
    change: WireChange,
    recreation: Recreation,
) -> Result<(), Error> {
    if let (true, Some(slug)) = (args.no_converge, &args.instances)
        && slug.id_or_index.is_empty()
    {
        return Err(Error::Usage(format!("which instance of `{}`? Give GROUP/ID", slug.group)));
    }
    let request = ChangeStateRequest {
        request_id: request_id(),
        deployment: context.deployment()?,
        change: change.into(),
        instances: args.instances.map(selector),
        skip_drain: args.skip_drain,
        max_in_flight: args.max_in_flight,
        canaries: args.canaries,
        no_converge: args.no_converge,
        ignore_unresponsive_agent: recreation.fix,
        dry_run: args.dry_run,
        vms_created_before_unix_ms: recreation.created_before,
    };
    let dry_run = request.dry_run;
    let started = call!(context.fleet, InstancesClient.change_state(request)).await?;
    if dry_run {
        return deployments::explain(context, started.task_id).await;
    }
    context.attend(started, args.wait).await
}

/// Whether deploys touch an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attention {
    Ignore,
    Heed,
}

pub(super) async fn ignore(
    context: &mut Context<'_>,
    slug: InstanceSlug,
    attention: Attention,
) -> Result<(), Error> {
    if slug.id_or_index.is_empty() {
        return Err(Error::Usage(format!("which instance of `{}`? Give GROUP/ID", slug.group)));
    }
    let ignore = attention == Attention::Ignore;
    let name = format!("{}/{}", slug.group, slug.id_or_index);
    let request = IgnoreRequest {
        request_id: request_id(),
        deployment: context.deployment()?,
        instance: Some(selector(slug)),
        ignore,
    };
    call!(context.fleet, InstancesClient.ignore(request)).await?;
    let text = if ignore { "is ignored by deploys" } else { "is no longer ignored" };
    context.console.say(&format!("Instance `{name}` {text}."), &json!({ "instance": name, "ignore": ignore }))
}

const ORPHANED_VMS: &[Column] = &[
    column("VM CID", "cid"),
    column("", "agent_id"),
    column("Deployment", "deployment"),
    column("Instance", "instance"),
    column("AZ", "az"),
    column("IPs", "ips"),
    column("Orphaned at", "orphaned_at"),
];

pub(super) async fn orphaned_vms(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListOrphanedVmsRequest { page: Some(page) };
        let answer = call!(context.fleet, InstancesClient.list_orphaned_vms(request)).await?;
        Ok((answer.vms, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("VMs", ORPHANED_VMS, found.rows, |vm| {
        [
            vm.cid.into(),
            vm.agent_id.into(),
            vm.deployment.into(),
            vm.instance.into(),
            vm.az.into(),
            Cell::Lines(vm.ips),
            Cell::Time(vm.orphaned_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

const DISKS: &[Column] = &[
    column("Disk CID", "cid"),
    column("", "id"),
    column("Size MiB", "size_mib"),
    column("Deployment", "deployment"),
    column("Instance", "instance"),
    column("AZ", "az"),
    column("Orphaned at", "orphaned_at"),
];

pub(super) async fn orphaned_disks(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListOrphanedDisksRequest { page: Some(page) };
        let answer = call!(context.fleet, DisksClient.list_orphaned(request)).await?;
        Ok((answer.disks, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("disks", DISKS, found.rows, |disk| {
        [
            disk.cid.into(),
            disk.id.into(),
            Cell::Number(disk.size_mib),
            disk.deployment.into(),
            disk.instance.into(),
            disk.az.into(),
            Cell::Time(disk.orphaned_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn delete_disk(context: &mut Context<'_>, cid: String) -> Result<(), Error> {
    // No CID at all would mean every old disk.
    if cid.is_empty() {
        return Err(Error::Usage("which disk? Give its CID".into()));
    }
    context.console.confirm(&format!("Delete disk `{cid}` and what is on it"))?;
    delete_disks(context, vec![cid]).await
}

async fn delete_disks(context: &mut Context<'_>, cids: Vec<String>) -> Result<(), Error> {
    let request = DeleteOrphanedDisksRequest { request_id: request_id(), cids };
    let started = call!(context.fleet, DisksClient.delete_orphaned(request)).await?;
    context.attend(started, Wait::default()).await
}
