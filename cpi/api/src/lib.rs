//! The seam to a cloud: the [`Cpi`] trait, one fake and one conformance suite.
//!
//! No caller asks which implementation it has. Not here: retries, rate limits and the recording of intents, which are
//! the executor's. Beyond BOSH's contract the trait can find what a lost answer left behind
//! ([`Cpi::find_vm`], [`Cpi::find_disk`], [`Cpi::find_snapshot`], [`Cpi::find_network`]); an implementation that can't tell says so.

mod call;
pub mod conformance;
mod error;
pub mod fake;
pub mod memory;
mod types;

use async_trait::async_trait;
use model::managed_network::MadeSubnet;
use model::*;
use serde_json::Value;

pub use call::{Call, CallPort};
pub use error::{CpiError, CpiErrorKind};
pub use types::*;

/// A cloud. Every call may be made for different objects at once; never two for the same VM.
///
/// Safe to cancel: dropping a call may leave its deed done or undone, never half visible to `find_*`.
#[async_trait]
pub trait Cpi: Send + Sync {
    /// Returns the contract version and stemcell formats. Cheap, no side effects.
    async fn info(&self) -> Result<CpiInfo, CpiError>;

    /// Registers a stemcell image. Not idempotent: a repeat may register a second one.
    async fn create_stemcell(
        &self,
        context: &CallContext,
        stemcell: CreateStemcell,
    ) -> Result<StemcellCid, CpiError>;
    /// Removes a stemcell; one that is gone counts as removed.
    async fn delete_stemcell(&self, context: &CallContext, cid: &StemcellCid) -> Result<(), CpiError>;

    /// Creates a VM tagged with `request.agent_id`, so that a later leader can find it again. A cloud that knows the agent
    /// has its VM already may answer with that, but only if it was made with the same token; else it refuses, as
    /// [`CpiError::made_by_another_call`] says.
    async fn create_vm(&self, context: &CallContext, request: CreateVm) -> Result<CreatedVm, CpiError>;
    /// Looks for VMs by the agent id they were created with, and returns all of them.
    async fn find_vm(&self, context: &CallContext, agent: &AgentId) -> Result<Found<VmCid>, CpiError>;
    /// Deletes a VM, detaching its disks and never deleting them; one that is gone counts as deleted.
    async fn delete_vm(&self, context: &CallContext, cid: &VmCid) -> Result<(), CpiError>;
    /// Returns whether the VM exists.
    async fn has_vm(&self, context: &CallContext, cid: &VmCid) -> Result<bool, CpiError>;
    /// Reboots a VM. Idempotent as far as a reboot can be.
    async fn reboot_vm(&self, context: &CallContext, cid: &VmCid) -> Result<(), CpiError>;
    /// Replaces the VM's metadata. Idempotent.
    async fn set_vm_metadata(
        &self,
        context: &CallContext,
        cid: &VmCid,
        metadata: &Metadata,
    ) -> Result<(), CpiError>;
    /// Translates wanted sizes into this cloud's properties. No side effects.
    async fn calculate_vm_cloud_properties(
        &self,
        context: &CallContext,
        sizes: VmSizes,
    ) -> Result<Value, CpiError>;

    /// Creates a disk tagged with `request.disk_id`.
    async fn create_disk(&self, context: &CallContext, request: CreateDisk) -> Result<DiskCid, CpiError>;
    /// Looks for disks by the id they were created with, and returns all of them.
    async fn find_disk(&self, context: &CallContext, disk: &DiskId) -> Result<Found<DiskCid>, CpiError>;
    /// Deletes a disk; one that is gone counts as deleted.
    async fn delete_disk(&self, context: &CallContext, cid: &DiskCid) -> Result<(), CpiError>;
    /// Returns whether the disk exists.
    async fn has_disk(&self, context: &CallContext, cid: &DiskCid) -> Result<bool, CpiError>;
    /// Attaches a disk; attaching it again to the same VM returns the same hint.
    async fn attach_disk(
        &self,
        context: &CallContext,
        vm: &VmCid,
        disk: &DiskCid,
    ) -> Result<DiskHint, CpiError>;
    /// Detaches a disk; one that is not attached counts as detached.
    async fn detach_disk(&self, context: &CallContext, vm: &VmCid, disk: &DiskCid) -> Result<(), CpiError>;
    /// Replaces the disk's metadata. Idempotent.
    async fn set_disk_metadata(
        &self,
        context: &CallContext,
        disk: &DiskCid,
        metadata: &Metadata,
    ) -> Result<(), CpiError>;
    /// Grows a detached disk. Idempotent. [`CpiErrorKind::NotImplemented`] makes the caller copy instead.
    async fn resize_disk(&self, context: &CallContext, disk: &DiskCid, size_mib: u64)
    -> Result<(), CpiError>;

    /// Takes a snapshot of a disk, attached or not, tagged with `request.snapshot_id`. It outlives the disk. Of a disk that
    /// is written to meanwhile it is what a power cut would have left, or less, as the cloud can.
    /// [`CpiErrorKind::NotImplemented`] makes the caller go on without one.
    async fn snapshot_disk(
        &self,
        context: &CallContext,
        request: SnapshotDisk,
    ) -> Result<SnapshotCid, CpiError>;
    /// Looks for snapshots by the id they were taken with, and returns all of them.
    async fn find_snapshot(
        &self,
        context: &CallContext,
        snapshot: &SnapshotId,
    ) -> Result<Found<SnapshotCid>, CpiError>;
    /// Deletes a snapshot; one that is gone counts as deleted.
    async fn delete_snapshot(&self, context: &CallContext, cid: &SnapshotCid) -> Result<(), CpiError>;

    /// Makes a network of one range, tagged with `request.subnet_id`, and says which addresses it has. A cloud that can
    /// search answers a repeat with what is there. [`CpiErrorKind::NotImplemented`]: its networks are made by people.
    async fn create_network(
        &self,
        context: &CallContext,
        request: CreateNetwork,
    ) -> Result<MadeSubnet, CpiError>;
    /// Looks for networks by the id they were made with, and returns all of them.
    async fn find_network(
        &self,
        context: &CallContext,
        subnet: &SubnetId,
    ) -> Result<Found<MadeSubnet>, CpiError>;
    /// Deletes a network; one that is gone counts as deleted. Nobody lives in it any more.
    async fn delete_network(&self, context: &CallContext, cid: &SubnetCid) -> Result<(), CpiError>;
}
