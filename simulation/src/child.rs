//! A world in a process of its own, whose chance is the seed's.
//!
//! Maps of the standard library, `tokio::select!`, uuids and openraft's election timeouts draw from the operating system.
//! There is no seam for all of that, but there is one below it: the function `getrandom`, which the program finds in a small
//! library of ours first. So a run is the same run again, down to the order in which a map is iterated.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use known_bugs::Bug;

/// Set for the process that simulates.
const SEED: &str = "SIMULATION_SEED";

/// Returns the seed, if this process is one that simulates.
pub fn seed() -> Option<u64> {
    std::env::var(SEED).ok()?.parse().ok()
}

/// The library with the seed's chance.
pub struct Library {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Library {
    /// Builds it with the C compiler that Rust links with.
    pub fn build() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("simulation-").tempdir()?;
        let (source, path) = (folder.path().join("chance.c"), folder.path().join("chance.so"));
        std::fs::write(&source, include_str!("chance.c"))?;
        let mut compiler = Command::new("cc");
        let built =
            compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(&source).arg("-ldl").output();
        let built = built.context("run cc")?;
        ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
        Ok(Self { path, _folder: folder })
    }

    /// Plays a seed, with a known bug or without, by `program`, which is the one of this crate, and returns what it said.
    pub fn play(&self, program: &Path, seed: u64, bug: Option<Bug>, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        if let Some(bug) = bug {
            command.env(known_bugs::VARIABLE, bug.name());
        }
        command.args(arguments).env("LD_PRELOAD", &self.path).env(SEED, seed.to_string());
        command.output().context("start a simulation")
    }
}
