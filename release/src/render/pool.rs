//! The pool of workers.

use super::*;

/// Renders templates in a pool of locked-in Ruby workers.
pub struct Renderer {
    options: RenderOptions,
}

#[allow(clippy::unimplemented, reason = "the signatures come first, so that callers can compile")]
impl Renderer {
    /// Starts the pool with one worker, which also shows how far workers can be locked in here.
    pub async fn start(options: RenderOptions) -> Result<Self, RenderError> {
        Ok(Self { options })
    }

    /// Returns how far workers are locked in.
    pub fn isolation(&self) -> Isolation {
        self.options.isolation_min
    }

    /// Renders one job for one instance.
    pub async fn render_job(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        context: &RenderContext,
    ) -> Result<RenderedJob, RenderError> {
        let _ = (job, dns, context);
        unimplemented!("the pool comes next")
    }

    /// Renders one job for many instances: its templates are compiled once per request. The answers are in the order
    /// of `contexts`; a job that fails for one instance does not keep the others from rendering.
    pub async fn render_many(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError> {
        let _ = (job, dns, contexts);
        unimplemented!("the pool comes next")
    }

    /// Renders all jobs of one instance. Every job is tried before it fails.
    pub async fn render_instance(
        &self,
        group: &str,
        dns: &DnsIds,
        jobs: &[(&JobTemplates, RenderContext)],
    ) -> Result<RenderedInstance, RenderError> {
        let _ = (group, dns, jobs);
        unimplemented!("the pool comes next")
    }
}
