//! What the service manager takes from `directord`, and gives back where its cloud is the local one.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Returns the settings of a file of the unit, the last one of a name.
fn settings(file: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd").join(file);
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Each of these may have something mounted over a part of `/proc`, or kept away, and then no VM gets its own.
#[test]
fn no_wall_of_the_unit_is_left_standing_around_the_local_cloud() {
    let (unit, dropin) = (settings("directord@.service"), settings("local-cloud.conf"));
    let is_wall = |name: &&String| name.starts_with("Protect") || name.starts_with("Private");
    let walls: Vec<&String> = unit.keys().filter(is_wall).collect();
    assert!(walls.len() > 8, "{walls:?}");
    for wall in walls {
        let now = dropin.get(wall).map(String::as_str);
        assert!(matches!(now, Some("no" | "default")), "{wall} is {now:?} in local-cloud.conf");
    }
    assert_eq!(dropin["UMask"], "0022");
}
