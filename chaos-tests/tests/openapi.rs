//! The REST API as its own document describes it, fuzzed by a program that knows nothing else of it: Schemathesis makes
//! requests of `/openapi.json`, good ones and bad ones, and compares every answer with what the document says. No request
//! may find anything broken, and no answer be other than described.
//!
//! Schemathesis comes from PyPI (`deploy/schemathesis.sh`). Where it can't be had the test is skipped, and says why; in CI it
//! fails then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::rest::{Answer, Client};
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::Knobs;
use serde_json::{Value, json};
use tokio::process::Command;

const USER: &str = "operator";
const PASSWORD: &str = "a-password-of-the-test";

/// What every answer is compared with.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance";

/// Requests that are made up for each operation, beside those that cover the edges of what is described.
const EXAMPLES_MAX: &str = "4";

/// So long it may take; it takes about a minute.
const FUZZING_MAX: Duration = Duration::from_secs(300);

/// Returns the program, installed if need be; none where it can't be had.
async fn schemathesis() -> Result<Option<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new("deploy/schemathesis.sh").current_dir(root).output().await?;
    if made.status.success() {
        return Ok(Some(String::from_utf8(made.stdout)?.trim().into()));
    }
    let why = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(std::env::var_os("CI").is_none(), "Schemathesis can't be had: {why}");
    let last = why.lines().last().unwrap_or_default();
    eprintln!("skipped: Schemathesis can't be had (deploy/schemathesis.sh): {last}");
    Ok(None)
}

/// Returns the document, with examples of what there is here: otherwise hardly a path would lead anywhere.
fn with_examples(mut document: Value) -> Result<Value> {
    let paths = document["paths"].as_object_mut().context("paths")?;
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().context("an item")? {
            // What is there stays there.
            if method == "delete" {
                continue;
            }
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                let example = match (parameter["name"].as_str().unwrap_or_default(), path.as_str()) {
                    ("deployment" | "deployment[]", _) => json!("hello"),
                    ("group", _) => json!("hello"),
                    ("instance", _) => json!("0"),
                    ("action", _) => json!("restart"),
                    ("id", "/tasks/{id}" | "/tasks/{id}/output" | "/events/{id}" | "/configs/{id}") => {
                        json!("1")
                    }
                    ("name", "/releases/{name}") => json!("hello"),
                    ("limit", _) => json!("1"),
                    ("type", "/tasks/{id}/output") => json!("event"),
                    ("orphaned", _) => json!(true),
                    _ => continue,
                };
                parameter["example"] = match parameter["schema"]["type"] == "array" {
                    true => json!([example]),
                    false => example,
                };
            }
        }
    }
    Ok(document)
}

async fn get(client: &Client, path: &str) -> Result<Answer> {
    let answer = client.send("GET", path, Some((USER, PASSWORD)), &[], &[]).await?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(answer)
}

/// Runs it against a replica; returns what it has to say, and whether it is content.
async fn fuzz(program: &Path, cluster: &Cluster, replica: usize) -> Result<(String, bool)> {
    let client = Client::new(cluster.api(replica), cluster.credentials().authority_pem())?;
    let document: Value = serde_json::from_slice(&get(&client, "/openapi.json").await?.body)?;
    let folder = cluster.folder().join(format!("fuzzing-{replica}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("openapi.json"), with_examples(document)?.to_string())?;
    std::fs::write(folder.join("authority.pem"), cluster.credentials().authority_pem())?;
    let run = Command::new(program)
        .args(["--no-color", "run", "openapi.json", "--url", &format!("https://{}", cluster.api(replica))])
        .args(["--tls-verify", "authority.pem", "--auth", &format!("{USER}:{PASSWORD}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES_MAX, "--workers", "1"])
        .args(["--checks", CHECKS, "--continue-on-failure", "--no-shrink"])
        .args(["--seed", "1", "--generation-database", "none", "--request-timeout", "30"])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--output-truncate", "false"])
        .current_dir(&folder)
        // Nothing between us and the replica.
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(FUZZING_MAX, run).await.context("it takes too long")??;
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ok((told, output.status.success()))
}

#[tokio::test]
async fn no_request_breaks_anything_and_every_answer_is_as_described() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let Some(program) = schemathesis().await? else { return Ok(()) };
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs: Knobs::default() }).await?;
    let file = cluster.folder().join("password");
    std::fs::write(&file, PASSWORD)?;
    let file = file.to_str().context("UTF-8")?.to_owned();
    cluster.operate(&["user", "add", USER, "--new-password-file", &file, "--scope", "bosh.admin"]).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let manifest = Hello::default().file(&cluster)?;
    cluster.operate(&["-d", "hello", "deploy", &manifest]).await?;
    let follower = cluster.follower().await?;
    let (told, is_content) = fuzz(&program, &cluster, follower).await?;
    println!("{told}");
    ensure!(is_content, "the document and the API differ:\n{told}");
    for replica in 1..=3 {
        let log = cluster.log_of(replica)?;
        ensure!(!log.contains("panicked"), "replica {replica} panicked");
    }
    cluster.check_alive()
}
