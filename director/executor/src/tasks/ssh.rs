//! `ssh`: operators' users on machines, made before a session and removed after it. A new leader asks again under the same ids,
//! so an agent that made a user already says so once more.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::Method;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::task::{OutputKind, SshCommand, SshTarget, TaskError};
use model::{DeploymentName, ErrorCode, InstanceId, RequestId};
use serde_json::{Value, json};
use state::State;
use state::command::{Command, NewEvent, TaskEnd};
use state::log::Proposal;

use super::asking::{ASKED_AT_ONCE, Member, NoAnswer};
use crate::context::TaskContext;
use crate::error::{Interrupted, recordable};
use crate::ports::SshGateway;

/// How long an agent may take: BOSH's bound for requests that need no work.
const ANSWER: Duration = Duration::from_secs(45);

/// What the agents' requests are called.
const SSH: &str = "ssh";

/// What came of one instance.
type Done = Result<Result<Value, NoAnswer>, Interrupted>;

/// Has users made or removed; the result is a line with what each agent said.
pub async fn ssh(
    context: &TaskContext,
    deployment: &DeploymentName,
    command: &SshCommand,
    target: &SshTarget,
) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    if is_told(context) {
        return Ok(TaskEnd::Done(Some(String::new())));
    }
    let instances = matching(context, deployment, target);
    if instances.is_empty() {
        let text = format!("No instances matched {}", target.shown(deployment));
        return Ok(TaskEnd::Error(TaskError::new(ErrorCode::InstanceNotFound, text)));
    }
    let members = Member::all(context, &instances);
    if members.is_empty() {
        let text = format!("No instance with a VM matched {}", target.shown(deployment));
        return Ok(TaskEnd::Error(TaskError::new(ErrorCode::InstanceVmMissing, text)));
    }
    let asking: Vec<BoxFuture<'_, Done>> =
        members.iter().map(|member| one(context, member, command).boxed()).collect();
    let all = futures::stream::iter(asking).buffered(ASKED_AT_ONCE).collect::<Vec<Done>>();
    let answers = tokio::select! {
        answers = all => answers,
        () = context.cancelled.cancelled() => {
            futures::future::join_all(members.iter().map(|member| member.give_up(context, SSH))).await;
            return Ok(TaskEnd::Cancelled);
        }
    };
    // An answer that was cut short by the end of the lease says nothing about the agent.
    context.fence.check()?;
    let mut told = Vec::new();
    for answer in answers {
        match answer? {
            Ok(answer) => told.push(answer),
            Err(NoAnswer::Failed(error)) => return Ok(TaskEnd::Error(error)),
            Err(NoAnswer::Cancelled) => return Ok(TaskEnd::Cancelled),
        }
    }
    tell(context, &told).await?;
    Ok(TaskEnd::Done(Some(String::new())))
}

/// Returns whether an earlier leader has written the result.
fn is_told(context: &TaskContext) -> bool {
    let view = context.view();
    !State::new(&*view).output(context.id(), OutputKind::Result, 0, 1).is_empty()
}

async fn tell(context: &TaskContext, answers: &[Value]) -> Result<(), Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let report = Command::TaskReport { task, epoch, lines: format!("{}\n", json!(answers)) };
    let request_id = Some(RequestId::new(format!("t{task}-report")));
    context.propose(Proposal { request_id, ..Proposal::own(report) }).await??;
    Ok(())
}

fn matching(context: &TaskContext, deployment: &DeploymentName, target: &SshTarget) -> Vec<InstanceId> {
    let view = context.view();
    let mut specs: Vec<_> = State::new(&*view)
        .instances(deployment)
        .into_iter()
        .filter(|instance| !instance.compilation)
        .map(|instance| instance.spec)
        .filter(|spec| target.is_for(&spec.group, spec.index, &spec.id))
        .collect();
    specs.sort_by(|a, b| (&a.group, a.index).cmp(&(&b.group, b.index)));
    specs.into_iter().map(|spec| spec.id).collect()
}

/// Asks one agent. Who gets in is on record before it happens.
async fn one(context: &TaskContext, member: &Member, command: &SshCommand) -> Done {
    record(context, member, command, None).await?;
    let method = match command.clone() {
        SshCommand::Setup { user, public_key } => Method::SshSetup { user, public_key },
        SshCommand::Cleanup { user_regex } => Method::SshCleanup { user_regex },
    };
    match member.ask(context, SSH, method, ANSWER).await? {
        Ok(mut answer) if answer["status"] == "success" => {
            answer["id"] = json!(member.spec.id);
            answer["index"] = json!(member.spec.index);
            answer["job"] = json!(member.spec.group);
            if let Some(SshGateway { host, user }) = &context.ports.options.ssh_gateway {
                answer["gateway_host"] = json!(host);
                answer["gateway_user"] = json!(user);
            }
            Ok(Ok(answer))
        }
        Ok(_) => {
            let text = format!("{}: the agent does not say that it has succeeded", member.slug());
            let error = TaskError::new(ErrorCode::AgentInvalidTaskResult, text);
            record(context, member, command, Some(&error)).await?;
            Ok(Err(NoAnswer::Failed(error)))
        }
        Err(NoAnswer::Failed(error)) => {
            record(context, member, command, Some(&error)).await?;
            Ok(Err(NoAnswer::Failed(error)))
        }
        Err(NoAnswer::Cancelled) => Ok(Err(NoAnswer::Cancelled)),
    }
}

/// Writes an audit event, once for each instance, and once more if it failed.
async fn record(
    context: &TaskContext,
    member: &Member,
    command: &SshCommand,
    failed: Option<&TaskError>,
) -> Result<(), Interrupted> {
    let (word, user) = match command {
        SshCommand::Setup { user, .. } => ("setup", user),
        SshCommand::Cleanup { user_regex } => ("cleanup", user_regex),
    };
    let event = NewEvent {
        action: format!("{word} ssh"),
        object_type: "instance".into(),
        object_name: Some(member.slug()),
        deployment: Some(member.spec.deployment.clone()),
        instance: Some(member.slug()),
        task: Some(context.id()),
        context: BTreeMap::from([("user".to_owned(), json!(user))]),
        error: failed.map(|error| recordable(error.clone()).message),
        at: None,
    };
    let end = if failed.is_some() { "-failed" } else { "" };
    let request_id = Some(RequestId::new(format!("t{}-audit-{}{end}", context.id(), member.spec.id)));
    let command = Command::EventPut { event: Box::new(event) };
    context.propose(Proposal { request_id, command, user: context.task.user.clone() }).await??;
    Ok(())
}
