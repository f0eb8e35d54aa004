//! Where the programs under test are: beside the test itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Returns the path of `directord`.
pub fn directord() -> PathBuf {
    beside_us("chaos-directord")
}

/// Returns the path of `dctl`.
pub fn dctl() -> PathBuf {
    beside_us("chaos-dctl")
}

/// Returns the path of `dagent`.
pub fn dagent() -> PathBuf {
    beside_us("chaos-dagent")
}

/// Returns the path of `sim-cloud`.
pub fn sim_cloud() -> PathBuf {
    beside_us("chaos-sim-cloud")
}

/// Returns the path of `sim-cpi`.
pub fn sim_cpi() -> PathBuf {
    beside_us("chaos-sim-cpi")
}

/// Builds them, if it is cargo that runs us: `cargo run` has built only the program that it runs.
pub fn build() -> Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = std::process::Command::new(cargo)
        .args(["build", "--quiet", "-p", "chaos-tests", "--bins", "--profile", profile])
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "the programs under test were not built");
    Ok(())
}

/// Tests are in `target/PROFILE/deps`, programs in `target/PROFILE`.
fn beside_us(name: &str) -> PathBuf {
    let us = std::env::current_exe().expect("the system knows our own path");
    let found = us.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no `{name}` beside {}: build it with `cargo build -p chaos-tests --bins`", us.display())
    })
}
