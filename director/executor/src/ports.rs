//! What the executor needs from outside, as small traits that the server fulfils.

use std::sync::Arc;
use std::time::Duration;

use agent_api::Agents;
use async_trait::async_trait;
use cpi_api::{AgentBootstrap, Cpi, Mbus};
use model::task::OutputKind;
use model::{AgentId, CpiName, Epoch, NodeId, TaskId};
use release::Blobstore;
use release::render::{
    DnsIds, JobFailure, JobTemplates, RenderContext, RenderError, RenderedInstance, RenderedJob, Renderer,
};
use serde_json::Value;
use state::log::CommandLog;
use state::records::{BusCertificate, Sealed};
use tokio::io::AsyncRead;

use crate::clouds::NoCloud;
use crate::dns::Desk;
use crate::lease::Lease;

/// The configured CPIs by name.
pub trait Cpis: Send + Sync {
    /// Returns the CPI of this name, or of one that was called so before; the default one has the empty name.
    fn get(&self, name: &CpiName) -> Result<Arc<dyn Cpi>, NoCloud>;
    /// Returns all names: of what is configured now.
    fn names(&self) -> Vec<CpiName>;
}

/// Encrypts and decrypts secrets under the fleet's key.
pub trait Vault: Send + Sync {
    /// Encrypts a value for `name`; a value sealed for one name can't be opened as another.
    fn seal(&self, name: &str, value: &Value) -> Sealed;
    /// Decrypts what was sealed for `name`.
    fn open(&self, name: &str, sealed: &Sealed) -> Result<Value, VaultError>;
}

/// A sealed value could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of `{name}` can't be decrypted with this fleet's key")]
pub struct VaultError {
    /// Whose value.
    pub name: String,
}

/// What new agents need to find us.
pub trait Enrollment: Send + Sync {
    /// Returns endpoints, authorities and the single-use token for an agent; for one of BOSH's, with a certificate for its bus, as
    /// it was offered.
    fn bootstrap(&self, agent: &AgentId) -> AgentBootstrap;

    /// Returns the certificate for its bus that is to be offered to an agent: there is none for an agent of ours, and while the one
    /// that an agent of BOSH's has will do.
    fn due(&self, agent: &AgentId) -> Option<BusCertificate>;

    /// Makes the certificate that is offered to an agent, and returns it with what the agent is told of its bus; none if that can't
    /// be done.
    fn mbus(&self, agent: &AgentId) -> Option<Mbus>;
}

/// Where bulky task output goes: sealed into segments, replicated like blobs.
#[async_trait]
pub trait OutputSink: Send + Sync {
    /// Appends text to a task's debug or CPI output. Best effort: never holds up a step.
    fn write(&self, task: TaskId, kind: OutputKind, text: &str);
    /// Seals what is waiting, so that it is readable when the task is seen to have ended.
    async fn flush(&self, task: TaskId);
}

/// Opens the span in which everything is traced that is done for a task. Whoever exports traces makes it such that one
/// task is one trace, whichever replica works on it.
#[derive(Clone)]
pub struct TaskSpans(Arc<dyn Fn(TaskId, Epoch) -> tracing::Span + Send + Sync>);

impl TaskSpans {
    /// Opens spans with a function.
    pub fn new(open: impl Fn(TaskId, Epoch) -> tracing::Span + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Opens a task's span.
    pub fn open(&self, task: TaskId, epoch: Epoch) -> tracing::Span {
        (self.0)(task, epoch)
    }
}

impl Default for TaskSpans {
    fn default() -> Self {
        Self::new(|task, epoch| tracing::info_span!("task", %task, %epoch))
    }
}

impl std::fmt::Debug for TaskSpans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TaskSpans")
    }
}

/// Archives that others keep, by URL.
#[async_trait]
pub trait Archives: Send + Sync {
    /// Opens what a URL leads to. Reading fails when the content breaks off, stalls, or is larger than anybody may upload.
    async fn open(&self, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, ArchiveError>;
}

/// Why an archive could not be opened. No error tells what opens the place where it lies: URLs are shown without
/// credentials and queries.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Nothing is there.
    #[error("there is nothing at '{url}'")]
    NotFound {
        /// Where.
        url: String,
    },
    /// One leads to the next.
    #[error("too many redirects at '{url}'")]
    TooManyRedirects {
        /// The last one.
        url: String,
    },
    /// Anything else.
    #[error("failed to fetch '{url}'")]
    Failed {
        /// What.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Renders jobs' templates.
#[async_trait]
pub trait Templates: Send + Sync {
    /// Renders all jobs of one instance. Every job is tried before it fails.
    async fn render_instance(
        &self,
        group: &str,
        dns: &DnsIds,
        jobs: &[(&JobTemplates, RenderContext)],
    ) -> Result<RenderedInstance, RenderError>;
    /// Renders one job for many instances; answers in the order of `contexts`.
    async fn render_many(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError>;
}

#[async_trait]
impl Templates for Renderer {
    async fn render_instance(
        &self,
        group: &str,
        dns: &DnsIds,
        jobs: &[(&JobTemplates, RenderContext)],
    ) -> Result<RenderedInstance, RenderError> {
        Renderer::render_instance(self, group, dns, jobs).await
    }

    async fn render_many(
        &self,
        job: &JobTemplates,
        dns: &DnsIds,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError> {
        Renderer::render_many(self, job, dns, contexts).await
    }
}

/// Whether the director takes snapshots of disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshots {
    /// It takes none, whoever asks for one.
    #[default]
    Off,
    /// It takes one before each update, and when it is asked for one.
    On,
}

/// Numbers that the executor is run with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This replica.
    pub node: NodeId,
    /// How many tasks are worked on at once.
    pub tasks_max: usize,
    /// How many VMs are created or deleted at once, whatever a plan says.
    pub threads_max: usize,
    /// How long a new agent may take to answer for the first time.
    pub agent_wait: Duration,
    /// How long a cloud may take to carry out a call of which nobody heard any more: for so long it is looked for.
    pub late_calls: Duration,
    /// Whether snapshots of disks are taken.
    pub snapshots: Snapshots,
    /// How tasks are traced.
    pub spans: TaskSpans,
    /// Whether agents are given DNS records, so that names can be used for addresses.
    pub local_dns: bool,
    /// What SSH clients are told to go through.
    pub ssh_gateway: Option<SshGateway>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node: NodeId(0),
            tasks_max: 16,
            threads_max: 32,
            agent_wait: Duration::from_secs(600),
            // As long as the CPI contract gives a call.
            late_calls: Duration::from_secs(3600),
            snapshots: Snapshots::Off,
            spans: TaskSpans::default(),
            local_dns: true,
            ssh_gateway: None,
        }
    }
}

/// The machine over which operators' SSH clients reach VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshGateway {
    /// Its name or address.
    pub host: String,
    /// The user there, if clients are to be told.
    pub user: Option<String>,
}

/// Everything the executor works with.
#[derive(Clone)]
pub struct Ports {
    /// The replicated log and state.
    pub log: Arc<dyn CommandLog>,
    /// Whether this replica may act.
    pub lease: Arc<dyn Lease>,
    /// Agents.
    pub agents: Arc<dyn Agents>,
    /// Clouds.
    pub cpis: Arc<dyn Cpis>,
    /// Blobs, replicated.
    pub blobs: Arc<dyn Blobstore>,
    /// Archives that others keep.
    pub archives: Arc<dyn Archives>,
    /// Ruby.
    pub renderer: Arc<dyn Templates>,
    /// Secrets.
    pub vault: Arc<dyn Vault>,
    /// Identity for new agents.
    pub enrollment: Arc<dyn Enrollment>,
    /// Debug and CPI output.
    pub output: Arc<dyn OutputSink>,
    /// Where those meet who have to do with DNS records.
    pub dns: Arc<Desk>,
    /// Numbers.
    pub options: Options,
}
