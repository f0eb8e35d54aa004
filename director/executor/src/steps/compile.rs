//! Compiling a package on a worker.

use agent_api::{BlobRef, Method, PackageBlob};
use model::release::CompiledPackage;
use model::step::{PackageRefKey, StepOutcome};
use model::{AgentId, BlobDigest, ErrorCode, InstanceId, Revision};
use state::State;

use super::calls::SCRIPT;
use crate::context::StepContext;
use crate::error::StepError;

/// Compiles the package, unless another deployment has done so meanwhile.
pub async fn compile(
    cx: &StepContext,
    worker: &InstanceId,
    agent: &AgentId,
    key: &PackageRefKey,
    compiled_elsewhere: &[PackageRefKey],
) -> Result<StepOutcome, StepError> {
    cx.checkpoint()?;
    its_turn(cx, key).await?;
    let (source, dependencies) = {
        let view = cx.task.view();
        let state = State::new(&*view);
        if state.compiled_package(key).is_some() {
            return Ok(StepOutcome::Done);
        }
        (source(&state, key)?, dependencies(&state, key, compiled_elsewhere)?)
    };
    let method = Method::CompilePackage {
        source,
        name: key.name.clone(),
        // The build counts results for this package and stemcell; it is only known when the result is recorded.
        version: format!("{}.1", key.fingerprint),
        dependencies,
    };
    let mode = agent_api::Mode::Submit;
    let reply = cx.agent_cancellable(agent, worker, "compile", method, SCRIPT, mode).await?;
    let result = reply.0.get("result").cloned().unwrap_or(reply.0);
    let text = |name: &str| result.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let (Some(blob), Some(digest)) = (text("blobstore_id"), text("sha1")) else {
        return Err(StepError::coded(
            ErrorCode::AgentInvalidTaskResult,
            format!("agent {agent} gave no blob for package '{}'", key.name),
        ));
    };
    let size_bytes = result.get("size").and_then(serde_json::Value::as_u64).unwrap_or_default();
    Ok(StepOutcome::Compiled { blob: BlobDigest::new(blob), digest, size_bytes })
}

/// Waits until no other task compiles the package. Its result, if there is one, is ours too; if there is none, it is our turn.
async fn its_turn(cx: &StepContext, key: &PackageRefKey) -> Result<(), StepError> {
    let (lock, log) = (key.lock(), &cx.task.ports.log);
    let free = async {
        let mut seen = Revision(0);
        loop {
            let holder = {
                let view = cx.task.view();
                State::new(&*view).lock(&lock).map(|lock| lock.holder)
            };
            if holder.is_none_or(|holder| holder == cx.task.id()) {
                return;
            }
            seen = log.changed(seen).await;
        }
    };
    tokio::select! {
        // Whoever compiles it has no more time than we would have.
        waited = cx.fenced(tokio::time::timeout(SCRIPT, free)) => waited?.map_err(|_| {
            StepError::plain(format!("package '{}' has been compiled by another task for too long", key.name))
        }),
        () = cx.task.cancelled.cancelled(), if !cx.cleanup => Err(StepError::Cancelled),
    }
}

fn source(state: &State<'_>, key: &PackageRefKey) -> Result<BlobRef, StepError> {
    let found = state
        .releases()
        .into_iter()
        .flat_map(|r| r.packages)
        .find(|p| p.name == key.name && p.fingerprint == key.fingerprint && p.source.is_some());
    match found {
        Some(package) => Ok(BlobRef { blob: package.source.unwrap_or_default(), digest: package.digest }),
        None => Err(StepError::coded(
            ErrorCode::PackageMissingSourceCode,
            format!("package '{}/{}' has no source in any release", key.name, key.fingerprint),
        )),
    }
}

/// Returns the compiled forms of all direct dependencies; the plan has put their compilation before this one, or names
/// those that come from another stemcell.
fn dependencies(
    state: &State<'_>,
    key: &PackageRefKey,
    compiled_elsewhere: &[PackageRefKey],
) -> Result<Vec<PackageBlob>, StepError> {
    let mut found = Vec::new();
    for dependency in direct(&key.dependency_key)? {
        let same = |other: &&PackageRefKey| {
            (&other.name, &other.fingerprint, &other.dependency_key)
                == (&dependency.name, &dependency.fingerprint, &dependency.dependency_key)
        };
        let on = compiled_elsewhere.iter().find(same).unwrap_or(key).stemcell();
        let wanted = PackageRefKey { os: on.os, stemcell_version: on.version, ..dependency };
        let compiled: CompiledPackage = state.compiled_package(&wanted).ok_or_else(|| {
            StepError::plain(format!(
                "package '{}' needs '{}', which is not compiled yet",
                key.name, wanted.name
            ))
        })?;
        found.push(PackageBlob {
            name: compiled.key.name,
            version: format!("{}.{}", compiled.key.fingerprint, compiled.build),
            content: BlobRef { blob: compiled.blob, digest: compiled.digest },
        });
    }
    Ok(found)
}

/// Reads the direct dependencies out of a dependency key: `[[name, version, [nested …]] …]`.
fn direct(key: &str) -> Result<Vec<PackageRefKey>, StepError> {
    let damaged = || StepError::plain(format!("dependency key `{key}` is damaged"));
    let entries: Vec<serde_json::Value> = serde_json::from_str(key).map_err(|_| damaged())?;
    let read = |entry: &serde_json::Value| {
        Some(PackageRefKey {
            name: entry.get(0)?.as_str()?.into(),
            fingerprint: entry.get(1)?.as_str()?.into(),
            os: String::new(),
            stemcell_version: Default::default(),
            dependency_key: entry.get(2).map_or_else(|| "[]".to_owned(), serde_json::Value::to_string),
        })
    };
    entries.iter().map(|entry| read(entry).ok_or_else(damaged)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_key_names_its_direct_dependencies() {
        let read = direct(r#"[["a","fpa",[["c","fpc"]]],["b","fpb"]]"#).unwrap();
        let read: Vec<_> = read.iter().map(|k| (k.name.as_str(), k.dependency_key.as_str())).collect();
        assert_eq!(read, [("a", r#"[["c","fpc"]]"#), ("b", "[]")]);
        assert!(direct("[]").unwrap().is_empty());
        assert!(direct("[[1]]").is_err());
    }
}
