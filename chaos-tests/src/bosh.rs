//! Somebody at the `bosh` CLI: pointed at one replica, a new connection for each request; what got no answer is sent
//! again; tasks are followed by looking, their output by byte ranges.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::rest::{Answer, Client};

/// Who that is.
pub const USER: &str = "operator";
const PASSWORD: &str = "a password of the test";

/// So often the CLI sends a request that got no answer …
const SENT_MAX: usize = 6;

/// … half a second apart.
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a request is made of, beside who asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`.
    pub method: &'static str,
    /// With its query.
    pub path: String,
    /// The content's type; none where there is no content.
    pub kind: &'static str,
    /// The content.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without content.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), kind: "", body: Vec::new() }
    }

    /// A request with JSON.
    pub fn json(method: &'static str, path: impl Into<String>, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { kind: "application/json", body, ..Self::new(method, path) }
    }

    /// A request with YAML.
    pub fn yaml(method: &'static str, path: impl Into<String>, body: &str) -> Self {
        Self { kind: "text/yaml", body: body.into(), ..Self::new(method, path) }
    }

    /// An archive.
    pub fn archive(path: impl Into<String>, body: Vec<u8>) -> Self {
        Self { kind: "application/x-compressed", body, ..Self::new("POST", path) }
    }
}

/// How far a task is.
#[derive(Debug)]
pub struct Look {
    /// `processing`.
    pub state: String,
    /// The task as it was shown.
    pub row: Value,
    /// What there is of its events beyond what was known.
    pub events: Vec<u8>,
}

impl Look {
    /// Returns whether the task has ended.
    pub fn is_over(&self) -> bool {
        !["queued", "processing", "cancelling"].contains(&self.state.as_str())
    }
}

/// A CLI that is pointed at one replica.
pub struct Bosh(Client);

impl Bosh {
    /// Makes the user that all these are.
    pub async fn introduce(cluster: &Cluster) -> Result<()> {
        let file = cluster.folder().join("password");
        fs::write(&file, PASSWORD)?;
        let file = file.to_str().context("UTF-8")?;
        cluster.operate(&["user", "add", USER, "--new-password-file", file, "--scope", "bosh.admin"]).await?;
        Ok(())
    }

    /// Points at a replica.
    pub fn at(cluster: &Cluster, replica: usize) -> Result<Self> {
        Ok(Self(Client::new(cluster.api(replica), cluster.credentials().authority_pem())?))
    }

    /// Sends a request until it is answered.
    pub async fn send(&self, request: &Request) -> Result<Answer> {
        let headers = [("Content-Type", request.kind)];
        let headers = if request.kind.is_empty() { &[][..] } else { &headers[..] };
        self.send_with(request.method, &request.path, headers, &request.body).await
    }

    async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut sent = 0;
        loop {
            sent += 1;
            match self.0.send(method, path, Some((USER, PASSWORD)), headers, body).await {
                Err(error) if sent < SENT_MAX => {
                    println!("{method} {path}: {error:#}; again");
                    tokio::time::sleep(SEND_AGAIN_AFTER).await;
                }
                answer => return answer,
            }
        }
    }

    /// Sends what is answered with a task; returns its number.
    pub async fn start(&self, request: &Request) -> Result<u64> {
        let answer = self.send(request).await?;
        let task = answer.header("location").and_then(|location| location.strip_prefix("/tasks/"));
        task.with_context(|| format!("{} {}: {answer:?}: {}", request.method, request.path, answer.text()))?
            .parse()
            .context("a task's number")
    }

    /// Reads JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.send_with("GET", path, &[], b"").await?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).with_context(|| format!("GET {path}: {}", answer.text()))
    }

    /// Looks at a task, and at its events beyond those that are known.
    pub async fn look(&self, task: u64, known: usize) -> Result<Look> {
        let row = self.get(&format!("/tasks/{task}")).await?;
        let range = format!("bytes={known}-");
        let path = format!("/tasks/{task}/output?type=event");
        let output = self.send_with("GET", &path, &[("Range", &range)], b"").await?;
        let events = match output.status {
            206 => output.body,
            200 if known == 0 => output.body,
            204 | 416 => Vec::new(),
            _ => bail!("{output:?}"),
        };
        Ok(Look { state: row["state"].as_str().context("a state")?.to_owned(), row, events })
    }
}
