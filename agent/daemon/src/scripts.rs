//! Runs jobs' scripts.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::children::{self, OurChild};
use crate::error::ActionError;
use crate::machine::Progress;

/// The `PATH` of every script.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How much nicer lifecycle scripts are: jobs that still run come first.
const NICENESS: i32 = 5;

/// How long a cancelled script may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest captured output; beyond it the beginning is dropped, because the end says why it failed.
pub(crate) const CAPTURED_BYTES_MAX: usize = 512 << 10;

/// A script to run.
pub(crate) struct ScriptRun<'a> {
    pub(crate) path: &'a Path,
    pub(crate) arguments: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// Where it runs; the agent's own directory where nothing is said.
    pub(crate) directory: Option<&'a Path>,
}

/// What a script that was captured left.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Where the output of a logged script goes: `<directory>/<name>.{stdout,stderr}.log`.
pub(crate) struct Logs {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
}

/// Runs a script with its output appended to logs.
pub(crate) async fn logged(
    script: ScriptRun<'_>,
    logs: &Logs,
    cancel: &CancellationToken,
) -> Result<ExitStatus, ActionError> {
    let mut command = command(&script);
    command.stdout(Stdio::from(logs.open("stdout")?)).stderr(Stdio::from(logs.open("stderr")?));
    let mut child = children::spawn(&mut command).map_err(ActionError::file("run", script.path))?;
    if let Some(pid) = rustix::process::Pid::from_raw(child.pid()) {
        // Only a courtesy: a script that can't be made nicer runs all the same.
        let _ = rustix::process::setpriority_process(Some(pid), NICENESS);
    }
    ended(&mut child, script.path, cancel).await
}

/// Runs a script and keeps its output.
pub(crate) async fn captured(
    script: ScriptRun<'_>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Captured, ActionError> {
    let mut output = Output::default();
    let status = capture(script, progress, cancel, &mut output).await?;
    Ok(Captured { status, stdout: output.stdout, stderr: output.stderr })
}

/// What a script has printed.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// As [`captured`]; what it printed until it was given up is in `output` as well.
pub(crate) async fn capture(
    script: ScriptRun<'_>,
    progress: &Progress,
    cancel: &CancellationToken,
    output: &mut Output,
) -> Result<ExitStatus, ActionError> {
    let mut command = command(&script);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = children::spawn(&mut command).map_err(ActionError::file("run", script.path))?;
    let (stdout, stderr) = (child.pipes().stdout.take(), child.pipes().stderr.take());
    let reading = async {
        tokio::join!(keep(stdout, &mut output.stdout, progress), keep(stderr, &mut output.stderr, progress));
    };
    tokio::pin!(reading);
    let ending = ended(&mut child, script.path, cancel);
    tokio::pin!(ending);
    let mut status = None;
    loop {
        tokio::select! {
            result = &mut ending, if status.is_none() => status = Some(result),
            // Also waits for a daemon that keeps the pipe; the script's own end is what counts.
            () = &mut reading => break,
            () = tokio::time::sleep(LEFT_OPEN), if status.is_some() => break,
        }
    }
    match status {
        Some(status) => status,
        None => ending.await,
    }
}

/// How long output is waited for after a script has ended and something that it started keeps its pipes open.
const LEFT_OPEN: Duration = Duration::from_millis(500);

fn command(script: &ScriptRun<'_>) -> Command {
    let mut command = Command::new(script.path);
    command.args(script.arguments).env("PATH", PATH).envs(script.environment).stdin(Stdio::null());
    if let Some(directory) = script.directory {
        command.current_dir(directory);
    }
    command
}

async fn ended(
    child: &mut OurChild,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<ExitStatus, ActionError> {
    tokio::select! {
        status = child.wait() => return status.map_err(ActionError::file("wait for", path)),
        () = cancel.cancelled() => {}
    }
    child.end(PATIENCE).await;
    Err(ActionError::Cancelled)
}

async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, progress: &Progress) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    // A pipe that can't be read has ended.
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        progress.add(&buffer[..n]);
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * CAPTURED_BYTES_MAX {
            kept.drain(..kept.len() - CAPTURED_BYTES_MAX);
        }
    }
}

impl Captured {
    /// Returns captured output as text, its end only where it is too long.
    pub(crate) fn text(bytes: &[u8]) -> String {
        match bytes.len().checked_sub(CAPTURED_BYTES_MAX) {
            Some(skip @ 1..) => format!("[truncated]\n{}", String::from_utf8_lossy(&bytes[skip..])),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

impl Logs {
    fn open(&self, stream: &str) -> Result<File, ActionError> {
        std::fs::create_dir_all(&self.directory).map_err(ActionError::file("create", &self.directory))?;
        let path = self.directory.join(format!("{}.{stream}.log", self.name));
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640);
        options.open(&path).map_err(ActionError::file("open", &path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("script");
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn run(text: &str, cancel: &CancellationToken) -> Result<Captured, ActionError> {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), text);
        let environment = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
        let run =
            ScriptRun { path: &path, arguments: &["one".into()], environment: &environment, directory: None };
        captured(run, &Progress::default(), cancel).await
    }

    #[tokio::test]
    async fn output_exit_code_arguments_and_environment_arrive() {
        let captured =
            run("echo $GREETING $1 $PATH; echo oops >&2; exit 3", &CancellationToken::new()).await.unwrap();
        assert_eq!(Captured::text(&captured.stdout), format!("hello one {PATH}\n"));
        assert_eq!(Captured::text(&captured.stderr), "oops\n");
        assert_eq!(captured.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_pipe_does_not_hold_the_script() {
        let captured =
            run("echo before; setsid sleep 30 & echo $!", &CancellationToken::new()).await.unwrap();
        let text = Captured::text(&captured.stdout);
        let pid: i32 = text.lines().nth(1).unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        assert!(text.starts_with("before\n"));
    }

    #[tokio::test]
    async fn a_cancelled_script_ends_with_all_it_started() {
        let (dir, cancel) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let mark = dir.path().join("pid");
        let text = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", mark.display());
        let stop = async {
            while !mark.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(run(&text, &cancel), stop);
        assert!(matches!(ended, Err(ActionError::Cancelled)), "{ended:?}");
        let pid: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while crate::proc::Stat::of(pid).is_some_and(|stat| !stat.is_zombie()) {
            assert!(std::time::Instant::now() < deadline, "the script's own child still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn long_output_keeps_its_end() {
        let mut bytes = vec![b'a'; CAPTURED_BYTES_MAX];
        bytes.extend(b"end");
        let text = Captured::text(&bytes);
        assert!(text.starts_with("[truncated]\naaa") && text.ends_with("aend"));
    }
}
