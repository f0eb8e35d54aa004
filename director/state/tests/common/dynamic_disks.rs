//! Commands about dynamic disks.

use model::dynamic_disk::DynamicDisk;
use model::*;
use serde_json::json;
use state::command::Command;
use state::records::DynamicDeed;

use super::EPOCH;

/// A dynamic disk of deployment `web` that has not been made.
pub fn dynamic_disk() -> DynamicDisk {
    DynamicDisk {
        name: "data".into(),
        id: "id-data".into(),
        cid: None,
        task: TaskId(0),
        created_at: Timestamp(0),
        deployment: "web".into(),
        az: Some("z1".into()),
        cpi: CpiName::default(),
        size_mib: 512,
        disk_type: "small".into(),
        cloud_properties: json!({"kind": "ssd"}),
        metadata: [("owner".to_owned(), "csi".into())].into(),
        attached: None,
    }
}

/// It is about to be made near a VM.
pub fn dynamic_make(agent: &str) -> DynamicDeed {
    DynamicDeed::Make { disk: Box::new(dynamic_disk()), beside: agent.into() }
}

/// A task does something with it.
pub fn dynamic_deed(task: TaskId, deed: DynamicDeed) -> Command {
    Command::DynamicDisk { task, epoch: EPOCH, name: "data".into(), deed }
}
