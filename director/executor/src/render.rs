//! Rendering instances: a job's templates out of the blobstore, what they may see out of the spec, secrets filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::dns::DnsSubject;
use model::instance::{InstanceSpec, JobSpec};
use model::task::TaskError;
use model::{BlobDigest, ErrorCode, GroupName, InstanceId};
use release::render::{
    JobFailure, JobTemplates, RenderContext, RenderError, RenderedInstance, RenderedJob,
    deployment_failure_text, group_failure_text,
};
use scheduler::{Draft, RenderedHashes};
use serde_json::{Map, Value};
use state::State;

use crate::context::TaskContext;
use crate::dns::Numbers;
use crate::error::StepError;
use crate::template_cache::TemplateCache;
use crate::variables::{Resolver, Sight};
use crate::visible;

/// What is kept between renderings.
static TEMPLATES: TemplateCache = TemplateCache::new(64 << 20);

/// Renders all jobs of one instance.
pub async fn instance(task: &TaskContext, spec: &InstanceSpec) -> Result<RenderedInstance, TaskError> {
    let numbers = numbers(task, &[spec], &[]);
    let mut jobs = Vec::with_capacity(spec.jobs.len());
    for job in &spec.jobs {
        jobs.push((job, templates(task, job).await?));
    }
    let jobs: Result<Vec<(&JobTemplates, RenderContext)>, TaskError> = {
        let resolver = Resolver::for_instance(task, &spec.id);
        let contexts =
            jobs.iter().map(|(job, templates)| Ok((&**templates, context(&resolver, &numbers, spec, job)?)));
        contexts.collect::<Result<_, JobFailure>>().map_err(|failure| failed(&spec.group, &[failure]))
    };
    let rendered = task.ports.renderer.render_instance(spec.group.as_str(), &numbers.ids(), &jobs?).await;
    rendered.map_err(|error| match error {
        RenderError::Instance { failures, .. } => failed(&spec.group, &failures),
        other => TaskError::plain(other.to_string()),
    })
}

fn failed(group: &GroupName, failures: &[JobFailure]) -> TaskError {
    TaskError::plain(deployment_failure_text([group_failure_text(group.as_str(), failures)]))
}

/// Renders every instance of a deploy and returns what decides whether it changed. All failures are reported together.
pub async fn hashes(
    task: &TaskContext,
    draft: &Draft,
    sight: Sight<'_>,
) -> Result<BTreeMap<InstanceId, RenderedHashes>, TaskError> {
    let specs: Vec<&InstanceSpec> = draft.to_render().collect();
    let numbers = numbers(task, &specs, &draft.dns_subjects);
    let ids = numbers.ids();
    let mut rendered: BTreeMap<&InstanceId, Vec<RenderedJob>> =
        specs.iter().map(|s| (&s.id, Vec::new())).collect();
    let mut failures: Vec<(GroupName, Vec<JobFailure>)> = Vec::new();
    for (job, users) in by_job(&specs) {
        let templates = templates(task, job).await?;
        let (mut able, mut contexts) = (Vec::with_capacity(users.len()), Vec::with_capacity(users.len()));
        {
            let resolver = Resolver::for_planning(task, sight);
            for (spec, job) in &users {
                match context(&resolver, &numbers, spec, job) {
                    Ok(context) => {
                        able.push(*spec);
                        contexts.push(context);
                    }
                    Err(failure) => note(&mut failures, &spec.group, failure),
                }
            }
        }
        let answers = task.ports.renderer.render_many(&templates, &ids, &contexts).await;
        let answers = answers.map_err(|e| TaskError::plain(e.to_string()))?;
        for (spec, answer) in able.into_iter().zip(answers) {
            match answer {
                Ok(job) => rendered.entry(&spec.id).or_default().push(job),
                Err(failure) => note(&mut failures, &spec.group, failure),
            }
        }
    }
    if !failures.is_empty() {
        let groups = failures.iter().map(|(group, failures)| group_failure_text(group.as_str(), failures));
        return Err(TaskError::plain(deployment_failure_text(groups)));
    }
    let hashes = |jobs| {
        let instance = RenderedInstance { jobs };
        RenderedHashes {
            configuration_hash: instance.configuration_hash(),
            template_hashes: instance.template_hashes(),
        }
    };
    Ok(rendered.into_iter().map(|(id, jobs)| (id.clone(), hashes(jobs))).collect())
}

fn numbers(task: &TaskContext, specs: &[&InstanceSpec], planned: &[DnsSubject]) -> Numbers {
    let view = task.view();
    Numbers::read(&State::new(&*view), specs, planned)
}

/// Notes a failure once per group: instances of a group usually fail alike.
fn note(failures: &mut Vec<(GroupName, Vec<JobFailure>)>, group: &GroupName, failure: JobFailure) {
    match failures.iter_mut().find(|(name, _)| name == group) {
        Some((_, known)) if known.contains(&failure) => {}
        Some((_, known)) => known.push(failure),
        None => failures.push((group.clone(), vec![failure])),
    }
}

type User<'a> = (&'a InstanceSpec, &'a JobSpec);

/// Groups the instances by job, so that each job's templates are compiled once. Jobs come in the order in which the
/// manifest first names them.
fn by_job<'a>(specs: &[&'a InstanceSpec]) -> Vec<(&'a JobSpec, Vec<User<'a>>)> {
    let mut order: Vec<(&JobSpec, Vec<User<'_>>)> = Vec::new();
    let mut at: BTreeMap<(&BlobDigest, &str, &str), usize> = BTreeMap::new();
    for spec in specs {
        for job in &spec.jobs {
            let key = (&job.blob, job.release.name.as_str(), job.release.version.as_str());
            let index = *at.entry(key).or_insert_with(|| {
                order.push((job, Vec::new()));
                order.len() - 1
            });
            order[index].1.push((spec, job));
        }
    }
    order
}

async fn templates(task: &TaskContext, job: &JobSpec) -> Result<Arc<JobTemplates>, TaskError> {
    if let Some(found) = TEMPLATES.get(&job.blob, &job.release) {
        return Ok(found);
    }
    let failed = |error: &dyn std::fmt::Display| {
        TaskError::new(
            ErrorCode::JobInvalidArchive,
            format!(
                "failed to read job '{}' of release '{}/{}': {error}",
                job.name, job.release.name, job.release.version
            ),
        )
    };
    let archive = release::archive::JobArchive::load(&*task.ports.blobs, &job.name, &job.blob).await;
    let templates = archive.and_then(|archive| archive.templates(&job.release)).map_err(|e| failed(&e))?;
    let templates = Arc::new(templates);
    TEMPLATES.put(&job.blob, &templates);
    Ok(templates)
}

/// Builds what the templates of `job` see of `spec`, with secrets filled in.
fn context(
    resolver: &Resolver,
    numbers: &Numbers,
    spec: &InstanceSpec,
    job: &JobSpec,
) -> Result<RenderContext, JobFailure> {
    let mut failures = Vec::new();
    let mut told = |resolved: Result<Value, StepError>| {
        resolved.unwrap_or_else(|error| {
            failures.extend(lines(error));
            Value::Null
        })
    };
    let properties = told(resolver.resolve(&job.properties));
    let links: Map<String, Value> =
        job.links.iter().map(|(name, link)| (name.clone(), told(resolver.resolve_link(link)))).collect();
    if !failures.is_empty() {
        return Err(JobFailure::Properties { job: job.name.clone(), lines: failures });
    }
    let visible = visible::spec(spec, job, properties, links);
    Ok(RenderContext::new(&visible, numbers.links_of(spec, job)))
}

/// Returns the lines that a failure has among those of a job.
fn lines(error: StepError) -> Vec<String> {
    let text = error.to_string();
    match error {
        // BOSH tells it without a dash.
        StepError::Failed(error) if error.code == ErrorCode::ConfigServerIncorrectNameSyntax.number() => {
            vec![text]
        }
        _ if text.starts_with("- ") => text.lines().map(str::to_owned).collect(),
        _ => vec![format!("- {text}")],
    }
}
