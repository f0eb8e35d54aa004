//! A `dctl deploy` that runs while things happen to the fleet.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proto::v1::follow_task_request::Kind as Output;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::cluster::Cluster;

/// How long a deploy of a few instances may take, failovers and a busy machine included.
pub const DEPLOY_LIMIT: Duration = Duration::from_secs(90);

/// The process, and what it has printed.
pub struct Deploying {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
    silence_max: Duration,
}

impl Deploying {
    /// Starts `dctl deploy` with a manifest's file.
    pub fn start(cluster: &Cluster, deployment: &str, manifest: &str) -> Result<Self> {
        let mut command = cluster.dctl();
        command.args(["-d", deployment, "deploy", manifest]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start dctl")?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines, seen: Vec::new(), silence_max: DEPLOY_LIMIT })
    }

    /// Lets it print nothing for so long.
    pub fn silent_for(self, silence_max: Duration) -> Self {
        Self { silence_max, ..self }
    }

    /// Waits until it has printed so many lines of the task's events, or has come to its end.
    pub async fn printed(&mut self, events: usize) -> Result<()> {
        while event_lines(&self.seen).count() < events && self.next().await? {}
        Ok(())
    }

    /// Waits until it has printed a line with this in it.
    pub async fn printed_text(&mut self, text: &str) -> Result<()> {
        while !self.seen.iter().any(|line| line.contains(text)) {
            ensure!(self.next().await?, "`{text}` was never printed:\n{}", self.seen.join("\n"));
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<bool> {
        let line = tokio::time::timeout(self.silence_max, self.lines.next_line()).await;
        let line =
            line.with_context(|| format!("dctl prints nothing more after:\n{}", self.seen.join("\n")))??;
        let is_there = line.is_some();
        self.seen.extend(line);
        Ok(is_there)
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Result<Deployed> {
        while self.next().await? {}
        let mut stderr = String::new();
        self.child.stderr.take().context("standard error is piped")?.read_to_string(&mut stderr).await?;
        let status = self.child.wait().await?;
        Ok(Deployed { exit: status.code(), lines: self.seen, stderr })
    }
}

/// A `dctl deploy` that has ended.
#[derive(Debug)]
pub struct Deployed {
    /// Its exit code.
    pub exit: Option<i32>,
    /// What it printed.
    pub lines: Vec<String>,
    /// What it complained about.
    pub stderr: String,
}

impl Deployed {
    /// Returns the task that it followed.
    pub fn task(&self) -> Result<u64> {
        let number = event_lines(&self.lines).next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        number.with_context(|| format!("no task in:\n{}\n{}", self.lines.join("\n"), self.stderr))
    }

    /// Returns how many lines of events it printed.
    pub fn event_count(&self) -> usize {
        event_lines(&self.lines).count()
    }

    /// Errs unless it ended well and printed every line of the task's stored events, each once; and unless those
    /// tell each thing once.
    pub async fn check_complete(&self, cluster: &Cluster) -> Result<()> {
        let printed = self.lines.join("\n");
        ensure!(self.exit == Some(0), "dctl deploy ended with {:?}:\n{printed}\n{}", self.exit, self.stderr);
        let task = self.task()?;
        let stored = cluster.operate(&["task", &task.to_string(), "--no-follow"]).await?;
        let stored: Vec<String> = stored.lines().map(str::to_owned).collect();
        let (followed, stored): (Vec<_>, Vec<_>) =
            (event_lines(&self.lines).collect(), event_lines(&stored).collect());
        ensure!(followed == stored, "what was followed:\n{followed:#?}\nis not what is stored:\n{stored:#?}");
        check_told_once(&cluster.client()?.output(task, Output::Event).await?)
    }
}

/// Returns the lines that are about events, `Task 3 | 12:34:56 | …`; dctl's own remarks have no time.
fn event_lines(lines: &[String]) -> impl Iterator<Item = &str> {
    let time = |line: &str| line.split(" | ").nth(1).map(str::to_owned);
    let is_event = move |line: &&str| time(line).is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()));
    lines.iter().map(String::as_str).filter(|line| line.starts_with("Task ")).filter(is_event)
}

/// Errs if an event log begins or ends the same unit of work twice, or leaves one without an end.
fn check_told_once(log: &str) -> Result<()> {
    let mut told = BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("not an event: {line}"))?;
        // The number tells a package apart that is compiled for two stemcells.
        let unit = ["stage", "tags", "task", "index"].map(|key| event[key].to_string());
        let state = event["state"].as_str().unwrap_or_default();
        match state {
            "started" => ensure!(told.insert((unit, "started")), "told to begin twice: {line}"),
            "finished" => {
                ensure!(told.contains(&(unit.clone(), "started")), "ends without a beginning: {line}");
                ensure!(told.insert((unit, "finished")), "told to end twice: {line}");
            }
            _ => {}
        }
    }
    let ends = told.iter().filter(|(_, state)| *state == "finished").count();
    ensure!(told.len() == 2 * ends, "something began and has no end:\n{log}");
    Ok(())
}
