//! A Debian stemcell, which takes minutes to make: kept below `target` for later runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::programs;

/// Puts another agent into a stemcell: what was kept has one of an earlier build. Arguments: stemcell, agent, folder, result.
const WITH_AGENT: &str = r#"set -euo pipefail
mkdir -p "$3/stemcell" "$3/root/var/vcap/bosh/bin"
tar -xzf "$1" -C "$3/stemcell"
cd "$3"
gzip -dc stemcell/image > root.tar
install -m 0755 "$2" root/var/vcap/bosh/bin/dagent
tar -rf root.tar --owner=0 --group=0 -C root ./var/vcap/bosh/bin/dagent
gzip -1c root.tar > stemcell/image
rm root.tar
sum=$(sha1sum < stemcell/image)
sed -i "s/^sha1: .*/sha1: ${sum%% *}/" stemcell/stemcell.MF
tar -cf "$4" -C stemcell stemcell.MF packages.txt dev_tools_file_list.txt image
rm -r stemcell
"#;

/// Returns a stemcell with our agent in `folder`. `kept` is where a Debian is kept between runs.
pub fn stemcell(kept: &Path, folder: &Path) -> Result<PathBuf> {
    let debian = stemcell::kept::debian(kept)?;
    let (scratch, out) = (folder.join("debian"), folder.join("debian.tgz"));
    let made = Command::new("bash")
        .args(["-c", WITH_AGENT, "with-agent"])
        .args([&debian, &programs::dagent(), &scratch, &out])
        .output()
        .context("run bash")?;
    ensure!(made.status.success(), "no agent was put in: {}", String::from_utf8_lossy(&made.stderr));
    Ok(out)
}
