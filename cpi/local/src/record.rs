//! What the cloud remembers of each object. Records of earlier versions stay readable: only optional fields are added.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cpi_api::Metadata;
use model::{AgentId, DiskCid, DiskId, SnapshotCid, SnapshotId, StemcellCid, VmCid};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::process::ProcessId;
use crate::rung::Rung;

/// How far a VM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VmState {
    /// Being made. If nobody holds its lock, its maker has died: what there is of it is removed.
    Creating,
    /// There.
    Running,
    /// Being removed. If nobody holds its lock, whoever comes next goes on.
    Deleting,
}

/// A VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub cid: VmCid,
    pub agent: AgentId,
    /// SHA-256 of the token that its agent got; none in records of earlier versions.
    #[serde(default)]
    pub token_digest: Option<String>,
    pub state: VmState,
    /// How it is isolated; decided once, at its creation.
    pub rung: Rung,
    pub stemcell: StemcellCid,
    /// Every address that is its own.
    pub addresses: Vec<IpAddr>,
    /// Its place in the networks.
    pub links: Vec<Link>,
    pub limits: Limits,
    pub publish: Vec<Publish>,
    pub metadata: Metadata,
    /// Disks attached, in order of attachment.
    pub disks: Vec<DiskCid>,
    /// Where the agent of a machine has its connections opened; none for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
    /// The processes that hold it up; none while it is off.
    pub processes: Option<VmProcesses>,
}

/// One address with its surroundings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub ip: IpAddr,
    /// Length of the subnet's mask.
    pub prefix_bits: u8,
    pub gateway: Option<IpAddr>,
    /// Whether the way out of the VM goes through this gateway.
    pub is_default: bool,
}

/// A port of the VM that the host's loopback offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// Port on the host's 127.0.0.1.
    pub host_port: u16,
    /// Port in the VM.
    pub port: u16,
}

/// The processes that hold a VM up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmProcesses {
    /// Started by us; ends after everything else.
    pub supervisor: ProcessId,
    /// The first process inside, as the host counts; the supervisor itself where there is no inside.
    pub init: ProcessId,
}

/// A persistent disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DiskRecord {
    pub cid: DiskCid,
    pub id: DiskId,
    pub size_mib: u64,
    pub kind: DiskKind,
    pub attached_to: Option<VmCid>,
    pub metadata: Metadata,
}

/// What a disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiskKind {
    /// A directory: VMs that are only processes use it as it is, VMs without root mount it. Nothing holds it to its size.
    Directory,
    /// A file with an ext4 file system, offered as a loop device.
    Image,
}

/// A copy of a disk as it once was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub cid: SnapshotCid,
    pub id: SnapshotId,
    /// The disk, which may be gone.
    pub disk: DiskCid,
    pub kind: DiskKind,
    pub metadata: Metadata,
}

/// A stemcell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StemcellRecord {
    pub kind: StemcellKind,
    pub tags: BTreeMap<String, String>,
}

/// What a stemcell is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StemcellKind {
    /// The host's own files, below a writable layer.
    Host,
    /// An unpacked root file system.
    Tar,
}
