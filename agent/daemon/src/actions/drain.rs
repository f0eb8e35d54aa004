//! `drain`: asks every job to finish what it is doing, and waits as the jobs say.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::{Order, Work};
use crate::real::RealMachine;
use crate::scripts::{self, Captured, ScriptRun};
use crate::spec::ApplySpec;

/// What the scripts are told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    let current = machine.spec()?;
    let told = match order.text(0)? {
        "update" => {
            order.expect_arguments(2)?;
            update(&current, &order.argument(1, "an apply spec")?)
        }
        "shutdown" => shutdown(
            &current,
            order.arguments.get(1).map(|_| order.argument(1, "an apply spec")).transpose()?,
        ),
        "status" => return Err(ActionError::failed("Unexpected call with drain type 'status'")),
        other => return Err(ActionError::failed(format!("Unknown drain type {other}"))),
    };
    // Jobs end on purpose now: nobody must start them again.
    machine.supervisor.unmonitor().await?;
    let jobs = current.jobs().iter().map(|job| drain_job(machine, &job.name, &told, work));
    let (mut failed, mut passed) = (Vec::new(), Vec::new());
    for (job, drained) in join_all(jobs).await {
        match drained {
            Ok(Drained::Yes) => passed.push(job),
            Ok(Drained::NothingToDo) => {}
            Err(ActionError::Cancelled) => return Err(ActionError::Cancelled),
            Err(error) => failed.push(format!("{job} ({})", error.chain())),
        }
    }
    if failed.is_empty() {
        return Ok(json!(0));
    }
    let total = failed.len() + passed.len();
    let mut message =
        format!("{} of {total} drain scripts failed. Failed Jobs: {}.", failed.len(), failed.join(", "));
    if !passed.is_empty() {
        message += &format!(" Successful Jobs: {}.", passed.join(", "));
    }
    Err(ActionError::Failed(message))
}

fn update(current: &ApplySpec, new: &ApplySpec) -> Told {
    let job = if current.jobs().is_empty() { "job_new" } else { "job_changed" };
    let hash = match () {
        () if current.configuration_hash.is_empty() => "hash_new",
        () if current.configuration_hash == new.configuration_hash => "hash_unchanged",
        () => "hash_changed",
    };
    let changed = new.packages.values().filter(|package| {
        current.packages.get(&package.name).is_none_or(|installed| installed.sha1 != package.sha1)
    });
    let mut names: Vec<String> = changed.map(|package| package.name.clone()).collect();
    names.sort();
    let arguments = [job.to_owned(), hash.to_owned()].into_iter().chain(names).collect();
    Told { arguments, environment: environment(current, Some(new)) }
}

fn shutdown(current: &ApplySpec, new: Option<ApplySpec>) -> Told {
    let arguments = vec!["job_shutdown".to_owned(), "hash_unchanged".to_owned()];
    Told { arguments, environment: environment(current, new.as_ref()) }
}

fn environment(current: &ApplySpec, new: Option<&ApplySpec>) -> BTreeMap<String, String> {
    let state = |spec: &ApplySpec| json!({ "persistent_disk": spec.persistent_disk }).to_string();
    let mut environment = BTreeMap::from([("BOSH_JOB_STATE".to_owned(), state(current))]);
    environment.extend(new.map(|new| ("BOSH_JOB_NEXT_STATE".to_owned(), state(new))));
    environment
}

enum Drained {
    Yes,
    NothingToDo,
}

async fn drain_job(
    machine: &RealMachine,
    job: &str,
    told: &Told,
    work: &Work,
) -> (String, Result<Drained, ActionError>) {
    let path = machine.layout.job_script(job, "drain");
    if !path.exists() {
        return (job.to_owned(), Ok(Drained::NothingToDo));
    }
    let mut environment = machine.environment();
    environment.extend(told.environment.clone());
    let mut arguments = told.arguments.clone();
    loop {
        let script =
            ScriptRun { path: &path, arguments: &arguments, environment: &environment, directory: None };
        let answer = match scripts::captured(script, &work.progress, &work.cancel).await {
            Ok(captured) => answer(&captured),
            Err(error) => Err(error),
        };
        let seconds = match answer {
            Ok(seconds) => seconds,
            Err(error) => return (job.to_owned(), Err(error)),
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds.unsigned_abs())) => {}
            () = work.cancel.cancelled() => return (job.to_owned(), Err(ActionError::Cancelled)),
        }
        if seconds >= 0 {
            return (job.to_owned(), Ok(Drained::Yes));
        }
        // A negative answer means: ask again then.
        arguments = vec!["job_check_status".to_owned(), "hash_unchanged".to_owned()];
        environment.remove("BOSH_JOB_NEXT_STATE");
    }
}

/// Reads what a drain script printed. Its exit code does not count, unless a signal ended it.
fn answer(captured: &Captured) -> Result<i64, ActionError> {
    if captured.status.code().is_none() {
        return Err(ActionError::failed(format!("Script ended with {}", captured.status)));
    }
    let text = Captured::text(&captured.stdout);
    text.trim().parse().map_err(|_| ActionError::failed("Script did not return a signed integer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(hash: &str, packages: &[(&str, &str)]) -> ApplySpec {
        let packages: serde_json::Map<String, Value> = packages
            .iter()
            .map(|(name, sha1)| ((*name).to_owned(), json!({ "name": name, "version": "1", "sha1": sha1 })))
            .collect();
        serde_json::from_value(json!({
            "configuration_hash": hash, "packages": packages, "persistent_disk": 512,
            "job": { "templates": [{ "name": "j", "version": "1" }] },
            "rendered_templates_archive": { "sha1": "s", "blobstore_id": "b" },
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(current: &ApplySpec, new: &ApplySpec, expect: &str) {
        assert_eq!(update(current, new).arguments.join(" "), expect);
    }

    #[test]
    fn scripts_are_told_what_changes() {
        let old = spec("one", &[("a", "1"), ("b", "1"), ("gone", "1")]);
        check(&old, &old, "job_changed hash_unchanged");
        check(&old, &spec("two", &[("c", "1"), ("b", "2"), ("a", "1")]), "job_changed hash_changed b c");
        check(&ApplySpec::default(), &old, "job_new hash_new a b gone");
        assert_eq!(shutdown(&old, None).arguments, ["job_shutdown", "hash_unchanged"]);
    }

    #[test]
    fn scripts_are_told_the_disks() {
        let told = environment(&spec("x", &[]), None);
        assert_eq!(told.get("BOSH_JOB_STATE").map(String::as_str), Some(r#"{"persistent_disk":512}"#));
        assert!(!told.contains_key("BOSH_JOB_NEXT_STATE"));
    }
}
