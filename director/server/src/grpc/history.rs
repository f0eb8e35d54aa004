//! Events, locks and changes.

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use model::{DeploymentName, Revision, TaskId};
use proto::v1 as pb;
use proto::v1::events_server::Events;
use proto::v1::locks_server::Locks;
use proto::v1::watch_server::Watch;
use state::query::EventFilter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Door;
use super::convert::{given, page};
use crate::error_map::status;

/// Changes in one message.
const CHANGES_MAX: usize = 500;

/// Messages ahead of a slow watcher.
const AHEAD: usize = 4;

#[async_trait]
impl Events for Door {
    async fn list(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let filter = EventFilter {
            task: Some(wish.task).filter(|t| *t != 0).map(TaskId),
            deployment: given(wish.deployment).map(DeploymentName::new),
            instance: given(wish.instance),
            ..EventFilter::default()
        };
        let (events, next_page_token) =
            self.service.events(&caller, &filter, &page(wish.page)).await.map_err(status)?;
        let event = |event: state::records::Event| pb::Event {
            id: event.id.0,
            parent: event.parent.map_or(0, |p| p.0),
            at_unix_ms: event.at.0,
            user: event.user.to_string(),
            action: event.action,
            object_type: event.object_type,
            object_name: event.object_name.unwrap_or_default(),
            deployment: event.deployment.map(|d| d.to_string()).unwrap_or_default(),
            instance: event.instance.unwrap_or_default(),
            task: event.task.map_or(0, |t| t.0),
            context_json: serde_json::to_vec(&event.context).unwrap_or_default().into(),
            error: event.error.unwrap_or_default(),
        };
        Ok(Response::new(pb::ListEventsResponse {
            events: events.into_iter().map(event).collect(),
            next_page_token,
        }))
    }
}

#[async_trait]
impl Locks for Door {
    async fn list(
        &self,
        request: Request<pb::ListLocksRequest>,
    ) -> Result<Response<pb::ListLocksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let locks = self.service.locks(&caller).await.map_err(status)?;
        let lock = |lock: state::query::LockView| pb::Lock {
            name: lock.name.to_string(),
            holder: lock.holder.0,
            held_since_unix_ms: lock.held_since.0,
            waiters: lock.waiters.into_iter().map(|t| t.0).collect(),
        };
        Ok(Response::new(pb::ListLocksResponse { locks: locks.into_iter().map(lock).collect() }))
    }
}

#[async_trait]
impl Watch for Door {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let mut after = Revision(wish.after_revision);
        // Tell at once, as the call's own error, if that revision is gone.
        self.service.changes(&caller, after, 1).map_err(status)?;
        let (to, from) = mpsc::channel(AHEAD);
        let door = self.clone();
        self.tasks.spawn("watch", owned_tasks::OnExit::Ignore, move |stop| async move {
            loop {
                let (changes, reached) = match door.service.changes(&caller, after, CHANGES_MAX) {
                    Ok(found) => found,
                    Err(error) => return drop(to.send(Err(status(error))).await),
                };
                if reached > after {
                    let wanted =
                        |c: &state::records::Change| wish.tables.is_empty() || wish.tables.contains(&c.table);
                    let changes = changes.into_iter().filter(wanted).map(|c| pb::Change {
                        revision: c.revision.0,
                        table: c.table,
                        key: c.key,
                        deleted: c.deleted,
                    });
                    let message = pb::WatchResponse { revision: reached.0, changes: changes.collect() };
                    if to.send(Ok(message)).await.is_err() {
                        return;
                    }
                    after = reached;
                    continue;
                }
                tokio::select! {
                    _ = door.service.log().changed(after) => {}
                    () = to.closed() => return,
                    () = stop.cancelled() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }
}
