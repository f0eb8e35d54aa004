//! Networks that directors make: before a deploy is drafted, since its plan is made of their addresses; and their deletion.
//!
//! The row of a subnet is committed before the cloud is asked for it, and what came of it after. Who finds a row of which
//! nobody knows what came looks for the subnet first; where the cloud can't search, what may exist becomes a leak.
//!
//! Read next: `state::apply::network`.

use std::sync::Arc;
use std::time::Duration;

use cpi_api::{CallContext, Cpi, CpiError, CpiErrorKind, CreateNetwork, Found};
use model::managed_network::{MadeSubnet, ManagedNetwork, ManagedSubnet, SubnetWish, unresolved};
use model::task::TaskError;
use model::{CpiName, ErrorCode, NetworkName, RequestId, SubnetId};
use scheduler::WantedNetwork;
use serde_json::Value;
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::Proposal;
use state::records::{LineState, SubnetIntent};

use crate::context::TaskContext;
use crate::error::{Interrupted, StepError, leaves_open};
use crate::lease::Lost;
use crate::prepare::Lines;
use crate::variables::{Resolver, Sight, StandIns};

// Stages, as BOSH calls them.
const CREATING: &str = "Creating managed networks";
const DELETING: &str = "Deleting orphaned networks";

/// How long a cloud may take for one call.
const CLOUD: Duration = Duration::from_secs(3600);

/// What a deed gave; the inner error is the operator's.
type Told<T> = Result<Result<T, TaskError>, Interrupted>;

/// Sees to it that the networks are there that a deploy uses, and that they are known to be its own.
pub async fn settle(context: &TaskContext, wanted: &[WantedNetwork]) -> Told<()> {
    let lines = Lines::of(context, count(wanted.len()));
    for (number, network) in wanted.iter().enumerate() {
        let row = row(context, &network.name);
        let of = context.task.deployment.clone().unwrap_or_default();
        let is_used = row.as_ref().is_some_and(|row| row.deployments.contains(&of));
        let is_whole = row.is_some_and(|row| is_whole(&row, network));
        let (label, index) = (network.name.as_str(), count(number + 1));
        if is_whole && is_used {
            // An earlier leader has made it, and has not come to tell.
            if lines.seen(CREATING, label) == Some(LineState::Started) {
                lines.finished(CREATING, label, index).await?;
            }
            continue;
        }
        if context.is_cancelling() {
            return Ok(Err(TaskError::plain("the task was cancelled")));
        }
        if is_whole {
            // Nothing is made: there is nothing to tell.
            if let Err(error) = make(context, network).await? {
                return Ok(Err(error));
            }
            continue;
        }
        lines.started(CREATING, label, index).await?;
        if let Err(error) = make(context, network).await? {
            lines.ended_badly(CREATING, label, index, &error).await?;
            return Ok(Err(error));
        }
        lines.finished(CREATING, label, index).await?;
    }
    Ok(Ok(()))
}

fn is_whole(row: &ManagedNetwork, network: &WantedNetwork) -> bool {
    let is_made = |wish: &SubnetWish| row.subnet(&wish.name).is_some_and(|subnet| subnet.made.is_some());
    row.retired_by.is_none() && network.subnets.iter().all(is_made)
}

/// Takes a network for the task's deployment, and makes what is missing of it.
async fn make(context: &TaskContext, network: &WantedNetwork) -> Told<()> {
    // The newest versions of variables: there is no set yet that could have pinned them.
    let resolver = Resolver::for_planning(context, Sight::DryRun(&StandIns::new()));
    let mut resolved = Vec::with_capacity(network.subnets.len());
    for wish in &network.subnets {
        match resolver.resolve(&wish.cloud_properties) {
            Ok(properties) => resolved.push(properties),
            Err(StepError::Failed(error)) => return Ok(Err(error)),
            Err(other) => return Ok(Err(TaskError::plain(other.to_string()))),
        }
    }
    drop(resolver);
    let intents: Vec<SubnetIntent> = network.subnets.iter().map(intent).collect();
    if let Err(error) = take(context, &network.name, &intents).await? {
        return Ok(Err(error));
    }
    for ((wish, intent), properties) in network.subnets.iter().zip(&intents).zip(resolved) {
        let row = row(context, &network.name);
        let Some(subnet) = row.and_then(|row| row.subnet(&wish.name).cloned()) else {
            let text = format!("subnet '{}' of network '{}' is gone", wish.name, network.name);
            return Ok(Err(TaskError::plain(text)));
        };
        if subnet.made.is_some() {
            continue;
        }
        let maker = Maker { context, network: &network.name, subnet: &subnet, wish };
        let is_first = subnet.id == intent.id;
        if let Err(error) = maker.make(is_first, properties).await? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn intent(wish: &SubnetWish) -> SubnetIntent {
    let id = SubnetId::new(uuid::Uuid::new_v4().to_string());
    SubnetIntent { name: wish.name.clone(), id, cpi: wish.cpi.clone() }
}

/// Files what is about to be made. Waits while another task is at work on the network; ends a deletion that was broken off.
async fn take(context: &TaskContext, name: &NetworkName, subnets: &[SubnetIntent]) -> Told<()> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    loop {
        if let Err(error) = until_free(context, name).await? {
            return Ok(Err(error));
        }
        let take = Command::NetworkTake { task, epoch, network: name.clone(), subnets: subnets.to_vec() };
        match context.propose(Proposal::own(take)).await? {
            Ok(_) => return Ok(Ok(())),
            // Another task was quicker.
            Err(Refusal::InUse { .. }) => {}
            Err(_) if row(context, name).is_some_and(|row| row.retired_by.is_some()) => {
                if let Err(error) = remove(context, name).await? {
                    return Ok(Err(error));
                }
            }
            Err(other) => return Ok(Err(TaskError::plain(other.to_string()))),
        }
    }
}

/// Waits while another task is at work on a network. Asked of the state and not of the log: a refusal is an entry, too.
async fn until_free(context: &TaskContext, name: &NetworkName) -> Told<()> {
    loop {
        let revision = context.ports.log.revision();
        let other = {
            let view = context.view();
            let state = State::new(&*view);
            state.network(name).and_then(|network| state.at_work_on(&network, context.id()))
        };
        let Some(other) = other else { return Ok(Ok(())) };
        context.debug(&format!("waiting for task {other}, which is at work on network '{name}'"));
        tokio::select! {
            _ = context.ports.log.changed(revision) => {}
            () = context.cancelled.cancelled() => return Ok(Err(TaskError::plain("the task was cancelled"))),
            lost = context.fence.lost() => return Err(lost.into()),
        }
    }
}

/// Makes one subnet, whose row is there.
struct Maker<'a> {
    context: &'a TaskContext,
    network: &'a NetworkName,
    subnet: &'a ManagedSubnet,
    wish: &'a SubnetWish,
}

impl Maker<'_> {
    async fn make(&self, is_first: bool, properties: Value) -> Told<()> {
        if !is_first {
            match self.made_before(&properties).await? {
                Ok(false) => {}
                Ok(true) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
        let request = CreateNetwork {
            subnet_id: self.subnet.id.clone(),
            range: self.wish.range.clone(),
            gateway: self.wish.gateway.clone(),
            netmask_bits: self.wish.netmask_bits,
            cloud_properties: properties.clone(),
        };
        let create =
            |cpi: Arc<dyn Cpi>, call: CallContext| async move { cpi.create_network(&call, request).await };
        let error = match call(self.context, &self.subnet.cpi, "create-network", create).await? {
            Ok(Ok(made)) => return self.file(made, &properties).await,
            Ok(Err(error)) => error,
            Err(no_cloud) => {
                put(self.context, self.network, &self.subnet.id, None).await?;
                return Ok(Err(no_cloud));
            }
        };
        if leaves_open(&error) {
            match self.made_before(&properties).await? {
                Ok(false) => {}
                Ok(true) => return Ok(Ok(())),
                // It keeps its row, by which it is looked for the next time.
                Err(_) => return Ok(Err(told(&error))),
            }
        } else {
            put(self.context, self.network, &self.subnet.id, None).await?;
        }
        Ok(Err(told(&error)))
    }

    /// Looks for what an earlier call has made, and files it. Where nobody can tell, it becomes a leak, and another one is
    /// made.
    async fn made_before(&self, properties: &Value) -> Told<bool> {
        let what = format!("subnet '{}' of network '{}'", self.subnet.name, self.network);
        match find(self.context, self.subnet).await? {
            Ok(Found::These(mut found)) => {
                let Some(made) = found.pop() else { return Ok(Ok(false)) };
                for double in found {
                    let text = format!("{what}: '{}' was made beside '{}'", double.cid, made.cid);
                    self.context.leaked(&format!("subnet-{}", double.cid), text).await?;
                }
                Ok(self.file(made, properties).await?.map(|()| true))
            }
            Ok(Found::CannotTell) => {
                let text = format!(
                    "{what} may have been made in the cloud by a call whose answer was lost, and its cloud can't search for it"
                );
                let id = format!("subnet-{}-{}", self.subnet.id, self.context.fence.epoch());
                self.context.leaked(&id, text).await?;
                Ok(Ok(false))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn file(&self, made: MadeSubnet, properties: &Value) -> Told<()> {
        let cloud_properties = unresolved(made.cloud_properties, properties, &self.wish.cloud_properties);
        let made = MadeSubnet { cloud_properties, ..made };
        let cid = made.cid.clone();
        put(self.context, self.network, &self.subnet.id, Some(made)).await?;
        self.context
            .debug(&format!("subnet '{}' of network '{}' is '{cid}'", self.subnet.name, self.network));
        Ok(Ok(()))
    }
}

/// Looks for a subnet by our id.
async fn find(context: &TaskContext, subnet: &ManagedSubnet) -> Told<Found<MadeSubnet>> {
    let id = subnet.id.clone();
    let find = |cpi: Arc<dyn Cpi>, call: CallContext| async move { cpi.find_network(&call, &id).await };
    Ok(match call(context, &subnet.cpi, "find-network", find).await? {
        Ok(Ok(found)) => Ok(found),
        // Who can't make any has made none.
        Ok(Err(error)) if error.kind == CpiErrorKind::NotImplemented => Ok(Found::none()),
        Ok(Err(error)) => Err(told(&error)),
        Err(no_cloud) => Err(no_cloud),
    })
}

/// Files what came of a subnet.
async fn put(
    context: &TaskContext,
    network: &NetworkName,
    subnet: &SubnetId,
    made: Option<MadeSubnet>,
) -> Result<(), Interrupted> {
    let (task, epoch, network, subnet) =
        (context.id(), context.fence.epoch(), network.clone(), subnet.clone());
    context.propose(Proposal::own(Command::SubnetPut { task, epoch, network, subnet, made })).await??;
    Ok(())
}

/// Deletes networks that nobody uses. One that can't be deleted says nothing about the others, but the task fails.
pub async fn delete(context: &TaskContext, networks: &[NetworkName]) -> Result<TaskEnd, Interrupted> {
    let lines = Lines::of(context, count(networks.len()));
    let (mut deleted, mut failure) = (0, None);
    for (number, name) in networks.iter().enumerate() {
        if context.is_cancelling() {
            return Ok(TaskEnd::Cancelled);
        }
        let (label, index) = (name.as_str(), count(number + 1));
        match lines.seen(DELETING, label) {
            Some(LineState::Finished) => {
                deleted += 1;
                continue;
            }
            Some(LineState::Failed) => {
                failure.get_or_insert_with(|| {
                    TaskError::plain(format!("network '{name}' could not be deleted"))
                });
                continue;
            }
            Some(LineState::Started) | None => lines.started(DELETING, label, index).await?,
        }
        match remove(context, name).await? {
            Ok(()) => {
                deleted += 1;
                lines.finished(DELETING, label, index).await?;
            }
            Err(error) => {
                lines.ended_badly(DELETING, label, index, &error).await?;
                failure.get_or_insert(error);
            }
        }
    }
    Ok(match failure {
        None => TaskEnd::Done(Some(format!("Deleted {deleted} orphaned network(s)"))),
        Some(error) => TaskEnd::Error(error),
    })
}

/// Retires a network, so that nobody begins to use it, and has the clouds delete it.
async fn remove(context: &TaskContext, name: &NetworkName) -> Told<()> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let retire = Command::NetworkRetire { task, epoch, network: name.clone() };
    // The first answer counts: a new leader may find nothing left to retire.
    let request_id = Some(RequestId::new(format!("t{task}-retire-network-{name}")));
    match context.propose(Proposal { request_id, ..Proposal::own(retire) }).await? {
        Ok(_) => {}
        Err(Refusal::NotFound { .. }) => {
            let text = format!("Network '{name}' not found");
            return Ok(Err(TaskError::new(ErrorCode::NetworkNotFound, text)));
        }
        Err(Refusal::InUse { by, .. }) => {
            let text = format!("Network '{name}' can't be deleted: it is in use by {by}");
            return Ok(Err(TaskError::new(ErrorCode::NetworkDeletingUnorphanedError, text)));
        }
        Err(other) => return Err(other.into()),
    }
    let subnets = row(context, name).map(|row| row.subnets).unwrap_or_default();
    for subnet in subnets {
        let cids = match &subnet.made {
            Some(made) => vec![made.cid.clone()],
            None => match what_may_be_left(context, name, &subnet).await? {
                Ok(cids) => cids,
                Err(error) => return Ok(Err(error)),
            },
        };
        for cid in cids {
            let delete =
                |cpi: Arc<dyn Cpi>, call: CallContext| async move { cpi.delete_network(&call, &cid).await };
            match call(context, &subnet.cpi, "delete-network", delete).await? {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Ok(Err(told(&error))),
                Err(no_cloud) => return Ok(Err(no_cloud)),
            }
        }
        put(context, name, &subnet.id, None).await?;
    }
    Ok(Ok(()))
}

/// Looks for a subnet of which nobody knows whether it was made. What is not found may still appear: that is a leak.
async fn what_may_be_left(
    context: &TaskContext,
    network: &NetworkName,
    subnet: &ManagedSubnet,
) -> Told<Vec<model::SubnetCid>> {
    let cids: Vec<_> = match find(context, subnet).await? {
        Ok(Found::These(found)) => found.into_iter().map(|made| made.cid).collect(),
        Ok(Found::CannotTell) => Vec::new(),
        Err(error) => return Ok(Err(error)),
    };
    if cids.is_empty() {
        let text = format!(
            "subnet '{}' of network '{network}' with id {} may have been made in the cloud by a call whose answer was lost",
            subnet.name, subnet.id
        );
        context.leaked(&format!("subnet-{}-gone", subnet.id), text).await?;
    }
    Ok(Ok(cids))
}

/// Calls a cloud; the inner errors are the cloud's, and that there is none.
async fn call<T, F>(
    context: &TaskContext,
    cpi: &CpiName,
    what: &str,
    call: impl FnOnce(Arc<dyn Cpi>, CallContext) -> F,
) -> Told<Result<T, CpiError>>
where
    F: Future<Output = Result<T, CpiError>>,
{
    let cloud = match context.cloud(cpi) {
        Ok(cloud) => cloud,
        Err(none) => return Ok(Err(none)),
    };
    let as_asked = context.call(what, CLOUD);
    let request_id = as_asked.request_id.clone();
    context.fence.check()?;
    let answer = tokio::select! {
        answer = tokio::time::timeout(CLOUD, call(cloud, as_asked)) => answer,
        lost = context.fence.lost() => return Err(lost.into()),
    };
    let late = || CpiError::new(CpiErrorKind::TimedOut, "call", "no answer within an hour");
    match answer.unwrap_or_else(|_| Err(late())).map_err(|error| error.for_request(&request_id)) {
        Err(error) if error.kind == CpiErrorKind::Fenced => Err(Lost { epoch: context.fence.epoch() }.into()),
        answer => Ok(Ok(answer)),
    }
}

fn row(context: &TaskContext, name: &NetworkName) -> Option<ManagedNetwork> {
    let view = context.view();
    State::new(&*view).network(name)
}

fn told(error: &CpiError) -> TaskError {
    TaskError::plain(error.to_string())
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
