//! Events, locks and changes.

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use model::{DeploymentName, Revision, TaskId};
use owned_tasks::OnExit;
use proto::v1 as pb;
use proto::v1::events_server::Events;
use proto::v1::locks_server::Locks;
use proto::v1::watch_server::Watch;
use service::List;
use service::ops::{Changes, Watch as Watched};
use state::query::EventFilter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::convert::{given, page};
use crate::door::Door;
use crate::error_map::status;

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
        let listed = self.service.events(&caller, filter, &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
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
            events: rows.into_iter().map(event).collect(),
            next_page_token,
            as_of_revision: revision.0,
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
        let listed = self.service.locks(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let lock = |lock: state::query::LockView| pb::Lock {
            name: lock.name.to_string(),
            holder: lock.holder.0,
            held_since_unix_ms: lock.held_since.0,
            waiters: lock.waiters.into_iter().map(|t| t.0).collect(),
        };
        Ok(Response::new(pb::ListLocksResponse {
            locks: rows.into_iter().map(lock).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }
}

#[async_trait]
impl Watch for Door {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        // Told at once, as the call's own error, if that revision is gone.
        let watched = self.service.watch(&caller, wish.after_revision.map(Revision)).map_err(status)?;
        let (to, from) = mpsc::channel(AHEAD);
        let watcher = Watcher { watched, tables: wish.tables, to };
        self.tasks.spawn("watch", OnExit::Ignore, move |stop| async move {
            tokio::select! {
                () = watcher.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }
}

/// Changes being watched by one client.
struct Watcher {
    watched: Watched,
    tables: Vec<String>,
    to: mpsc::Sender<Result<pb::WatchResponse, Status>>,
}

impl Watcher {
    /// Sends what has changed, then what changes, until the client has left.
    async fn run(mut self) {
        loop {
            let found = tokio::select! {
                found = self.watched.next() => found,
                () = self.to.closed() => return,
            };
            let is_over = found.is_err();
            let message = found.map(|changes| self.message(changes)).map_err(status);
            if self.to.send(message).await.is_err() || is_over {
                return;
            }
        }
    }

    fn message(&self, Changes { changes, reached }: Changes) -> pb::WatchResponse {
        let wanted = |table: &String| self.tables.is_empty() || self.tables.contains(table);
        let changes = changes.into_iter().filter(|change| wanted(&change.table)).map(|c| pb::Change {
            revision: c.revision.0,
            table: c.table,
            key: c.key,
            deleted: c.deleted,
        });
        pb::WatchResponse { revision: reached.0, changes: changes.collect() }
    }
}
