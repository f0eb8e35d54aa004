//! One replica: its place in the fleet's folder and in the network, and its process while it runs.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rand::Rng as _;

use super::cloud::Cloud;
use crate::lab::Port;
use crate::machine::SmallDisk;
use crate::processes::Process;

pub(super) struct Replica {
    // Dropped in this order: what runs first, then what it runs in and on.
    pub process: Option<Process>,
    /// Its own network, if it has one.
    pub port: Option<Port>,
    /// The disk that its data is on, if it has one of its own.
    pub disk: Option<SmallDisk>,
    pub folder: PathBuf,
    pub host: Ipv4Addr,
    /// API, peers, agents, probes.
    pub ports: [u16; 4],
}

impl Replica {
    pub fn api(&self) -> String {
        format!("{}:{}", self.host, self.ports[0])
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("directord.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("directord.log")
    }

    /// Returns a command that runs a program where the replica is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.port {
            Some(port) => port.command(program),
            None => Command::new(program),
        }
    }

    /// Returns the text of its configuration.
    pub fn config_text(&self, number: usize, timing: &str, cloud: &Cloud, extra: &str) -> String {
        let (host, [api, peer, agent, probes]) = (self.host, self.ports);
        let cloud = cloud.config_text();
        format!(
            "name = \"director-{number}\"\ndata_dir = \"data\"\ntiming = \"{timing}\"\n\
             [api]\nlisten = \"{host}:{api}\"\n\
             [peer]\nlisten = \"{host}:{peer}\"\n\
             [agent]\nlisten = \"{host}:{agent}\"\n\
             [cpi]\n{cloud}\n\
             [secrets]\nkek_file = \"kek\"\n\
             [metrics]\nlisten = \"{host}:{probes}\"\n{extra}"
        )
    }
}

/// Whoever looks for ports takes the UDP port of the same number first, and keeps it: a replica that does not run holds none.
static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// Returns four ports that are free now, and will be as long as this process runs: below the range that the system takes for
/// connections going out, so that none of those sits there when a replica is started again.
pub fn free_ports() -> Result<[u16; 4]> {
    let mut chance = rand::rng();
    let (mut held, mut claims) = (Vec::new(), CLAIMS.lock().unwrap_or_else(PoisonError::into_inner));
    for _ in 0..1000 {
        let port = ("127.0.0.1", chance.random_range(10_240..32_000));
        if let (Ok(claim), Ok(listener)) = (UdpSocket::bind(port), TcpListener::bind(port)) {
            claims.push(claim);
            held.push(listener);
        }
        if let [a, b, c, d] = held.as_slice() {
            let port = |listener: &TcpListener| Ok::<_, std::io::Error>(listener.local_addr()?.port());
            return Ok([port(a)?, port(b)?, port(c)?, port(d)?]);
        }
    }
    bail!("no four free ports on loopback")
}
