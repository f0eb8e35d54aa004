//! A Debian stemcell, which takes minutes to make: kept below `target` for later runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use stemcell::{DebianFormat, RepackedDebian, repack_debian};

use crate::programs;

/// Returns a stemcell with our agent in `folder`. `kept` is where a Debian without one is kept between runs.
pub fn stemcell(kept: &Path, folder: &Path) -> Result<PathBuf> {
    let out = folder.join("debian.tgz");
    let from = stemcell::kept::debian(kept)?;
    repack_debian(
        &out,
        &RepackedDebian { from, format: DebianFormat::Tar, dagent: Some(programs::dagent()) },
    )?;
    Ok(out)
}
