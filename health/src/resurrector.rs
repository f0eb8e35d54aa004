//! The leader's loop: keeps the shard map true, and asks for new VMs where some have died.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{DeploymentName, InstanceId};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::meltdown::{Decision, Thresholds, decide};
use crate::world::{Unhealthy, World};

/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(
    world: Arc<dyn World>,
    thresholds: Thresholds,
    now_ms: impl Fn() -> i64 + Send,
    stop: CancellationToken,
) {
    let mut told: BTreeSet<DeploymentName> = BTreeSet::new();
    let look = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !world.leads() {
                // Whoever leads next tells by itself; should it be this one again, it tells again.
                told.clear();
                continue;
            }
            keep_map(&*world).await;
            let unhealthy = world.unhealthy().await;
            // A meltdown that is over and comes back is news again.
            told.retain(|deployment| unhealthy.iter().any(|u| u.deployment == *deployment));
            for unhealthy in unhealthy {
                act(&*world, thresholds, now_ms(), &unhealthy, &mut told).await;
            }
        }
    };
    tokio::select! {
        () = look => {}
        () = stop.cancelled() => {}
    }
}

async fn keep_map(world: &dyn World) {
    let (number, watchers) = world.shard_map();
    let able = world.able_to_watch();
    if able != watchers && !able.is_empty() {
        info!(number = number + 1, watchers = ?able, "shards move");
        world.put_shard_map(number + 1, able).await;
    }
}

async fn act(
    world: &dyn World,
    thresholds: Thresholds,
    now_ms: i64,
    found: &Unhealthy,
    told: &mut BTreeSet<DeploymentName>,
) {
    // What failed long ago counts no more towards a meltdown, but is still resurrected.
    let recent = found.instances.iter().filter(|(_, since)| now_ms - since < thresholds.window_ms).count();
    match decide(thresholds, found.total, recent.max(usize::from(!found.instances.is_empty()))) {
        Decision::Normal => {
            told.remove(&found.deployment);
        }
        Decision::Resurrect => {
            told.remove(&found.deployment);
            let instances: Vec<InstanceId> = found.instances.iter().map(|(id, _)| id.clone()).collect();
            world.resurrect(&found.deployment, instances).await;
        }
        Decision::Meltdown => {
            if told.insert(found.deployment.clone()) {
                error!(deployment = %found.deployment, unhealthy = recent, total = found.total, "meltdown: nothing is resurrected");
                world.tell_meltdown(&found.deployment, recent, found.total).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
