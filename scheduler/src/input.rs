//! What a plan is made from: facts as plain data, and chance as a seed.
//!
//! The service reads all of it from one revision of the state, so a plan never mixes two moments. Nothing here can
//! be asked for more: identical input gives an identical plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::cloud_config::VmResources;
use model::config::StoredConfig;
use model::dns::DnsSubject;
use model::instance::{AddressKind, Disk, Instance, Vm};
use model::managed_network::ManagedNetwork;
use model::plan::DeploymentRecord;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::{DeployOptions, InstanceFilter, StateChange};
use model::*;
use serde_json::Value;

pub use crate::chance::Seed;

/// Facts about the director itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Director {
    /// Its name, part of variable names.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// How many VMs may be created or deleted at once, regardless of `max_in_flight`.
    pub threads_max: u32,
    /// The root of DNS names.
    pub dns_domain: String,
    /// Addresses of the directors, which nobody else is given.
    pub addresses: Vec<IpAddr>,
    /// Whether agents get local DNS records; without, names are useless and addresses are given instead.
    pub local_dns: bool,
    /// Whether addresses in links and specs are names unless the manifest says otherwise.
    pub use_dns_addresses: bool,
}

impl Default for Director {
    fn default() -> Self {
        Self {
            name: "directorate".into(),
            uuid: String::new(),
            threads_max: 32,
            addresses: Vec::new(),
            dns_domain: "bosh".into(),
            local_dns: false,
            use_dns_addresses: false,
        }
    }
}

/// What an agent answered when it was asked for its state just before planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentObservation {
    /// It answered.
    Answered {
        /// `running`, `failing`, `stopped` …
        job_state: String,
    },
    /// It did not answer in time, or with an exception.
    Unresponsive {
        /// The error a deploy without `fix` fails with (450002, 450001), without the instance's name.
        error: task::TaskError,
    },
}

/// An address that somebody in the director holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAddress {
    /// The address; unique in the director.
    pub ip: IpAddr,
    /// The length of the block that begins there, if it is more than one address.
    pub prefix: Option<u8>,
    /// The network it was taken in.
    pub network: NetworkName,
    /// Picked or named.
    pub kind: AddressKind,
    /// Who holds it; none for an orphaned or possibly leaked VM.
    pub instance: Option<InstanceId>,
    /// The holder's name for error messages (`web/<uuid>`).
    pub holder: String,
    /// The holder's deployment.
    pub deployment: DeploymentName,
}

/// One deployment as the state knows it.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentFacts<'a> {
    /// Its name.
    pub name: &'a DeploymentName,
    /// Its generation: the plan is refused if that moves.
    pub generation: u64,
    /// What was last deployed with success; none if nothing ever was.
    pub record: Option<&'a DeploymentRecord>,
    /// All its instances, compilation workers that were left behind included.
    pub instances: &'a [Instance],
    /// Their VMs.
    pub vms: &'a [Vm],
    /// Their disks, inactive ones included; orphaned ones are not.
    pub disks: &'a [Disk],
    /// What the agents said. An instance that has a VM and is missing here counts as running.
    pub agents: &'a BTreeMap<InstanceId, AgentObservation>,
    /// Agents in VMs that were made ahead which did not answer: those VMs take nobody's place.
    pub silent_spares: &'a BTreeSet<AgentId>,
    /// Fresh chance for ids.
    pub seed: Seed,
}

/// Returns whether a VM was made ahead and got so far that it could take another one's place.
pub fn is_spare(vm: &Vm) -> bool {
    !vm.active && vm.bound && vm.cid.is_some()
}

/// Facts about variables. Values appear only where a placeholder must be resolved at parse time;
/// properties and envs keep their placeholders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VariableFacts {
    /// Whether there is a store to ask; without one every placeholder outside properties is an error (540009).
    pub available: bool,
    /// Values by absolute name.
    pub values: BTreeMap<VariableName, Value>,
    /// Names whose value differs between a variable set that VMs or disks were made with and the one that this deploy
    /// would use.
    pub rotated: BTreeMap<VariableSetId, BTreeSet<VariableName>>,
    /// The set that this deploy opens.
    pub set: VariableSetId,
}

/// Everything that a deploy is planned from.
#[derive(Clone, Debug)]
pub struct PlanInput<'a> {
    /// The director.
    pub director: &'a Director,
    /// The deployment so far.
    pub deployment: DeploymentFacts<'a>,
    /// The manifest as posted.
    pub manifest_text: &'a str,
    /// Options of the deploy.
    pub options: &'a DeployOptions,
    /// A change of state: then manifest and configs must be those of the last success.
    pub change: Option<&'a StateChangeRequest<'a>>,
    /// The configs to plan with: the newest of each type and name, or those that were pinned.
    pub configs: &'a [StoredConfig],
    /// All addresses held in the director, this deployment's included.
    pub addresses: &'a [HeldAddress],
    /// Releases in the director.
    pub releases: &'a [ReleaseVersion],
    /// Stemcells in the director.
    pub stemcells: &'a [StemcellRecord],
    /// Compiled packages in the director.
    pub compiled: &'a [CompiledPackage],
    /// Records of the other deployments, whose shared links can be consumed.
    pub others: &'a [DeploymentRecord],
    /// Variables.
    pub variables: &'a VariableFacts,
    /// What clouds said that [`crate::vm_sizes`] come to.
    pub vm_properties: &'a VmProperties,
    /// Numbers in DNS names: of zones, networks, and the deployment's groups, links and instances.
    pub dns_numbers: &'a BTreeMap<DnsSubject, u32>,
    /// The networks that directors have made; none if they make none.
    pub managed_networks: Option<&'a [ManagedNetwork]>,
}

/// Cloud properties of VMs that should have certain resources, by the cloud that calculated them.
pub type VmProperties = BTreeMap<(CpiName, VmResources), Value>;

/// A change of state of some instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChangeRequest<'a> {
    /// What to do.
    pub change: StateChange,
    /// To which instances.
    pub filter: &'a InstanceFilter,
    /// Whether pre-stop and drain scripts run.
    pub drain: DrainMode,
    /// Overrides the groups' `max_in_flight`.
    pub max_in_flight: Option<&'a str>,
    /// Overrides the groups' `canaries`.
    pub canaries: Option<&'a str>,
    /// Of a recreation: only VMs that were made before this.
    pub created_before: Option<Timestamp>,
}

/// Whether pre-stop and drain scripts run before jobs are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainMode {
    /// They run.
    Drain,
    /// They are left out.
    Skip,
}

/// An errand to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrandRequest<'a> {
    /// A job's name, or that of a group whose lifecycle is `errand`.
    pub errand: &'a str,
    /// What happens to an errand group's VMs afterwards.
    pub afterwards: Afterwards,
    /// Only these instances; all if empty.
    pub instances: &'a [InstanceFilter],
    /// A digest over the versions of all variables that the instances see.
    pub variables: &'a str,
    /// The digest of what it last ran well on: it is not run again on the same. None: it is run in any case.
    pub unless: Option<&'a str>,
}

/// What happens to the VMs of an errand group after the errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// They are deleted.
    DeleteVms,
    /// They stay (`--keep-alive`).
    KeepVms,
}

/// How much a deletion may put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Every step must succeed.
    Orderly,
    /// Failures are passed over, and what they leave in the cloud is reported; jobs are not stopped.
    Forced,
}
