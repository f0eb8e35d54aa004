//! Where the programs under test are: beside the test itself.

use std::path::PathBuf;

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

/// Tests are in `target/PROFILE/deps`, programs in `target/PROFILE`.
fn beside_us(name: &str) -> PathBuf {
    let us = std::env::current_exe().expect("the system knows our own path");
    let found = us.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no `{name}` beside {}: build it with `cargo build -p chaos-tests --bins`", us.display())
    })
}
