//! A daemon for one test, and a stemcell that has just enough.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]
#![allow(dead_code, reason = "each test file is a crate of its own and uses what it needs")]

use std::path::{Path, PathBuf};

use cpi_docker::own_daemon::{self, Network, OwnDaemon, Rootfs};

/// Returns the agent's program with nothing in it that only debuggers read, where there is `strip`: each image holds one.
pub fn small_agent(dir: &Path) -> PathBuf {
    let (agent, small) = (agent().unwrap(), dir.join("dagent"));
    if small.exists() {
        return small;
    }
    match std::process::Command::new("strip").arg("-o").arg(&small).arg(&agent).status() {
        Ok(status) if status.success() => small,
        _ => agent,
    }
}

/// Returns the daemon with a folder of its own; none, and a line that says why, where that can't be.
pub fn daemon() -> Option<(tempfile::TempDir, OwnDaemon)> {
    let why = own_daemon::missing().or_else(|| agent().err());
    if let Some(why) = why {
        eprintln!("skipped: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    match OwnDaemon::start(&dir.path().join("docker"), Network::Apart) {
        Ok(daemon) => Some((dir, daemon)),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Returns the agent's program: beside the test programs, where a test of the whole workspace builds it for `chaos-tests`,
/// and `cargo build -p dagent` for these alone.
pub fn agent() -> Result<PathBuf, String> {
    // target/debug/deps/this-test -> target/debug/dagent
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = test.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let programs = ["chaos-dagent", "dagent"].map(|name| folder.join(name));
    programs.into_iter().find(|program| program.exists()).ok_or_else(|| "dagent has not been built".into())
}

/// Writes the stemcell's image.
pub fn image(out: &Path) {
    let programs = ["/bin/sh", "/bin/sleep", "/bin/cp", "/bin/cat"].map(PathBuf::from).to_vec();
    // For its libraries: every image gets the program itself.
    let guests = vec![agent().unwrap()];
    Rootfs { programs, guests, ..Rootfs::default() }.write(out).unwrap();
}
