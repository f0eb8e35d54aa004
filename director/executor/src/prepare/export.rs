//! Planning what is to be compiled for an export.

use model::ErrorCode;
use model::task::{DeployOptions, ReleaseExport, TaskError};

use super::facts::{Facts, Wish};
use super::{Lines, Prepared, boxed};
use crate::context::TaskContext;
use crate::error::Interrupted;

const STAGE: &str = "Preparing package compilation";
const FINDING: &str = "Finding packages to compile";

/// Plans the compilation, with manifest, configs and versions of variables of the last success. Nobody asks the deployment's
/// agents: workers are all that it needs.
pub(super) async fn compile(
    context: &TaskContext,
    export: &ReleaseExport,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let mut facts = Facts::read(context);
    let manifest_text = match manifest(&facts, context) {
        Ok(text) => text,
        Err(error) => return Ok(Err(error)),
    };
    facts.take_back_to_last_success(context, &manifest_text);
    let options = DeployOptions::default();
    let wish = Wish { manifest_text: &manifest_text, options: &options, change: None };
    if let Err(error) = facts.ask_for_sizes(context, wish).await? {
        return Ok(Err(error));
    }
    let plan = match scheduler::plan_export(&facts.plan_input(wish), export) {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    Lines::new(context).done(STAGE, FINDING, 1).await?;
    Ok(Ok(plan.map_or(Prepared::Nothing(None), boxed)))
}

fn manifest(facts: &Facts, context: &TaskContext) -> Result<String, TaskError> {
    if !facts.exists {
        let name = context.task.deployment.clone().unwrap_or_default();
        let text = format!("Deployment '{name}' doesn't exist");
        return Err(TaskError::new(ErrorCode::DeploymentNotFound, text));
    }
    scheduler::stored_manifest(&facts.deployment())
}
