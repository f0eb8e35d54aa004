//! What the cloud was asked and what it has, beside what the fleet believes. The simulated cloud has a record of every
//! call; of the local one we see what it has.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use checkers::deeds::{self, Call, Claim, Effect, Final, Kind, Thing};
use checkers::{Findings, Report, locks};
use cpi_sim::{Entry, Record};
use dctl::call;
use model::Epoch;
use proto::v1::disks_client::DisksClient;
use proto::v1::dynamic_disks_client::DynamicDisksClient;
use proto::v1::{Instance, ListDynamicDisksRequest, ListOrphanedDisksRequest};

use super::instances;
use crate::client::{Client, page};
use crate::cluster::{Cluster, SETTLE};

/// The lock that all deeds in the cloud are done under: being the leader.
const LEADERSHIP: &str = "the cloud";

/// Pause between looks at a fleet that has not cleared up yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Judges instances and deeds, once the fleet has had time to clear up what it knows of.
pub(super) async fn check(cluster: &Cluster) -> Result<Vec<Report>> {
    let client = cluster.client()?;
    let begun = Instant::now();
    loop {
        // First what the fleet believes: what it makes after that is there, and claimed by nobody we know of. Then again.
        let all = all_instances(&client).await?;
        let believed = believed(&client, &all).await?;
        let mut reports = vec![instances::check(&all)];
        if cluster.is_simulated() {
            let record = cluster.sim().control().record().await?;
            reports.push(deeds::check(&calls(&record), &with_present(believed, &record)).report("deeds"));
            reports.push(leadership(&record).report("leadership"));
        } else {
            reports.push(of_local(cluster.cloud_root(), believed)?);
        }
        if reports.iter().all(Report::holds) || begun.elapsed() > SETTLE {
            return Ok(reports);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn all_instances(client: &Client) -> Result<Vec<Instance>> {
    let mut all = Vec::new();
    for deployment in client.deployments().await? {
        all.extend(client.instances(&deployment).await?);
    }
    Ok(all)
}

/// Reads what the fleet believes to have.
async fn believed(client: &Client, instances: &[Instance]) -> Result<Final> {
    let mut end = Final { claims: instances.iter().flat_map(claims).collect(), ..Final::default() };
    for vm in client.orphaned_vms().await? {
        match vm.cid.as_str() {
            // Nobody knows whether it is there; whoever finds it knows by this name whose it was.
            "" => end.leaks.push(format!("orphaned VM of agent {}", vm.agent_id)),
            _ => drop(end.orphans.insert(Thing { kind: Kind::Vm, id: vm.cid })),
        }
    }
    let disks = call!(client.fleet, DisksClient.list_orphaned(ListOrphanedDisksRequest { page: page() }));
    end.orphans.extend(disks.await?.disks.into_iter().map(|disk| Thing { kind: Kind::Disk, id: disk.cid }));
    let dynamic = call!(client.fleet, DynamicDisksClient.list(ListDynamicDisksRequest { page: page() }));
    let made = dynamic.await?.disks.into_iter().filter(|disk| !disk.cid.is_empty());
    end.claims.extend(made.map(|disk| Claim {
        thing: Thing { kind: Kind::Disk, id: disk.cid },
        by: format!("dynamic disk {}", disk.name),
        intent: None,
    }));
    end.leaks.extend(client.leaks().await?.into_iter().map(|leak| leak.what));
    Ok(end)
}

fn claims(instance: &Instance) -> Vec<Claim> {
    let by = instances::name(instance);
    let claim =
        |kind, id: &str, intent| Claim { thing: Thing { kind, id: id.into() }, by: by.clone(), intent };
    let vm = Some(instance.vm_cid.as_str()).filter(|cid| !cid.is_empty());
    let vm = vm.map(|cid| claim(Kind::Vm, cid, Some(instance.agent_id.clone())));
    vm.into_iter().chain(instance.disk_cids.iter().map(|cid| claim(Kind::Disk, cid, None))).collect()
}

/// Judges what the local cloud has: a folder for each thing. How it came there is not recorded, so what is there counts
/// as made.
fn of_local(root: &Path, believed: Final) -> Result<Report> {
    let mut present = BTreeMap::new();
    for (kind, folder) in [(Kind::Vm, "vms"), (Kind::Disk, "disks")] {
        let folder = root.join(folder);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let id = entry?.file_name().into_string().ok().context("the cloud's names are UTF-8")?;
            present.insert(Thing { kind, id }, None);
        }
    }
    let made = |thing: &Thing| Call {
        at_us: 0,
        method: String::new(),
        request_id: None,
        intent: None,
        is_late: false,
        effect: Effect::Made(thing.clone()),
    };
    let calls: Vec<Call> = present.keys().map(made).collect();
    Ok(deeds::check(&calls, &Final { present, ..believed }).report("deeds"))
}

fn with_present(mut end: Final, record: &Record) -> Final {
    let vm = |(cid, agent): (&model::VmCid, &model::AgentId)| {
        (Thing { kind: Kind::Vm, id: cid.to_string() }, Some(agent.to_string()))
    };
    let disk = |(cid, disk): (&model::DiskCid, &model::DiskId)| {
        (Thing { kind: Kind::Disk, id: cid.to_string() }, Some(disk.to_string()))
    };
    end.present = record.vms.iter().map(vm).chain(record.disks.iter().map(disk)).collect();
    end
}

fn calls(record: &Record) -> Vec<Call> {
    let effect = |entry: &Entry| {
        let thing = |kind, id: String| Thing { kind, id };
        match &entry.effect {
            cpi_sim::Effect::None => Effect::None,
            cpi_sim::Effect::MadeVm(cid) => Effect::Made(thing(Kind::Vm, cid.to_string())),
            cpi_sim::Effect::DeletedVm(cid) => Effect::Deleted(thing(Kind::Vm, cid.to_string())),
            cpi_sim::Effect::MadeDisk(cid) => Effect::Made(thing(Kind::Disk, cid.to_string())),
            cpi_sim::Effect::DeletedDisk(cid) => Effect::Deleted(thing(Kind::Disk, cid.to_string())),
        }
    };
    let call = |entry: &Entry| Call {
        at_us: entry.at_us,
        method: entry.method.clone(),
        request_id: entry.request_id.as_ref().map(ToString::to_string),
        intent: entry.method.starts_with("create_").then(|| entry.object.clone()),
        // The cloud's own calls are those that it is late with.
        is_late: entry.request_id.is_none(),
        effect: effect(entry),
    };
    record.entries.iter().map(call).collect()
}

/// Nothing is done in the cloud by a leader whose successor has done something there.
fn leadership(record: &Record) -> Findings<locks::Violation> {
    let mut events = Vec::new();
    let mut leads: Option<Epoch> = None;
    for entry in &record.entries {
        let Some(epoch) = entry.epoch else { continue };
        let by = locks::Token { task: 0, epoch: epoch.0 };
        let event = |what| locks::Event { at_us: entry.at_us, lock: LEADERSHIP.into(), by, what };
        if leads.is_none_or(|leads| leads < epoch) {
            leads = Some(epoch);
            events.push(event(locks::What::Taken));
        }
        if !entry.is_fenced {
            events.push(event(locks::What::Deed(format!("{} {}", entry.method, entry.object))));
        }
    }
    let mut found = locks::check(&events, |_| locks::Order::InLine);
    let refused = record.entries.iter().filter(|entry| entry.is_fenced).count();
    found.looked_at.push(("late calls that the cloud refused", refused));
    if record.lost > 0 {
        found.undecided.push(format!("{} calls were not recorded", record.lost));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(method: &str, epoch: u64, object: &str, effect: cpi_sim::Effect) -> Entry {
        Entry {
            at_us: 0,
            method: method.into(),
            request_id: Some("r".into()),
            epoch: Some(Epoch(epoch)),
            object: object.into(),
            effect,
            is_fenced: false,
            error: None,
        }
    }

    fn record(entries: Vec<Entry>) -> Record {
        Record { entries, ..Record::default() }
    }

    #[test]
    fn what_is_made_is_made_for_the_agent_and_the_disk_that_the_call_names() {
        let made = record(vec![
            entry("create_vm", 1, "agent-1", cpi_sim::Effect::MadeVm("vm-1".into())),
            entry("create_disk", 1, "d-1", cpi_sim::Effect::MadeDisk("disk-1".into())),
            entry("delete_vm", 1, "vm-1", cpi_sim::Effect::DeletedVm("vm-1".into())),
        ]);
        let (vm, disk) =
            (Thing { kind: Kind::Vm, id: "vm-1".into() }, Thing { kind: Kind::Disk, id: "disk-1".into() });
        let told: Vec<_> = calls(&made).into_iter().map(|call| (call.intent, call.effect)).collect();
        let intent = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                (intent("agent-1"), Effect::Made(vm.clone())),
                (intent("d-1"), Effect::Made(disk)),
                (None, Effect::Deleted(vm)),
            ]
        );
    }

    #[test]
    fn a_vm_that_the_cloud_has_and_nobody_claims_is_a_leak() {
        let entries = vec![entry("create_vm", 1, "agent-1", cpi_sim::Effect::MadeVm("vm-1".into()))];
        let record = Record { entries, vms: [("vm-1".into(), "agent-1".into())].into(), ..Record::default() };
        let found = deeds::check(&calls(&record), &with_present(Final::default(), &record));
        let thing = Thing { kind: Kind::Vm, id: "vm-1".into() };
        assert_eq!(found.violations, [deeds::Violation::Leaked { thing, intent: Some("agent-1".into()) }]);
    }

    #[test]
    fn a_leader_does_nothing_after_the_next_one_began_unless_it_was_refused() {
        let by = |epoch| entry("attach_disk", epoch, "disk-1", cpi_sim::Effect::None);
        assert!(leadership(&record(vec![by(1), by(1), by(3)])).holds());
        let late = leadership(&record(vec![by(1), by(3), by(1)]));
        let successor = locks::Token { task: 0, epoch: 3 };
        let deed = "attach_disk disk-1".to_owned();
        let wrong: Vec<_> = late.violations.into_iter().map(|violation| violation.what).collect();
        assert_eq!(wrong, [locks::Wrong::DeedAfterSuccessor { deed, successor }]);
        let refused = Entry { is_fenced: true, ..by(1) };
        let refused = leadership(&record(vec![by(1), by(3), refused]));
        assert!(refused.holds());
        assert_eq!(refused.looked_at.last(), Some(&("late calls that the cloud refused", 1)));
    }

    #[test]
    fn a_record_with_calls_left_out_decides_nothing() {
        assert!(!leadership(&Record { lost: 1, ..Record::default() }).holds());
    }
}
