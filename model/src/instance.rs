//! An instance: what the planner wants of it, and what is known of its VM and disks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dns::ProvidedName;
use crate::ids::*;
use crate::stemcell::{AgentKind, StemcellVersion};
use crate::step::PackageRefKey;

/// Whether a group's instances run all the time or only when asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Runs all the time.
    #[default]
    Service,
    /// Gets a VM only while its errand runs.
    Errand,
}

/// What the operator wants of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// A VM with running jobs.
    #[default]
    Started,
    /// A VM with stopped jobs.
    Stopped,
    /// No VM; disks and addresses are kept.
    Detached,
}

/// A release by name and exact version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// The release's name.
    pub name: ReleaseName,
    /// Its exact version.
    pub version: Version,
}

/// A stemcell as a plan refers to it: one row per CPI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StemcellRef {
    /// The stemcell's name.
    pub name: String,
    /// Its operating system (the name, where the stemcell gives none).
    pub os: String,
    /// Its exact version.
    pub version: Version,
    /// The CPI it was uploaded to.
    pub cpi: CpiName,
    /// The cloud's id of it.
    pub cid: StemcellCid,
    /// The agent's settings contract (`api_version` of stemcell.MF; 1 if absent).
    pub api_version: u32,
    /// Whose agent is inside, where stemcell.MF says otherwise than the name. See [`StemcellRef::has_bosh_s_agent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentKind>,
}

impl StemcellRef {
    /// Returns the stemcell whatever CPI it is in.
    pub fn version(&self) -> StemcellVersion {
        StemcellVersion { os: self.os.clone(), version: self.version.clone() }
    }
}

/// One job of an instance, with everything its templates may see. Placeholders in it stay unresolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job's name.
    pub name: JobName,
    /// The release it comes from.
    pub release: ReleaseRef,
    /// The job's fingerprint (its `version` for modern releases).
    pub fingerprint: Fingerprint,
    /// The digest as release.MF gives it.
    pub digest: String,
    /// Where the job's archive is.
    pub blob: BlobDigest,
    /// The declared properties, defaults filled in, nested hashes sorted.
    pub properties: Value,
    /// Link content by link name.
    pub links: BTreeMap<String, Value>,
    /// The job's `logs` mapping, part of change detection.
    #[serde(default)]
    pub logs: Value,
    /// Links that have a group in DNS because of this job: those it provides, and those the manifest gives it by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<ProvidedName>,
}

/// A package that the jobs of a group list directly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageRef {
    /// The package's name.
    pub name: PackageName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The dependency key under which its compiled form is found.
    pub dependency_key: String,
    /// The stemcell that its compiled form is for, where that is another one of the line than the instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled_on: Option<StemcellVersion>,
}

impl PackageRef {
    /// Returns what its compiled form is filed under, for an instance on this stemcell.
    pub fn key(&self, stemcell: &StemcellRef) -> PackageRefKey {
        let on = self.compiled_on.clone().unwrap_or_else(|| stemcell.version());
        PackageRefKey {
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            os: on.os,
            stemcell_version: on.version,
            dependency_key: self.dependency_key.clone(),
        }
    }
}

/// How addresses in a network come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// We choose the address.
    Manual,
    /// The cloud chooses, the agent reports.
    Dynamic,
    /// A public address in front of another network.
    Vip,
}

/// Why an address is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressKind {
    /// Picked from the free ones.
    Automatic,
    /// Named in the manifest.
    Static,
}

/// One network of one instance, as the CPI, the agent and templates see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// The network's name.
    pub name: NetworkName,
    /// How addresses come about.
    pub kind: NetworkKind,
    /// The address; none for a dynamic network until the agent has reported it.
    pub ip: Option<IpAddr>,
    /// Whether the address was picked or named.
    pub address: AddressKind,
    /// Prefix length of the assignment as text ("32" for one IPv4 address).
    pub prefix: String,
    /// The subnet's mask.
    pub netmask: Option<String>,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// What this network is the default for, sorted (`dns`, `gateway`, `addressable`).
    pub defaults: Vec<String>,
    /// Cloud properties of the subnet, placeholders unresolved.
    pub cloud_properties: Value,
    /// Networks of one group share a network card.
    #[serde(default)]
    pub nic_group: Option<String>,
}

/// A persistent disk that an instance should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Size in MiB.
    pub size_mib: u64,
    /// The disk type's name, if one was named.
    pub disk_type: Option<String>,
    /// Cloud properties, placeholders unresolved.
    pub cloud_properties: Value,
    /// Its name, if it is one of `persistent_disks`: such a disk is attached and nothing else, its jobs find it by its name
    /// and do with it what they like. None: it is the one that the agent formats, mounts and copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DiskName>,
}

impl DiskSpec {
    /// Returns whether it is the one that the agent mounts.
    pub fn is_mounted(&self) -> bool {
        self.name.is_none()
    }
}

/// Milliseconds to wait at least and at most for an instance to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchTime {
    /// Wait this long before the first look.
    pub min_ms: u64,
    /// Give up after this long.
    pub max_ms: u64,
}

/// Everything that one instance should be. A plan leaves no choice open: addresses, versions and ids are in it;
/// secrets appear as `((references))` only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// The instance's UUID.
    pub id: InstanceId,
    /// Its deployment.
    pub deployment: DeploymentName,
    /// Its group.
    pub group: GroupName,
    /// Its index in the group.
    pub index: u32,
    /// Its zone, if the group has any.
    pub az: Option<AzName>,
    /// Whether it is the group's bootstrap instance.
    pub bootstrap: bool,
    /// Whether the group runs all the time.
    pub lifecycle: Lifecycle,
    /// Jobs in manifest order.
    pub jobs: Vec<JobSpec>,
    /// Packages the jobs list directly, sorted by name.
    pub packages: Vec<PackageRef>,
    /// Networks in manifest order.
    pub networks: Vec<NetworkSettings>,
    /// The stemcell for this instance's CPI.
    pub stemcell: StemcellRef,
    /// The CPI of the instance's zone.
    pub cpi: CpiName,
    /// The VM type's name.
    pub vm_type: Option<String>,
    /// Zone, VM type and extension properties merged, placeholders unresolved.
    pub cloud_properties: Value,
    /// The group's env, placeholders unresolved.
    pub env: Value,
    /// The managed persistent disk, if any.
    pub persistent_disk: Option<DiskSpec>,
    /// Window in which the instance must come up, when it is a canary.
    pub canary_watch_time: WatchTime,
    /// Window in which it must come up otherwise.
    pub update_watch_time: WatchTime,
    /// Tags for VM and disk metadata.
    pub tags: BTreeMap<String, String>,
    /// Hash over all rendered templates; none until they were rendered.
    pub configuration_hash: Option<String>,
    /// Hash over each job's rendered templates.
    pub template_hashes: BTreeMap<JobName, String>,
    /// How others reach it, where they are to use a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Disks that are attached and nothing else, by name and in the order of names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named_disks: Vec<DiskSpec>,
}

impl InstanceSpec {
    /// Returns all disks that it should have: the one that is mounted first, then the others in the order of their names.
    pub fn disks(&self) -> impl Iterator<Item = &DiskSpec> {
        self.persistent_disk.iter().chain(&self.named_disks)
    }

    /// Returns the disk of this name that it should have; none: the one that is mounted.
    pub fn disk(&self, name: Option<&DiskName>) -> Option<&DiskSpec> {
        self.disks().find(|disk| disk.name.as_ref() == name)
    }

    /// Returns the size of the disk that jobs find mounted, 0 without one; none where the instance has disks by name, of
    /// which each has its own.
    pub fn mounted_disk_mib(&self) -> Option<u64> {
        match &self.persistent_disk {
            Some(disk) => Some(disk.size_mib),
            None => self.named_disks.is_empty().then_some(0),
        }
    }
}

/// Returns the deployment that provides a link: names in it that are relative are relative to that one.
pub fn provider_of(link: &Value) -> Option<DeploymentName> {
    link.get("deployment_name").and_then(Value::as_str).map(DeploymentName::from)
}

/// A VM that exists or is being made. Rows are keyed by agent id, which is known before the cloud's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// The agent inside.
    pub agent: AgentId,
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// The cloud's id; none while `create_vm` has not answered.
    pub cid: Option<VmCid>,
    /// The CPI that made it.
    pub cpi: CpiName,
    /// The stemcell it was made from.
    pub stemcell: StemcellRef,
    /// Cloud properties it was made with, placeholders unresolved.
    pub cloud_properties: Value,
    /// Env it was made with, placeholders unresolved.
    pub env: Value,
    /// Networks it was made with.
    pub networks: Vec<NetworkSettings>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it is the instance's current VM.
    pub active: bool,
    /// Whether it was introduced to its instance. One that was not comes from a creation that was broken off: nobody
    /// works with it, and the next plan deletes it.
    #[serde(default = "is_bound")]
    pub bound: bool,
    /// The variable versions that it was made with.
    #[serde(default)]
    pub variable_set: VariableSetId,
}

impl Vm {
    /// Returns whether this is the VM that the instance works with.
    pub fn is_current(&self) -> bool {
        self.active && self.bound
    }
}

/// Rows of earlier versions do not say; most of their VMs are.
fn is_bound() -> bool {
    true
}

/// A persistent disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Our id, chosen by the plan.
    pub id: DiskId,
    /// The cloud's id; none while `create_disk` has not answered.
    pub cid: Option<DiskCid>,
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// The CPI that made it.
    pub cpi: CpiName,
    /// Size and properties it was made with.
    pub spec: DiskSpec,
    /// Whether it is the instance's current disk of its name.
    pub active: bool,
    /// The variable versions that it was made with.
    #[serde(default)]
    pub variable_set: VariableSetId,
}

/// One instance as the state knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The spec last handed to the agent (or planned, while it has never had one).
    pub spec: InstanceSpec,
    /// What the operator wants.
    pub state: InstanceState,
    /// False while an update is under way or has failed: the next deploy redoes it.
    pub update_completed: bool,
    /// Whether deploys leave it alone.
    pub ignore: bool,
    /// Whether this is a worker that compiles packages, not part of the deployment.
    pub compilation: bool,
    /// The variable versions that go with its spec.
    pub variable_set: VariableSetId,
}

impl Instance {
    /// Returns `group/uuid`, as operators write it.
    pub fn slug(&self) -> String {
        format!("{}/{}", self.spec.group, self.spec.id)
    }

    /// Returns whether the health monitor should expect a VM.
    pub fn expects_vm(&self) -> bool {
        self.spec.lifecycle == Lifecycle::Service
            && self.state != InstanceState::Detached
            && !self.compilation
    }
}
