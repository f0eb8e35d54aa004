//! Every task ends by itself and says how, no lock is left, and what was acknowledged is there on every replica.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use checkers::{Findings, Report};

use crate::client::Client;
use crate::cluster::{Cluster, SETTLE};
use crate::wait;
use crate::workloads::{Observed, note};

/// How long all that is open may take to end: silence until suspicion, the second look, a repair, and a queue of deploys.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// Waits for the tasks' ends, also of those that the fleet started itself, and judges them and the writes.
pub(super) async fn check(cluster: &Cluster, observed: &Observed) -> Result<Report> {
    let client = cluster.client()?;
    let mut found = Findings::<String>::default();
    let mut open = open_tasks(&client).await?;
    while !open.is_empty() {
        // A queue may be long, and a machine slow: what counts is that it goes on.
        let before = open.clone();
        wait::until_true(&format!("one of the tasks {before:?} has ended"), ENDED_WITHIN, async || {
            open = open_tasks(&client).await?;
            Ok(before.iter().any(|task| !open.contains(task)))
        })
        .await?;
    }
    for task in &observed.tasks {
        let task = client.task(*task).await.with_context(|| format!("look at task {task}"))?;
        match task.state.as_str() {
            "done" => {}
            "error" if !task.error_message.is_empty() => {}
            "error" => found.violations.push(format!("task {} failed and does not say why", task.id)),
            state => {
                found.violations.push(format!("task {} ended as {state}; nobody asked for that", task.id))
            }
        }
    }
    wait::until_true("no lock is held", SETTLE, async || Ok(client.locks().await?.is_empty())).await?;
    check_writes(cluster, observed, &mut found).await?;
    found
        .violations
        .extend(observed.unanswered.iter().map(|call| format!("a patient client got no answer: {call}")));
    found.looked_at = vec![("tasks", observed.tasks.len()), ("acknowledged writes", observed.writes.len())];
    Ok(found.report("ends"))
}

async fn open_tasks(client: &Client) -> Result<Vec<u64>> {
    let is_open = |state: &str| ["queued", "processing", "cancelling"].contains(&state);
    let tasks = client.tasks().await?;
    Ok(tasks.into_iter().filter(|task| is_open(&task.state)).map(|task| task.id).collect())
}

/// What was acknowledged is there, whichever replica is asked.
async fn check_writes(cluster: &Cluster, observed: &Observed, found: &mut Findings<String>) -> Result<()> {
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    for write in &observed.writes {
        let number = newest.entry(write.writer).or_default();
        *number = write.number.max(*number);
    }
    for replica in cluster.members().await? {
        let client = cluster.client_of(replica)?;
        for (writer, number) in &newest {
            let content = client.config("note", &note(*writer)).await?;
            let stored: u64 = content.strip_prefix("text: ").context("a number")?.parse()?;
            // More than what was acknowledged may be there: writes whose answers were lost.
            if stored < *number {
                found.violations.push(format!(
                    "director-{replica} has {stored} of writer {writer}, to whom {number} was acknowledged"
                ));
            }
        }
    }
    Ok(())
}
