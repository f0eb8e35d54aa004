//! Between wire types and domain types, where several services need the same.

use model::ids::{ConfigId, Timestamp};
use model::task::{DeployOptions, InstanceFilter};
use proto::v1 as pb;
use service::{Page, Read};

/// Reads a page.
pub fn page(wire: Option<pb::Page>) -> Page {
    let wire = wire.unwrap_or_default();
    Page { size: wire.size, token: wire.token }
}

/// Reads how fresh an answer must be.
pub fn freshness(wire: i32) -> Read {
    match pb::Freshness::try_from(wire) {
        Ok(pb::Freshness::Local) => Read::Local,
        // An unknown wish gets the answer that is never wrong.
        _ => Read::Linearizable,
    }
}

/// Returns text, or none if it is empty.
pub fn given(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

/// Reads a deploy's options.
pub fn deploy_options(wire: Option<pb::DeployOptions>) -> DeployOptions {
    let wire = wire.unwrap_or_default();
    DeployOptions {
        recreate: wire.recreate,
        recreate_persistent_disks: wire.recreate_persistent_disks,
        fix: wire.fix,
        skip_drain: wire.skip_drain,
        canaries: given(wire.canaries),
        max_in_flight: given(wire.max_in_flight),
        dry_run: wire.dry_run,
        configs: wire.configs.map(|pinned| pinned.ids.into_iter().map(ConfigId).collect()),
        created_before: moment(wire.recreate_vms_created_before_unix_ms),
    }
}

/// Reads a time; 0 for none.
pub fn moment(unix_ms: i64) -> Option<Timestamp> {
    (unix_ms != 0).then_some(Timestamp(unix_ms))
}

/// Reads which instances are meant.
pub fn filter(wire: pb::InstanceSelector) -> InstanceFilter {
    InstanceFilter { group: given(wire.group).map(Into::into), id_or_index: given(wire.id_or_index) }
}

/// Writes a time; 0 for none.
pub fn time(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |t| t.0)
}

/// Writes an enum of ours as its snake-case name, which is what logs and lists show.
pub fn name<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
