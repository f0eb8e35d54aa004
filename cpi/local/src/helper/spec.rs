//! What a helper is told, and what it tells.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::ProcessId;
use crate::record::{Link, Publish, VmProcesses};

/// The base directory that releases are written for.
pub(crate) const VCAP: &str = "/var/vcap";
/// Where a VM with a root of its own has the agent's program.
pub(crate) const AGENT_INSIDE: &str = "/var/vcap/bosh/bin/dagent";

/// How to bring a VM up: `launch.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchSpec {
    /// Arguments that make our own program a helper, before the role.
    pub helper_args: Vec<String>,
    /// The agent's program and arguments, as seen from where it runs.
    pub agent: PathBuf,
    pub agent_args: Vec<String>,
    /// The agent's whole environment.
    pub agent_env: BTreeMap<String, String>,
    /// Where the agent starts.
    pub agent_dir: PathBuf,
    /// Takes what the helpers and the agent print: their standard error.
    pub console: PathBuf,
    /// The VM's own root, where it has one.
    pub inside: Option<InsideSpec>,
    /// The lab that the VM is made in, where only its inhabitants can make VMs: without root on the host.
    #[serde(default)]
    pub lab: Option<LabSpec>,
    /// The VM as a machine with a kernel of its own; then the agent is not ours to start.
    #[serde(default)]
    pub machine: Option<MachineSpec>,
}

/// A machine: the program that runs it, and what its keeper does for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachineSpec {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Where the program works.
    pub dir: PathBuf,
    /// The network that all VMs are wired to.
    pub lab: PathBuf,
    /// Where its agent has connections to directors opened; in the lab.
    pub proxy: SocketAddr,
    /// The file with the directors' addresses.
    pub endpoints: PathBuf,
    pub publish: Vec<Publish>,
    /// Where published ports lead.
    pub address: IpAddr,
}

/// A lab below a user namespace, and what is done there for a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LabSpec {
    /// Where to enter it; to be made, if absent.
    pub entrance: Option<Entrance>,
    /// The VM's place in the networks.
    pub links: Vec<Link>,
}

/// Where a user namespace, and another one below it, can be entered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entrance {
    pub users: PathBuf,
    pub other: PathBuf,
}

/// Whose root the VM's root is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Realm {
    /// The host's.
    #[default]
    Host,
    /// One of a user namespace alone: it makes no devices, and borrows the host's.
    UserNamespace,
}

/// A VM's own root and surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InsideSpec {
    pub hostname: String,
    #[serde(default)]
    pub realm: Realm,
    /// The read-only root below.
    pub lower: PathBuf,
    /// What the VM writes over it.
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty directory to put the root together in.
    pub mount_point: PathBuf,
    /// Directories of the host that the VM sees at the same place, and can't change.
    #[serde(default)]
    pub shared: Vec<PathBuf>,
    /// Directories and files of the host that the VM sees: (host path, path inside).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Directories of the host below that the VM must not see.
    pub hidden: Vec<PathBuf>,
    /// The file with the directors' addresses, followed as it changes.
    pub endpoints: PathBuf,
    pub publish: Vec<Publish>,
    /// The VM's first address: where published ports lead.
    pub address: Option<IpAddr>,
    /// Where programs in it ask for names; whoever the stemcell names, if absent.
    #[serde(default)]
    pub resolver: Option<IpAddr>,
}

/// A helper's first word: which processes hold the VM up now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub supervisor: ProcessId,
    pub init: ProcessId,
}

impl LaunchSpec {
    /// Returns how to bring up a machine.
    pub fn of_machine(helper_args: Vec<String>, console: PathBuf, machine: MachineSpec) -> Self {
        Self {
            helper_args,
            agent: PathBuf::new(),
            agent_args: Vec::new(),
            agent_env: BTreeMap::new(),
            agent_dir: PathBuf::new(),
            console,
            inside: None,
            lab: None,
            machine: Some(machine),
        }
    }

    /// Returns the role of the VM's supervisor.
    pub fn supervisor_role(&self) -> &'static str {
        match (&self.machine, &self.inside) {
            (Some(_), _) => "keeper",
            (None, Some(_)) => "shepherd",
            (None, None) => "supervise",
        }
    }
}

impl Started {
    /// Returns it as a line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("numbers can be written as JSON")
    }
}

impl From<Started> for VmProcesses {
    fn from(started: Started) -> Self {
        Self { supervisor: started.supervisor, init: started.init }
    }
}
