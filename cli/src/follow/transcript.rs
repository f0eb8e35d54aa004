//! Event lines as the `bosh` CLI writes them. Pure: a JSON line in, pieces of text out.
//!
//! A line about a unit of work is left open, so that its duration can be put behind it if nothing came between.

use std::collections::HashMap;

use serde::Deserialize;
use time::OffsetDateTime;

/// What to do with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Begin a new line with it.
    Line(String),
    /// Put it behind the line that was begun last.
    Behind(String),
}

/// What has been seen of a task's event log.
#[derive(Debug)]
pub struct Transcript {
    task: u64,
    /// When each unit of work began.
    began: HashMap<Identity, i64>,
    /// The unit that the open line is about.
    last: Option<Identity>,
}

/// Lines with equal stage, tags and task are about the same unit of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
struct Identity {
    #[serde(default)]
    stage: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    task: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    time: i64,
    #[serde(flatten)]
    identity: Identity,
    #[serde(default)]
    state: String,
    #[serde(default)]
    data: Details,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
    error: Option<Failure>,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

impl Transcript {
    /// Begins the transcript of a task.
    pub fn new(task: u64) -> Self {
        Self { task, began: HashMap::new(), last: None }
    }

    /// Returns what to print for one line of the event log.
    pub fn line(&mut self, line: &str) -> Vec<Piece> {
        match serde_json::from_str::<Event>(line) {
            Ok(event) => self.event(event),
            Err(_) if line.trim().is_empty() => Vec::new(),
            // Not for us to judge: show it.
            Err(_) => self.standalone(line.to_owned()),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Piece> {
        let prefix = self.prefix(event.time);
        if let Some(failure) = event.error {
            return self.standalone(format!("{prefix}Error: {}", failure.message));
        }
        match event.kind.as_str() {
            "deprecation" => return self.standalone(format!("{prefix}Deprecation: {}", event.message)),
            "warning" => return self.standalone(format!("{prefix}Warning: {}", event.message)),
            _ => {}
        }
        let began = *self.began.entry(event.identity.clone()).or_insert(event.time);
        let title = event.identity.title();
        match event.state.as_str() {
            "started" => self.about(event.identity, format!("{prefix}{title}")),
            "in_progress" if !event.data.status.is_empty() => {
                let text = format!("{prefix}L {}: {}", event.data.status, event.identity.task);
                self.about(event.identity, text)
            }
            "finished" | "failed" => {
                let mut pieces = self.ended(&event.identity, &prefix, &title, event.time - began);
                if event.state == "failed" && !event.data.error.is_empty() {
                    let margin = " ".repeat(prefix.len().saturating_sub(2));
                    pieces.push(Piece::Line(format!("{margin}L Error: {}", event.data.error)));
                }
                // The same unit may come again, in the same deploy: then its time counts anew.
                self.began.remove(&event.identity);
                self.last = None;
                pieces
            }
            _ => Vec::new(),
        }
    }

    fn ended(&self, identity: &Identity, prefix: &str, title: &str, seconds: i64) -> Vec<Piece> {
        let duration = duration(seconds);
        if self.last.as_ref() == Some(identity) {
            vec![Piece::Behind(format!(" ({duration})"))]
        } else {
            vec![Piece::Line(format!("{prefix}{title} ({duration})"))]
        }
    }

    fn about(&mut self, identity: Identity, text: String) -> Vec<Piece> {
        self.last = Some(identity);
        vec![Piece::Line(text)]
    }

    fn standalone(&mut self, text: String) -> Vec<Piece> {
        self.last = None;
        vec![Piece::Line(text)]
    }

    fn prefix(&self, unix_seconds: i64) -> String {
        let at = OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        format!("Task {} | {:02}:{:02}:{:02} | ", self.task, at.hour(), at.minute(), at.second())
    }
}

impl Identity {
    /// Returns `Updating instance web: web/<uuid> (0)`.
    fn title(&self) -> String {
        let tags = if self.tags.is_empty() { String::new() } else { format!(" {}", self.tags.join(", ")) };
        format!("{}{tags}: {}", self.stage, self.task)
    }
}

/// Returns `HH:MM:SS`. Clocks of two leaders may disagree; a duration below zero is shown as none.
pub(super) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests;
