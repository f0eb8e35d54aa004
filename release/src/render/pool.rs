//! The pool of workers.

use std::io;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::process::{Launcher, Process};
use super::*;

/// Renders templates in a pool of locked-in Ruby workers. Every call is safe to cancel.
pub struct Renderer {
    options: RenderOptions,
    isolation: Isolation,
    /// Workers without work, the one used last on top: the others may be swapped out.
    idle: Mutex<Vec<Process>>,
    permits: Semaphore,
    // Dropped last: it buries the workers.
    launcher: Launcher,
}

impl Renderer {
    /// Starts the pool with one worker, which also shows how far workers can be locked in here.
    pub async fn start(options: RenderOptions) -> Result<Self, RenderError> {
        let failed = |source| RenderError::Start { ruby: options.ruby.display().to_string(), source };
        let launcher = Launcher::new().map_err(failed)?;
        let mut last_error = None;
        for isolation in [Isolation::Contained, Isolation::OtherUser, Isolation::Limits] {
            if last_error.is_some() && isolation < options.isolation_min {
                return Err(RenderError::Isolation { offered: isolation, wanted: options.isolation_min });
            }
            match launcher.start(&options, isolation).await {
                Ok(process) => {
                    info!(%isolation, "templates are rendered by locked-in workers");
                    let permits = Semaphore::new(options.workers.max(1));
                    let idle = Mutex::new(vec![process]);
                    return Ok(Self { options, isolation, idle, permits, launcher });
                }
                Err(error) => {
                    warn!(%isolation, %error, "template workers cannot be locked in this far here");
                    last_error = Some(error);
                }
            }
        }
        Err(failed(last_error.unwrap_or_else(|| io::Error::other("no isolation was tried"))))
    }

    /// Returns how far workers are locked in.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Renders one job for one instance.
    pub async fn render_job(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        context: &RenderContext,
    ) -> Result<RenderedJob, RenderError> {
        let rendered = self.render_many(job, dns, std::slice::from_ref(context)).await?;
        rendered.into_iter().next().expect("one context has one result").map_err(RenderError::Job)
    }

    /// Renders one job for many instances: its templates are compiled once per request. The answers are in the order
    /// of `contexts`; a job that fails for one instance does not keep the others from rendering.
    pub async fn render_many(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError> {
        let head = Head::new(job, dns).to_text();
        // Fewer than a full request each if that keeps all workers busy.
        let share = contexts.len().div_ceil(self.options.workers.max(1));
        let chunks = contexts.chunks(share.clamp(1, CONTEXTS_PER_REQUEST));
        let answers = try_join_all(chunks.map(|chunk| self.request(job, &head, chunk))).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Renders all jobs of one instance. Every job is tried before it fails.
    pub async fn render_instance(
        &self,
        group: &str,
        dns: &DnsIds,
        jobs: &[(&JobTemplates, RenderContext)],
    ) -> Result<RenderedInstance, RenderError> {
        let jobs: Vec<_> = jobs.iter().map(|(job, context)| (*job, vec![context.clone()])).collect();
        let rendered = self.render_group(dns, &jobs).await?;
        rendered
            .into_iter()
            .next()
            .unwrap_or_else(|| Ok(RenderedInstance { jobs: Vec::new() }))
            .map_err(|failures| RenderError::Instance { group: group.to_owned(), failures })
    }

    /// Renders all jobs of all instances of a group: each job comes with one context per instance, in the same order.
    /// The answers are per instance.
    pub async fn render_group(
        &self,
        dns: &DnsIds,
        jobs: &[(&JobTemplates, Vec<RenderContext>)],
    ) -> Result<Vec<Result<RenderedInstance, Vec<JobFailure>>>, RenderError> {
        let per_job = join_all(jobs.iter().map(|(job, contexts)| self.render_many(job, dns, contexts))).await;
        let instances = jobs.iter().map(|(_, contexts)| contexts.len()).max().unwrap_or(0);
        let mut answers: Vec<(Vec<RenderedJob>, Vec<JobFailure>)> = vec![Default::default(); instances];
        for rendered in per_job {
            for ((jobs, failures), result) in answers.iter_mut().zip(rendered?) {
                match result {
                    Ok(job) => jobs.push(job),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        let finish = |(jobs, failures): (_, Vec<_>)| match failures.is_empty() {
            true => Ok(RenderedInstance { jobs }),
            false => Err(failures),
        };
        Ok(answers.into_iter().map(finish).collect())
    }

    async fn request(
        &self,
        job: &JobTemplates,
        head: &str,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError> {
        let texts: Vec<&str> = contexts.iter().map(|c| c.spec.get()).collect();
        let texts = serde_json::to_string(&texts).expect("strings are JSON");
        let body = format!("{},\"contexts\":{texts}}}", &head[..head.len() - 1]);
        let answer = self.call(job, body.as_bytes()).await?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| protocol(job, e))?;
        if let Some(reason) = answer.died {
            return Err(RenderError::Died { job: job.name.clone(), reason });
        }
        if answer.too_large.is_some() {
            let bytes_max = self.options.output_bytes_max;
            return Err(RenderError::OutputTooLarge { job: job.name.clone(), bytes_max });
        }
        if answer.results.len() != contexts.len() {
            return Err(protocol(job, "the number of results is not that of the contexts"));
        }
        answer
            .results
            .into_iter()
            .zip(contexts)
            .map(|(result, context)| result.finish(job, context))
            .collect()
    }

    async fn call(&self, job: &JobTemplates, body: &[u8]) -> Result<Vec<u8>, RenderError> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let mut worker = self.worker().await?;
        let timeout = self.options.request_timeout;
        let answer = match tokio::time::timeout(timeout, worker.call(body)).await {
            // Dropping the worker kills it, and whatever the templates have started.
            Err(_) => return Err(RenderError::Timeout { job: job.name.clone(), seconds: timeout.as_secs() }),
            Ok(Err(source)) => {
                let reason = format!("the worker ended: {source}");
                return Err(RenderError::Died { job: job.name.clone(), reason });
            }
            Ok(Ok(answer)) => answer,
        };
        if worker.served < self.options.requests_per_worker_max && !worker.is_worn {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        }
        Ok(answer)
    }

    async fn worker(&self) -> Result<Process, RenderError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut worker) = idle else { break };
            if worker.is_alive() {
                return Ok(worker);
            }
            warn!("an idle template worker has died");
        }
        let started = self.launcher.start(&self.options, self.isolation).await;
        started.map_err(|source| RenderError::Start { ruby: self.options.ruby.display().to_string(), source })
    }
}

fn protocol(job: &JobTemplates, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RenderError {
    RenderError::Protocol { job: job.name.clone(), source: io::Error::other(why) }
}

/// What all requests for a job share.
#[derive(Serialize)]
struct Head<'a> {
    job: &'a str,
    release: ReleaseNames<'a>,
    dns: &'a DnsIds,
    monit: String,
    templates: Vec<TemplateText<'a>>,
}

#[derive(Serialize)]
struct ReleaseNames<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct TemplateText<'a> {
    source: &'a str,
    text: String,
}

impl<'a> Head<'a> {
    fn new(job: &'a JobTemplates, dns: &'a DnsIds) -> Self {
        let text = |t: &'a Template| TemplateText { source: &t.source, text: BASE64.encode(&t.text) };
        Self {
            job: job.name.as_str(),
            release: ReleaseNames { name: job.release.name.as_str(), version: job.release.version.as_str() },
            dns,
            monit: BASE64.encode(&job.monit),
            templates: job.templates.iter().map(text).collect(),
        }
    }

    fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    results: Vec<JobResult>,
    died: Option<String>,
    too_large: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobResult {
    monit: String,
    files: Vec<String>,
    errors: Vec<TemplateError>,
    monit_error: Option<TemplateError>,
    died: Option<String>,
}

impl JobResult {
    fn finish(
        self,
        job: &JobTemplates,
        context: &RenderContext,
    ) -> Result<Result<RenderedJob, JobFailure>, RenderError> {
        if let Some(reason) = self.died {
            return Err(RenderError::Died { job: job.name.clone(), reason });
        }
        if let Some(error) = self.monit_error {
            return Ok(Err(JobFailure::Monit(error)));
        }
        if !self.errors.is_empty() {
            return Ok(Err(JobFailure::Templates { job: job.name.clone(), errors: self.errors }));
        }
        if self.files.len() != job.templates.len() {
            return Err(protocol(job, "the number of files is not that of the templates"));
        }
        let decode = |text: &str| BASE64.decode(text).map_err(|e| protocol(job, e));
        let mut files = Vec::with_capacity(self.files.len() + 1);
        for (template, text) in job.templates.iter().zip(&self.files) {
            let (source, destination) = (template.source.clone(), template.destination.clone());
            files.push(RenderedFile { source, destination, contents: decode(text)? });
        }
        files.push(rendered::links_file(&context.provided_links));
        Ok(Ok(RenderedJob { name: job.name.clone(), monit: decode(&self.monit)?, files }))
    }
}
