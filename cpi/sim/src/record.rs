//! What the cloud was asked, what it did then, and what is there: for whoever judges afterwards. Callers may have heard
//! something else, or nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallContext, CpiError, CpiErrorKind};
use model::{
    AgentId, DiskCid, DiskId, Epoch, RequestId, SnapshotCid, SnapshotId, SubnetCid, SubnetId, VmCid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most entries that are kept: hours of a busy fleet, some tens of MB.
const ENTRIES_MAX: usize = 100_000;

/// A call that arrived at the cloud itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it took effect, from the cloud's beginning on.
    pub at_us: u64,
    /// Its method.
    pub method: String,
    /// The caller's name for it; none for one that the cloud does late, by itself.
    pub request_id: Option<RequestId>,
    /// The epoch of the leader that called.
    pub epoch: Option<Epoch>,
    /// What it is about: an id of ours or of the cloud.
    pub object: String,
    /// What changed.
    pub effect: Effect,
    /// Whether it was refused because its epoch is over.
    pub is_fenced: bool,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What came or went by a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No VM and no disk.
    None,
    /// This VM is there now.
    MadeVm(VmCid),
    /// This VM is not there any more.
    DeletedVm(VmCid),
    /// This disk is there now.
    MadeDisk(DiskCid),
    /// This disk is not there any more.
    DeletedDisk(DiskCid),
}

/// Everything that a judge wants to know of a cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The calls, in the order in which they took effect.
    pub entries: Vec<Entry>,
    /// How many calls came when no more were kept.
    pub lost: u64,
    /// The VMs that are there, with the agent that each was made for.
    pub vms: BTreeMap<VmCid, AgentId>,
    /// The disks that are there, with our own name for each.
    pub disks: BTreeMap<DiskCid, DiskId>,
    /// The snapshots that are there, with our own name for each.
    #[serde(default)]
    pub snapshots: BTreeMap<SnapshotCid, SnapshotId>,
    /// The networks that were made and are there, with our own name for each.
    #[serde(default)]
    pub networks: BTreeMap<SubnetCid, SubnetId>,
}

/// The calls until now.
pub(crate) struct Recorder {
    begun: Instant,
    entries: Vec<Entry>,
    lost: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), entries: Vec::new(), lost: 0 }
    }

    /// Returns the record, with what is there now.
    pub(crate) fn record(&self, cloud: &MemoryCloud) -> Record {
        let vms = cloud.vms.iter().map(|(cid, vm)| (cid.clone(), vm.request.agent_id.clone()));
        let disks = cloud.disks.iter().map(|(cid, disk)| (cid.clone(), disk.request.disk_id.clone()));
        let snapshots = cloud.snapshots.iter().map(|(cid, taken)| (cid.clone(), taken.snapshot_id.clone()));
        let networks = cloud.networks.iter().map(|(cid, net)| (cid.clone(), net.request.subnet_id.clone()));
        Record {
            entries: self.entries.clone(),
            lost: self.lost,
            vms: vms.collect(),
            disks: disks.collect(),
            snapshots: snapshots.collect(),
            networks: networks.collect(),
        }
    }

    /// Lets a call take effect, and notes which it had.
    pub(crate) fn perform(
        &mut self,
        cloud: &mut MemoryCloud,
        context: Option<&CallContext>,
        call: Call,
    ) -> Result<Value, CpiError> {
        let (method, object) = (call.method().to_owned(), call.object().to_owned());
        let (vms, disks) = (cloud.vms.len(), cloud.disks.len());
        let subject = match &call {
            Call::DeleteVm(cid) => Effect::DeletedVm(cid.clone()),
            Call::DeleteDisk(cid) => Effect::DeletedDisk(cid.clone()),
            _ => Effect::None,
        };
        // What the cloud does late it does by itself: nobody's call, under nobody's epoch.
        let answer = match context {
            Some(_) => cloud.perform(context, call),
            None => cloud.perform_late(call),
        };
        let told = answer.as_ref().ok();
        let effect = if cloud.vms.len() > vms {
            told.and_then(|value| value["cid"].as_str())
                .map_or(Effect::None, |cid| Effect::MadeVm(cid.into()))
        } else if cloud.disks.len() > disks {
            told.and_then(Value::as_str).map_or(Effect::None, |cid| Effect::MadeDisk(cid.into()))
        } else if cloud.vms.len() < vms || cloud.disks.len() < disks {
            subject
        } else {
            Effect::None
        };
        let error = answer.as_ref().err();
        self.push(Entry {
            at_us: u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            method,
            request_id: context.map(|c| c.request_id.clone()),
            epoch: context.map(|c| c.epoch),
            object,
            effect,
            is_fenced: error.is_some_and(|error| error.kind == CpiErrorKind::Fenced),
            error: error.map(ToString::to_string),
        });
        answer
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(entry);
        } else {
            self.lost += 1;
        }
    }
}
