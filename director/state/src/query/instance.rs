//! Instances with their VMs, disks and addresses.

use std::net::IpAddr;

use model::instance::{Disk, Instance, Vm};
use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::*;
use crate::tables::*;

impl<'a> State<'a> {
    /// Returns the instances of a deployment, compilation workers included, by UUID.
    pub fn instances(&self, deployment: &DeploymentName) -> Vec<Instance> {
        let ids = INSTANCES_OF.rows_of(self.kv, deployment, Direction::Forward);
        ids.filter_map(|((_, id), ())| self.instance(&id)).collect()
    }

    /// Returns the instances of a deployment from a UUID on, as they are read.
    pub fn instances_from(
        &self,
        deployment: &DeploymentName,
        from: Option<&InstanceId>,
    ) -> impl Iterator<Item = Instance> + use<'a> {
        let (kv, of) = (self.kv, deployment.clone());
        let start = (of.clone(), from.cloned().unwrap_or_default());
        let ids = INSTANCES_OF.rows_from(kv, &start).take_while(move |((other, _), ())| *other == of);
        ids.filter_map(move |((_, id), ())| INSTANCES.get(kv, &id))
    }

    /// Returns an instance.
    pub fn instance(&self, id: &InstanceId) -> Option<Instance> {
        INSTANCES.get(self.kv, id)
    }

    /// Returns a VM by the agent inside.
    pub fn vm(&self, agent: &AgentId) -> Option<Vm> {
        VMS.get(self.kv, agent)
    }

    /// Returns all VMs of instances.
    pub fn all_vms(&self) -> Vec<Vm> {
        VMS.rows(self.kv, Direction::Forward).map(|(_, vm)| vm).collect()
    }

    /// Returns an instance's VMs; more than one only while VMs are being replaced.
    pub fn vms(&self, instance: &InstanceId) -> Vec<Vm> {
        let agents = VMS_OF.rows_of(self.kv, instance, Direction::Forward);
        agents.filter_map(|((_, agent), ())| self.vm(&agent)).collect()
    }

    /// Returns an instance's current VM.
    pub fn active_vm(&self, instance: &InstanceId) -> Option<Vm> {
        self.vms(instance).into_iter().find(|vm| vm.active)
    }

    /// Returns the VMs of a deployment's instances, by instance.
    pub fn deployment_vms(&self, deployment: &DeploymentName) -> Vec<Vm> {
        let ids = INSTANCES_OF.rows_of(self.kv, deployment, Direction::Forward);
        ids.flat_map(|((_, id), ())| self.vms(&id)).collect()
    }

    /// Returns a disk by our id.
    pub fn disk(&self, id: &DiskId) -> Option<Disk> {
        DISKS.get(self.kv, id)
    }

    /// Returns the disk with this id of its cloud's, if an instance has it. Looks through all.
    pub fn disk_by_cid(&self, cid: &DiskCid) -> Option<Disk> {
        let mut disks = DISKS.rows(self.kv, Direction::Forward).map(|(_, disk)| disk);
        disks.find(|disk| disk.cid.as_ref() == Some(cid))
    }

    /// Returns the VM with this id of its cloud's, if an instance has it. Looks through all.
    pub fn vm_by_cid(&self, cid: &VmCid) -> Option<Vm> {
        let mut vms = VMS.rows(self.kv, Direction::Forward).map(|(_, vm)| vm);
        vms.find(|vm| vm.cid.as_ref() == Some(cid))
    }

    /// Returns an instance's disks; more than one of the same name only while disks are being replaced.
    pub fn disks(&self, instance: &InstanceId) -> Vec<Disk> {
        let ids = DISKS_OF.rows_of(self.kv, instance, Direction::Forward);
        ids.filter_map(|((_, id), ())| self.disk(&id)).collect()
    }

    /// Returns the disks that no instance uses any more.
    pub fn orphaned_disks(&self) -> Vec<OrphanedDisk> {
        ORPHANED_DISKS.rows(self.kv, Direction::Forward).map(|(_, disk)| disk).collect()
    }

    /// Returns a disk that no instance uses any more.
    pub fn orphaned_disk(&self, id: &DiskId) -> Option<OrphanedDisk> {
        ORPHANED_DISKS.get(self.kv, id)
    }

    /// Returns the VMs that no instance uses any more.
    pub fn orphaned_vms(&self) -> Vec<OrphanedVm> {
        ORPHANED_VMS.rows(self.kv, Direction::Forward).map(|(_, vm)| vm).collect()
    }

    /// Returns a VM that no instance uses any more.
    pub fn orphaned_vm(&self, agent: &AgentId) -> Option<OrphanedVm> {
        ORPHANED_VMS.get(self.kv, agent)
    }

    /// Returns all held addresses in numeric order.
    pub fn addresses(&self) -> Vec<AddressRecord> {
        ADDRESSES.rows(self.kv, Direction::Forward).map(|(_, address)| address).collect()
    }

    /// Returns who holds an address.
    pub fn address(&self, ip: IpAddr) -> Option<AddressRecord> {
        ADDRESSES.get(self.kv, &ip)
    }

    /// Returns the addresses that an instance holds.
    pub fn instance_addresses(&self, instance: &InstanceId) -> Vec<AddressRecord> {
        let ips = ADDRESSES_OF.rows_of(self.kv, instance, Direction::Forward);
        ips.filter_map(|((_, ip), ())| self.address(ip)).collect()
    }
}
