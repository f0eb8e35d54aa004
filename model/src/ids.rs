//! Names and numbers that identify things. One newtype each, so that a VM's id can never be passed as a disk's.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps `text` as it is; where a syntax is demanded, the parser of the document has checked it.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+};
}

macro_rules! number_ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Returns the next id, for counters.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

text_ids! {
    /// A deployment's name.
    DeploymentName,
    /// An instance group's name.
    GroupName,
    /// An instance's UUID, for life.
    InstanceId,
    /// An agent's UUID: one per VM ever created.
    AgentId,
    /// The cloud's id of a VM. Opaque: may hold any character.
    VmCid,
    /// The cloud's id of a persistent disk. Opaque.
    DiskCid,
    /// Our UUID of a persistent disk, chosen by the plan before the cloud gives its own.
    DiskId,
    /// What the manifest calls one of several disks of an instance.
    DiskName,
    /// What whoever had it made calls a dynamic disk.
    DynamicDiskName,
    /// The cloud's id of a snapshot of a persistent disk. Opaque.
    SnapshotCid,
    /// Our UUID of a snapshot, chosen by the plan before the cloud gives its own.
    SnapshotId,
    /// The cloud's id of a subnet that directors have had made. Opaque.
    SubnetCid,
    /// Our UUID of such a subnet, chosen before the cloud gives its own.
    SubnetId,
    /// The cloud's id of a stemcell. Opaque.
    StemcellCid,
    /// A CPI's name in the cpi-config; empty for the default one.
    CpiName,
    /// An availability zone's name.
    AzName,
    /// A network's name.
    NetworkName,
    /// A release's name.
    ReleaseName,
    /// A release's or stemcell's version text.
    Version,
    /// A job's name.
    JobName,
    /// A package's name.
    PackageName,
    /// A job's or package's fingerprint.
    Fingerprint,
    /// The SHA-256 of a blob's content, 64 lower-case hex digits: the blob's address.
    BlobDigest,
    /// A user's or client's name.
    UserName,
    /// A client's idempotency key for one mutation.
    RequestId,
    /// A lock's name, visible to operators (`lock:deployment:web`).
    LockName,
    /// A variable's absolute name (`/director/deployment/name`).
    VariableName,
}

number_ids! {
    /// A replica's number in the cluster.
    NodeId(u64),
    /// A task's number.
    TaskId(u64),
    /// A unit of work's number within its plan.
    UnitNo(u32),
    /// A leader's epoch: the term of the committed vote under which it leads.
    Epoch(u64),
    /// A position in the history of the state: the index of the log entry that made the change.
    Revision(u64),
    /// An audit event's number.
    EventId(u64),
    /// A stored config's number.
    ConfigId(u64),
    /// A problem's number: what a scan of a deployment has found.
    ProblemId(u64),
    /// A variable set's number: which version of each variable a deploy saw.
    VariableSetId(u64),
    /// The number of a link that is offered.
    LinkProviderId(u64),
    /// The number of a link that is wanted.
    LinkConsumerId(u64),
    /// The number of a link that is there.
    LinkId(u64),
}

/// A step's place: the unit and the position within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepNo {
    /// The unit that the step belongs to.
    pub unit: UnitNo,
    /// The step's position in the unit, from 0.
    pub index: u32,
}

impl fmt::Display for StepNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.unit, self.index)
    }
}

/// Milliseconds since the Unix epoch, as stamped by a proposer. Pure code receives it and never asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns whole seconds since the Unix epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}
