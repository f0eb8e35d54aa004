//! ERB templates, rendered by real Ruby in workers that are locked in.
//!
//! A worker is a warm Ruby process without network, with another uid and a view of the file system that holds nothing
//! but Ruby (as far as the machine lets us; [`Renderer::isolation`] says how far). It compiles a job's templates once
//! per request and renders any number of contexts with them in a forked child, so that what a template defines, changes
//! or breaks ends with its request. Time, memory and output are bounded.
//!
//! Deliberately *not* here: where properties and links come from (planning), and their secrets' resolution: a
//! [`RenderContext`] is complete and is never logged.
//!
//! Read next: [`context`] (what goes in), [`rendered`] (what comes out, its hashes), `pool` and `process` (workers),
//! `jail` (the locks), `worker.rb` (the Ruby side).

pub mod context;
mod error;
mod jail;
mod pool;
mod process;
pub mod rendered;

use std::path::PathBuf;
use std::time::Duration;

pub use context::{DnsIds, GroupDnsId, JobTemplates, LinkGroup, RenderContext, Template};
pub use error::{JobFailure, RenderError, TemplateError, deployment_failure_text, group_failure_text};
pub use jail::Isolation;
pub use pool::Renderer;
pub use rendered::{RenderedFile, RenderedInstance, RenderedJob};

/// How workers run. [`RenderOptions::default`] fits a director.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// The Ruby interpreter, 3.1 or later.
    pub ruby: PathBuf,
    /// Processes that render at the same time. They start when they are first needed.
    pub workers: usize,
    /// How long one request may take: a batch of up to [`CONTEXTS_PER_REQUEST`] contexts of one job.
    pub request_timeout: Duration,
    /// CPU time of the child that renders one request.
    pub cpu_seconds_max: u64,
    /// Address space of a worker process.
    pub memory_bytes_max: u64,
    /// Bytes that one request may render. Far above any real job, far below what hurts the director.
    pub output_bytes_max: usize,
    /// Requests after which a worker is replaced, so that a leak in Ruby stays small.
    pub requests_per_worker_max: u32,
    /// The weakest isolation that is acceptable; [`Renderer::start`] fails where the machine offers less.
    pub isolation_min: Isolation,
}

/// Contexts that travel in one request: large enough that compiling and forking don't count, small enough that all
/// workers share a large deployment.
pub const CONTEXTS_PER_REQUEST: usize = 200;

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            ruby: PathBuf::from("/usr/bin/ruby"),
            workers: 2,
            request_timeout: Duration::from_secs(60),
            cpu_seconds_max: 60,
            memory_bytes_max: 1 << 30,
            output_bytes_max: 64 << 20,
            requests_per_worker_max: 1000,
            isolation_min: Isolation::Limits,
        }
    }
}
