//! Dynamic disks: made, attached and deleted one by one by whoever asks for them by a name, beside what manifests say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::task::TaskError;

/// What is told of a disk to its cloud.
pub type DiskMetadata = BTreeMap<String, Value>;

/// The longest name of a dynamic disk, in characters.
const NAME_MAX: usize = 128;

/// The most that may be told of one, in bytes of JSON: it is kept, and listed.
const METADATA_MAX: usize = 16 << 10;

/// A dynamic disk. Its row comes before it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicDisk {
    /// What it is called, by whoever had it made: one name in the whole fleet.
    pub name: DynamicDiskName,
    /// Our id of it, by which clouds that can search find it again.
    pub id: DiskId,
    /// The cloud's id; none while nobody knows what came of its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<DiskCid>,
    /// The task that makes it.
    pub task: TaskId,
    /// When that began.
    pub created_at: Timestamp,
    /// The deployment to whose VMs it can be attached, and with which it goes.
    pub deployment: DeploymentName,
    /// The zone in which it is; none if the deployment has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub az: Option<AzName>,
    /// The CPI that makes it.
    pub cpi: CpiName,
    /// Size in MiB.
    pub size_mib: u64,
    /// The name of its disk type.
    pub disk_type: String,
    /// The disk type's cloud properties, placeholders unresolved.
    pub cloud_properties: Value,
    /// What was last told of it to its cloud.
    #[serde(default, skip_serializing_if = "DiskMetadata::is_empty")]
    pub metadata: DiskMetadata,
    /// The VM that has it, or may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<DynamicAttachment>,
}

/// Where a dynamic disk is attached. It is on record before the cloud is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicAttachment {
    /// The instance whose VM it is.
    pub instance: InstanceId,
    /// The VM, by its agent.
    pub agent: AgentId,
    /// The task that attaches it.
    pub task: TaskId,
    /// Where the VM finds it; none while nobody knows whether it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Value>,
}

/// A dynamic disk that somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicDiskWish {
    /// What it is to be called.
    pub name: DynamicDiskName,
    /// Its disk type, of the cloud config.
    pub disk_type: String,
    /// Size in MiB.
    pub size_mib: u64,
    /// What is told of it to its cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<DiskMetadata>,
}

impl DynamicDiskWish {
    /// Fails unless it can be made.
    pub fn check(&self) -> Result<(), TaskError> {
        check_name(&self.name)?;
        if self.size_mib < 1 {
            let text = format!("'disk_size' must be 1 at least, and is {}", self.size_mib);
            return Err(TaskError::new(ErrorCode::ValidationViolatedMin, text));
        }
        if self.disk_type.is_empty() {
            return Err(TaskError::new(ErrorCode::BadRequest, "'disk_pool_name' must not be empty"));
        }
        check_metadata(self.metadata.as_ref())
    }
}

/// Fails unless a dynamic disk can have this name: letters, digits, `-`, `_`, `.` and `:`, as names stand in URLs, locks and
/// clouds; and not `provide`, which stands in the place of a name in BOSH's API.
pub fn check_name(name: &DynamicDiskName) -> Result<(), TaskError> {
    let text = name.as_str();
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let is_path = text.chars().all(|c| c == '.') || text == "provide";
    if !is_path && text.chars().count() <= NAME_MAX && text.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = text.chars().take(NAME_MAX).collect();
    let text = format!(
        "'{shown}' can't be the name of a dynamic disk: those are made of up to {NAME_MAX} letters, digits, and '-', '_', \
         '.' and ':', and 'provide' is none"
    );
    Err(TaskError::new(ErrorCode::BadRequest, text))
}

/// Fails if more is told of a disk than can be kept.
pub fn check_metadata(metadata: Option<&DiskMetadata>) -> Result<(), TaskError> {
    let length = metadata.map_or(0, |metadata| serde_json::to_string(metadata).map_or(0, |text| text.len()));
    if length <= METADATA_MAX {
        return Ok(());
    }
    let text = format!("'metadata' may have {METADATA_MAX} bytes, and has {length}");
    Err(TaskError::new(ErrorCode::BadRequest, text))
}

/// Returns the lock under which a dynamic disk is worked on, by one task at a time.
pub fn lock(name: &DynamicDiskName) -> LockName {
    LockName::new(format!("lock:dynamic_disk:{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let longest = "x".repeat(NAME_MAX);
        for good in ["a", "pvc-1f.2_3:4", "..a", longest.as_str()] {
            assert_eq!(check_name(&good.into()), Ok(()), "{good}");
        }
        let too_long = "x".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "provide", "a/b", "a b", "ä", "a\n", too_long.as_str()] {
            let error = check_name(&bad.into()).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest.number(), "{bad}");
        }
    }

    #[test]
    fn wishes_have_a_size_and_a_type_and_little_to_tell() {
        let wish = DynamicDiskWish {
            name: "a".into(),
            disk_type: "small".into(),
            size_mib: 1,
            metadata: Some(DiskMetadata::from([("k".into(), "x".repeat(METADATA_MAX - 8).into())])),
        };
        assert_eq!(wish.check(), Ok(()));
        let bad = [
            (DynamicDiskWish { size_mib: 0, ..wish.clone() }, ErrorCode::ValidationViolatedMin),
            (DynamicDiskWish { disk_type: String::new(), ..wish.clone() }, ErrorCode::BadRequest),
            (DynamicDiskWish { name: "/".into(), ..wish.clone() }, ErrorCode::BadRequest),
            (
                DynamicDiskWish {
                    metadata: Some(DiskMetadata::from([("k".into(), "x".repeat(METADATA_MAX - 7).into())])),
                    ..wish
                },
                ErrorCode::BadRequest,
            ),
        ];
        for (wish, code) in bad {
            assert_eq!(wish.check().unwrap_err().code, code.number(), "{wish:?}");
        }
    }
}
