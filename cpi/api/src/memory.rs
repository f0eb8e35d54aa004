//! A cloud that exists in memory only: what the fake and the simulated clouds are made of.
//!
//! Pure: no clock, no chance, no waiting. It is stricter than a real cloud, so that callers' mistakes show: an address
//! can't be given to two VMs, a disk can't be attached twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::ip::Block;
use model::managed_network::MadeSubnet;
use model::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Call, CallContext, CpiError, CpiErrorKind, CpiInfo, CreateDisk, CreateNetwork, CreateVm, Found, Metadata,
    SnapshotDisk,
};

/// A VM in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryVm {
    /// What it was created with.
    pub request: CreateVm,
    /// Metadata set last.
    pub metadata: Metadata,
    /// Disks attached now.
    pub disks: BTreeSet<DiskCid>,
    /// How often it was rebooted.
    pub reboots: u32,
}

/// A disk in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryDisk {
    /// What it was created with; the size follows `resize_disk`.
    pub request: CreateDisk,
    /// Metadata set last.
    pub metadata: Metadata,
    /// The VM it is attached to.
    pub attached_to: Option<VmCid>,
}

/// A network in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryNetwork {
    /// What it was made with.
    pub request: CreateNetwork,
    /// What its maker was told.
    pub made: MadeSubnet,
}

/// The whole cloud.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryCloud {
    /// The highest epoch heard from; calls of an older one are refused.
    pub epoch: Epoch,
    /// Stemcells by cid.
    pub stemcells: BTreeMap<StemcellCid, Metadata>,
    /// VMs by cid.
    pub vms: BTreeMap<VmCid, MemoryVm>,
    /// Disks by cid.
    pub disks: BTreeMap<DiskCid, MemoryDisk>,
    /// Snapshots by cid, with what they were taken with.
    #[serde(default)]
    pub snapshots: BTreeMap<SnapshotCid, SnapshotDisk>,
    /// Networks by cid.
    #[serde(default)]
    pub networks: BTreeMap<SubnetCid, MemoryNetwork>,
    /// How many networks were ever made: the source of their addresses.
    #[serde(default)]
    networks_ever: u8,
    /// VMs by address, for a quick look at create.
    addresses: BTreeMap<IpAddr, VmCid>,
    /// How many stemcells were ever registered: the source of their cids.
    stemcells_ever: u64,
    /// How many doubles were ever made: the source of their cids.
    doubles_ever: u64,
}

impl MemoryCloud {
    /// Carries out one call at once.
    pub fn perform(&mut self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        if let Some(context) = context {
            self.fence(context, method)?;
        }
        let done = || Ok(Value::Null);
        match call {
            Call::Info => Ok(json!(CpiInfo { api_version: 2, stemcell_formats: vec![] })),
            Call::CreateStemcell(stemcell) => {
                self.stemcells_ever += 1;
                let cid = StemcellCid::new(format!("stemcell-{}", self.stemcells_ever));
                self.stemcells.insert(cid.clone(), stemcell.tags);
                Ok(json!(cid))
            }
            Call::DeleteStemcell(cid) => {
                self.stemcells.remove(&cid);
                done()
            }
            Call::CreateVm(request) => self.create_vm(*request),
            Call::FindVm(agent) => {
                let of_agent = self.vms.iter().filter(|(_, vm)| vm.request.agent_id == agent);
                Ok(json!(Found::These(of_agent.map(|(cid, _)| cid).collect())))
            }
            Call::DeleteVm(cid) => {
                self.delete_vm(&cid);
                done()
            }
            Call::HasVm(cid) => Ok(json!(self.vms.contains_key(&cid))),
            Call::RebootVm(cid) => {
                self.vm(&cid, method)?.reboots += 1;
                done()
            }
            Call::SetVmMetadata(cid, metadata) => {
                self.vm(&cid, method)?.metadata = metadata;
                done()
            }
            Call::CalculateVmCloudProperties(sizes) => {
                Ok(json!({ "cpu": sizes.cpu, "memory_mib": sizes.ram_mib,
                "ephemeral_disk_mib": sizes.ephemeral_disk_mib }))
            }
            disk_call => self.perform_on_disk(disk_call),
        }
    }

    /// Carries out a call of which its caller was told nothing, and which others have given up: under no epoch, and without
    /// a look at what is there under the same id of ours. So a VM, a disk or a snapshot may come to be a second time.
    pub fn perform_late(&mut self, call: Call) -> Result<Value, CpiError> {
        match call {
            Call::CreateVm(request) if self.vms.contains_key(&vm_cid(&request.agent_id)) => {
                let cid = VmCid::new(self.double(vm_cid(&request.agent_id).as_str()));
                self.insert_vm(cid, *request)
            }
            Call::CreateDisk(request) if self.disks.contains_key(&disk_cid(&request.disk_id)) => {
                let cid = DiskCid::new(self.double(disk_cid(&request.disk_id).as_str()));
                Ok(self.insert_disk(cid, request))
            }
            Call::SnapshotDisk(request)
                if self.snapshots.contains_key(&snapshot_cid(&request.snapshot_id)) =>
            {
                let cid = SnapshotCid::new(self.double(snapshot_cid(&request.snapshot_id).as_str()));
                self.snapshot(cid, request)
            }
            other => self.perform(None, other),
        }
    }

    /// Returns a cid for another one of what is there already.
    fn double(&mut self, cid: &str) -> String {
        self.doubles_ever += 1;
        format!("{cid}-late-{}", self.doubles_ever)
    }

    fn perform_on_disk(&mut self, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        match call {
            Call::CreateDisk(request) => {
                let cid = disk_cid(&request.disk_id);
                if self.disks.contains_key(&cid) {
                    return Ok(json!(cid));
                }
                Ok(self.insert_disk(cid, request))
            }
            Call::FindDisk(id) => {
                let of_id = self.disks.iter().filter(|(_, disk)| disk.request.disk_id == id);
                Ok(json!(Found::These(of_id.map(|(cid, _)| cid).collect())))
            }
            Call::HasDisk(cid) => Ok(json!(self.disks.contains_key(&cid))),
            Call::DeleteDisk(cid) => self.delete_disk(&cid),
            Call::AttachDisk(vm, disk) => self.attach(&vm, &disk),
            Call::DetachDisk(vm, disk) => {
                self.detach(&vm, &disk);
                Ok(Value::Null)
            }
            Call::SetDiskMetadata(cid, metadata) => {
                self.disk(&cid, method)?.metadata = metadata;
                Ok(Value::Null)
            }
            Call::ResizeDisk(cid, size_mib) => self.resize(&cid, size_mib),
            Call::SnapshotDisk(request) => self.snapshot(snapshot_cid(&request.snapshot_id), request),
            Call::FindSnapshot(id) => {
                let of_id = self.snapshots.iter().filter(|(_, taken)| taken.snapshot_id == id);
                Ok(json!(Found::These(of_id.map(|(cid, _)| cid).collect())))
            }
            Call::DeleteSnapshot(cid) => {
                self.snapshots.remove(&cid);
                Ok(Value::Null)
            }
            other => self.perform_on_network(other),
        }
    }

    fn perform_on_network(&mut self, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        match call {
            Call::CreateNetwork(request) => self.create_network(request),
            Call::FindNetwork(id) => {
                let of_id = self.networks.values().filter(|network| network.request.subnet_id == id);
                Ok(json!(Found::These(of_id.map(|network| &network.made).collect())))
            }
            Call::DeleteNetwork(cid) => self.delete_network(&cid),
            other => {
                Err(CpiError::new(CpiErrorKind::NotImplemented, method, format!("no such call: {other:?}")))
            }
        }
    }

    fn fence(&mut self, context: &CallContext, method: &'static str) -> Result<(), CpiError> {
        if context.epoch < self.epoch {
            let message =
                format!("epoch {} is over: this cloud has heard from epoch {}", context.epoch, self.epoch);
            return Err(CpiError::new(CpiErrorKind::Fenced, method, message).for_request(&context.request_id));
        }
        self.epoch = context.epoch;
        Ok(())
    }

    fn vm(&mut self, cid: &VmCid, method: &'static str) -> Result<&mut MemoryVm, CpiError> {
        let missing =
            || CpiError::new(CpiErrorKind::VmNotFound, method, format!("VM `{cid}` does not exist"));
        self.vms.get_mut(cid).ok_or_else(missing)
    }

    fn disk(&mut self, cid: &DiskCid, method: &'static str) -> Result<&mut MemoryDisk, CpiError> {
        let missing =
            || CpiError::new(CpiErrorKind::DiskNotFound, method, format!("disk `{cid}` does not exist"));
        self.disks.get_mut(cid).ok_or_else(missing)
    }

    fn create_vm(&mut self, request: CreateVm) -> Result<Value, CpiError> {
        let cid = vm_cid(&request.agent_id);
        match self.vms.get(&cid) {
            Some(vm) if vm.request.bootstrap.token != request.bootstrap.token => {
                Err(CpiError::made_by_another_call("create_vm", &cid))
            }
            Some(_) => Ok(json!({ "cid": cid })),
            None => self.insert_vm(cid, request),
        }
    }

    fn insert_vm(&mut self, cid: VmCid, request: CreateVm) -> Result<Value, CpiError> {
        let refuse = |message: String| CpiError::new(CpiErrorKind::VmCreationFailed, "create_vm", message);
        if !self.stemcells.contains_key(&request.stemcell) {
            return Err(refuse(format!("stemcell `{}` does not exist", request.stemcell)));
        }
        let addresses: Vec<IpAddr> = request.networks.iter().filter_map(|n| n.ip).collect();
        // A double has the address of the first one: such a cloud gives what it is asked for.
        let is_anothers =
            |by: &VmCid| self.vms.get(by).is_some_and(|vm| vm.request.agent_id != request.agent_id);
        let taken =
            addresses.iter().find_map(|ip| Some((ip, self.addresses.get(ip).filter(|by| is_anothers(by))?)));
        if let Some((ip, by)) = taken {
            return Err(refuse(format!("address {ip} is in use by VM `{by}`")));
        }
        for ip in addresses {
            self.addresses.entry(ip).or_insert_with(|| cid.clone());
        }
        let fresh = MemoryVm { request, metadata: Metadata::new(), disks: BTreeSet::new(), reboots: 0 };
        self.vms.insert(cid.clone(), fresh);
        Ok(json!({ "cid": cid }))
    }

    fn insert_disk(&mut self, cid: DiskCid, request: CreateDisk) -> Value {
        let fresh = MemoryDisk { request, metadata: Metadata::new(), attached_to: None };
        self.disks.insert(cid.clone(), fresh);
        json!(cid)
    }

    fn delete_vm(&mut self, cid: &VmCid) {
        let Some(vm) = self.vms.remove(cid) else { return };
        let double = self.vms.iter().find(|(_, other)| other.request.agent_id == vm.request.agent_id);
        let double = double.map(|(cid, _)| cid.clone());
        for ip in vm.request.networks.iter().filter_map(|n| n.ip) {
            if self.addresses.get(&ip) != Some(cid) {
                continue;
            }
            match &double {
                Some(double) => drop(self.addresses.insert(ip, double.clone())),
                None => drop(self.addresses.remove(&ip)),
            }
        }
        for disk in vm.disks {
            if let Some(disk) = self.disks.get_mut(&disk) {
                disk.attached_to = None;
            }
        }
    }

    fn delete_disk(&mut self, cid: &DiskCid) -> Result<Value, CpiError> {
        if let Some(vm) = self.disks.get(cid).and_then(|d| d.attached_to.as_ref()) {
            let message = format!("disk `{cid}` is attached to VM `{vm}`");
            return Err(CpiError::new(CpiErrorKind::Other, "delete_disk", message));
        }
        self.disks.remove(cid);
        Ok(Value::Null)
    }

    fn attach(&mut self, vm: &VmCid, cid: &DiskCid) -> Result<Value, CpiError> {
        self.vm(vm, "attach_disk")?;
        let disk = self.disk(cid, "attach_disk")?;
        match &disk.attached_to {
            Some(other) if other != vm => {
                let message = format!("disk `{cid}` is attached to VM `{other}`");
                return Err(CpiError::new(CpiErrorKind::Other, "attach_disk", message));
            }
            _ => disk.attached_to = Some(vm.clone()),
        }
        self.vm(vm, "attach_disk")?.disks.insert(cid.clone());
        Ok(json!(format!("/dev/{cid}")))
    }

    fn detach(&mut self, vm: &VmCid, cid: &DiskCid) {
        let attached_here = self.vms.get_mut(vm).is_some_and(|vm| vm.disks.remove(cid));
        if attached_here && let Some(disk) = self.disks.get_mut(cid) {
            disk.attached_to = None;
        }
    }

    fn snapshot(&mut self, cid: SnapshotCid, request: SnapshotDisk) -> Result<Value, CpiError> {
        if !self.snapshots.contains_key(&cid) {
            self.disk(&request.disk, "snapshot_disk")?;
            self.snapshots.insert(cid.clone(), request);
        }
        Ok(json!(cid))
    }

    /// Takes the addresses that it is told, or chooses some; the second one is the gateway's, the third one its own.
    fn create_network(&mut self, request: CreateNetwork) -> Result<Value, CpiError> {
        let cid = SubnetCid::new(format!("network-{}", request.subnet_id));
        if let Some(network) = self.networks.get(&cid) {
            return Ok(json!(network.made));
        }
        let refuse = |what: String| CpiError::new(CpiErrorKind::Other, "create_network", what);
        self.networks_ever = self.networks_ever.wrapping_add(1);
        let bits = request.netmask_bits.unwrap_or(24);
        let range =
            request.range.clone().unwrap_or_else(|| format!("10.200.{}.0/{bits}", self.networks_ever));
        let (block, _) = Block::parse_cidr(&range).ok_or_else(|| refuse(format!("`{range}` is no range")))?;
        let address = |at| block.family.address(block.first + at).to_string();
        let mut cloud_properties = request.cloud_properties.clone();
        cloud_properties["network"] = json!(cid);
        let made = MadeSubnet {
            cid: cid.clone(),
            gateway: Some(request.gateway.clone().unwrap_or_else(|| address(1))),
            reserved: vec![address(2)],
            range,
            cloud_properties,
        };
        self.networks.insert(cid, MemoryNetwork { request, made: made.clone() });
        Ok(json!(made))
    }

    fn delete_network(&mut self, cid: &SubnetCid) -> Result<Value, CpiError> {
        let lives_in =
            |vm: &MemoryVm| vm.request.networks.iter().any(|n| n.cloud_properties["network"] == json!(cid));
        if let Some((vm, _)) = self.vms.iter().find(|(_, vm)| lives_in(vm)) {
            let message = format!("VM `{vm}` is in network `{cid}`");
            return Err(CpiError::new(CpiErrorKind::Other, "delete_network", message));
        }
        self.networks.remove(cid);
        Ok(Value::Null)
    }

    fn resize(&mut self, cid: &DiskCid, size_mib: u64) -> Result<Value, CpiError> {
        let disk = self.disk(cid, "resize_disk")?;
        let refuse = |message: String| Err(CpiError::new(CpiErrorKind::NotSupported, "resize_disk", message));
        if let Some(vm) = &disk.attached_to {
            return refuse(format!("disk `{cid}` is attached to VM `{vm}`"));
        }
        if size_mib < disk.request.size_mib {
            return refuse(format!(
                "disk `{cid}` has {} MiB and can't shrink to {size_mib}",
                disk.request.size_mib
            ));
        }
        disk.request.size_mib = size_mib;
        Ok(Value::Null)
    }
}

// Cids follow from our ids: that is what makes a repeated create, and a search after a lost answer, find the same thing.
fn vm_cid(agent: &AgentId) -> VmCid {
    VmCid::new(format!("vm-{agent}"))
}

fn disk_cid(disk: &DiskId) -> DiskCid {
    DiskCid::new(format!("disk-{disk}"))
}

fn snapshot_cid(snapshot: &SnapshotId) -> SnapshotCid {
    SnapshotCid::new(format!("snapshot-{snapshot}"))
}
