//! A root file system in which the sample releases can be compiled and run: what the compiler and the shell need of this
//! machine's files, and no more. Made in a second, without a network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cpi_docker::own_daemon::Rootfs;

use crate::programs;

/// What the jobs' scripts and the agent run.
const PROGRAMS: [&str; 25] = [
    "bash", "cat", "chmod", "chown", "cp", "env", "gcc", "grep", "gzip", "id", "install", "ln", "ls", "make",
    "mkdir", "mv", "nproc", "rm", "sed", "seq", "sh", "sleep", "tail", "tar", "timeout",
];

/// What gcc runs.
const PARTS: [&str; 4] = ["cc1", "collect2", "as", "ld"];

/// What it links with.
const OBJECTS: [&str; 13] = [
    "crt1.o",
    "Scrt1.o",
    "crti.o",
    "crtn.o",
    "crtbegin.o",
    "crtbeginS.o",
    "crtend.o",
    "crtendS.o",
    "libgcc.a",
    "libgcc_s.so",
    "libgcc_s.so.1",
    "libc.so",
    "libc_nonshared.a",
];

/// Writes one to `out`, in which `source` can be compiled.
pub fn rootfs(source: &Path, out: &Path) -> Result<()> {
    let mut programs: Vec<PathBuf> = PROGRAMS.map(on_path).into_iter().collect::<Result<_>>()?;
    for part in PARTS {
        let found = PathBuf::from(gcc(&[&format!("-print-prog-name={part}")])?.trim());
        programs.push(if found.is_absolute() { found } else { on_path(part)? });
    }
    let plugin = PathBuf::from(gcc(&["-print-file-name=liblto_plugin.so"])?.trim());
    let objects = OBJECTS.map(|object| gcc(&[&format!("-print-file-name={object}")]));
    let mut files = vec![plugin];
    for object in objects {
        files.push(PathBuf::from(object?.trim()));
    }
    // What the linker's script of the C library names, and every header that the program asks for.
    files.push("/lib64/ld-linux-x86-64.so.2".into());
    let headers = gcc(&["-M", "-std=gnu11", "-O1", source.to_str().context("UTF-8")?])?;
    files
        .extend(headers.split_ascii_whitespace().filter(|word| word.starts_with("/usr/")).map(PathBuf::from));
    files.retain(|file| file.is_absolute() && file.exists());
    Rootfs { programs, files, guests: vec![programs::dagent()] }
        .write(out)
        .context("write a root file system")
}

fn on_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("there is no `{program}` here"))
}

fn gcc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("gcc").args(arguments).output().context("run gcc")?;
    ensure!(output.status.success(), "gcc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
