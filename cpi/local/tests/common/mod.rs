//! A cloud for tests, with a stand-in for the agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cpi_api::conformance::Subject;
use cpi_local::{Isolation, LocalCpi, LocalOptions};

/// Does nothing, as long as it is let, and has a child that does the same.
const STAND_IN: &str = "#!/bin/sh\nsleep 1000000 &\nexec sleep 1000000\n";

/// Returns options for a cloud in `dir` whose agent is the stand-in.
pub fn options(dir: &Path, isolation: Isolation) -> LocalOptions {
    let agent = dir.join("stand-in");
    if !agent.exists() {
        fs::write(&agent, STAND_IN).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    LocalOptions {
        helper: vec![env!("CARGO_BIN_EXE_local-vm").into()],
        isolation,
        ..LocalOptions::new(dir.join("cloud"), agent)
    }
}

/// Returns the cloud in `dir` for the conformance suite.
pub fn subject(dir: &Path, isolation: Isolation, first_address: [u8; 4]) -> Result<Subject, String> {
    let cpi = LocalCpi::open(options(dir, isolation)).map_err(|error| error.to_string())?;
    let image = dir.join("image");
    fs::write(&image, "directorate-host\n").unwrap();
    Ok(Subject::new(cpi).image(image).first_address(first_address.into()))
}
