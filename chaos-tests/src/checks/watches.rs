//! What watchers received, beside what each replica tells now of the whole time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use checkers::watch::{Reference, Seen, Watcher};
use checkers::{Report, watch};

use crate::cluster::Cluster;
use crate::workloads::Observed;
use crate::workloads::watchers::{note, open};

/// How long a replica that is well may be silent: it tells at once where a watch is.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Reads all changes once more on each replica, and judges everybody by the union of all.
pub(super) async fn check(cluster: &Cluster, observed: &Observed) -> Result<Report> {
    let mut watchers = observed.watchers.clone();
    if let Some((from, to)) = span(&observed.watchers) {
        for replica in cluster.members().await? {
            let seen = read_again(cluster, replica, from, to).await?;
            watchers.push(Watcher { name: format!("director-{replica}, afterwards"), seen });
        }
    }
    Ok(watch::check(&watchers, &Reference::union_of(&watchers), None).report("watch"))
}

/// Returns the first revision at which anybody was, and the last that was called complete to anybody.
fn span(watchers: &[Watcher]) -> Option<(u64, u64)> {
    let reached = watchers.iter().flat_map(|watcher| &watcher.seen).filter_map(|seen| match seen {
        Seen::Message { complete_to, .. } => Some(*complete_to),
        _ => None,
    });
    let (first, last) = (reached.clone().min()?, reached.max()?);
    Some((first, last))
}

/// Watches from `from` on until everything up to `to` has come. Compaction is no excuse that lasts: the reading begins
/// where it ends.
async fn read_again(cluster: &Cluster, replica: usize, from: u64, to: u64) -> Result<Vec<Seen>> {
    let client = cluster.client_of(replica)?;
    let mut seen = vec![Seen::Opened { after: Some(from) }];
    let mut stream = match open(&client, Some(from)).await {
        Ok(stream) => stream,
        Err(dctl::error::Error::Refused { status: tonic::Code::OutOfRange, .. }) => {
            seen.push(Seen::Compacted);
            return Ok(seen);
        }
        Err(error) => return Err(error).with_context(|| format!("watch director-{replica}")),
    };
    let mut reached = from;
    while reached < to {
        match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => {
                reached = message.revision;
                seen.push(note(message));
            }
            Ok(Ok(None)) => bail!("director-{replica} ended a watch at {reached}, before {to}"),
            Ok(Err(status)) => bail!("director-{replica} broke a watch at {reached}: {status}"),
            Err(_) => {
                seen.push(Seen::Silent);
                break;
            }
        }
    }
    Ok(seen)
}
