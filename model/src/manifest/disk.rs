//! Persistent disks of an instance group: one that is mounted, or several by name.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::group::duplicates;
use crate::cloud_config::DiskType;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields, inspect};
use crate::ids::DiskName;
use crate::instance::DiskSpec;
use crate::task::TaskError;

const KEYS: [&str; 3] = ["persistent_disk", "persistent_disk_type", "persistent_disks"];

type DiskTypes = BTreeMap<String, DiskType>;

/// The longest name that a file can have: jobs find a disk under its name.
const NAME_BYTES_MAX: usize = 255;

/// The disks of each instance of a group.
#[derive(Default)]
pub(super) struct GroupDisks {
    /// The one that is mounted.
    pub(super) mounted: Option<DiskSpec>,
    /// Those that are attached and nothing else, in the order of their names.
    pub(super) named: Vec<DiskSpec>,
}

impl GroupDisks {
    pub(super) fn parse(fields: &Fields<'_>, group: &str, types: &DiskTypes) -> Checked<Self> {
        let size = fields.integer_opt("persistent_disk")?;
        if fields.has("persistent_disk_pool") {
            return Err(TaskError::new(
                ErrorCode::V1DeprecatedDiskPools,
                format!(
                    "Instance group '{group}' specifies 'persistent_disk_pool', which is no longer supported"
                ),
            ));
        }
        if KEYS.into_iter().filter(|key| fields.has(key)).count() > 1 {
            return Err(invalid(format!(
                "Instance group '{group}' specifies more than one of the following keys: 'persistent_disk', 'persistent_disk_type', and 'persistent_disks'. Choose one."
            )));
        }
        if let Some(size) = size {
            return Ok(Self { mounted: of_size(size, group)?, named: Vec::new() });
        }
        if let Some(name) = fields.text_opt("persistent_disk_type")? {
            let mounted = of_type(&name, find_type(&name, group, types)?);
            return Ok(Self { mounted, named: Vec::new() });
        }
        let named = named(fields.list_or_empty("persistent_disks")?, group, types)?;
        Ok(Self { mounted: None, named })
    }
}

fn invalid(message: String) -> TaskError {
    TaskError::new(ErrorCode::InstanceGroupInvalidPersistentDisk, message)
}

fn of_size(size: i64, group: &str) -> Checked<Option<DiskSpec>> {
    let size_mib = u64::try_from(size).map_err(|_| {
        invalid(format!("Instance group '{group}' references an invalid persistent disk size '{size}'"))
    })?;
    let cloud_properties = Value::Object(Map::new());
    Ok((size_mib > 0).then_some(DiskSpec { size_mib, disk_type: None, cloud_properties, name: None }))
}

fn find_type<'a>(name: &str, group: &str, types: &'a DiskTypes) -> Checked<&'a DiskType> {
    types.get(name).ok_or_else(|| {
        TaskError::new(
            ErrorCode::InstanceGroupUnknownDiskType,
            format!("Instance group '{group}' references an unknown disk type '{name}'"),
        )
    })
}

/// A type of size zero means no disk at all.
fn of_type(name: &str, disk_type: &DiskType) -> Option<DiskSpec> {
    (disk_type.size_mib > 0).then(|| DiskSpec {
        size_mib: disk_type.size_mib,
        disk_type: Some(name.to_owned()),
        cloud_properties: disk_type.cloud_properties.clone(),
        name: None,
    })
}

fn named(items: &[Value], group: &str, types: &DiskTypes) -> Checked<Vec<DiskSpec>> {
    let mut disks = Vec::with_capacity(items.len());
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        names.push(Fields::of(item)?.text_opt("name")?.unwrap_or_default());
    }
    if let Some(name) = duplicates(names.iter().map(String::as_str)) {
        return Err(invalid(format!(
            "Instance group '{group}' has more than one disk '{name}' in 'persistent_disks'"
        )));
    }
    for (item, name) in items.iter().zip(names) {
        let of = Fields::of(item)?.text_opt("type")?.unwrap_or_default();
        let disk_type = find_type(&of, group, types)?;
        check_name(&name, item, group)?;
        let disk = of_type(&of, disk_type);
        disks.extend(disk.map(|disk| DiskSpec { name: Some(DiskName::new(name)), ..disk }));
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

/// The agent makes a link of that name, so that it must be one of a file.
fn check_name(name: &str, item: &Value, group: &str) -> Checked<()> {
    if name.trim().is_empty() {
        return Err(invalid(format!(
            "Instance group '{group}' has a disk without a name in 'persistent_disks': {}",
            inspect(item)
        )));
    }
    if name.starts_with('.') || name.contains(['/', '\0']) || name.len() > NAME_BYTES_MAX {
        return Err(invalid(format!(
            "Instance group '{group}' calls a disk '{name}' in 'persistent_disks', which cannot be the name of a file"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(document: &Value) -> Checked<GroupDisks> {
        let of = |name: &str, size_mib, cloud_properties| {
            (name.to_owned(), DiskType { name: name.to_owned(), size_mib, cloud_properties })
        };
        let types = DiskTypes::from([
            of("fast", 10, json!({"kind": "ssd"})),
            of("large", 5000, json!({})),
            of("none", 0, json!({})),
        ]);
        GroupDisks::parse(&Fields::of(document).unwrap(), "g", &types)
    }

    fn shown(disks: Value) -> String {
        let disks = parse(&json!({ "persistent_disks": disks })).unwrap();
        assert_eq!(disks.mounted, None);
        let one = |disk: &DiskSpec| {
            let name = disk.name.as_ref().map_or("-", |name| name.as_str());
            format!("{name}={}M {}", disk.size_mib, disk.cloud_properties)
        };
        disks.named.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn refusal(disks: Value) -> (u32, String) {
        let error = parse(&json!({ "persistent_disks": disks })).err().unwrap();
        (error.code, error.message)
    }

    #[test]
    fn each_disk_is_of_its_own_type_and_their_order_does_not_matter() {
        let disks = json!([{"name": "wal", "type": "fast"}, {"name": "data", "type": "large"}]);
        assert_eq!(shown(disks), r#"data=5000M {}, wal=10M {"kind":"ssd"}"#);
        assert_eq!(shown(json!([])), "");
        assert_eq!(shown(json!([{"name": "n", "type": "none"}])), "", "of size zero");
    }

    #[test]
    fn what_is_no_set_of_disks_is_refused() {
        let twice = json!([{"name": "d", "type": "fast"}, {"name": "d", "type": "large"}]);
        assert_eq!(refusal(twice).0, 140013);
        for name in [json!(""), json!(" "), json!("a/b"), json!(".."), json!("x".repeat(256))] {
            assert_eq!(refusal(json!([{"name": name, "type": "fast"}])).0, 140013, "{name}");
        }
        assert_eq!(refusal(json!([{"type": "fast"}])).0, 140013);
        let (code, message) = refusal(json!([{"name": "d", "type": "tape"}]));
        assert_eq!((code, message.contains("unknown disk type 'tape'")), (140012, true), "{message}");
        assert_eq!(refusal(json!([{"name": "d"}])).0, 140012);
        assert_eq!(refusal(json!({"name": "d"})).0, 40000);
        assert_eq!(refusal(json!(["d"])).0, 40000);
    }

    #[test]
    fn there_is_one_way_to_ask_for_disks() {
        let disks = json!([{"name": "d", "type": "fast"}]);
        let both = [
            json!({"persistent_disk": 10, "persistent_disks": disks}),
            json!({"persistent_disk_type": "fast", "persistent_disks": disks}),
            json!({"persistent_disk": 10, "persistent_disk_type": "fast"}),
        ];
        for document in both {
            assert_eq!(parse(&document).err().unwrap().code, 140013, "{document}");
        }
        let mounted = parse(&json!({"persistent_disk_type": "fast"})).unwrap().mounted.unwrap();
        assert!(mounted.is_mounted() && mounted.size_mib == 10);
    }
}
