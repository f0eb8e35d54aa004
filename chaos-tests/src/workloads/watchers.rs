//! Watchers of every change, each now on this replica, now on that: it stays a while, leaves, and goes on elsewhere from
//! where it was.

use std::time::Duration;

use anyhow::Result;
use checkers::watch::{Change, Seen, Watcher};
use proto::v1::watch_client::WatchClient;
use proto::v1::{WatchRequest, WatchResponse};
use rand::Rng as _;
use tonic::{Code, Status, Streaming};

use super::Ground;
use crate::client::Client;

/// How long a watcher stays at most before it goes elsewhere by itself.
const STAY_MS: std::ops::Range<u64> = 500..4_000;

/// Pause after a replica that did not let it in.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a replica may take to open a watch: it may be stopped.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// Watches from now on, until all is over.
pub(super) async fn watch(ground: &Ground, number: usize) -> Result<()> {
    let mut chance = ground.chance(4, number);
    let mut seen = Vec::new();
    let mut after = None;
    for replica in number.. {
        if ground.is_over() {
            break;
        }
        // One replica: that the watch is on another one next time is what this is about.
        let address = ground.addresses[replica % ground.addresses.len()].clone();
        let client = Client::new(&[address], &ground.credentials)?;
        let stay = Duration::from_millis(chance.random_range(STAY_MS));
        let session = async {
            let stream = match tokio::time::timeout(OPEN_MAX, open(&client, after)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return refused(&error, after, &mut seen),
                Err(_) => return after,
            };
            seen.push(Seen::Opened { after });
            take_down(stream, stay, ground, after, &mut seen).await
        };
        let reached = session.await;
        if reached == after {
            ground.pause(PAUSE).await;
        }
        after = reached;
    }
    ground.notes().watchers.push(Watcher { name: format!("watcher-{number}"), seen });
    Ok(())
}

/// Opens a watch on the client's replica.
pub(crate) async fn open(
    client: &Client,
    after: Option<u64>,
) -> Result<Streaming<WatchResponse>, dctl::error::Error> {
    let request = WatchRequest { after_revision: after, tables: Vec::new() };
    let open = async |link| WatchClient::new(link).watch(request.clone()).await;
    client.fleet.open("WatchClient.watch", open).await
}

/// Takes note of what comes; returns up to where everything has come.
async fn take_down(
    mut stream: Streaming<WatchResponse>,
    stay: Duration,
    ground: &Ground,
    mut after: Option<u64>,
    seen: &mut Vec<Seen>,
) -> Option<u64> {
    let leave = tokio::time::sleep(stay);
    tokio::pin!(leave);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = &mut leave => break,
            () = ground.stop.cancelled() => break,
        };
        match message {
            Ok(Some(message)) => {
                after = Some(message.revision);
                seen.push(note(message));
            }
            Ok(None) => break,
            Err(status) if is_compacted(&status) => {
                seen.push(Seen::Compacted);
                return None;
            }
            Err(_) => break,
        }
    }
    seen.push(Seen::Broke);
    after
}

/// Returns a message as the checker knows it.
pub(crate) fn note(message: WatchResponse) -> Seen {
    let change = |change: proto::v1::Change| Change {
        revision: change.revision,
        what: format!("{}/{}{}", change.table, change.key, if change.deleted { " (deleted)" } else { "" }),
    };
    Seen::Message {
        complete_to: message.revision,
        changes: message.changes.into_iter().map(change).collect(),
    }
}

fn refused(error: &dctl::error::Error, after: Option<u64>, seen: &mut Vec<Seen>) -> Option<u64> {
    match error {
        dctl::error::Error::Refused { status: Code::OutOfRange, .. } => {
            seen.extend([Seen::Opened { after }, Seen::Compacted]);
            None
        }
        _ => after,
    }
}

fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange
}
