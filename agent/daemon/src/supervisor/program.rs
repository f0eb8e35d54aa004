//! Runs the programs that start and stop a service, and waits for their effect on its process.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use tracing::warn;

use super::Surroundings;
use super::monit_file::{CheckProcess, Program};
use super::process::Process;
use crate::children::{self, OurChild};

/// How often the pidfile is looked at while a process starts.
const PIDFILE_EVERY: Duration = Duration::from_millis(50);

/// A start program that failed gets this long for its process to be there nevertheless.
const AFTER_FAILED_START: Duration = Duration::from_secs(1);

/// How long a program that is given up may take to end.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(2);

/// Largest kept output of a service's programs; beyond it the file begins anew.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How long a process without a stop program has to end when it is asked.
const TERMINATED_WITHIN: Duration = Duration::from_secs(30);

/// A start program under way.
///
/// Dropped, it is ended with all that it has begun, but not while the pidfile names a live process: that may be the start
/// program itself (`exec daemon`) or one of its process group (`daemon &`).
pub(super) struct StartProgram {
    child: OurChild,
    pidfile: PathBuf,
}

impl StartProgram {
    /// Waits for its end. Safe to cancel.
    pub(super) async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Ends it: the process that it has started is gone, and another one is about to be started.
    pub(super) async fn end(&mut self) {
        self.child.end(PROGRAM_PATIENCE).await;
    }
}

impl Drop for StartProgram {
    fn drop(&mut self) {
        if Process::behind(&self.pidfile).is_some() {
            self.child.leave_alone();
        }
    }
}

/// Runs the start program and waits for the pidfile to name a live process. Returns the start program if it still runs.
pub(super) async fn start_process(
    check: &CheckProcess,
    program: &Program,
    around: &Surroundings,
) -> Result<Option<StartProgram>, String> {
    let child = spawn(check, program, around)?;
    let mut child = StartProgram { child, pidfile: check.pidfile.clone() };
    let mut deadline = Instant::now() + program.timeout;
    let mut ended = None;
    loop {
        if Process::behind(&check.pidfile).is_some() {
            return Ok(ended.is_none().then_some(child));
        }
        tokio::select! {
            status = child.wait(), if ended.is_none() => {
                let status = status.map_err(|error| error.to_string())?;
                if !status.success() {
                    deadline = deadline.min(Instant::now() + AFTER_FAILED_START);
                }
                ended = Some(status);
            }
            () = tokio::time::sleep(PIDFILE_EVERY) => {}
            () = tokio::time::sleep_until(deadline) => return Err(match ended {
                Some(status) if !status.success() => format!("its start program ended with {status}"),
                Some(_) => format!("its start program left no process in {:?}", program.timeout),
                None => format!("its start program did not end in {:?}", program.timeout),
            }),
        }
    }
}

/// Runs the stop program, or asks the process itself, and waits until the process is gone.
pub(super) async fn stop_process(check: &CheckProcess, process: &Process, around: &Surroundings) {
    match &check.stop {
        None => {
            process.terminate();
            let gone = tokio::time::timeout(TERMINATED_WITHIN, process.died()).await;
            if gone.is_err() {
                process.kill();
            }
        }
        Some(program) => match spawn(check, program, around) {
            Ok(mut child) => {
                if tokio::time::timeout(program.timeout, child.wait()).await.is_err() {
                    warn!(service = check.name, "a stop program takes too long and is ended");
                    child.end(PROGRAM_PATIENCE).await;
                }
            }
            Err(reason) => {
                warn!(
                    service = check.name,
                    reason, "a stop program can't be run; the process itself is asked"
                );
                process.terminate();
            }
        },
    }
    process.died().await;
}

fn spawn(check: &CheckProcess, program: &Program, around: &Surroundings) -> Result<OurChild, String> {
    // A full disk must not keep a service from being stopped: without a file its output is lost.
    let output = output_file(check, around).and_then(|file| Ok((file.try_clone()?, file)));
    let (stdout, stderr) = match output {
        Ok((stdout, stderr)) => (Stdio::from(stdout), Stdio::from(stderr)),
        Err(_) => (Stdio::null(), Stdio::null()),
    };
    let mut command = Command::new(&program.argv[0]);
    command
        .args(&program.argv[1..])
        .current_dir("/")
        .env_clear()
        .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
        .env("MONIT_SERVICE", &check.name)
        .envs(around.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let credentials = around.platform.credentials(program.user.as_deref(), program.group.as_deref());
    if let Some(credentials) = credentials.map_err(|error| error.chain())? {
        command.uid(credentials.uid).gid(credentials.gid);
    }
    children::spawn(&mut command).map_err(|error| format!("cannot run `{}`: {error}", program.argv[0]))
}

/// Empties the file that a service's programs write to once it is too large. Nobody rotates it, and a start program that
/// becomes the service may write for years.
pub(super) fn bound_output(check: &CheckProcess, around: &Surroundings) {
    let big = |metadata: std::fs::Metadata| metadata.len() > OUTPUT_BYTES_MAX;
    let path = output_path(check, around);
    if std::fs::metadata(&path).is_ok_and(big) {
        // Writers append, so they go on at the new end. What can't be emptied now is tried again in the next cycle.
        let _ = std::fs::OpenOptions::new().write(true).truncate(true).open(&path);
    }
}

/// Opens where a service's programs write.
fn output_file(check: &CheckProcess, around: &Surroundings) -> std::io::Result<std::fs::File> {
    std::fs::create_dir_all(&around.output)?;
    bound_output(check, around);
    std::fs::OpenOptions::new().append(true).create(true).open(output_path(check, around))
}

fn output_path(check: &CheckProcess, around: &Surroundings) -> PathBuf {
    around.output.join(format!("{}.log", check.name.replace('/', "_")))
}
