//! The simulated cloud: one process beside the replicas, which outlives each of them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cpi_sim::{Chances, Knobs, SimCpi, Span};

use crate::processes::Process;
use crate::programs;

/// Returns the knobs of a cloud that takes its time, up to so many milliseconds, so that there is a middle in everything.
pub fn takes_its_time(max_ms: u64) -> Knobs {
    let some = Span { min_ms: 10, max_ms };
    Knobs {
        calls: Chances { latency: some, ..Chances::default() },
        boot: some,
        action: some,
        ..Knobs::default()
    }
}

/// A `sim-cloud` that runs.
pub struct SimCloud {
    socket: PathBuf,
    /// Ends with us: it watches its standard input, a pipe that we hold.
    _process: Process,
}

impl SimCloud {
    /// Starts it in a folder, with knobs to begin with; calls to agents are written to a file, if there is one.
    pub fn start(folder: &Path, seed: u64, knobs: &Knobs, agent_calls: Option<&Path>) -> Result<Self> {
        let (socket, knobs_file) = (folder.join("cloud.sock"), folder.join("knobs.json"));
        std::fs::write(&knobs_file, serde_json::to_vec(knobs)?)?;
        let mut command = Command::new(programs::sim_cloud());
        command.arg("--socket").arg(&socket).arg("--knobs").arg(&knobs_file);
        command.args(["--seed", &seed.to_string(), "--until-stdin-closes"]);
        if let Some(path) = agent_calls {
            command.arg("--agent-calls").arg(path);
        }
        let log = std::fs::File::create(folder.join("sim-cloud.log"))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let process = Process::new("sim-cloud", child);
        let mut first = String::new();
        BufReader::new(stdout).read_line(&mut first)?;
        ensure!(first == "ready\n", "sim-cloud did not start: see sim-cloud.log");
        Ok(Self { socket, _process: process })
    }

    /// Returns where replicas find it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the door to its knobs and numbers.
    pub fn control(&self) -> SimCpi {
        SimCpi::new(&self.socket)
    }
}
