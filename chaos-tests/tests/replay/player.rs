//! Plays scenarios to a fleet: sends what is recorded, with our names in it, and compares what comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::recorded::{Archives, Difference, Ledger, Place};
use chaos_tests::sim::SimCloud;
use chaos_tests::wait;
use cpi_sim::Knobs;
use serde_json::Value;

use super::client::{Answer, Client};
use super::compare::Comparison;
use super::meanwhile::Meanwhile;
use super::names::{Kind, Names};
use super::recording::{Command, Exchange, Request, Scenario, Step};
use super::translate;

/// How long a task may take: none of these does much.
pub const TASK_LIMIT: Duration = Duration::from_secs(60);

/// The user of the recordings.
pub const USER: &str = "test";
/// His password.
pub const PASSWORD: &str = "test";

/// What the director doesn't see.
pub struct Backstage<'a> {
    /// What is done there.
    pub meanwhile: &'a mut Meanwhile,
    /// The cloud.
    pub sim: &'a SimCloud,
    /// How the cloud is when nothing is done to it.
    pub calm: &'a Knobs,
}

/// A fleet, and all that is known of it.
pub struct Player<'a> {
    client: &'a Client,
    archives: &'a Archives,
    /// What names stand for.
    pub names: Names,
    /// Tasks that were made by the command that is played.
    made: Vec<String>,
    /// Archives that were exported here, by what the CLI calls the file, but for the time in it.
    exported: BTreeMap<String, Vec<u8>>,
    /// Some command is under way behind the others: what waits for its lock is not waited for.
    is_busy: bool,
}

impl<'a> Player<'a> {
    /// Begins with a fleet about which nothing is known.
    pub fn new(client: &'a Client, archives: &'a Archives) -> Self {
        let (names, exported) = (Names::default(), BTreeMap::new());
        Self { client, archives, names, made: Vec::new(), exported, is_busy: false }
    }

    /// Plays a scenario.
    pub async fn play(
        &mut self,
        scenario: &Scenario,
        backstage: &mut Backstage<'_>,
        ledger: &mut Ledger,
    ) -> Result<()> {
        let mut behind = Vec::new();
        self.prepare(scenario, None, backstage).await?;
        for command in scenario.commands.iter().filter(|command| command.is_behind_others) {
            let first = |step: &Step| matches!(step, Step::Follow { .. });
            let (now, later) =
                command.steps.split_at(command.steps.iter().position(first).unwrap_or_default());
            for step in now {
                self.step(&scenario.name, command, step, ledger).await?;
            }
            self.is_busy = true;
            behind.push((command, later.to_vec()));
        }
        for command in &scenario.commands {
            self.prepare(scenario, Some(&command.title), backstage).await?;
            let rest =
                behind.iter().find(|(other, _)| std::ptr::eq(*other, command)).map(|(_, rest)| rest.clone());
            self.is_busy &= rest.is_none();
            for step in rest.as_ref().unwrap_or(&command.steps) {
                let played = self.step(&scenario.name, command, step, ledger).await;
                played.with_context(|| format!("{}: {}", scenario.name, command.title))?;
            }
            self.wait_for_made().await?;
        }
        Ok(())
    }

    async fn prepare(
        &mut self,
        scenario: &Scenario,
        before: Option<&str>,
        backstage: &mut Backstage<'_>,
    ) -> Result<()> {
        for deed in backstage.meanwhile.due(&scenario.name, before) {
            self.act(&deed, backstage.sim, backstage.calm).await?;
        }
        Ok(())
    }

    /// Plays one command alone.
    pub async fn repeat(&mut self, scenario: &str, command: &Command, ledger: &mut Ledger) -> Result<()> {
        for step in &command.steps {
            self.step(scenario, command, step, ledger).await?;
        }
        self.wait_for_made().await
    }

    /// Forgets what recorded names stand for: from here on they are those of another director.
    pub fn forget(&mut self) {
        self.names = Names::default();
    }

    async fn step(
        &mut self,
        scenario: &str,
        command: &Command,
        step: &Step,
        ledger: &mut Ledger,
    ) -> Result<()> {
        let (request, found) = match step {
            Step::Exchange(exchange) => (label(&exchange.request), self.exchange(command, exchange).await?),
            Step::Follow { task, end, events } => {
                let found = self.follow(*task, end, events.as_deref()).await?;
                (format!("FOLLOW {}", end["description"].as_str().unwrap_or_default()), found)
            }
        };
        match found {
            Some(found) => ledger.enter(Place { scenario, request: &request }, found),
            None => ledger.unbuilt += 1,
        }
        Ok(())
    }

    /// Sends one request; returns nothing if it is about what there is not here, for what made it is not built.
    async fn exchange(&mut self, command: &Command, recorded: &Exchange) -> Result<Option<Vec<Difference>>> {
        let request = &recorded.request;
        if self.is_about_nothing(&request.path) {
            return Ok(None);
        }
        let path = translate::path(&request.path, &self.names);
        let is_final = recorded.response.text().is_some_and(|text| !is_under_way(text));
        if let Some(number) = path.strip_prefix("/tasks/").filter(|_| request.method == "GET" && is_final)
            && number.parse::<u64>().is_ok()
            && recorded.response.status == 200
        {
            self.wait_for_end(number).await?;
        }
        let answer = self.send(command, recorded, &path).await?;
        if let Some(task) = answer.header("location").and_then(|location| location.strip_prefix("/tasks/")) {
            self.made.push(task.to_owned());
        }
        if let Some(file) =
            translate::exported_file(&command.title).filter(|_| path.starts_with("/resources/"))
        {
            self.exported.entry(file).or_insert_with(|| answer.body.clone());
        }
        Ok(Some(self.compared(recorded, &answer)))
    }

    async fn send(&self, command: &Command, recorded: &Exchange, path: &str) -> Result<Answer> {
        let request = &recorded.request;
        let is_nobody = recorded.response.text().is_some_and(|text| text.contains("\"user\":null,\"cpi\""));
        let is_refused = recorded.response.status == 401 || is_nobody;
        let wrong = command.password.as_deref().or(is_refused.then_some("wrong"));
        // A missing scope is answered by the same status: that is told by a number.
        let wrong = wrong.filter(|_| !recorded.response.text().unwrap_or_default().contains("\"code\""));
        let login = request.header("authorization").map(|_| (USER, wrong.unwrap_or(PASSWORD)));
        let headers: Vec<(&str, &str)> = ["Content-Type", "Range", "X-Bosh-Context-Id"]
            .into_iter()
            .filter_map(|name| Some((name, request.header(name)?)))
            .collect();
        let body = match request.has_archive() {
            true => match self.exported.iter().find(|(file, _)| command.title.contains(*file)) {
                Some((_, archive)) => archive.clone(),
                None => self.archives.named_in(&command.title)?,
            },
            false => translate::body(request, &self.names).into_bytes(),
        };
        self.client.send(&request.method, path, login, &headers, &body).await
    }

    fn compared(&mut self, recorded: &Exchange, answer: &Answer) -> Vec<Difference> {
        let noun = noun(&recorded.request);
        let mut comparison = Comparison { noun, names: &mut self.names, found: Vec::new() };
        if recorded.response.status != answer.status {
            comparison.note("status", recorded.response.status.to_string(), answer.status.to_string());
        }
        if let Some(location) = recorded.response.header("location") {
            let task = location.rsplit_once("/tasks/").map_or(location, |(_, task)| task);
            match answer.header("location").and_then(|ours| ours.strip_prefix("/tasks/")) {
                Some(ours) if comparison.names.learn(&Kind::Task, task, ours) => {}
                ours => comparison.note("header location", location, ours.unwrap_or("(missing)")),
            }
        }
        if let Some(challenge) = recorded.response.header("www-authenticate").filter(|_| answer.status == 401)
        {
            let ours = answer.header("www-authenticate").unwrap_or("(missing)");
            if challenge != ours {
                comparison.note("header www-authenticate", challenge, ours);
            }
        }
        let is_log = ["debug", "cpi"]
            .iter()
            .any(|kind| recorded.request.path.contains(&format!("output?type={kind}")));
        let is_log = is_log || recorded.request.path.ends_with("/output");
        match recorded.response.text() {
            Some(text) if is_log && answer.status < 400 => free(&mut comparison, text, answer),
            Some(text) if recorded.response.header("content-range").is_some() => {
                ranged(&mut comparison, text, answer);
            }
            Some(text) => comparison.bodies("body", text, &answer.text()),
            None if answer.body.is_empty() => comparison.note("body", "(bytes)", ""),
            None => {}
        }
        comparison.found
    }

    /// Follows a task as the CLI does; returns nothing if there is no such task here.
    async fn follow(
        &mut self,
        task: u64,
        end: &Value,
        events: Option<&str>,
    ) -> Result<Option<Vec<Difference>>> {
        let Some(ours) = self.names.ours(&Kind::Task, &task.to_string()).map(str::to_owned) else {
            return Ok(None);
        };
        let (mut is_over, mut log) = (false, String::new());
        let seen = wait::until(&format!("task {ours} has ended"), TASK_LIMIT, async || {
            let answer = self.get(&format!("/tasks/{ours}"), None).await?;
            let seen: Value = serde_json::from_str(&answer.text()).with_context(|| answer.text())?;
            is_over = !is_under_way(&answer.text()) || is_under_way(&end.to_string());
            is_over |= self.is_busy && seen["state"] == "queued";
            let from = log.len();
            let piece = self.get(&format!("/tasks/{ours}/output?type=event"), Some(from)).await?;
            match piece.status {
                206 => {
                    let range = piece.header("content-range").unwrap_or_default();
                    let expected =
                        format!("bytes {from}-{0}/{1}", from + piece.body.len() - 1, from + piece.body.len());
                    ensure!(range == expected, "{range} instead of {expected}");
                    log.push_str(&piece.text());
                }
                416 | 204 => {}
                other => anyhow::bail!("output: {other} {}", piece.text()),
            }
            Ok(is_over.then_some(seen))
        })
        .await?;
        if seen["state"] != "queued" {
            self.made.retain(|made| *made != ours);
        }
        let mut comparison = Comparison { noun: "tasks", names: &mut self.names, found: Vec::new() };
        let (mut end, mut seen) = (end.clone(), seen);
        if is_under_way(&end.to_string()) {
            // Nobody waited for its end: how far it was by then is chance.
            for task in [&mut end, &mut seen].into_iter().filter_map(Value::as_object_mut) {
                task.retain(|field, _| {
                    !["state", "started_at", "timestamp", "result"].contains(&field.as_str())
                });
            }
        }
        comparison.bodies("task", &end.to_string(), &seen.to_string());
        if let Some(events) = events {
            comparison.noun = "lines";
            comparison.event_lines(events, &log);
        }
        Ok(Some(comparison.found))
    }

    /// Asks for something.
    pub async fn get(&self, path: &str, from: Option<usize>) -> Result<Answer> {
        let range = from.map(|from| format!("bytes={from}-"));
        let headers: Vec<_> = range.as_deref().map(|range| ("Range", range)).into_iter().collect();
        self.client.send("GET", path, Some((USER, PASSWORD)), &headers, b"").await
    }

    /// Sends JSON, or a manifest of nothing.
    pub async fn say(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let kind = if body.is_empty() { "text/yaml" } else { "application/json" };
        let (login, headers) = (Some((USER, PASSWORD)), [("Content-Type", kind)]);
        self.client.send(method, path, login, &headers, body.as_bytes()).await
    }

    /// Waits for what was started and not followed: the next command was sent when it was over.
    async fn wait_for_made(&mut self) -> Result<()> {
        if self.is_busy {
            return Ok(());
        }
        for task in std::mem::take(&mut self.made) {
            self.wait_for_end(&task).await?;
        }
        Ok(())
    }

    /// Waits until a task has ended.
    pub async fn wait_for_end(&self, task: &str) -> Result<()> {
        wait::until_true(&format!("task {task} has ended"), TASK_LIMIT, async || {
            Ok(!is_under_way(&self.get(&format!("/tasks/{task}"), None).await?.text()))
        })
        .await
    }

    /// Returns whether a path is about a task that was never made here.
    fn is_about_nothing(&self, path: &str) -> bool {
        let rest = path.strip_prefix("/tasks/").or_else(|| path.strip_prefix("/task/"));
        let number = rest.and_then(|rest| rest.split(['/', '?']).next());
        number.is_some_and(|number| {
            // Nobody had seen the number of one that there was not there either.
            number.parse::<u64>().is_ok_and(|n| n < 90_000) && self.names.ours(&Kind::Task, number).is_none()
        })
    }
}

/// A log is free text: there is some, or none.
fn free(comparison: &mut Comparison<'_>, text: &str, answer: &Answer) {
    if text.is_empty() != answer.body.is_empty() {
        comparison.note("body", text.chars().take(60).collect::<String>(), answer.text());
    }
}

/// A piece of an output ends where its bytes end, which may be within a line: only the form is compared.
fn ranged(comparison: &mut Comparison<'_>, text: &str, answer: &Answer) {
    let is_range = answer.header("content-range").is_some_and(|range| range.starts_with("bytes "));
    if !is_range || text.is_empty() != answer.body.is_empty() {
        comparison.note("body", text, answer.text());
    }
}

/// Returns whether a text is a task that has not ended.
fn is_under_way(text: &str) -> bool {
    ["queued", "processing", "cancelling"]
        .iter()
        .any(|state| text.contains(&format!("\"state\":\"{state}\"")))
}

/// Returns what the lists call a request: method, path, and the content if that is JSON.
fn label(request: &Request) -> String {
    let content = if request.text().starts_with('{') { request.text() } else { "" };
    format!("{} {} {content}", request.method, request.path).trim_end().to_owned()
}

/// Returns what the rows of an answer are.
fn noun(request: &Request) -> &str {
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        ["tasks", _, "output"] => "lines",
        ["deployments", _, list, ..] => list,
        [first, ..] => first,
        [] => "",
    }
}
