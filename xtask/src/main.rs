//! `cargo xtask <check>`: runs one of our own checks and says what it found.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use xtask::{Complaint, Severity, layers, tidy};

const USAGE: &str = "usage: cargo xtask layers | tidy";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let check = std::env::args().nth(1).unwrap_or_default();
    let root = workspace_root()?;
    let (looked_at, complaints) = match check.as_str() {
        "layers" => {
            let crates = layers::read_workspace(&root)?;
            (format!("{} crates", crates.len()), layers::check(&crates, layers::LAYERS))
        }
        "tidy" => {
            let tree = tidy::Tree::read(&root)?;
            (
                format!("{} files", tree.files.len()),
                tidy::check(&tree, &tidy::Private::of_this_machine(&root)),
            )
        }
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    Ok(report(&check, &looked_at, &complaints))
}

fn report(check: &str, looked_at: &str, complaints: &[Complaint]) -> ExitCode {
    for complaint in complaints {
        eprintln!("{complaint}");
    }
    let failed = complaints.iter().filter(|c| c.severity == Severity::Fail).count();
    if failed > 0 {
        eprintln!("{check}: {failed} to fix in {looked_at}");
        return ExitCode::FAILURE;
    }
    println!("{check}: {looked_at} in order");
    ExitCode::SUCCESS
}

/// Returns the workspace's folder: the one above this crate's.
fn workspace_root() -> Result<Utf8PathBuf> {
    let own = Utf8PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Utf8PathBuf::from).with_context(|| format!("`{own}` has no parent folder"))
}
