//! VMs with namespaces of their own keep the cloud's promises. Needs root; says so where it skips.

mod common;

use std::path::Path;

use cpi_api::conformance::Subject;
use cpi_local::{Isolation, Rung};

fn namespaces(dir: &Path) -> Result<Subject, String> {
    common::subject(dir, Isolation::Exactly(Rung::Namespaces), [10, 93, 1, 10])
}

cpi_api::conformance!(namespaces);
