//! VMs that are only processes keep the cloud's promises, everywhere and without root.

mod common;

use std::path::Path;

use cpi_api::conformance::Subject;
use cpi_local::{Isolation, Rung};

fn process(dir: &Path) -> Result<Subject, String> {
    common::subject(dir, Isolation::Exactly(Rung::Process), [127, 92, 1, 10])
}

cpi_api::conformance!(process);
