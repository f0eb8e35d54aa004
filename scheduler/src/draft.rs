//! The first half of planning: everything that can be decided before templates are rendered.

use std::collections::BTreeMap;

use model::instance::{InstanceSpec, InstanceState};
use model::plan::{DeploymentRecord, Reservation};
use model::task::TaskError;
use model::*;
use serde_json::Value;

use crate::input::PlanInput;

/// A variable to generate before templates are rendered, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableDefinition {
    /// The absolute name.
    pub name: VariableName,
    /// `password`, `certificate`, `ssh`, `rsa` or whatever the store knows.
    pub kind: String,
    /// Options with `ca` made absolute and link addresses filled in.
    pub options: Value,
    /// What to do if it exists: `no-overwrite`, `overwrite` or `converge`.
    pub mode: String,
    /// Whether a new version is made only when all stemcells change (`on-stemcell-change`).
    pub strategy: String,
}

/// What a job's templates rendered to, as hashes (`spec/manifest.md` §12, §13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedHashes {
    /// Over all jobs' files and destinations.
    pub configuration_hash: String,
    /// Over each job's files.
    pub template_hashes: BTreeMap<JobName, String>,
}

/// One desired instance before rendering.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftInstance {
    /// What it should be; hashes are still empty.
    pub spec: InstanceSpec,
    /// What the operator wants of it.
    pub state: InstanceState,
    /// Whether it must be rendered: ignored instances and errand groups without VMs need not.
    pub render: bool,
}

/// A deployment decided up to the rendering of templates.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Desired instances, group by group in manifest order.
    pub instances: Vec<DraftInstance>,
    /// Instances to delete.
    pub obsolete: Vec<InstanceId>,
    /// Addresses to take.
    pub reservations: Vec<Reservation>,
    /// Variables to generate, in order.
    pub variables: Vec<VariableDefinition>,
    /// What a success stores.
    pub record: DeploymentRecord,
    /// Deprecations and the like for the task's output.
    pub warnings: Vec<String>,
}

impl Draft {
    /// Returns the specs whose templates must be rendered before [`crate::plan`].
    pub fn to_render(&self) -> impl Iterator<Item = &InstanceSpec> {
        self.instances.iter().filter(|i| i.render).map(|i| &i.spec)
    }
}

/// Decides everything that does not depend on rendered templates.
pub fn draft(_input: &PlanInput<'_>) -> Result<Draft, TaskError> {
    Err(TaskError::plain("planning deploys is being built"))
}
