//! The simulated cloud keeps the promises of a cloud, in one process and through its socket.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cpi_api::conformance::Subject;
use cpi_sim::{Knobs, SimCloud};

/// The same directory is the same cloud, as if it were on disk.
static CLOUDS: Mutex<BTreeMap<PathBuf, SimCloud>> = Mutex::new(BTreeMap::new());

fn in_process(dir: &Path) -> Result<Subject, String> {
    let mut clouds = CLOUDS.lock().unwrap();
    let cloud =
        clouds.entry(dir.to_owned()).or_insert_with(|| SimCloud::new(1, Knobs::default(), Arc::new(())));
    Ok(Subject::new(cloud.clone()))
}

cpi_api::conformance!(in_process);
