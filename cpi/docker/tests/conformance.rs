//! A daemon keeps the cloud's promises. Needs root and Docker; says so where it skips. One daemon for all of them: it takes a
//! second to come and go.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use cpi_api::conformance::{Subject, run_together};
use cpi_docker::{DockerCpi, DockerOptions};

/// Promises side by side.
const WIDTH: usize = 6;

/// Where the daemon is, the image that VMs are made from, and their agent.
static GROUND: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();

/// A number for each promise's directory: the fleet's name and addresses follow from it.
static NUMBERS: Mutex<Option<HashMap<PathBuf, u8>>> = Mutex::new(None);

fn subject(dir: &Path) -> Result<Subject, String> {
    let (socket, image, agent) = GROUND.get().unwrap();
    let number = {
        let mut numbers = NUMBERS.lock().unwrap();
        let numbers = numbers.get_or_insert_default();
        let next = u8::try_from(numbers.len()).unwrap();
        *numbers.entry(dir.to_owned()).or_insert(next)
    };
    let root = dir.join("cloud");
    let options = DockerOptions::new(socket, format!("test-{number}"), root, agent);
    let cpi = DockerCpi::open(options).map_err(|error| error.to_string())?;
    Ok(Subject::new(cpi).image(image).first_address([10, 210, number, 10].into()))
}

#[test]
fn a_daemon_keeps_every_promise() {
    let Some((dir, daemon)) = common::daemon() else { return };
    let image = dir.path().join("image.tar");
    common::image(&image);
    GROUND.set((daemon.socket(), image, common::small_agent(dir.path()))).unwrap();
    // Each of these wants the same range, which a daemon has once.
    let promises = cpi_api::conformance!(list subject).to_vec();
    let (networks, others): (Vec<_>, Vec<_>) =
        promises.into_iter().partition(|(name, _)| name.contains("a_network"));
    run_together(&networks, 1);
    run_together(&others, WIDTH);
}
