//! One process for one call.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::Program;

/// All that a CPI finds in its environment, beside HOME and TMPDIR.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an answer.
    pub answer_bytes_max: u64,
    /// Bytes of one call's standard error that are kept; the rest is read, so that nobody blocks, and forgotten.
    pub log_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer_bytes_max: 16 << 20, log_bytes_max: 1 << 20 }
    }
}

/// What a file is known by: an upgrade in place changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64, u64, i64, i64);

/// Returns the fingerprint of a file, if there is one.
pub fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let file = std::fs::metadata(path).ok()?;
    Some(Fingerprint(file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// What came over standard output.
pub enum Said {
    /// All of it.
    All(Vec<u8>),
    /// More than may be.
    TooMuch,
    /// Something that can't be read, and why. What the call has done is not known.
    Unreadable(String),
}

/// Ends a process with its whole group, whatever becomes of whoever has started it.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Gone already is fine: it is the rule.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// Runs an executable with one line of input. Dropped, it ends the process group.
///
/// # Errors
///
/// If it can't be started, in the contract's words.
pub async fn run(
    program: &Program,
    line: &str,
    limits: Limits,
    log: &(dyn Fn(&str) + Sync),
) -> Result<Said, String> {
    let Program { path, guard, .. } = program;
    let not_executable = || format!("Failed to run cpi: '{}' is not executable", path.display());
    if !path.is_file() || access(path, AccessFlags::X_OK).is_err() {
        return Err(not_executable());
    }
    let mut command = match guard.split_first() {
        Some((guard, arguments)) => {
            let mut command = Command::new(guard);
            command.args(arguments).arg(path);
            command
        }
        None => Command::new(path),
    };
    command.env_clear().env("PATH", PATH);
    for kept in ["HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let not_started = |why: std::io::Error| format!("Failed to run cpi: '{}': {why}", path.display());
    let mut child = command.spawn().map_err(not_started)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or("Failed to run cpi: no process")?;
    let group = Group(Pid::from_raw(pid));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let is_guarded = !guard.is_empty();
    let write = async move {
        let mut stdin = stdin?;
        // One that does not read has nothing to be told; its answer counts.
        let _ = stdin.write_all(line.as_bytes()).await;
        // Its end tells the guard that we are gone; an executable without a guard waits for it.
        is_guarded.then_some(stdin)
    };
    let read = async move {
        let Some(stdout) = stdout else { return Said::All(Vec::new()) };
        let mut bytes = Vec::new();
        let read = stdout.take(limits.answer_bytes_max + 1).read_to_end(&mut bytes).await;
        match read {
            Err(why) => Said::Unreadable(why.to_string()),
            Ok(_) if bytes.len() as u64 > limits.answer_bytes_max => Said::TooMuch,
            Ok(_) => Said::All(bytes),
        }
    };
    let listen = async move {
        if let Some(stderr) = stderr {
            listen(stderr, limits.log_bytes_max, log).await;
        }
    };
    // Who has said too much is not listened to until its end.
    let said = async {
        let (said, stdin) = tokio::join!(read, write);
        (said, stdin)
    };
    tokio::pin!(said, listen);
    let mut heard = None;
    let (said, _stdin) = tokio::select! {
        said = &mut said => said,
        () = &mut listen => { heard = Some(()); said.await }
    };
    if matches!(said, Said::All(_)) {
        if heard.is_none() {
            listen.await;
        }
        // Its exit code says nothing, but it should be gone before the group is.
        let _ = child.wait().await;
    }
    drop(group);
    Ok(said)
}

/// Hands on standard error as it comes, line by line, up to a limit; reads on to its end.
async fn listen(stderr: impl AsyncRead + Unpin, bytes_max: u64, log: &(dyn Fn(&str) + Sync)) {
    let mut kept = BufReader::new(stderr).take(bytes_max);
    let mut line = Vec::new();
    while kept.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        log(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    if kept.limit() == 0 {
        let mut rest = kept.into_inner();
        let left_out = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.unwrap_or_default();
        if left_out > 0 {
            log(&format!("({left_out} more bytes of standard error are left out)"));
        }
    }
}
