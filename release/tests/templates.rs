//! Renders what the reference director rendered and compares every byte (`golden/templates/README.md`).
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::PathBuf;

use release::render::{
    DnsIds, GroupDnsId, JobFailure, JobTemplates, RenderContext, Template, group_failure_text,
};
use release::{RenderOptions, RenderedJob, Renderer};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Cases that differ on purpose, with the reason.
const DEVIATIONS: &[(&str, &str)] = &[(
    "properties-nil-chain",
    "the recorder's own script had defined a method `c` on every object; a director has not",
)];

#[derive(Deserialize)]
struct Case {
    name: String,
    job: String,
    release: model::instance::ReleaseRef,
    context: Box<RawValue>,
    #[serde(default)]
    dns: Option<Dns>,
    compare: String,
    file: Option<String>,
    template: Option<String>,
    rendered: Option<Rendered>,
    rendered_base64: Option<String>,
    error: Option<String>,
    job_error: Option<String>,
    group_error: Option<String>,
    monit_template: Option<String>,
    monit_rendered: Option<String>,
    #[serde(default)]
    templates: Vec<CaseTemplate>,
}

#[derive(Deserialize)]
struct CaseTemplate {
    src: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rendered {
    Text(String),
    Files(Vec<CaseFile>),
}

#[derive(Deserialize)]
struct CaseFile {
    dest: String,
    contents: String,
}

#[derive(Deserialize)]
struct Dns {
    azs: std::collections::BTreeMap<String, u32>,
    networks: std::collections::BTreeMap<String, u32>,
    groups: Vec<(String, String, String, u32)>,
}

impl Case {
    fn templates(&self) -> JobTemplates {
        let one = |src: &str, text: &str| Template {
            source: src.to_owned(),
            destination: src.trim_end_matches(".erb").to_owned(),
            text: text.as_bytes().to_vec(),
        };
        let templates = match (&self.file, &self.template) {
            (Some(file), Some(text)) => vec![one(file, text)],
            _ => self.templates.iter().map(|t| one(&t.src, &t.template)).collect(),
        };
        let monit = self.monit_template.clone().unwrap_or_default().into_bytes();
        JobTemplates { name: self.job.as_str().into(), release: self.release.clone(), monit, templates }
    }

    fn dns(&self) -> DnsIds {
        let Some(dns) = &self.dns else { return DnsIds::default() };
        let group = |(kind, name, deployment, id): &(String, String, String, u32)| GroupDnsId {
            kind: kind.clone(),
            name: name.clone(),
            deployment: deployment.clone(),
            id: *id,
        };
        DnsIds {
            azs: dns.azs.clone(),
            networks: dns.networks.clone(),
            groups: dns.groups.iter().map(group).collect(),
        }
    }

    /// Returns what differs, if anything does.
    fn check(&self, result: &Result<RenderedJob, JobFailure>) -> Result<(), String> {
        match result {
            Ok(job) => self.check_files(job),
            Err(failure) => self.check_failure(failure),
        }
    }

    fn check_files(&self, job: &RenderedJob) -> Result<(), String> {
        let equal = |what: &str, expected: &[u8], actual: &[u8]| match expected == actual {
            true => Ok(()),
            false => Err(format!(
                "{what}: expected {:?}, got {:?}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(actual)
            )),
        };
        if let Some(monit) = &self.monit_rendered {
            equal("monit", monit.as_bytes(), &job.monit)?;
        }
        match (&self.rendered, &self.rendered_base64) {
            (Some(Rendered::Text(text)), _) => equal("file", text.as_bytes(), &job.files[0].contents),
            (Some(Rendered::Files(files)), _) => {
                let expected: Vec<_> =
                    files.iter().map(|f| (f.dest.as_str(), f.contents.as_bytes())).collect();
                let actual: Vec<_> =
                    job.files.iter().map(|f| (f.destination.as_str(), f.contents.as_slice())).collect();
                if expected == actual {
                    Ok(())
                } else {
                    Err(format!("files: expected {expected:?}, got {actual:?}"))
                }
            }
            (None, Some(base64)) => {
                use base64::Engine as _;
                let bytes =
                    base64::engine::general_purpose::STANDARD.decode(base64).expect("recorded base64");
                equal("file", &bytes, &job.files[0].contents)
            }
            (None, None) => Err(format!("expected the error {:?}, got a file", self.error)),
        }
    }

    fn check_failure(&self, failure: &JobFailure) -> Result<(), String> {
        let Some(error) = &self.error else { return Err(format!("expected a file, got `{failure}`")) };
        if self.compare == "first-line" {
            let first_line = failure.to_string();
            let found = first_line.lines().find(|l| l.contains("Error filling in")).unwrap_or_default();
            let wanted = error.lines().next().unwrap_or_default();
            let key = match wanted.split_once(": syntax error") {
                Some((before, _)) => format!("{before}: syntax error"),
                None => wanted.to_owned(),
            };
            return if found.contains(&key) {
                Ok(())
            } else {
                Err(format!("expected `{key}…`, got `{found}`"))
            };
        }
        let job_error = self.job_error.as_ref().unwrap_or(error);
        if failure.to_string() != *job_error {
            return Err(format!("expected `{job_error}`, got `{failure}`"));
        }
        match &self.group_error {
            Some(expected) if *expected != group_failure_text("shop", [failure]) => {
                Err(format!("expected `{expected}`, got `{}`", group_failure_text("shop", [failure])))
            }
            _ => Ok(()),
        }
    }
}

/// How many recordings of our own there are.
const RECORDINGS: usize = 156;

fn cases() -> Vec<Case> {
    let other = std::env::var_os("RECORDED").map(PathBuf::from);
    // An empty folder agrees with everybody. Our own must have all recordings; another one, some.
    let least = if other.is_none() { RECORDINGS } else { 1 };
    let folder = other.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let mut paths: Vec<_> =
        std::fs::read_dir(folder.join("templates")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    assert!(paths.len() >= least, "only {} recordings in {}", paths.len(), folder.display());
    paths.iter().map(|p| serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_template_renders_to_the_same_bytes() {
    let renderer = Renderer::start(RenderOptions::default()).await.expect("Ruby is installed");
    println!("isolation: {}", renderer.isolation());
    let mut wrong = Vec::new();
    let cases = cases();
    if std::env::var_os("RECORDED").is_none() {
        let is_there = |name: &&str| cases.iter().any(|case| case.name == *name);
        assert!(DEVIATIONS.iter().map(|(name, _)| name).all(is_there), "a deviation of nothing");
    }
    for case in cases {
        let context = RenderContext { spec: case.context.clone(), provided_links: Vec::new() };
        let results = renderer.render_many(&case.templates(), &case.dns(), &[context]).await;
        let outcome = results.map_err(|e| e.to_string()).and_then(|r| case.check(&r[0]));
        let is_deviation = DEVIATIONS.iter().any(|(name, _)| *name == case.name);
        match outcome {
            Err(difference) if !is_deviation => wrong.push(format!("{}: {difference}", case.name)),
            Ok(()) if is_deviation => wrong.push(format!("{} does not deviate any more", case.name)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
