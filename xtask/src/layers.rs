//! The import arrows: which crate of ours may import which, and what pure crates may not list at all.
//!
//! The rule for `[dependencies]` and `[build-dependencies]` is [`LAYERS`], to the letter. The rule for
//! `[dev-dependencies]` is freer, because a test may stand beside what it tests with: any library of ours, but never a
//! binary ([`Kind::Binary`]) nor the checks ([`Kind::Top`]). A crate that the table does not know fails: a new crate
//! begins with a row here.

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use serde::Deserialize;

use crate::Complaint;

/// What kind of ground a crate is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Decides; must not know time, chance, threads or sockets.
    Pure,
    /// Does I/O, or serves those that do.
    Library,
    /// Shared ground that every crate but the pure ones may stand on.
    Base,
    /// A program. Its library half is for tests of the whole and, by name in the table, for simulated agents.
    Binary,
    /// Looks at everything; nobody imports it.
    Top,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The package's name.
    pub name: &'static str,
    /// Its folder, from the root.
    pub folder: &'static str,
    /// What kind of ground it is on.
    pub kind: Kind,
    /// The crates of ours that it may import, beside [`Kind::Base`].
    pub imports: Imports,
}

/// What a crate may import.
#[derive(Clone, Copy, Debug)]
pub enum Imports {
    /// These, and nothing else of ours.
    Only(&'static [&'static str]),
    /// Every library: the composition root and the proofs.
    EveryLibrary,
    /// Anything of ours that is not [`Kind::Top`].
    Anything,
}

use Imports::{Anything, EveryLibrary, Only};
use Kind::{Base, Binary, Library, Pure, Top};

/// Who may import whom. Keep it equal to the table in ARCHITECTURE.md; a new arrow needs a reason in the commit.
pub const LAYERS: &[Layer] = &[
    // Pure: facts in, decisions out.
    row("model", "model", Pure, Only(&[])),
    row("scheduler", "scheduler", Pure, Only(&["model"])),
    row("state", "director/state", Pure, Only(&["model"])),
    // Shared ground.
    row("known-bugs", "base/known-bugs", Base, Only(&[])),
    row("owned-tasks", "base/owned-tasks", Base, Only(&[])),
    row("retry", "base/retry", Base, Only(&[])),
    row("proto", "proto", Library, Only(&[])),
    row("backup", "backup", Library, Only(&[])),
    // Seams and what stands behind them. Two implementations never import each other; they meet in the server.
    row("raft", "raft", Library, Only(&["proto"])),
    row("release", "release", Library, Only(&["model"])),
    row("agent-api", "agent/api", Library, Only(&["model"])),
    row("agent-client-grpc", "agent/client-grpc", Library, Only(&["agent-api", "model", "proto"])),
    row("agent-client-nats", "agent/client-nats", Library, Only(&["agent-api", "model"])),
    row("agent-stand-in", "agent/stand-in", Library, Only(&["model"])),
    row("cpi-api", "cpi/api", Library, Only(&["model"])),
    row("cpi-docker", "cpi/docker", Library, Only(&["cpi-api", "cpi-host", "model"])),
    row("cpi-external", "cpi/external", Library, Only(&["cpi-api", "model"])),
    row("cpi-host", "cpi/host", Library, Only(&["cpi-api", "model"])),
    row("stemcell", "stemcell", Library, Only(&[])),
    row("cpi-local", "cpi/local", Library, Only(&["cpi-api", "cpi-host", "model", "stemcell"])),
    // Simulated VMs run the real agent's code against a dummy platform, hence the extra arrows.
    row("cpi-sim", "cpi/sim", Library, Only(&["agent-stand-in", "cpi-api", "dagent", "model", "proto"])),
    // The director. The executor plans when it takes a task up, hence `scheduler`.
    row("health", "health", Library, Only(&["agent-api", "model"])),
    row(
        "executor",
        "director/executor",
        Library,
        Only(&["agent-api", "cpi-api", "model", "release", "scheduler", "state"]),
    ),
    row("service", "director/service", Library, Only(&["model", "scheduler", "state"])),
    // Programs.
    row("directord", "director/server", Binary, EveryLibrary),
    row("dagent", "agent/daemon", Binary, Only(&["agent-api", "model", "proto", "release"])),
    row("dctl", "cli", Binary, Only(&["backup", "model", "proto", "release", "stemcell"])),
    // Proofs and checks. What judges a record shares no code with those who made it.
    row("checkers", "checkers", Library, Only(&[])),
    row("chaos-tests", "chaos-tests", Top, Anything),
    row("simulation", "simulation", Top, Anything),
    row("xtask", "xtask", Top, Anything),
];

const fn row(name: &'static str, folder: &'static str, kind: Kind, imports: Imports) -> Layer {
    Layer { name, folder, kind, imports }
}

/// What a pure crate may not list among its normal dependencies, and what it would bring in. A trailing `*` stands for
/// the whole family. `uuid` is not here: ids may be read and derived; the pure crates' `clippy.toml` bans drawing them.
const IMPURE: &[(&str, &str)] = &[
    ("async-std", "an async runtime"),
    ("async-trait", "async code"),
    ("axum*", "the network"),
    ("chrono", "a clock"),
    ("fastrand", "chance"),
    ("futures*", "async code"),
    ("getrandom", "chance"),
    ("hyper*", "the network"),
    ("libc", "the operating system"),
    ("mio", "the network"),
    ("nix", "the operating system"),
    ("openraft", "an async runtime"),
    ("quanta", "a clock"),
    ("rand*", "chance"),
    ("reqwest", "the network"),
    ("rocksdb", "the file system"),
    ("rustix", "the operating system"),
    ("rustls*", "the network"),
    ("smol", "an async runtime"),
    ("socket2", "the network"),
    ("tempfile", "the file system"),
    ("time", "a clock"),
    ("tokio*", "an async runtime"),
    ("tonic*", "the network"),
    ("tower*", "the network"),
    ("walkdir", "the file system"),
];

/// A crate of the workspace as `cargo metadata` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Crate {
    /// The package's name.
    pub name: String,
    /// Its folder, from the root.
    #[serde(skip)]
    pub folder: String,
    manifest_path: String,
    /// What it lists, of ours and of others.
    pub dependencies: Vec<Dependency>,
}

/// One line of a crate's dependencies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dependency {
    /// The package's real name, whatever it is renamed to.
    pub name: String,
    /// `dev`, `build`, or none for a normal one.
    pub kind: Option<String>,
    /// Set for a crate in this tree.
    pub path: Option<String>,
}

/// Returns the crates of the workspace at `root`.
pub fn read_workspace(root: &Utf8Path) -> Result<Vec<Crate>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Crate>,
    }
    // The cargo that runs us; no lock file is needed or written, and nothing is fetched.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("failed to start `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed in `{root}`:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let root = root.canonicalize_utf8().with_context(|| format!("failed to resolve `{root}`"))?;
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("failed to read cargo's metadata")?;
    let mut crates = metadata.packages;
    for found in &mut crates {
        let folder = Utf8Path::new(&found.manifest_path).parent().unwrap_or(Utf8Path::new(""));
        found.folder = folder.strip_prefix(&root).unwrap_or(folder).to_string();
    }
    Ok(crates)
}

/// Compares the crates with the table; returns what does not agree.
pub fn check(crates: &[Crate], table: &[Layer]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for found in crates {
        match table.iter().find(|layer| layer.name == found.name) {
            Some(layer) => complaints.extend(check_crate(found, layer, table)),
            None => {
                let text =
                    "is not in the table of layers (xtask/src/layers.rs): say there what it may import";
                complaints.push(Complaint::fail(&found.name, text));
            }
        }
    }
    for layer in table.iter().filter(|layer| crates.iter().all(|found| found.name != layer.name)) {
        complaints.push(Complaint::fail(layer.name, "is in the table of layers, but not in the workspace"));
    }
    complaints.sort();
    complaints
}

fn check_crate(found: &Crate, layer: &Layer, table: &[Layer]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if found.folder != layer.folder {
        let text = format!("lives in `{}`, but its place is `{}`", found.folder, layer.folder);
        complaints.push(Complaint::fail(&found.name, text));
    }
    for dependency in &found.dependencies {
        let refusal = match (dependency.path.is_some(), dependency.kind.as_deref()) {
            (true, Some("dev")) => refuse_in_tests(dependency, table),
            (true, _) => refuse_import(layer, dependency, table),
            (false, None) if layer.kind == Kind::Pure => refuse_impure(dependency),
            (false, _) => None,
        };
        complaints.extend(refusal.map(|text| Complaint::fail(&found.name, text)));
    }
    complaints
}

fn refuse_import(layer: &Layer, dependency: &Dependency, table: &[Layer]) -> Option<String> {
    let name = dependency.name.as_str();
    // A crate that the table does not know is complained about on its own.
    let target = table.iter().find(|row| row.name == name)?;
    let allowed = match (target.kind, layer.imports) {
        (Kind::Base, _) => !matches!(layer.kind, Kind::Pure | Kind::Base),
        (_, Only(names)) => names.contains(&name),
        (kind, EveryLibrary) => !matches!(kind, Kind::Binary | Kind::Top),
        (kind, Anything) => kind != Kind::Top,
    };
    if allowed {
        return None;
    }
    let may = match layer.imports {
        Only([]) => "no crate of ours".to_owned(),
        Only(names) => names.join(", "),
        EveryLibrary => "every library".to_owned(),
        Anything => "anything but other checks".to_owned(),
    };
    Some(format!("must not import `{name}`; it may import {may}"))
}

fn refuse_in_tests(dependency: &Dependency, table: &[Layer]) -> Option<String> {
    let target = table.iter().find(|row| row.name == dependency.name)?;
    // `dagent` is a program, but its library is what simulated VMs are made of.
    let imported_by_a_library = table.iter().any(
        |row| matches!((row.kind, row.imports), (Kind::Library, Only(names)) if names.contains(&target.name)),
    );
    match target.kind {
        Kind::Top => Some(format!("must not import `{}`, not even in tests", target.name)),
        Kind::Binary if !imported_by_a_library => {
            Some(format!("must not import the program `{}`, not even in tests", target.name))
        }
        Kind::Binary | Kind::Pure | Kind::Library | Kind::Base => None,
    }
}

fn refuse_impure(dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(stem) => {
            name == stem || name.starts_with(&format!("{stem}-")) || name.starts_with(&format!("{stem}_"))
        }
        None => name == pattern,
    };
    let (_, brings) = IMPURE.iter().find(|(pattern, _)| matches(pattern))?;
    Some(format!("is pure and must not list `{name}`, which brings {brings}"))
}

#[cfg(test)]
mod tests;
