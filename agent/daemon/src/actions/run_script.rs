//! `run_script`: runs a lifecycle script of every job, side by side.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::{Order, Work};
use crate::real::RealMachine;
use crate::scripts::{self, Logs, ScriptRun};

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    env: BTreeMap<String, String>,
}

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    let name = order.text(0)?;
    let options: Options = order.argument(1, "`{env: {…}}`")?;
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(ActionError::failed(format!("`{name}` is no name for a script")));
    }
    let mut environment = machine.environment();
    environment.extend(options.env);
    let spec = machine.spec()?;
    let runs = spec.jobs().iter().filter_map(|job| {
        let path = machine.layout.job_script(&job.name, name);
        path.exists().then(|| run_one(machine, &job.name, name, path, &environment, work))
    });
    let (mut failed, mut passed) = (Vec::new(), Vec::new());
    for (job, ended) in join_all(runs).await {
        match ended {
            Ok(true) => passed.push(job),
            Ok(false) => failed.push(job),
            Err(ActionError::Cancelled) => return Err(ActionError::Cancelled),
            Err(error) => {
                work.progress.add(format!("{job}: {}\n", error.chain()).as_bytes());
                failed.push(job);
            }
        }
    }
    match summary(name, &failed, &passed) {
        None => Ok(json!({})),
        Some(message) => Err(ActionError::Failed(message)),
    }
}

async fn run_one(
    machine: &RealMachine,
    job: &str,
    name: &str,
    path: std::path::PathBuf,
    environment: &BTreeMap<String, String>,
    work: &Work,
) -> (String, Result<bool, ActionError>) {
    let logs = Logs { directory: machine.layout.log().join(job), name: name.to_owned() };
    let script = ScriptRun { path: &path, arguments: &[], environment, directory: None };
    let ended = scripts::logged(script, &logs, &work.cancel).await;
    (job.to_owned(), ended.map(|status| status.success()))
}

/// Returns BOSH's words for failed scripts; `None` if none failed.
fn summary(name: &str, failed: &[String], passed: &[String]) -> Option<String> {
    if failed.is_empty() {
        return None;
    }
    let mut message = format!(
        "{} of {} {name} scripts failed. Failed Jobs: {}.",
        failed.len(),
        failed.len() + passed.len(),
        failed.join(", ")
    );
    if !passed.is_empty() {
        message += &format!(" Successful Jobs: {}.", passed.join(", "));
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_bosh_s_words() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(summary("pre-start", &[], &names("a b")), None);
        assert_eq!(
            summary("pre-start", &names("a"), &names("b")).as_deref(),
            Some("1 of 2 pre-start scripts failed. Failed Jobs: a. Successful Jobs: b.")
        );
        assert_eq!(
            summary("post-start", &names("a b"), &[]).as_deref(),
            Some("2 of 2 post-start scripts failed. Failed Jobs: a, b.")
        );
    }
}
