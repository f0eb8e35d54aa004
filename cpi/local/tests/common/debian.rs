//! A Debian stemcell, which takes minutes to make: kept below `target` for later runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cpi_local::DebianStemcell;
use nix::fcntl::{Flock, FlockArg};

/// What it is called. Those that were made before there was a boot loader in it are called differently.
const KEPT: &str = "debian-with-boot-loader.tgz";

/// Returns a Debian stemcell, made once for all tests. It has what `hello` is compiled with.
pub fn debian() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock =
        File::create(folder.join("debian-with-boot-loader.lock")).map_err(|error| error.to_string())?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
    let (made, out) = (folder.join(KEPT), folder.join(format!("{KEPT}.half")));
    if !made.exists() {
        let tools = ["gcc", "libc6-dev"].map(str::to_owned).to_vec();
        // Whoever boots it for its agent puts a fresh one in.
        let stemcell = DebianStemcell { tools, ..DebianStemcell::new("/bin/true") };
        cpi_local::build_debian_stemcell(&out, &stemcell).map_err(|error| {
            std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"))
        })?;
        fs::rename(out, &made).map_err(|error| error.to_string())?;
    }
    Ok(made)
}
