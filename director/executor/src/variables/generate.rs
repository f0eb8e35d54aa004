//! Generating values for what a deploy defines, and pinning them.
//!
//! Generating is not pure, so it happens before planning: each value is sealed, committed and pinned in the task's
//! variable set; a new leader that plans the same task again finds them pinned and makes no others.

use model::task::TaskError;
use model::{ErrorCode, VariableName, VariableSetId};
use ring::digest::{SHA256, digest};
use scheduler::{Renewal, VariableDefinition};
use serde_json::Value;
use state::State;
use state::command::{Command, NewVariable, VariablePin};
use state::log::Proposal;
use state::records::Variable;

use super::{Resolver, Sight, StandIns, pins, values};
use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};

/// Makes sure that every definition has a version in the task's variable set, in order.
pub async fn generate_missing(
    task: &TaskContext,
    set: VariableSetId,
    definitions: &[VariableDefinition],
) -> Result<Result<(), TaskError>, Interrupted> {
    for definition in definitions {
        let version = match source(task, set, definition) {
            Err(error) => return Ok(Err(error)),
            Ok(Source::Pinned) => continue,
            Ok(Source::Kept(version)) => version,
            Ok(Source::Made) => match make(task, set, definition).await? {
                Ok(()) => continue,
                Err(error) => return Ok(Err(error)),
            },
        };
        let pin = VariablePin { name: definition.name.clone(), version, provider: None };
        pins::propose(task, set, vec![pin]).await?;
    }
    Ok(Ok(()))
}

/// Returns what a dry run shows in the place of the values that the deploy would generate, in their shapes. Nothing of
/// it is a secret, and the same deploy gives the same again.
pub fn stand_ins(task: &TaskContext, definitions: &[VariableDefinition]) -> Result<StandIns, TaskError> {
    let nobody = VariableSetId::default();
    let mut stand_ins = StandIns::new();
    for definition in definitions {
        if let Source::Made = source(task, nobody, definition)? {
            stand_ins.insert(definition.name.clone(), values::stand_in(definition)?);
        }
    }
    Ok(stand_ins)
}

/// Where the version of a definition comes from.
enum Source {
    /// It is in the set already.
    Pinned,
    /// This version is good enough.
    Kept(u64),
    /// It has to be made.
    Made,
}

fn source(
    task: &TaskContext,
    set: VariableSetId,
    definition: &VariableDefinition,
) -> Result<Source, TaskError> {
    let view = task.view();
    let state = State::new(&*view);
    let name = &definition.name;
    if state.variable_set(set).is_some_and(|set| set.pins.contains_key(name)) {
        return Ok(Source::Pinned);
    }
    let deployment = task.task.deployment.clone().unwrap_or_default();
    let deployed = || state.deployed_variable_set(&deployment)?.pins.get(name).copied();
    if definition.renewal == Renewal::Later
        && let Some(version) = deployed()
    {
        return Ok(Source::Kept(version));
    }
    let kept = |found: Option<Variable>| found.map_or(Source::Made, |found| Source::Kept(found.version));
    let found = state.latest_variable(name);
    match definition.mode.as_str() {
        "overwrite" => Ok(Source::Made),
        "converge" => Ok(kept(found.filter(|found| found.options_digest == options_digest(definition)))),
        "no-overwrite" => Ok(kept(found)),
        other => Err(TaskError::new(
            ErrorCode::ConfigServerGenerationError,
            format!(
                "variable '{name}' has unknown update_mode '{other}' (no-overwrite, overwrite and converge are known)"
            ),
        )),
    }
}

fn options_digest(definition: &VariableDefinition) -> String {
    hex::encode(digest(&SHA256, definition.options.to_string().as_bytes()))
}

/// Makes a value, and commits and pins it.
async fn make(
    task: &TaskContext,
    set: VariableSetId,
    definition: &VariableDefinition,
) -> Result<Result<(), TaskError>, Interrupted> {
    let authority = match authority(task, set, definition).await? {
        Ok(authority) => authority,
        Err(error) => return Ok(Err(error)),
    };
    let wanted = definition.clone();
    let making = tokio::task::spawn_blocking(move || values::make(&wanted, authority.as_ref()));
    let made = tokio::select! {
        made = making => made,
        // It ends by itself in seconds, and nobody hears of what it made.
        () = task.cancelled.cancelled() => {
            return Ok(Err(TaskError::plain(format!("task {} was cancelled", task.id()))));
        }
    };
    let value = match made {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => return Ok(Err(error)),
        Err(_) => {
            let message = format!("making a value of variable '{}' was broken off", definition.name);
            return Ok(Err(TaskError::plain(message)));
        }
    };
    let new = NewVariable {
        name: definition.name.clone(),
        kind: definition.kind.clone(),
        options_digest: options_digest(definition),
        sealed: Some(task.ports.vault.seal(definition.name.as_str(), &value)),
    };
    let put = Command::VariablesPut { task: task.id(), epoch: task.fence.epoch(), set, values: vec![new] };
    task.ports.log.propose(Proposal::own(put)).await?.outcome.accepted()?;
    Ok(Ok(()))
}

/// Returns the value of the CA that a definition names, and pins it.
async fn authority(
    task: &TaskContext,
    set: VariableSetId,
    definition: &VariableDefinition,
) -> Result<Result<Option<Value>, TaskError>, Interrupted> {
    let Some(name) = definition.options.get("ca").and_then(Value::as_str) else { return Ok(Ok(None)) };
    pins::pin_newest(task, set, &[VariableName::new(name)]).await?;
    match Resolver::for_planning(task, Sight::Set(set)).resolve(&Value::String(format!("(({name}))"))) {
        Ok(value) => Ok(Ok(Some(value))),
        Err(StepError::Failed(_)) => Ok(Err(TaskError::new(
            ErrorCode::ConfigServerGenerationError,
            format!(
                "variable '{}' is to be signed by '{name}', which has no value yet: list that one first",
                definition.name
            ),
        ))),
        Err(other) => Ok(Err(TaskError::plain(other.to_string()))),
    }
}
