//! Watchers of every change, each now on this replica, now on that: it stays a while, leaves, and goes on elsewhere from
//! where it was. Some are away for so long that what they have missed is not kept any more: they are told so, and list anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkers::watch::{Change, Seen, Watcher};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::Revision;
use owned_tasks::OwnedTasks;
use service::ops::Changes;
use service::{Caller, Read, ServiceError};
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::services::Services;
use crate::streams::Opener;

/// How long a replica may take to say where a watch is, while everything is well with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a watcher has seen so far; clones are the same.
#[derive(Clone, Default)]
pub struct Sight(Arc<Mutex<Vec<Seen>>>);

impl Sight {
    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, seen: Seen) {
        self.lock().push(seen);
    }

    /// Returns up to where the watcher has been told everything.
    pub fn reached(&self) -> u64 {
        let told = |seen: &Seen| match seen {
            Seen::Message { complete_to, .. } => Some(*complete_to),
            _ => None,
        };
        self.lock().iter().rev().find_map(told).unwrap_or_default()
    }

    /// Returns all of it, for the checker.
    pub fn of(&self, name: &str) -> Watcher {
        Watcher { name: name.to_owned(), seen: self.lock().clone() }
    }
}

/// Somebody who watches.
pub struct WatcherClient {
    /// How it asks. Once its faults are over, a watcher stays where it is.
    pub client: Client,
    /// What its streams run in.
    pub tasks: OwnedTasks,
    /// Where it writes down what it saw.
    pub sight: Sight,
    /// Until when it watches.
    pub over: CancellationToken,
}

impl WatcherClient {
    /// Watches until all is over.
    pub async fn run(self) {
        let over = self.over.clone();
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut after = None;
        loop {
            let replica = self.client.between(1, self.client.replicas);
            after = match self.session(replica, after).await {
                Ended::Left(reached) => reached,
                Ended::Compacted => self.list().await,
            };
            match self.client.between(0, 9) {
                0..3 if !self.client.enough.is_cancelled() => self.client.pause(1_000, 9_000).await,
                _ => self.client.pause(10, 300).await,
            }
        }
    }

    /// Watches on one replica for a while; returns where it got to.
    async fn session(&self, replica: u64, mut after: Option<u64>) -> Ended {
        let mut stream = self.open(replica, after.map(Revision));
        self.sight.push(Seen::Opened { after });
        let stay_ms = self.client.between(200, 5_000);
        let leave = async {
            tokio::time::sleep(Duration::from_millis(stay_ms)).await;
            if self.client.enough.is_cancelled() {
                std::future::pending().await
            }
        };
        tokio::pin!(leave);
        let mut patience = PATIENCE;
        loop {
            let next = tokio::select! {
                biased;
                next = tokio::time::timeout(patience, stream.next()) => next.unwrap_or_default(),
                () = &mut leave => None,
            };
            match next {
                Some(Ok(found)) => {
                    // It has said where it is; now it speaks when there is something to say.
                    patience = Duration::MAX;
                    after = Some(found.reached.0);
                    self.sight.push(note(found));
                }
                Some(Err(ServiceError::Compacted { .. })) => {
                    self.sight.push(Seen::Compacted);
                    return Ended::Compacted;
                }
                Some(Err(_)) | None => {
                    self.sight.push(Seen::Broke);
                    return Ended::Left(after);
                }
            }
        }
    }

    fn open(
        &self,
        replica: u64,
        after: Option<Revision>,
    ) -> BoxStream<'static, Result<Changes, ServiceError>> {
        let opener = Opener { net: &self.client.net, me: self.client.me(), tasks: &self.tasks };
        let says_nothing = futures::stream::pending::<()>().boxed();
        opener.open(replica, says_nothing, move |services, left| match services {
            Services::Replica(replica) => Some(async move {
                let watch = replica.service.watch(&reader(), after);
                let changes = match watch {
                    Ok(watch) => futures::stream::unfold(Some(watch), |watch| async {
                        let mut watch = watch?;
                        let next = watch.next().await;
                        // As over gRPC, an error is the end.
                        let goes_on = next.is_ok();
                        Some((next, goes_on.then_some(watch)))
                    })
                    .boxed(),
                    Err(error) => futures::stream::iter([Err(error)]).boxed(),
                };
                Some(changes.take_until(left.collect::<Vec<()>>()).boxed())
            }),
            Services::Outside(_) | Services::Nobody => None,
        })
    }

    /// Lists what there is, and returns of which revision the list is.
    async fn list(&self) -> Option<u64> {
        loop {
            let to = self.client.between(1, self.client.replicas);
            let asked = self.client.net.call(self.client.me(), to, move |services| match services {
                Services::Replica(replica) => Some(async move {
                    replica.service.look(Read::Linearizable).await.map(|looked| looked.revision)
                }),
                Services::Outside(_) | Services::Nobody => None,
            });
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(Ok(revision))) => return Some(revision.0),
                _ => self.client.pause(10, 100).await,
            }
        }
    }
}

/// How a session ended.
enum Ended {
    /// Having been told everything up to here.
    Left(Option<u64>),
    /// What comes next is not kept any more.
    Compacted,
}

fn reader() -> Caller {
    Caller { user: "watcher".into(), scopes: ["bosh.read".to_owned()].into(), ..Caller::default() }
}

fn note(found: Changes) -> Seen {
    let changes = found.changes.into_iter().map(change).collect();
    Seen::Message { complete_to: found.reached.0, changes }
}

/// Returns a change as the checker knows it.
pub fn change(change: state::records::Change) -> Change {
    let deleted = if change.deleted { " (deleted)" } else { "" };
    Change { revision: change.revision.0, what: format!("{}/{}{deleted}", change.table, change.key) }
}
