//! A call to a cloud as a value, for implementations that pass calls on: to memory, through a socket, into a log.
//!
//! Whoever implements [`CallPort`] is a [`Cpi`]. Results travel as JSON, so that one function can carry all of them;
//! the types are checked again where the caller meets the trait.

use async_trait::async_trait;
use model::managed_network::MadeSubnet;
use model::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::*;

/// One call, with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is a method of `Cpi`, which says what it does")]
pub enum Call {
    Info,
    CreateStemcell(CreateStemcell),
    DeleteStemcell(StemcellCid),
    CreateVm(Box<CreateVm>),
    FindVm(AgentId),
    DeleteVm(VmCid),
    HasVm(VmCid),
    RebootVm(VmCid),
    SetVmMetadata(VmCid, Metadata),
    CalculateVmCloudProperties(VmSizes),
    CreateDisk(CreateDisk),
    FindDisk(DiskId),
    DeleteDisk(DiskCid),
    HasDisk(DiskCid),
    AttachDisk(VmCid, DiskCid),
    DetachDisk(VmCid, DiskCid),
    SetDiskMetadata(DiskCid, Metadata),
    ResizeDisk(DiskCid, u64),
    SnapshotDisk(SnapshotDisk),
    FindSnapshot(SnapshotId),
    DeleteSnapshot(SnapshotCid),
    CreateNetwork(CreateNetwork),
    FindNetwork(SubnetId),
    DeleteNetwork(SubnetCid),
}

impl Call {
    /// Returns the method's name, as BOSH and our logs write it.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::CreateStemcell(_) => "create_stemcell",
            Self::DeleteStemcell(_) => "delete_stemcell",
            Self::CreateVm(_) => "create_vm",
            Self::FindVm(_) => "find_vm",
            Self::DeleteVm(_) => "delete_vm",
            Self::HasVm(_) => "has_vm",
            Self::RebootVm(_) => "reboot_vm",
            Self::SetVmMetadata(..) => "set_vm_metadata",
            Self::CalculateVmCloudProperties(_) => "calculate_vm_cloud_properties",
            Self::CreateDisk(_) => "create_disk",
            Self::FindDisk(_) => "find_disk",
            Self::DeleteDisk(_) => "delete_disk",
            Self::HasDisk(_) => "has_disk",
            Self::AttachDisk(..) => "attach_disk",
            Self::DetachDisk(..) => "detach_disk",
            Self::SetDiskMetadata(..) => "set_disk_metadata",
            Self::ResizeDisk(..) => "resize_disk",
            Self::SnapshotDisk(_) => "snapshot_disk",
            Self::FindSnapshot(_) => "find_snapshot",
            Self::DeleteSnapshot(_) => "delete_snapshot",
            Self::CreateNetwork(_) => "create_network",
            Self::FindNetwork(_) => "find_network",
            Self::DeleteNetwork(_) => "delete_network",
        }
    }

    /// Returns the object that the call is about: an id of ours or of the cloud; empty where there is none.
    pub fn object(&self) -> &str {
        match self {
            Self::Info | Self::CreateStemcell(_) | Self::CalculateVmCloudProperties(_) => "",
            Self::DeleteStemcell(cid) => cid.as_str(),
            Self::CreateVm(request) => request.agent_id.as_str(),
            Self::FindVm(agent) => agent.as_str(),
            Self::DeleteVm(cid) | Self::HasVm(cid) | Self::RebootVm(cid) | Self::SetVmMetadata(cid, _) => {
                cid.as_str()
            }
            Self::CreateDisk(request) => request.disk_id.as_str(),
            Self::FindDisk(disk) => disk.as_str(),
            Self::DeleteDisk(cid)
            | Self::HasDisk(cid)
            | Self::AttachDisk(_, cid)
            | Self::DetachDisk(_, cid)
            | Self::SetDiskMetadata(cid, _)
            | Self::ResizeDisk(cid, _) => cid.as_str(),
            Self::SnapshotDisk(request) => request.snapshot_id.as_str(),
            Self::FindSnapshot(snapshot) => snapshot.as_str(),
            Self::DeleteSnapshot(cid) => cid.as_str(),
            Self::CreateNetwork(request) => request.subnet_id.as_str(),
            Self::FindNetwork(subnet) => subnet.as_str(),
            Self::DeleteNetwork(cid) => cid.as_str(),
        }
    }
}

/// Something that carries out or passes on calls. Same promises as [`Cpi`].
#[async_trait]
pub trait CallPort: Send + Sync {
    /// Carries out `call` and returns its result as JSON; `context` is absent for `info` alone.
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError>;
}

async fn ask<T: DeserializeOwned>(
    port: &(impl CallPort + ?Sized),
    context: Option<&CallContext>,
    call: Call,
) -> Result<T, CpiError> {
    let method = call.method();
    let answer = port.call(context, call).await?;
    serde_json::from_value(answer).map_err(|error| {
        CpiError::new(CpiErrorKind::InvalidResponse, method, format!("Invalid CPI response - {error}"))
    })
}

#[async_trait]
impl<P: CallPort> Cpi for P {
    async fn info(&self) -> Result<CpiInfo, CpiError> {
        ask(self, None, Call::Info).await
    }

    async fn create_stemcell(
        &self,
        context: &CallContext,
        stemcell: CreateStemcell,
    ) -> Result<StemcellCid, CpiError> {
        ask(self, Some(context), Call::CreateStemcell(stemcell)).await
    }

    async fn delete_stemcell(&self, context: &CallContext, cid: &StemcellCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DeleteStemcell(cid.clone())).await
    }

    async fn create_vm(&self, context: &CallContext, request: CreateVm) -> Result<CreatedVm, CpiError> {
        ask(self, Some(context), Call::CreateVm(Box::new(request))).await
    }

    async fn find_vm(&self, context: &CallContext, agent: &AgentId) -> Result<Found<VmCid>, CpiError> {
        ask(self, Some(context), Call::FindVm(agent.clone())).await
    }

    async fn delete_vm(&self, context: &CallContext, cid: &VmCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DeleteVm(cid.clone())).await
    }

    async fn has_vm(&self, context: &CallContext, cid: &VmCid) -> Result<bool, CpiError> {
        ask(self, Some(context), Call::HasVm(cid.clone())).await
    }

    async fn reboot_vm(&self, context: &CallContext, cid: &VmCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::RebootVm(cid.clone())).await
    }

    async fn set_vm_metadata(
        &self,
        context: &CallContext,
        cid: &VmCid,
        metadata: &Metadata,
    ) -> Result<(), CpiError> {
        ask(self, Some(context), Call::SetVmMetadata(cid.clone(), metadata.clone())).await
    }

    async fn calculate_vm_cloud_properties(
        &self,
        context: &CallContext,
        sizes: VmSizes,
    ) -> Result<Value, CpiError> {
        ask(self, Some(context), Call::CalculateVmCloudProperties(sizes)).await
    }

    async fn create_disk(&self, context: &CallContext, request: CreateDisk) -> Result<DiskCid, CpiError> {
        ask(self, Some(context), Call::CreateDisk(request)).await
    }

    async fn find_disk(&self, context: &CallContext, disk: &DiskId) -> Result<Found<DiskCid>, CpiError> {
        ask(self, Some(context), Call::FindDisk(disk.clone())).await
    }

    async fn delete_disk(&self, context: &CallContext, cid: &DiskCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DeleteDisk(cid.clone())).await
    }

    async fn has_disk(&self, context: &CallContext, cid: &DiskCid) -> Result<bool, CpiError> {
        ask(self, Some(context), Call::HasDisk(cid.clone())).await
    }

    async fn attach_disk(
        &self,
        context: &CallContext,
        vm: &VmCid,
        disk: &DiskCid,
    ) -> Result<DiskHint, CpiError> {
        ask(self, Some(context), Call::AttachDisk(vm.clone(), disk.clone())).await
    }

    async fn detach_disk(&self, context: &CallContext, vm: &VmCid, disk: &DiskCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DetachDisk(vm.clone(), disk.clone())).await
    }

    async fn set_disk_metadata(
        &self,
        context: &CallContext,
        disk: &DiskCid,
        metadata: &Metadata,
    ) -> Result<(), CpiError> {
        ask(self, Some(context), Call::SetDiskMetadata(disk.clone(), metadata.clone())).await
    }

    async fn resize_disk(
        &self,
        context: &CallContext,
        disk: &DiskCid,
        size_mib: u64,
    ) -> Result<(), CpiError> {
        ask(self, Some(context), Call::ResizeDisk(disk.clone(), size_mib)).await
    }

    async fn snapshot_disk(
        &self,
        context: &CallContext,
        request: SnapshotDisk,
    ) -> Result<SnapshotCid, CpiError> {
        ask(self, Some(context), Call::SnapshotDisk(request)).await
    }

    async fn find_snapshot(
        &self,
        context: &CallContext,
        snapshot: &SnapshotId,
    ) -> Result<Found<SnapshotCid>, CpiError> {
        ask(self, Some(context), Call::FindSnapshot(snapshot.clone())).await
    }

    async fn delete_snapshot(&self, context: &CallContext, cid: &SnapshotCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DeleteSnapshot(cid.clone())).await
    }
    async fn create_network(
        &self,
        context: &CallContext,
        request: CreateNetwork,
    ) -> Result<MadeSubnet, CpiError> {
        ask(self, Some(context), Call::CreateNetwork(request)).await
    }

    async fn find_network(
        &self,
        context: &CallContext,
        subnet: &SubnetId,
    ) -> Result<Found<MadeSubnet>, CpiError> {
        ask(self, Some(context), Call::FindNetwork(subnet.clone())).await
    }

    async fn delete_network(&self, context: &CallContext, cid: &SubnetCid) -> Result<(), CpiError> {
        ask(self, Some(context), Call::DeleteNetwork(cid.clone())).await
    }
}
