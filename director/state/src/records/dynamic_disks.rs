//! What is told of dynamic disks.

use model::dynamic_disk::{DiskMetadata, DynamicDisk};
use model::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is about to be done with a dynamic disk, or has been. Variants are only added at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum DynamicDeed {
    /// It is about to be made, near the VM of this agent. Task and time are the entry's. Refused if there is one of its name,
    /// also one of which nobody knows what came, and if that VM is not (or no more) one that an instance of its deployment
    /// works with.
    Make { disk: Box<DynamicDisk>, beside: AgentId },
    /// The cloud has made it.
    Made { id: DiskId, cid: DiskCid },
    /// There is none, never was or no more.
    Gone { id: DiskId },
    /// It could not be deleted with its deployment: it is an orphan from here on.
    Orphaned { id: DiskId },
    /// The cloud has been told this of it.
    Told { metadata: DiskMetadata },
    /// It is about to be attached to the VM of this agent. Refused unless an instance works with that VM, and while a task is
    /// about to take the VM away; if another VM has the disk, or may; and if it has not been made.
    Attach { agent: AgentId },
    /// The cloud has attached it, and says where the VM finds it. Refused if the VM has lost it meanwhile.
    Attached { agent: AgentId, hint: Value },
    /// That VM does not have it, never had it or has it no more.
    Detached { agent: AgentId },
}
