//! A Debian that is made once and kept, for tests and measurements: making one takes a minute.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::debian::{DebianStemcell, build_debian, digest_of_parts};
use crate::error::StemcellError;

/// What the sample releases are compiled with.
const TOOLS: [&str; 3] = ["gcc", "libc6-dev", "make"];

/// In place of an agent: whoever wants one puts the one of today in.
const NO_AGENT: &str = "/bin/true";

/// Returns a Debian stemcell in `folder`, made now if it is not there. Whoever comes meanwhile waits.
pub fn debian(folder: &Path) -> Result<PathBuf, StemcellError> {
    let lock_path = folder.join("debian.lock");
    let lock = File::create(&lock_path).map_err(StemcellError::os("create", &lock_path))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| StemcellError::os("lock", &lock_path)(errno))?;
    // One that was made by a build whose Debians had something else in them has another name.
    let name = format!("debian-{}.tgz", &digest_of_parts(&TOOLS)[..16]);
    let made = folder.join(name);
    if !made.exists() {
        let tools = TOOLS.map(str::to_owned).to_vec();
        build_debian(&made, &DebianStemcell { tools, ..DebianStemcell::new(NO_AGENT) })?;
    }
    Ok(made)
}
