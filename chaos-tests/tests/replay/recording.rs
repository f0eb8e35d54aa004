//! Recordings as they lie in their folder, and as they are played: what a CLI sent while it followed a task is one step here.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// One file.
#[derive(Debug)]
pub struct Scenario {
    /// Its name with its number, `010-deploy-fresh`.
    pub name: String,
    /// What was done, in order.
    pub commands: Vec<Command>,
}

impl Scenario {
    /// Returns the number that the file's name begins with.
    pub fn number(&self) -> u32 {
        self.name.split('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    }
}

impl Scenario {
    fn changes_configs(&self) -> bool {
        self.commands.iter().flat_map(|command| &command.steps).any(|step| match step {
            Step::Exchange(exchange) => {
                let Request { method, path, .. } = &exchange.request;
                method == "POST" && path.contains("_configs") && !path.contains("/diff")
            }
            Step::Follow { .. } => false,
        })
    }

    fn first_task(&self) -> Option<u64> {
        self.commands.iter().flat_map(|command| &command.steps).find_map(|step| match step {
            Step::Follow { task, .. } => Some(*task),
            Step::Exchange(_) => None,
        })
    }
}

/// A command of the CLI, or one request without it.
#[derive(Debug)]
pub struct Command {
    /// As somebody would type it.
    pub title: String,
    /// The password that was given, where it is not the right one.
    pub password: Option<String>,
    /// It began before those before it in the file, and ended after them.
    pub is_behind_others: bool,
    /// What was sent.
    pub steps: Vec<Step>,
}

/// What is sent at once.
#[derive(Clone, Debug)]
pub enum Step {
    /// One request.
    Exchange(Box<Exchange>),
    /// As many as it takes until a task has ended.
    Follow {
        /// Its number, then.
        task: u64,
        /// How it was seen last.
        end: Value,
        /// Its event lines, if they were asked for.
        events: Option<String>,
    },
}

/// A request, and what came back.
#[derive(Clone, Debug, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub response: Response,
}

/// What was asked.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    #[serde(default)]
    headers: Headers,
    body: Option<String>,
    body_binary: Option<Value>,
}

/// What came back.
#[derive(Clone, Debug, Deserialize)]
pub struct Response {
    /// 200.
    pub status: u16,
    #[serde(default)]
    headers: Headers,
    body: Option<String>,
    body_binary: Option<Value>,
    body_truncated_from_bytes: Option<u64>,
}

type Headers = std::collections::BTreeMap<String, String>;

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Request {
    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns the body, if it was a text.
    pub fn text(&self) -> &str {
        self.body.as_deref().unwrap_or_default()
    }

    /// Returns whether the body was an archive, which is not in the recording.
    pub fn has_archive(&self) -> bool {
        self.body_binary.is_some()
    }
}

impl Response {
    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns the body, unless that was not recorded, or not as a whole.
    pub fn text(&self) -> Option<&str> {
        let is_whole = self.body_binary.is_none() && self.body_truncated_from_bytes.is_none();
        is_whole.then_some(self.body.as_deref().unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct File {
    commands: Vec<FileCommand>,
}

#[derive(Deserialize)]
struct FileCommand {
    #[serde(default)]
    argv: Vec<String>,
    plain_http_request: Option<String>,
    note: Option<String>,
    #[serde(default)]
    environment: std::collections::BTreeMap<String, Option<String>>,
    #[serde(default)]
    in_parallel_with_previous: bool,
    exchanges: Vec<Exchange>,
}

/// Reads all scenarios of a folder, in their order.
pub fn read(folder: &Path) -> Result<Vec<Scenario>> {
    let listed = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths: Vec<_> = listed.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = paths.iter().map(|path| read_one(path).with_context(|| format!("read {}", path.display())));
    let mut scenarios = read.collect::<Result<Vec<_>>>()?;
    // Those of one number follow each other as their tasks do; what changes a config comes last.
    scenarios.sort_by_key(|found| {
        (found.number(), found.first_task(), found.changes_configs(), found.name.clone())
    });
    Ok(scenarios)
}

fn read_one(path: &Path) -> Result<Scenario> {
    let file: File = serde_json::from_slice(&std::fs::read(path)?)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Scenario { name, commands: file.commands.into_iter().map(command).collect() })
}

fn command(file: FileCommand) -> Command {
    let is_cli = !file.argv.is_empty();
    let title = match file.plain_http_request {
        Some(request) => format!("{request} {}", file.note.unwrap_or_default()),
        None => file.argv.join(" "),
    };
    let password = file.environment.get("BOSH_CLIENT_SECRET").cloned().flatten();
    let steps = match is_cli {
        true => fold(file.exchanges),
        false => file.exchanges.into_iter().map(|exchange| Step::Exchange(Box::new(exchange))).collect(),
    };
    Command { title, password, is_behind_others: file.in_parallel_with_previous, steps }
}

/// Returns the task whose state, or whose events, a request is about.
fn followed(exchange: &Exchange) -> Option<(u64, bool)> {
    let rest = exchange.request.path.strip_prefix("/tasks/")?;
    let is_get = exchange.request.method == "GET";
    match rest.split_once("/output?type=event") {
        Some((number, "")) => Some((number.parse().ok()?, true)),
        _ => Some((rest.parse().ok()?, false)),
    }
    .filter(|_| is_get)
}

/// Makes one step of all that was asked about a task until it had ended.
fn fold(exchanges: Vec<Exchange>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for exchange in exchanges {
        let about = followed(&exchange).filter(|_| exchange.response.status != 404);
        let Some((number, is_output)) = about else {
            steps.push(Step::Exchange(Box::new(exchange)));
            continue;
        };
        let open = steps.iter_mut().find_map(|step| match step {
            Step::Follow { task, end, events } if *task == number => Some((end, events)),
            _ => None,
        });
        let text = exchange.response.text().unwrap_or_default();
        let is_new = matches!(exchange.response.status, 200 | 206);
        match (open, is_output) {
            (Some((_, events)), true) => {
                events.get_or_insert_default().push_str(if is_new { text } else { "" });
            }
            (Some((end, _)), false) => *end = serde_json::from_str(text).unwrap_or_default(),
            (None, false) => {
                let end = serde_json::from_str(text).unwrap_or_default();
                steps.push(Step::Follow { task: number, end, events: None });
            }
            (None, true) => steps.push(Step::Exchange(Box::new(exchange))),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exchange(path: &str, status: u16, body: &str) -> Exchange {
        let recorded = json!({ "request": { "method": "GET", "path": path }, "response": { "status": status, "body": body } });
        serde_json::from_value(recorded).unwrap()
    }

    #[test]
    fn what_was_asked_about_a_task_until_its_end_is_one_step() {
        let steps = fold(vec![
            exchange("/stemcells", 303, ""),
            exchange("/tasks/9", 200, r#"{"state":"queued"}"#),
            exchange("/tasks/9/output?type=event", 206, "a\n"),
            exchange("/tasks/9/output?type=event", 416, "Byte range unsatisfiable"),
            exchange("/tasks/9", 200, r#"{"state":"done"}"#),
            exchange("/tasks/9/output?type=event", 206, "b\n"),
            exchange("/tasks/9/output?type=result", 200, ""),
        ]);
        let [Step::Exchange(first), Step::Follow { task: 9, end, events }, Step::Exchange(last)] = &steps[..]
        else {
            panic!("{steps:#?}")
        };
        assert_eq!(
            (first.request.path.as_str(), last.request.path.as_str()),
            ("/stemcells", "/tasks/9/output?type=result")
        );
        assert_eq!((&end["state"], events.as_deref()), (&json!("done"), Some("a\nb\n")));
    }

    #[test]
    fn a_task_that_there_is_not_is_not_followed() {
        let steps = fold(vec![exchange("/tasks/99999", 404, "{}"), exchange("/task/9", 204, "")]);
        assert!(steps.iter().all(|step| matches!(step, Step::Exchange(_))), "{steps:#?}");
    }
}
