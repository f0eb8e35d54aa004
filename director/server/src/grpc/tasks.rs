//! Tasks, and following one from any byte of its output.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use model::task::OutputKind;
use model::{DeploymentName, TaskId};
use proto::v1 as pb;
use proto::v1::tasks_server::Tasks;
use service::ops::{Output, TaskView, UnitView};
use service::{Caller, List, Read};
use state::records::OutputSegment;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::convert::{given, name, page, time};
use super::request_id;
use crate::door::Door;
use crate::error_map::{internal, status, unavailable};

/// Bytes of output in one message.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long to let changes gather before the next look.
const BURST: Duration = Duration::from_millis(20);

/// Messages ahead of a slow reader.
const AHEAD: usize = 4;

fn task(view: TaskView) -> pb::Task {
    let task = view.task;
    pb::Task {
        id: task.id.0,
        state: name(&task.state),
        description: task.description(),
        deployment: task.deployment.map(|d| d.to_string()).unwrap_or_default(),
        user: task.user.to_string(),
        context_id: task.context_id,
        queued_at_unix_ms: task.queued_at.0,
        started_at_unix_ms: time(task.started_at),
        finished_at_unix_ms: time(task.finished_at),
        result: task.result.unwrap_or_default(),
        error_code: task.error.as_ref().map_or(0, |e| e.code),
        error_message: task.error.map(|e| e.message).unwrap_or_default(),
        waits_for: view.waits_for.into_iter().map(|t| t.0).collect(),
        epoch: task.epoch.0,
        teams: task.teams,
    }
}

fn unit(view: UnitView) -> pb::TaskUnit {
    use model::step::StepOutcome;
    let steps = view.steps.into_iter().map(|(name, journal)| {
        let (outcome, error) = match journal.outcome {
            None => (String::new(), String::new()),
            Some(StepOutcome::Failed { error, .. }) => ("failed".into(), error.message),
            Some(StepOutcome::PassedOver { error }) => ("passed over".into(), error.message),
            Some(_) => ("done".into(), String::new()),
        };
        pb::TaskStep { name: name.into(), attempts: journal.attempts, epoch: journal.epoch.0, outcome, error }
    });
    pb::TaskUnit {
        no: view.no.0,
        stage: view.stage,
        label: view.label,
        state: name(&view.state),
        steps: steps.collect(),
    }
}

fn kind(wire: pb::follow_task_request::Kind) -> OutputKind {
    match wire {
        pb::follow_task_request::Kind::Event => OutputKind::Event,
        pb::follow_task_request::Kind::Result => OutputKind::Result,
        pb::follow_task_request::Kind::Debug => OutputKind::Debug,
        pb::follow_task_request::Kind::Cpi => OutputKind::Cpi,
    }
}

/// A task being followed by one client.
struct Follower {
    door: Door,
    caller: Caller,
    id: TaskId,
    kind: OutputKind,
    offset: u64,
    wait: bool,
    to: mpsc::Sender<Result<pb::TaskOutput, Status>>,
}

impl Follower {
    /// Sends what there is, then what comes, until the task has ended. State and output are always from one look, so
    /// the end is never told before the last byte.
    async fn run(mut self) {
        loop {
            let seen = self.door.service.log().revision();
            let (service, caller) = (self.door.service.clone(), self.caller.clone());
            let (id, kind, offset) = (self.id, self.kind, self.offset);
            let read = move || service.task_output(&caller, id, kind, offset, CHUNK_BYTES);
            // Reading is work for a disk: off the threads that serve everybody.
            let (view, output) = match tokio::task::spawn_blocking(read).await {
                Ok(Ok(read)) => read,
                Ok(Err(error)) => return drop(self.to.send(Err(status(error))).await),
                Err(_) => return drop(self.to.send(Err(internal("reading the output failed"))).await),
            };
            match self.pass_on(output).await {
                Ok(0) => {}
                Ok(_) => continue,
                Err(error) => return drop(self.to.send(Err(error)).await),
            }
            if view.task.state.is_final() || !self.wait {
                let last =
                    pb::TaskOutput { offset: self.offset, data: Default::default(), task: Some(task(view)) };
                return drop(self.to.send(Ok(last)).await);
            }
            tokio::select! {
                _ = self.door.service.log().changed(seen) => {}
                () = self.to.closed() => return,
            }
            // Changes come in bursts, mostly other tasks'; each look reads the task with its whole manifest.
            tokio::time::sleep(BURST).await;
        }
    }

    /// Sends output on; returns how many bytes there were.
    async fn pass_on(&mut self, output: Output) -> Result<usize, Status> {
        match output {
            Output::Bytes(bytes) => self.send(bytes).await,
            Output::Segments(segments) => {
                let mut sent = 0;
                for segment in segments {
                    sent += self.send_segment(&segment).await?;
                }
                Ok(sent)
            }
        }
    }

    async fn send_segment(&mut self, segment: &OutputSegment) -> Result<usize, Status> {
        let content = executor::blobs::read_whole(&*self.door.blobs, &segment.blob).await;
        let content = content.map_err(|e| unavailable(e.to_string()))?;
        let skip = self.offset.saturating_sub(segment.offset) as usize;
        self.send(content.get(skip..).unwrap_or_default().to_vec()).await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<usize, Status> {
        let length = bytes.len();
        if length > 0 {
            let message = pb::TaskOutput { offset: self.offset, data: bytes.into(), task: None };
            self.to.send(Ok(message)).await.map_err(|_| Status::cancelled("the client has left"))?;
            self.offset += length as u64;
        }
        Ok(length)
    }
}

#[async_trait]
impl Tasks for Door {
    async fn list(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let deployment = given(wish.deployment).map(DeploymentName::new);
        let listed = self.service.tasks(&caller, wish.current, deployment, &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListTasksResponse {
            tasks: rows.into_iter().map(task).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn get(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::Task>, Status> {
        let caller = self.caller(&request).await?;
        let found = self.service.task(&caller, TaskId(request.into_inner().id)).await.map_err(status)?;
        Ok(Response::new(task(found)))
    }

    type FollowStream = Pin<Box<dyn Stream<Item = Result<pb::TaskOutput, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<pb::FollowTaskRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        // One barrier: a client that saw a byte elsewhere must not be told here that there is none.
        self.service.look(Read::Linearizable).await.map_err(status)?;
        self.service.may_follow(&caller, TaskId(wish.id), kind(wish.kind())).map_err(status)?;
        let (to, from) = mpsc::channel(AHEAD);
        let follower = Follower {
            door: self.clone(),
            caller,
            id: TaskId(wish.id),
            kind: kind(wish.kind()),
            offset: wish.offset,
            wait: !wish.no_wait,
            to,
        };
        self.tasks.spawn("follow a task", owned_tasks::OnExit::Ignore, |stop| async move {
            tokio::select! {
                () = follower.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelTaskRequest>,
    ) -> Result<Response<pb::CancelTaskResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let cancelled =
            self.service.cancel_task(&caller, request_id(&wish.request_id), TaskId(wish.id)).await;
        Ok(Response::new(pb::CancelTaskResponse { state: name(&cancelled.map_err(status)?) }))
    }

    async fn steps(
        &self,
        request: Request<pb::GetTaskStepsRequest>,
    ) -> Result<Response<pb::TaskSteps>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed = self.service.task_steps(&caller, TaskId(wish.id), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::TaskSteps {
            units: rows.into_iter().map(unit).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }
}
