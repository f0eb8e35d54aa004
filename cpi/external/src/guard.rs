//! What stands between a director and an executable: a process that ends the executable, and all of its group, when the
//! director is gone, however it went. Another director may call the cloud then, and two must not.
//!
//! The director holds the guard's standard input: its end is the director's.

use std::ffi::OsString;
use std::io::{BufRead as _, Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::getpgrp;

/// The name under which a director runs itself as a guard.
pub const NAME: &str = "run-cpi";

/// Runs an executable: `args` has its path. The first line of standard input is for it; standard output and error are its own.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(program) = args.first() else {
        eprintln!("{NAME}: which CPI?");
        return ExitCode::FAILURE;
    };
    let mut line = Vec::new();
    let read = std::io::stdin().lock().read_until(b'\n', &mut line);
    let spawned = read.and_then(|_| Command::new(program).stdin(Stdio::piped()).spawn());
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{NAME}: can't run {}: {error}", program.display());
            return ExitCode::FAILURE;
        }
    };
    let stdin = child.stdin.take();
    std::thread::spawn(move || {
        // Written beside the waiting: one that does not read must not keep us from seeing the end.
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&line)));
        let mut rest = Vec::new();
        let _ = std::io::stdin().lock().read_to_end(&mut rest);
        let _ = killpg(getpgrp(), Signal::SIGKILL);
    });
    match child.wait() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
