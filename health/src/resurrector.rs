//! The leader's loop: keeps the shard map true, and asks for new VMs where some have died. Every replica remembers
//! failures, so that whoever leads next can tell a few from a meltdown.

use std::sync::Arc;
use std::time::Duration;

// The runtime's clock is the monotonic one, and tests can hold it.
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::failures::{Failures, Matter};
use crate::meltdown::{Decision, Thresholds, decide};
use crate::world::{Unhealthy, World};

/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(world: Arc<dyn World>, thresholds: Thresholds, stop: CancellationToken) {
    let (started, mut failures) = (Instant::now(), Failures::default());
    let look = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if world.leads() {
                keep_map(&*world).await;
            }
            let unhealthy = world.unhealthy().await;
            let now = started.elapsed();
            failures.note(&unhealthy, thresholds.window, now);
            if !world.leads() {
                continue;
            }
            for found in unhealthy.iter().filter(|found| !found.in_work) {
                act(&*world, thresholds, found, failures.of(found, now)).await;
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

async fn act(world: &dyn World, thresholds: Thresholds, found: &Unhealthy, matter: Matter) {
    let (deployment, failed) = (&found.deployment, matter.failed);
    let meltdown = match decide(thresholds, failed) {
        Decision::Normal | Decision::Resurrect => None,
        Decision::Meltdown => Some(failed),
    };
    if meltdown != found.meltdown {
        if found.meltdown.is_none() {
            let (unhealthy, total) = (failed.unhealthy, failed.total);
            error!(%deployment, unhealthy, total, "We are in meltdown: nothing is resurrected");
        }
        world.put_meltdown(deployment, meltdown).await;
    }
    if meltdown.is_none() && matter.is_settled && !matter.ill.is_empty() {
        world.resurrect(deployment, matter.ill).await;
    }
}

#[cfg(test)]
mod tests;
