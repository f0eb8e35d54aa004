//! The fake keeps the promises that it stands in for.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cpi_api::conformance::Subject;
use cpi_api::fake::FakeCpi;

/// The same directory is the same cloud, as it would be on disk.
static CLOUDS: Mutex<BTreeMap<PathBuf, FakeCpi>> = Mutex::new(BTreeMap::new());

fn fake(dir: &Path) -> Result<Subject, String> {
    Ok(Subject::new(CLOUDS.lock().unwrap().entry(dir.to_owned()).or_default().clone()))
}

cpi_api::conformance!(fake);
