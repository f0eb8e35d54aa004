//! Deployments and errands.

use std::io::Write as _;

use camino::Utf8Path;
use comfy_table::Color;
use proto::v1::deployments_client::DeploymentsClient;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ALL, Context, Found, logs, pages, tasks};
use crate::args::{DeleteDeployment, Deploy, DeployFlags, Diff, InstanceSlug, Interpolate, Plan, RunErrand};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Console, Format, Listing, Record, Screen, column};
use crate::document::Document;
use crate::error::Error;
use crate::follow;

pub(super) fn interpolate(args: &Interpolate, console: &mut Console) -> Result<(), Error> {
    let document = Document::read(&args.file, &args.overlay)?;
    match console.format {
        Format::People => Ok(console.out.write_all(document.text.as_bytes())?),
        Format::Programs => console.say("", &document.value()?),
    }
}

pub(super) async fn deploy(context: &mut Context<'_>, args: Deploy) -> Result<(), Error> {
    let document = Document::read(&args.manifest, &args.overlay)?;
    context.same_name(&document)?;
    let mut options = options(args.flags);
    options.dry_run = args.dry_run;
    let request = DeployRequest {
        request_id: request_id(),
        manifest: document.text,
        options: Some(options),
        context_id: String::new(),
    };
    let started = call!(context.fleet, DeploymentsClient.deploy(request)).await?;
    context.attend(started, args.wait).await
}

fn options(flags: DeployFlags) -> DeployOptions {
    DeployOptions {
        recreate: flags.recreate,
        recreate_persistent_disks: flags.recreate_persistent_disks,
        fix: flags.fix,
        skip_drain: flags.skip_drain,
        canaries: flags.canaries,
        max_in_flight: flags.max_in_flight,
        dry_run: false,
        configs: None,
        recreate_vms_created_before_unix_ms: flags.recreate_vms_created_before.unwrap_or_default(),
    }
}

pub(super) async fn plan(context: &mut Context<'_>, args: Plan) -> Result<(), Error> {
    let document = Document::read(&args.manifest, &args.overlay)?;
    context.same_name(&document)?;
    let request = DeployRequest {
        request_id: request_id(),
        manifest: document.text,
        options: Some(DeployOptions { dry_run: true, ..options(args.flags) }),
        context_id: String::new(),
    };
    let started = call!(context.fleet, DeploymentsClient.deploy(request)).await?;
    explain(context, started.task_id).await
}

/// Shows what a task that does nothing would do. It is followed like any other: planning a large deployment takes longer than
/// a call may.
pub(super) async fn explain(context: &mut Context<'_>, task: u64) -> Result<(), Error> {
    let task = follow::quietly(&context.fleet, task).await?;
    let text = if task.result.is_empty() { "Nothing to do." } else { &task.result };
    context.console.say(text, &json!({ "explanation": task.result }))
}

/// Reads JSON that travels as bytes; no bytes are `null`.
pub(super) fn parse_json(bytes: &[u8], what: &str) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|error| Error::Protocol(format!("{what} is not JSON: {error}")))
}

pub(super) async fn diff(context: &mut Context<'_>, args: Diff) -> Result<(), Error> {
    let document = Document::read(&args.manifest, &args.overlay)?;
    context.same_name(&document)?;
    let request = DiffRequest { manifest: document.text, no_redact: args.no_redact };
    let diff = call!(context.fleet, DeploymentsClient.diff(request)).await?;
    if context.console.format == Format::Programs {
        let line = |line: &DiffLine| json!({ "text": line.text, "change": line.change });
        return context.console.say("", &diff.lines.iter().map(line).collect());
    }
    let screen = context.console.screen;
    let text: Vec<String> = diff.lines.iter().map(|line| diff_line(line, screen)).collect();
    let text = if text.is_empty() { "No differences.".into() } else { text.join("\n") };
    context.console.say(&text, &Value::Null)
}

fn diff_line(line: &DiffLine, screen: Screen) -> String {
    let (sign, colour) = match line.change.as_str() {
        "added" => ("+ ", Some(Color::Green)),
        "removed" => ("- ", Some(Color::Red)),
        _ => ("  ", None),
    };
    let text = format!("{sign}{}", line.text);
    match (screen, colour) {
        (Screen::Terminal { colours: true, .. }, Some(Color::Green)) => format!("\x1b[32m{text}\x1b[0m"),
        (Screen::Terminal { colours: true, .. }, Some(_)) => format!("\x1b[31m{text}\x1b[0m"),
        _ => text,
    }
}

const DEPLOYMENTS: &[Column] = &[
    column("Name", "name"),
    column("Releases", "releases"),
    column("Stemcells", "stemcells"),
    column("Locked by task", "locked_by"),
    column("Deployed", "deployed"),
];

pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = all(context).await?;
    let listing = Listing::of("deployments", DEPLOYMENTS, found.rows, summary);
    context.console.list(&listing.as_of(found.revision))
}

/// Returns every deployment.
pub(super) async fn all(context: &Context<'_>) -> Result<Found<DeploymentSummary>, Error> {
    pages(ALL, async |page| {
        let request = ListDeploymentsRequest { page: Some(page), freshness: Freshness::Linearizable.into() };
        let answer = call!(context.fleet, DeploymentsClient.list(request)).await?;
        Ok((answer.deployments, answer.next_page_token, answer.as_of_revision))
    })
    .await
}

fn summary(summary: DeploymentSummary) -> [Cell; 5] {
    let release = |release: ReleaseRef| format!("{}/{}", release.name, release.version);
    [
        summary.name.into(),
        Cell::Lines(summary.releases.into_iter().map(release).collect()),
        Cell::Lines(summary.stemcells),
        Cell::nonzero(summary.locked_by),
        Cell::Flag(summary.deployed),
    ]
}

async fn details(context: &Context<'_>) -> Result<DeploymentDetails, Error> {
    let request = GetDeploymentRequest { name: context.deployment()? };
    call!(context.fleet, DeploymentsClient.get(request)).await
}

pub(super) async fn show(context: &mut Context<'_>) -> Result<(), Error> {
    let found = details(context).await?.summary.unwrap_or_default();
    context.console.record(&Record::new(DEPLOYMENTS.iter().copied().zip(summary(found))))
}

pub(super) async fn manifest(context: &mut Context<'_>) -> Result<(), Error> {
    let manifest = details(context).await?.manifest;
    context.console.say(&manifest, &json!({ "manifest": manifest }))
}

pub(super) async fn delete(context: &mut Context<'_>, args: DeleteDeployment) -> Result<(), Error> {
    let name = context.deployment()?;
    context.console.confirm(&format!("Delete deployment `{name}` with all its instances"))?;
    let request = DeleteDeploymentRequest {
        request_id: request_id(),
        name,
        force: args.force,
        context_id: String::new(),
    };
    let started = call!(context.fleet, DeploymentsClient.delete(request)).await?;
    context.attend(started, args.wait).await
}

const ERRANDS: &[Column] = &[column("Name", "name")];

pub(super) async fn errands(context: &mut Context<'_>) -> Result<(), Error> {
    let name = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListErrandsRequest { name: name.clone(), page: Some(page) };
        let answer = call!(context.fleet, DeploymentsClient.list_errands(request)).await?;
        Ok((answer.errands, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("errands", ERRANDS, found.rows, |errand| [errand.into()]);
    context.console.list(&listing.as_of(found.revision))
}

/// One line of an errand's result.
#[derive(Deserialize)]
struct ErrandResult {
    instance: ErrandInstance,
    exit_code: i64,
    #[serde(default)]
    stdout: String,
    /// Where all of it is, if it is too long for a result.
    #[serde(default)]
    stdout_blob: Option<ErrandOutput>,
    #[serde(default)]
    stderr: String,
    /// As for `stdout`.
    #[serde(default)]
    stderr_blob: Option<ErrandOutput>,
    #[serde(default)]
    logs: Option<ErrandLogs>,
}

#[derive(Deserialize)]
struct ErrandLogs {
    blobstore_id: Option<String>,
}

#[derive(Deserialize)]
struct ErrandOutput {
    blobstore_id: String,
}

#[derive(Deserialize)]
struct ErrandInstance {
    group: String,
    id: String,
}

const ERRAND_RESULTS: &[Column] = &[
    column("Instance", "instance"),
    column("Exit code", "exit_code"),
    column("Stdout", "stdout"),
    column("Stderr", "stderr"),
];

pub(super) async fn run_errand(context: &mut Context<'_>, args: RunErrand) -> Result<(), Error> {
    let request = RunErrandRequest {
        request_id: request_id(),
        deployment: context.deployment()?,
        errand: args.name.clone(),
        keep_alive: args.keep_alive,
        when_changed: args.when_changed,
        instances: args.instances.into_iter().map(selector).collect(),
    };
    let started = call!(context.fleet, DeploymentsClient.run_errand(request)).await?;
    if args.wait.detach {
        return context.attend(started, args.wait).await;
    }
    let task = follow::to_the_end(&context.fleet, context.console, started.task_id).await?;
    let output = follow::read(&context.fleet, task.id, Output::Result).await?;
    let mut results = errand_results(&output)?;
    for result in &mut results {
        for (shown, whole) in
            [(&mut result.stdout, &result.stdout_blob), (&mut result.stderr, &result.stderr_blob)]
        {
            if let Some(whole) = whole {
                let mut bytes = Vec::new();
                context.fleet.download(&whole.blobstore_id, &mut bytes).await?;
                *shown = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        if args.download_logs {
            download_logs(context, &args.name, &args.logs_dir, result).await?;
        }
    }
    show_errand(context, task, &results)?;
    let failed: Vec<String> = results
        .iter()
        .filter(|result| result.exit_code != 0)
        .map(|result| {
            format!("{}/{} (exit code {})", result.instance.group, result.instance.id, result.exit_code)
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::ErrandFailed { errand: args.name, failed: failed.join(", ") })
}

async fn download_logs(
    context: &mut Context<'_>,
    errand: &str,
    dir: &Utf8Path,
    result: &ErrandResult,
) -> Result<(), Error> {
    let Some(blob) = result.logs.as_ref().and_then(|logs| logs.blobstore_id.as_deref()) else {
        return Ok(());
    };
    let name = format!("{errand}.{}.{}.tgz", result.instance.group, result.instance.id);
    let saved = logs::save(context, blob, dir, &name).await?;
    context.console.note(&saved.text())
}

fn errand_results(output: &[u8]) -> Result<Vec<ErrandResult>, Error> {
    let wrong =
        |error: serde_json::Error| Error::Protocol(format!("the errand's result is not JSON: {error}"));
    serde_json::Deserializer::from_slice(output).into_iter().map(|line| line.map_err(wrong)).collect()
}

fn show_errand(context: &mut Context<'_>, task: Task, results: &[ErrandResult]) -> Result<(), Error> {
    let listing = Listing::of("errand runs", ERRAND_RESULTS, results, |result| {
        let exit_code = Cell::Both(result.exit_code.to_string(), json!(result.exit_code));
        [
            format!("{}/{}", result.instance.group, result.instance.id).into(),
            exit_code,
            result.stdout.trim_end().into(),
            result.stderr.trim_end().into(),
        ]
    });
    let text = match results.is_empty() && !task.result.is_empty() {
        // It was not run, and the task says why.
        true => format!("\n{}\n", task.result),
        false => format!("\n{}", listing.to_table(context.console.screen)),
    };
    let mut value = tasks::record(task).to_json();
    value["runs"] = listing.to_json();
    context.console.say(&text, &value)
}

/// Returns an instance's name as the API takes it.
pub(super) fn selector(slug: InstanceSlug) -> InstanceSelector {
    InstanceSelector { group: slug.group, id_or_index: slug.id_or_index }
}

impl Context<'_> {
    /// Refuses a manifest of another deployment than `--deployment` names: the wrong file deletes the right instances.
    fn same_name(&self, document: &Document) -> Result<(), Error> {
        let Some(wanted) = self.deployment.as_ref().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let value = document.value()?;
        match value.get("name").and_then(Value::as_str) {
            Some(name) if name == wanted => Ok(()),
            Some(name) => Err(Error::Usage(format!("the manifest is for `{name}`, not for `{wanted}`"))),
            // Without a name the directors say what is missing, in BOSH's words.
            None => Ok(()),
        }
    }
}
