//! The configuration: text in, typed values out, all complaints together. Nothing below the server reads a file or
//! the environment to learn how to behave. `deploy/directord.toml` explains every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// What is logged unless said otherwise. The consensus engine tells every vote at `info` and every heartbeat to a dead
/// peer at `warn`; what operators need of that, we log ourselves.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// The largest upload unless said otherwise: several times the largest stemcell or release there is.
const UPLOAD_MIB_MAX: u32 = 16 * 1024;

/// What blobs leave free unless said otherwise: some hours of log and a snapshot of a large fleet.
const KEEP_FREE_MIB: u32 = 1024;

/// How patient an election is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
}

/// Containers on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCpi {
    /// VMs, disks, stemcells; shared by the replicas of one machine.
    pub root: PathBuf,
    /// `auto` or a rung's name.
    pub isolation: String,
    /// The agent's program.
    pub agent: PathBuf,
}

/// What blobs may take of a replica's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLimits {
    /// The largest upload.
    pub upload_bytes_max: u64,
    /// What stays free beside the blobs, for the log and the state.
    pub keep_free_bytes: u64,
}

/// Simulated VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimCpi {
    /// The socket of the process that simulates.
    pub socket: PathBuf,
}

/// How to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// What blobs may take.
    pub blobs: BlobLimits,
    /// The key-encryption key.
    pub kek_file: PathBuf,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_filter: String,
    /// Plain HTTP for metrics and probes.
    pub metrics: Option<SocketAddr>,
    /// Where traces go.
    pub otlp: Option<String>,
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
    /// It is not TOML, or has unknown keys or wrong types.
    #[error("configuration `{path}` is not valid: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Values that can't be.
    #[error("configuration `{path}` has {} problem(s):\n{}", complaints.len(), complaints.join("\n"))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// One line each.
        complaints: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    data_dir: PathBuf,
    #[serde(default)]
    timing: TimingProfile,
    stop_timeout_seconds: Option<u64>,
    api: RawPort,
    peer: RawPort,
    agent: RawPort,
    cpi: RawCpi,
    #[serde(default)]
    blobs: RawBlobs,
    secrets: RawSecrets,
    #[serde(default)]
    log: RawLog,
    metrics: Option<RawMetrics>,
    otlp: Option<RawOtlp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    listen: String,
    advertise: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCpi {
    kind: String,
    local: Option<RawLocal>,
    sim: Option<RawSim>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocal {
    root: PathBuf,
    isolation: Option<String>,
    agent: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSim {
    socket: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlobs {
    upload_mib_max: Option<u32>,
    keep_free_mib: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecrets {
    kek_file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    #[serde(default)]
    format: LogFormat,
    filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    listen: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOtlp {
    endpoint: String,
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
        let raw: Raw = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.into(), message: error.to_string() })?;
        let mut check =
            Check { base: path.parent().unwrap_or(Path::new(".")).to_owned(), complaints: Vec::new() };
        let config = check.config(raw);
        match config {
            Some(config) if check.complaints.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid { path: path.into(), complaints: check.complaints }),
        }
    }
}

/// Collects complaints while it turns text into values.
struct Check {
    base: PathBuf,
    complaints: Vec<String>,
}

impl Check {
    fn config(&mut self, raw: Raw) -> Option<Config> {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if raw.name.is_empty() || !raw.name.chars().all(valid) {
            self.complain("name", &raw.name, "letters, digits, `-`, `_` and `.`");
        }
        let api = self.port("api", raw.api);
        let peer = self.port("peer", raw.peer);
        let agent = self.port("agent", raw.agent);
        let cpi = self.cpi(raw.cpi);
        let metrics = raw.metrics.map(|m| self.address("metrics.listen", &m.listen));
        Some(Config {
            name: raw.name,
            data_dir: self.base.join(raw.data_dir),
            timing: raw.timing,
            stop_timeout: Duration::from_secs(raw.stop_timeout_seconds.unwrap_or(30)),
            api: api?,
            peer: peer?,
            agent: agent?,
            cpi: cpi?,
            blobs: BlobLimits {
                upload_bytes_max: mebibytes(raw.blobs.upload_mib_max.unwrap_or(UPLOAD_MIB_MAX)),
                keep_free_bytes: mebibytes(raw.blobs.keep_free_mib.unwrap_or(KEEP_FREE_MIB)),
            },
            kek_file: self.base.join(raw.secrets.kek_file),
            log_format: raw.log.format,
            log_filter: raw.log.filter.unwrap_or_else(|| DEFAULT_FILTER.into()),
            metrics: match metrics {
                Some(address) => Some(address?),
                None => None,
            },
            otlp: raw.otlp.map(|o| o.endpoint),
        })
    }

    fn complain(&mut self, key: &str, value: &str, wanted: &str) {
        self.complaints.push(format!("  {key}: `{value}` should be {wanted}"));
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.complain(key, text, "an address and a port, like 127.0.0.1:25555");
        }
        address
    }

    fn port(&mut self, key: &str, raw: RawPort) -> Option<Port> {
        let listen = self.address(&format!("{key}.listen"), &raw.listen)?;
        let advertise = match raw.advertise {
            Some(text) => {
                let port =
                    text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
                if port.is_none_or(|(host, _)| host.is_empty()) {
                    self.complain(&format!("{key}.advertise"), &text, "a host and a port");
                    return None;
                }
                text
            }
            None if listen.ip().is_unspecified() => {
                self.complain(&format!("{key}.advertise"), "", "given, since `listen` is a wildcard");
                return None;
            }
            None => listen.to_string(),
        };
        Some(Port { listen, advertise })
    }

    fn cpi(&mut self, raw: RawCpi) -> Option<Cpi> {
        match (raw.kind.as_str(), raw.local, raw.sim) {
            ("local", Some(local), _) => Some(Cpi::Local(LocalCpi {
                root: self.base.join(local.root),
                isolation: local.isolation.unwrap_or_else(|| "auto".into()),
                agent: local.agent.map_or_else(agent_beside_us, |path| self.base.join(path)),
            })),
            ("sim", _, Some(sim)) => Some(Cpi::Sim(SimCpi { socket: self.base.join(sim.socket) })),
            ("local" | "sim", ..) => {
                self.complain("cpi", &raw.kind, "explained by a section [cpi.local] or [cpi.sim]");
                None
            }
            _ => {
                self.complain("cpi.kind", &raw.kind, "`local` or `sim`");
                None
            }
        }
    }
}

fn mebibytes(count: u32) -> u64 {
    u64::from(count) << 20
}

fn agent_beside_us() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.join("dagent")));
    beside.unwrap_or_else(|| PathBuf::from("/usr/bin/dagent"))
}

#[cfg(test)]
mod tests;
