//! What must hold in the end, once everything was mended and every deployment is where it should be.

use std::collections::BTreeSet;

use checkers::history::Recorder;
use checkers::linearizable::register::Call;
use checkers::linearizable::{self, Limits};
use checkers::watch::{self, Seen, Watcher};
use model::{DeploymentName, DiskCid, Revision, VmCid};
use state::State;
use state::log::CommandLog as _;
use state::records::Latecomer;

use crate::services::Replica;
use crate::workload::{self, AT_REST, DEPLOYMENTS, INSTANCES};
use crate::world::World;

fn replicas(world: &World) -> Vec<Replica> {
    world.machines.values().filter_map(|machine| machine.slot.replica()).collect()
}

/// What was applied in the same order is the same, row by row.
pub fn states(world: &World) {
    let replicas = replicas(world);
    let rows = |replica: &Replica| -> Vec<_> {
        replica.node.view().scan(b"", None, raft::Direction::Forward).collect()
    };
    let Some(first) = replicas.first() else { return };
    for other in &replicas[1..] {
        let (ours, theirs) = (rows(first), rows(other));
        if ours != theirs {
            let differs = ours.iter().zip(&theirs).find(|(a, b)| a != b).map(|(a, _)| &a.0);
            world.observer.complain(format!("two states differ, first at key {differs:02x?}"));
        }
    }
}

/// The cloud has what the state knows, and nothing else that is on no list; no lock is left.
pub fn cloud(world: &World) {
    let Some(replica) = replicas(world).into_iter().next() else { return };
    let view = replica.log.view();
    let state = State::new(&*view);
    let complain = |complaint: String| world.observer.complain(complaint);
    let (vms, disks) = claimed(&state);
    let late = state.latecomers();
    let leaks = state.leaks().into_iter().chain(late.iter().map(Latecomer::as_leak));
    let leaks: Vec<String> = leaks.map(|leak| leak.what).collect();
    let listed = |id: &str| leaks.iter().any(|leak| leak.contains(id));
    let cloud = world.cloud.cloud();
    for (cid, vm) in &cloud.vms {
        if !vms.contains(cid) && !listed(cid.as_str()) && !listed(vm.request.agent_id.as_str()) {
            complain(format!("VM {cid} is nobody's, and on no list"));
        }
    }
    for (cid, disk) in &cloud.disks {
        if !disks.contains(cid) && !listed(cid.as_str()) && !listed(disk.request.disk_id.as_str()) {
            complain(format!("disk {cid} is nobody's, and on no list"));
        }
    }
    for cid in vms.iter().filter(|cid| !cloud.vms.contains_key(*cid)) {
        complain(format!("VM {cid} is known, and is not there"));
    }
    for cid in disks.iter().filter(|cid| !cloud.disks.contains_key(*cid)) {
        complain(format!("disk {cid} is known, and is not there"));
    }
    for lock in state.locks() {
        complain(format!("{} is still held by task {}", lock.name, lock.holder));
    }
    for deployment in DEPLOYMENTS.into_iter().chain([AT_REST]) {
        let instances = state.instances(&DeploymentName::new(deployment)).len();
        if instances as u64 != INSTANCES {
            complain(format!("{deployment} has {instances} instances instead of {INSTANCES}"));
        }
    }
}

/// Returns the VMs and disks that the state knows somebody's or nobody's to be.
fn claimed(state: &State<'_>) -> (BTreeSet<VmCid>, BTreeSet<DiskCid>) {
    let (mut vms, mut disks) = (BTreeSet::new(), BTreeSet::new());
    for deployment in state.deployments() {
        for instance in state.instances(&deployment.name) {
            vms.extend(state.vms(&instance.spec.id).into_iter().filter_map(|vm| vm.cid));
            disks.extend(state.disks(&instance.spec.id).into_iter().filter_map(|disk| disk.cid));
        }
    }
    vms.extend(state.orphaned_vms().into_iter().filter_map(|orphan| orphan.vm.cid));
    disks.extend(state.orphaned_disks().into_iter().filter_map(|orphan| orphan.disk.cid));
    (vms, disks)
}

/// Some order explains what everybody saw of the registers.
pub fn registers(world: &World, registers: &Recorder<Call>) {
    let observer = &world.observer;
    match registers.history() {
        Ok(history) => {
            let found = linearizable::check(&history, Limits::default());
            found.violations.iter().for_each(|violation| observer.complain(violation.to_string()));
            found.undecided.iter().for_each(|what| observer.complain(format!("undecided: {what}")));
        }
        Err(error) => observer.complain(format!("what the clients wrote down is no history: {error}")),
    }
}

/// Everybody who watched was told everything, in order, once; and so is who reads on any replica what it still keeps.
pub fn watches(world: &World, mut watchers: Vec<Watcher>) {
    for (number, replica) in world.machines.iter().filter_map(|(n, m)| Some((n, m.slot.replica()?))) {
        let view = replica.log.view();
        let (state, applied) = (State::new(&*view), replica.node.view().applied_index());
        let after = state.changes_since(Revision(0), 1).err().map_or(0, |compacted| compacted.oldest.0 - 1);
        let changes = state.changes_since(Revision(after), usize::MAX).unwrap_or_default();
        let changes = changes.into_iter().map(workload::change).collect();
        let seen = vec![Seen::Opened { after: Some(after) }, Seen::Message { complete_to: applied, changes }];
        watchers.push(Watcher { name: format!("replica {number}, afterwards"), seen });
    }
    let found = watch::check(&watchers, &world.changes, None);
    found.violations.iter().for_each(|violation| world.observer.complain(format!("watches: {violation}")));
    found.undecided.iter().for_each(|what| world.observer.complain(format!("undecided: {what}")));
}
