//! A plan: every choice of a task already made, as data. Carrying it out needs no judgement.
//!
//! Phases run one after the other; the stages of a phase run side by side; the waves of a stage one after the other;
//! the units of a wave up to `max_in_flight` at once, in order, each after the units it names; the steps of a unit in order.
//! The first unit that fails stops new ones from starting, cleanup units excepted, unless the plan says otherwise of it;
//! those under way run on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dns::DnsSubject;
use crate::ids::*;
use crate::instance::{AddressKind, InstanceSpec, InstanceState};
use crate::link::Links;
use crate::step::Action;

/// Why an instance is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The last update did not complete.
    Dirty,
    /// A restart was asked for.
    Restart,
    /// A new VM was asked for, or the agent is unresponsive and `fix` was given.
    Recreate,
    /// New disks were asked for.
    RecreatePersistentDisks,
    /// Cloud properties differ from those the VM was made with.
    CloudProperties,
    /// Another stemcell.
    Stemcell,
    /// Another env.
    Env,
    /// Other networks or addresses.
    Network,
    /// Other compiled packages.
    Packages,
    /// Another disk, none any more, or one for the first time.
    PersistentDisk,
    /// Templates render differently.
    Configuration,
    /// Other jobs.
    Job,
    /// Jobs run that should not, or the other way round.
    State,
    /// Local DNS records differ.
    Dns,
    /// Trusted certificates differ.
    TrustedCerts,
    /// Tags differ.
    Tags,
}

/// What the plan does to an instance as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Did not exist before.
    New,
    /// Exists and stays as it is; only its stored spec is refreshed.
    Untouched,
    /// Updated in place.
    Updated,
    /// Gets a new VM.
    Recreated,
    /// Goes away.
    Deleted,
}

/// One instance in a plan: what it should be and why it is touched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What it should be.
    pub spec: InstanceSpec,
    /// What the operator wants of it.
    pub state: InstanceState,
    /// What happens to it.
    pub fate: Fate,
    /// Why.
    pub changes: Vec<Change>,
    /// Whether this is a worker that compiles packages.
    #[serde(default)]
    pub compilation: bool,
}

/// An address to hold for an instance, refused if somebody else has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The address; unique in the whole director.
    pub ip: std::net::IpAddr,
    /// The network it is in.
    pub network: NetworkName,
    /// Who holds it.
    pub instance: InstanceId,
    /// Picked or named.
    pub kind: AddressKind,
    /// The length of the block that begins there, if it is more than one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
}

/// Progress text that a step shows while it runs, and how much of the unit is then done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on (`executing drain`).
    pub status: String,
    /// Percent of the unit done when the step starts.
    pub percent: u8,
}

/// What a failure does to what comes after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing new begins: no other step of the unit, no other unit of the plan.
    #[default]
    Stop,
    /// The rest goes on. A failed step is told as a warning, a failed unit still fails its task in the end.
    GoOn,
}

impl OnFailure {
    fn is_stop(&self) -> bool {
        *self == Self::Stop
    }
}

/// How many of the units that a unit comes after must have ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// All of them.
    #[default]
    All,
    /// At least one; the others have ended somehow.
    Any,
}

impl Needs {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// A step of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The deed.
    pub action: Action,
    /// Shown while it runs, if anything.
    pub progress: Option<Progress>,
    /// What becomes of its unit if it fails.
    #[serde(default, skip_serializing_if = "OnFailure::is_stop")]
    pub on_failure: OnFailure,
}

/// A line of the task's progress: some steps done in order, usually for one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The unit's number in the plan.
    pub no: UnitNo,
    /// What the event line shows (`web/<uuid> (0) (canary)`).
    pub label: String,
    /// Units that must have ended well before this one starts (for a cleanup unit: ended at all).
    pub after: Vec<UnitNo>,
    /// Whether one of them is enough.
    #[serde(default, skip_serializing_if = "Needs::is_all")]
    pub needs: Needs,
    /// What becomes of the plan if it fails.
    #[serde(default, skip_serializing_if = "OnFailure::is_stop")]
    pub on_failure: OnFailure,
    /// Runs even when others failed or the task was cancelled, if any unit in `after` was started.
    pub cleanup: bool,
    /// The deeds in order.
    pub steps: Vec<Step>,
}

/// Units that may run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// How many at once.
    pub max_in_flight: u32,
    /// The units in the order in which they start.
    pub units: Vec<Unit>,
}

/// A heading of the task's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The heading (`Updating instance`); a silent stage shows no lines.
    pub title: Option<String>,
    /// Tags of the event lines (the group's name).
    pub tags: Vec<String>,
    /// How many units the event lines announce.
    pub total: u32,
    /// Waves, one after the other.
    pub waves: Vec<Wave>,
}

/// Stages that run side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The stages.
    pub stages: Vec<Stage>,
}

/// What is stored as the deployment's last successful state by the `SaveDeployment` step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The deployment's name.
    pub name: DeploymentName,
    /// The manifest as posted; placeholders unresolved.
    pub manifest_text: String,
    /// The manifest with `latest` resolved; placeholders unresolved.
    pub manifest: Value,
    /// Configs it was planned with.
    pub configs: Vec<ConfigId>,
    /// Releases it uses.
    pub releases: Vec<crate::instance::ReleaseRef>,
    /// Stemcells it uses, as (name, version).
    pub stemcells: Vec<(String, Version)>,
    /// Link providers and consumers, for later deploys (opaque to the state).
    pub links: Value,
    /// Tags.
    pub tags: std::collections::BTreeMap<String, String>,
    /// Variable versions it was planned with.
    pub variable_set: VariableSetId,
    /// Links as they can be asked for. They get rows of their own when the record is saved, and are not kept in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_links: Option<Box<Links>>,
    /// Networks that it uses and that directors make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_networks: Vec<NetworkName>,
}

/// A whole task, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The deployment it is for; none for work on orphaned disks and the like.
    pub deployment: Option<DeploymentName>,
    /// The deployment's generation it was based on; refused if that has moved.
    pub generation: u64,
    /// Instances in it.
    pub targets: Vec<Target>,
    /// Addresses to take when the plan is accepted.
    pub reservations: Vec<Reservation>,
    /// The work.
    pub phases: Vec<Phase>,
    /// What `SaveDeployment` stores.
    pub record: Option<DeploymentRecord>,
    /// Shown in the task's output (deprecations, one-instance warnings …).
    pub warnings: Vec<String>,
    /// What DNS names tell by number; whatever has none yet gets one when the plan is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_subjects: Vec<DnsSubject>,
}

impl Plan {
    /// Returns every unit, to be changed.
    pub fn units_mut(&mut self) -> impl Iterator<Item = &mut Unit> {
        let stages = self.phases.iter_mut().flat_map(|p| &mut p.stages);
        stages.flat_map(|s| &mut s.waves).flat_map(|w| &mut w.units)
    }

    /// Returns every unit in the order in which it may start.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.phases.iter().flat_map(|p| &p.stages).flat_map(|s| &s.waves).flat_map(|w| &w.units)
    }
}
