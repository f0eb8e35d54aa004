//! Logs of instances: packed by their agents, fetched as one archive.

use camino::Utf8Path;
use proto::v1::FetchLogsRequest;
use proto::v1::instances_client::InstancesClient;
use serde_json::json;

use super::Context;
use super::deployments::selector;
use super::staged::Staged;
use crate::args::FetchLogs;
use crate::call;
use crate::client::request_id;
use crate::error::Error;
use crate::follow;

pub(super) async fn fetch(context: &mut Context<'_>, args: FetchLogs) -> Result<(), Error> {
    let FetchLogs { instances, agent, system, all_logs, only, dir, wait, .. } = args;
    let logs = match (agent, system, all_logs) {
        (_, _, true) => "agent,job,system",
        (true, _, _) => "agent",
        (_, true, _) => "system",
        _ => "job",
    };
    let deployment = context.deployment()?;
    let whose = match &instances {
        Some(slug) if slug.id_or_index.is_empty() => format!("{deployment}.{}", slug.group),
        Some(slug) => format!("{deployment}.{}.{}", slug.group, slug.id_or_index),
        None => deployment.clone(),
    };
    let request = FetchLogsRequest {
        request_id: request_id(),
        deployment,
        instances: instances.map(selector),
        logs: logs.to_owned(),
        filters: only,
    };
    let started = call!(context.fleet, InstancesClient.fetch_logs(request)).await?;
    if wait.detach {
        return context.attend(started, wait).await;
    }
    let task = follow::to_the_end(&context.fleet, context.console, started.task_id).await?;
    let saved = save(context, &task.result, &dir, &format!("{whose}.task-{}.tgz", task.id)).await?;
    context.console.say(&saved.text(), &saved.to_json())
}

/// A blob that is a file by now.
pub(super) struct Saved {
    file: camino::Utf8PathBuf,
    size_bytes: u64,
}

impl Saved {
    pub fn text(&self) -> String {
        format!("{} bytes in `{}`\n", self.size_bytes, self.file)
    }

    pub fn to_json(&self) -> serde_json::Value {
        json!({ "file": self.file, "size_bytes": self.size_bytes })
    }
}

/// Puts a blob into a file, which gets its name once it is whole.
pub(super) async fn save(
    context: &Context<'_>,
    digest: &str,
    dir: &Utf8Path,
    name: &str,
) -> Result<Saved, Error> {
    // Names come from directors: they lead nowhere else.
    let file = dir.join(name.replace('/', "_"));
    let mut staged = Staged::create(&file)?;
    let size_bytes = context.fleet.download(digest, &mut staged.file).await?;
    staged.file.sync_all().map_err(Error::file("write", &file))?;
    staged.keep()?;
    Ok(Saved { file, size_bytes })
}
