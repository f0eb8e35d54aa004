//! `start`: writes the jobs' control files and has everything started.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use agent_api::JobState;
use serde_json::{Value, json};

use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::real::RealMachine;
use crate::supervisor::monit_file;

pub(super) fn run(machine: &RealMachine) -> Result<Value, ActionError> {
    let wanted = control_files(machine)?;
    let directory = machine.layout.monit_jobs();
    for (name, text) in &wanted {
        // A control file that can't be read fails the start of its own job by name, before anything is changed.
        monit_file::parse(text)
            .map_err(|error| ActionError::failed(format!("control file `{name}`: {error}")))?;
    }
    for entry in fs::read_dir(&directory).map_err(ActionError::file("list", &directory))?.flatten() {
        if !wanted.contains_key(&*entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(ActionError::file("remove", &entry.path()))?;
        }
    }
    for (name, text) in &wanted {
        let path = directory.join(name);
        durable::write(&path, text.as_bytes(), Readers::Owner).map_err(ActionError::file("write", &path))?;
    }
    let stopped = machine.layout.stopped();
    if stopped.exists() {
        fs::remove_file(&stopped).map_err(ActionError::file("remove", &stopped))?;
    }
    machine.supervisor.load(&directory)?;
    machine.supervisor.start()?;
    machine.mirror_health(JobState::Running);
    Ok(json!("started"))
}

/// Returns the control files of all jobs. Numbers count from the last job, as monit reads the files in order.
fn control_files(machine: &RealMachine) -> Result<BTreeMap<String, String>, ActionError> {
    let spec = machine.spec()?;
    let mut files = BTreeMap::new();
    for (number, job) in spec.jobs().iter().rev().enumerate() {
        let directory = machine.layout.job(&job.name);
        let main = directory.join("monit");
        if main.exists() {
            files.insert(format!("{number:04}_{}.monitrc", job.name), read(&main)?);
        }
        for entry in fs::read_dir(&directory).map_err(ActionError::file("list", &directory))?.flatten() {
            let path = entry.path();
            let label = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "monit") {
                files.insert(format!("{number:04}_{}_{label}.monitrc", job.name), read(&path)?);
            }
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, ActionError> {
    fs::read_to_string(path).map_err(ActionError::file("read", path))
}
