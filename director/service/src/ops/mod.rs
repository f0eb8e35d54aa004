//! One file per noun.

mod artifacts;
mod configs;
mod deployments;
mod fleet;
mod history;
mod instances;
mod tasks;
mod variables;

pub use configs::PutConfig;
pub use deployments::DeploymentSummary;
pub use instances::InstanceRow;
pub use tasks::{Output, TaskView, UnitView};
