//! The configuration: text in, typed values out, all complaints together. Nothing below the server reads a file or
//! the environment to learn how to behave. `deploy/directord.toml` explains every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpi_local::Outbound;
use executor::ports::{Snapshots, SshGateway};
use model::cpi_config::CpiLimits;

mod read;

/// What is logged unless said otherwise. The consensus engine tells every vote at `info` and every heartbeat to a dead
/// peer at `warn`; what operators need of that, we log ourselves.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// The largest upload unless said otherwise: several times the largest stemcell or release there is.
const UPLOAD_MIB_MAX: u32 = 16 * 1024;

/// What blobs leave free unless said otherwise: some hours of log and a snapshot of a large fleet.
const KEEP_FREE_MIB: u32 = 1024;

/// How long a cloud may take for a call of which nobody heard any more, unless said otherwise: as long as its contract gives
/// it for a call.
const LATE_CALLS_SECONDS: u32 = 3600;

/// How long a stop may take unless said otherwise.
const STOP_TIMEOUT_SECONDS: u32 = 30;

/// Two years, as BOSH's director gives them.
const AGENT_CERTIFICATE_SECONDS: u32 = 730 * 24 * 3600;

/// Of less, a restart of an agent would be a good part.
const AGENT_CERTIFICATE_SECONDS_MIN: u32 = 60;

/// How patient an election is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimingProfile {
    /// A lost leader is replaced in less than a second.
    #[default]
    Default,
    /// For disks whose fsync can take half a second.
    SlowDisk,
}

/// A port: where to listen, and how others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `host:port` for others.
    pub advertise: String,
}

/// Which cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpi {
    /// Containers on this machine.
    Local(LocalCpi),
    /// Simulated VMs in a process of their own, reached through this socket.
    Sim(SimCpi),
    /// Whatever an executable made for BOSH's director serves.
    External(ExternalCpi),
    /// Containers at a Docker daemon on this machine.
    Docker(DockerCpi),
}

impl Cpi {
    /// Returns the name that people are told.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Sim(_) => "sim",
            Self::External(_) => "external",
            Self::Docker(_) => "docker",
        }
    }
}

/// Containers on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCpi {
    /// VMs, disks, stemcells; shared by the replicas of one machine.
    pub root: PathBuf,
    /// `auto` or a rung's name.
    pub isolation: String,
    /// Whether VMs with a network of their own reach what this machine reaches, and by which subnet.
    pub outbound: Option<Outbound>,
    /// Whether machines by QEMU may have the processor's help.
    pub kvm: bool,
    /// The agent's program.
    pub agent: PathBuf,
}

/// Containers at a Docker daemon on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerCpi {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Tells the objects of this fleet from others' at the same daemon.
    pub name: String,
    /// Locks and what changes of an object; shared by the replicas of the machine.
    pub root: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
}

/// A CPI made for BOSH's director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalCpi {
    /// The wrapper that its job installs, on every replica.
    pub program: PathBuf,
    /// How fast it may be asked.
    pub limits: CpiLimits,
}

/// What blobs may take of a replica's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLimits {
    /// The largest upload.
    pub upload_bytes_max: u64,
    /// What stays free beside the blobs, for the log and the state.
    pub keep_free_bytes: u64,
}

/// Where agents of BOSH's fetch blobs and bring them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPort {
    /// The port.
    pub port: Port,
    /// `host:port` for agents that are told of one for good: one that leads to a replica whichever is there.
    pub dav_advertise: Option<String>,
}

/// Which snapshots of persistent disks are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Whether any are: before updates, and when somebody asks for one.
    pub taken: Snapshots,
    /// When one is taken of each disk every day, as the time since midnight, UTC.
    pub daily_at: Option<Duration>,
}

/// Simulated VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimCpi {
    /// The socket of the process that simulates.
    pub socket: PathBuf,
}

/// The UAA whose tokens are accepted beside the fleet's own users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UaaConfig {
    /// Where it is; the first is what the CLI is told.
    pub urls: Vec<String>,
    /// Public keys that tokens may be signed with, PEM.
    pub public_key_file: Option<PathBuf>,
    /// A key that tokens may be signed with, which the UAA and the directors share.
    pub symmetric_key_file: Option<PathBuf>,
    /// Whether the UAA is asked for its public keys.
    pub fetch_keys: bool,
    /// The authority that signs the UAA's certificate, PEM.
    pub ca_file: Option<PathBuf>,
}

/// The bus of BOSH's agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// `nats://host:port` of each server, as directors and agents reach it.
    pub urls: Vec<String>,
    /// The authority that signs the servers' certificates, PEM.
    pub ca_file: PathBuf,
    /// Where to write who may speak.
    pub users_file: Option<PathBuf>,
    /// Where the server beside this replica writes its process id, so that it can be told to read the users again.
    pub server_pid_file: Option<PathBuf>,
    /// How long agents' certificates are good. They are replaced when a third of it is left.
    pub agent_certificate: Duration,
}

/// How to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// A replica's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The replica's name.
    pub name: String,
    /// Its data.
    pub data_dir: PathBuf,
    /// Election timing.
    pub timing: TimingProfile,
    /// Bound on a stop.
    pub stop_timeout: Duration,
    /// For people and programs.
    pub api: Port,
    /// For replicas.
    pub peer: Port,
    /// For agents.
    pub agent: Port,
    /// The cloud.
    pub cpi: Cpi,
    /// How long the cloud may take to carry out a call of which nobody heard any more.
    pub late_calls: Duration,
    /// What blobs may take.
    pub blobs: BlobLimits,
    /// Where agents of BOSH's fetch and bring them.
    pub blob_port: Option<BlobPort>,
    /// Snapshots of persistent disks.
    pub snapshots: SnapshotConfig,
    /// What SSH clients are told to go through.
    pub ssh_gateway: Option<SshGateway>,
    /// The key-encryption key.
    pub kek_file: PathBuf,
    /// Whose tokens are accepted, too.
    pub uaa: Option<UaaConfig>,
    /// The bus of BOSH's agents.
    pub nats: Option<NatsConfig>,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_filter: String,
    /// Plain HTTP for metrics and probes.
    pub metrics: Option<SocketAddr>,
    /// Where traces go.
    pub otlp: Option<String>,
    /// The feature level that the replica announces: this program's own. No key of the file; tests of upgrades have a
    /// replica pass for an older one.
    pub feature_level: u32,
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("failed to read configuration `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("configuration `{path}` is not valid: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Keys that there are not, or values that can't be.
    #[error("configuration `{path}` has {} problem(s):\n{}", complaints.len(), complaints.join("\n"))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// One line each.
        complaints: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a configuration's text; relative paths begin at the folder of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.into(), message: error.to_string() })?;
        let base = path.parent().unwrap_or(Path::new("."));
        read::config(table, base).map_err(|complaints| ConfigError::Invalid { path: path.into(), complaints })
    }
}

#[cfg(test)]
mod tests;
