//! The planner: facts in, a complete plan out. Pure.
//!
//! A deploy is planned in two halves, because templates are Ruby and Ruby is not pure: [`draft`] validates, places
//! instances and reserves addresses; the caller renders [`Draft::to_render`]; [`plan`] then sees what changed and
//! orders the work. Other tasks ([`plan_delete_deployment`], [`plan_state_change`], [`plan_errand`],
//! [`plan_resurrection`], [`plan_orphaned_disks`]) use stored specs and need no rendering.
//!
//! Deliberately *not* here: reading state, rendering, secrets, clocks. Invariant: identical input gives an identical
//! plan, and a plan leaves no choice open.
//!
//! Read next: [`input`], then `draft`, then `order`.

mod address;
mod bind;
pub mod chance;
mod compile;
mod deletion;
mod deploy;
mod desired;
mod diff;
mod disk;
mod dns;
mod documents;
mod draft;
mod facts;
pub mod input;
mod links;
mod migrate;
mod network;
mod order;
mod placement;
mod statics;
mod steps;
mod update;
mod variables;

use model::plan::Plan;
use model::release::ReleaseVersion;
use model::task::TaskError;
use model::{DiskId, InstanceId};

pub use deletion::plan_delete_deployment;
pub use deploy::plan;
pub use draft::{Draft, DraftInstance, RenderedHashes, VariableDefinition, draft};
use input::{DeploymentFacts, Director, ErrandRequest, StateChangeRequest};

fn unfinished(what: &str) -> TaskError {
    TaskError::plain(format!("planning {what} is being built"))
}

/// Plans start, stop, restart or recreate of some instances with their stored specs.
pub fn plan_state_change(
    _director: &Director,
    _deployment: &DeploymentFacts<'_>,
    _request: &StateChangeRequest<'_>,
) -> Result<Plan, TaskError> {
    Err(unfinished("state changes"))
}

/// Plans a run of an errand.
pub fn plan_errand(
    _director: &Director,
    _deployment: &DeploymentFacts<'_>,
    _releases: &[ReleaseVersion],
    _request: &ErrandRequest<'_>,
) -> Result<Plan, TaskError> {
    Err(unfinished("errands"))
}

/// Plans new VMs for instances whose VMs are gone or dead.
pub fn plan_resurrection(
    _director: &Director,
    _deployment: &DeploymentFacts<'_>,
    _instances: &[InstanceId],
) -> Result<Plan, TaskError> {
    Err(unfinished("resurrections"))
}

/// Plans the deletion of orphaned disks.
pub fn plan_orphaned_disks(_disks: &[DiskId]) -> Plan {
    Plan {
        deployment: None,
        generation: 0,
        targets: Vec::new(),
        reservations: Vec::new(),
        phases: Vec::new(),
        record: None,
        warnings: Vec::new(),
    }
}
