//! `compile_package`: builds a package from its source and uploads what came out.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::install;
use crate::archive::{self, Scratch};
use crate::error::{ActionError, blocking};
use crate::machine::{Order, Work};
use crate::real::RealMachine;
use crate::scripts::{self, Captured, ScriptRun};
use crate::spec::Package;

/// How much of the output of a failed build is told: its end, where the reason is.
const TOLD_BYTES_MAX: usize = 10 << 10;

pub(super) async fn run(machine: &RealMachine, order: &Order, work: &Work) -> Result<Value, ActionError> {
    order.expect_arguments(5)?;
    let package = Package {
        blobstore_id: order.text(0)?.to_owned(),
        sha1: order.text(1)?.to_owned(),
        name: order.text(2)?.to_owned(),
        version: order.text(3)?.to_owned(),
    };
    if package.name.is_empty() || package.name.contains('/') || package.name.starts_with('.') {
        return Err(ActionError::failed(format!("`{}` is no name for a package", package.name)));
    }
    let dependencies: BTreeMap<String, Package> = order.argument(4, "dependencies")?;
    install::packages(machine, dependencies.values()).await?;
    // Only what it depends on may be seen by the build. A machine with jobs keeps theirs: they may be running.
    if machine.spec()?.jobs().is_empty() {
        install::link_packages(&machine.layout, dependencies.values())?;
    }
    let source = machine.layout.compile().join(&package.name);
    let target = machine.layout.packages().join(&package.name);
    let built = build(machine, &package, &source, &target, work).await;
    remove(&source)?;
    remove(&target)?;
    built
}

async fn build(
    machine: &RealMachine,
    package: &Package,
    source: &Path,
    target: &Path,
    work: &Work,
) -> Result<Value, ActionError> {
    remove(source)?;
    remove(target)?;
    for directory in [source, target] {
        std::fs::create_dir_all(directory).map_err(ActionError::file("create", directory))?;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory, open).map_err(ActionError::file("open up", directory))?;
    }
    install::unpack_blob(machine, &package.blobstore_id, &package.sha1, source).await?;
    let script = source.join("packaging");
    if script.exists() {
        if machine.settings.path_rewrite {
            install::rewrite(&script, machine.layout.base())?;
        }
        run_packaging(machine, package, &script, source, target, work).await?;
    }
    upload(machine, target).await
}

async fn run_packaging(
    machine: &RealMachine,
    package: &Package,
    script: &Path,
    source: &Path,
    target: &Path,
    work: &Work,
) -> Result<(), ActionError> {
    let mut environment = machine.environment();
    environment.extend([
        ("BOSH_COMPILE_TARGET".to_owned(), source.display().to_string()),
        ("BOSH_INSTALL_TARGET".to_owned(), target.display().to_string()),
        ("BOSH_PACKAGE_NAME".to_owned(), package.name.clone()),
        ("BOSH_PACKAGE_VERSION".to_owned(), package.version.clone()),
    ]);
    let arguments = ["-x".to_owned(), script.display().to_string()];
    let run = ScriptRun {
        path: Path::new("bash"),
        arguments: &arguments,
        environment: &environment,
        directory: Some(source),
    };
    let captured = scripts::captured(run, &work.progress, &work.cancel).await?;
    log(machine, package, &captured)?;
    match captured.status.code() {
        Some(0) => Ok(()),
        code => {
            let ended = code.map_or_else(|| captured.status.to_string(), |code| code.to_string());
            let (stdout, stderr) = (told("stdout", &captured.stdout), told("stderr", &captured.stderr));
            Err(ActionError::failed(format!("Command exited with {ended}; {stdout}, {stderr}")))
        }
    }
}

/// Returns the end of an output in BOSH's words.
fn told(name: &str, output: &[u8]) -> String {
    match output.len().checked_sub(TOLD_BYTES_MAX) {
        Some(skip @ 1..) => format!("Truncated {name}: {}", String::from_utf8_lossy(&output[skip..])),
        _ => {
            let capital = if name == "stdout" { "Stdout" } else { "Stderr" };
            format!("{capital}: {}", String::from_utf8_lossy(output))
        }
    }
}

fn log(machine: &RealMachine, package: &Package, captured: &Captured) -> Result<(), ActionError> {
    let directory = machine.layout.log().join("compilation");
    std::fs::create_dir_all(&directory).map_err(ActionError::file("create", &directory))?;
    for (stream, output) in [("stdout", &captured.stdout), ("stderr", &captured.stderr)] {
        let path = directory.join(format!("{}.{stream}.log", package.name));
        std::fs::write(&path, output).map_err(ActionError::file("write", &path))?;
    }
    Ok(())
}

async fn upload(machine: &RealMachine, target: &Path) -> Result<Value, ActionError> {
    let scratch = Scratch::new(&machine.layout.tmp())?;
    let archive = scratch.path().join("compiled.tgz");
    let (from, to) = (target.to_owned(), archive.clone());
    blocking(move || archive::pack(&from, &to)).await?;
    let stored = machine.blobs.store(&archive).await?;
    let digest = format!("sha256:{}", stored.digest);
    Ok(json!({ "result": { "blobstore_id": stored.digest, "sha1": digest, "size": stored.size_bytes } }))
}

fn remove(path: &Path) -> Result<(), ActionError> {
    let path = PathBuf::from(path);
    let removed =
        if path.is_symlink() { std::fs::remove_file(&path) } else { std::fs::remove_dir_all(&path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ActionError::file("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_output_is_told() {
        assert_eq!(told("stdout", b"short"), "Stdout: short");
        let mut long = vec![b'a'; TOLD_BYTES_MAX];
        long.extend(b"end");
        let text = told("stderr", &long);
        assert!(text.starts_with("Truncated stderr: aaa") && text.ends_with("end"));
    }
}
