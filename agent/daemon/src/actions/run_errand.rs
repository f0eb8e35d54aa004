//! `run_errand`: runs a job's `bin/run` and reports how it ended, which is not an error of the action; neither is that it
//! was given up.

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::{Order, Work};
use crate::real::RealMachine;
use crate::scripts::{self, Captured, Output, ScriptRun};

/// What a shell reports for a process that a signal ended.
const SIGNALLED: i32 = 128;

/// The signal that ends an errand which is given up.
const SIGTERM: i32 = nix::sys::signal::SIGTERM as i32;

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    let name = match order.arguments.first().and_then(Value::as_str) {
        Some(name) => name.to_owned(),
        None => machine.spec()?.job.template,
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(ActionError::failed(format!("`{name}` is no name for an errand")));
    }
    let path = machine.layout.job_script(&name, "run");
    if !path.exists() {
        return Err(ActionError::failed(format!("errand `{name}` is not installed here")));
    }
    let environment = machine.environment();
    let script = ScriptRun { path: &path, arguments: &[], environment: &environment, directory: None };
    let mut output = Output::default();
    let exit_code = match scripts::capture(script, &work.progress, &work.cancel, &mut output).await {
        Ok(status) => exit_code(status),
        // What it did until then is worth knowing.
        Err(ActionError::Cancelled) => SIGNALLED + SIGTERM,
        Err(error) => return Err(error),
    };
    Ok(json!({
        "exit_code": exit_code,
        "stdout": Captured::text(&output.stdout),
        "stderr": Captured::text(&output.stderr),
    }))
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default())
}
