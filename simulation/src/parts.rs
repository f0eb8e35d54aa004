//! What a simulated replica has instead of Ruby, keys and files. None of it is what the simulation is about.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cpi_api::{AgentBootstrap, Mbus};
use directord::fleet::log::RaftLog;
use executor::ports::{ArchiveError, Archives, Enrollment, OutputSink, Templates, Vault, VaultError};
use model::task::OutputKind;
use model::{AgentId, BlobDigest, TaskId};
use release::render::{
    DnsIds, JobFailure, JobTemplates, RenderContext, RenderError, RenderedFile, RenderedInstance, RenderedJob,
};
use release::{BlobError, BlobReader, BlobStat, Blobstore};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use state::State;
use state::log::CommandLog as _;
use state::records::{BusCertificate, Sealed};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Blobs in memory, the same for all replicas and in all their lives.
#[derive(Default)]
pub struct MemoryBlobs(Mutex<BTreeMap<BlobDigest, Arc<Vec<u8>>>>);

impl MemoryBlobs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlobDigest, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a blob.
    pub fn keep(&self, content: Vec<u8>) -> BlobDigest {
        let digest = BlobDigest::new(hex::encode(Sha256::digest(&content)));
        self.lock().insert(digest.clone(), Arc::new(content));
        digest
    }
}

#[async_trait]
impl Blobstore for MemoryBlobs {
    async fn put(&self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<BlobStat, BlobError> {
        let mut bytes = Vec::new();
        // Nothing that is stored here is read from anywhere but memory.
        let _ = content.read_to_end(&mut bytes).await;
        let length = bytes.len() as u64;
        Ok(BlobStat { digest: self.keep(bytes), bytes: length })
    }

    async fn get(&self, digest: &BlobDigest) -> Result<BlobReader, BlobError> {
        let found = self.lock().get(digest).cloned();
        let content = found.ok_or_else(|| BlobError::NotFound { digest: digest.clone() })?;
        Ok(Box::pin(Cursor::new(content.to_vec())))
    }

    async fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>, BlobError> {
        let found = self.lock().get(digest).cloned();
        Ok(found.map(|content| BlobStat { digest: digest.clone(), bytes: content.len() as u64 }))
    }

    async fn delete(&self, digest: &BlobDigest) -> Result<(), BlobError> {
        self.lock().remove(digest);
        Ok(())
    }
}

/// Renders every job to one file: its properties.
pub struct PlainTemplates;

fn plain(job: &JobTemplates, context: &RenderContext) -> RenderedJob {
    let spec: Value = serde_json::from_str(context.spec.get()).unwrap_or_default();
    let file = RenderedFile {
        source: "config.erb".into(),
        destination: "config/config".into(),
        contents: spec["properties"].to_string().into_bytes(),
    };
    RenderedJob { name: job.name.clone(), monit: Vec::new(), files: vec![file] }
}

#[async_trait]
impl Templates for PlainTemplates {
    async fn render_instance(
        &self,
        _group: &str,
        _dns: &DnsIds,
        jobs: &[(&JobTemplates, RenderContext)],
    ) -> Result<RenderedInstance, RenderError> {
        Ok(RenderedInstance { jobs: jobs.iter().map(|(job, context)| plain(job, context)).collect() })
    }

    async fn render_many(
        &self,
        job: &JobTemplates,
        _dns: &DnsIds,
        contexts: &[RenderContext],
    ) -> Result<Vec<Result<RenderedJob, JobFailure>>, RenderError> {
        Ok(contexts.iter().map(|context| Ok(plain(job, context))).collect())
    }
}

/// A vault whose ciphertext is the text backwards.
pub struct BackwardsVault;

impl Vault for BackwardsVault {
    fn seal(&self, _name: &str, value: &Value) -> Sealed {
        Sealed(value.to_string().bytes().rev().collect())
    }

    fn open(&self, name: &str, sealed: &Sealed) -> Result<Value, VaultError> {
        let text: Vec<u8> = sealed.0.iter().rev().copied().collect();
        serde_json::from_slice(&text).map_err(|_| VaultError { name: name.to_owned() })
    }
}

/// Tokens that say no more than their generation.
pub struct PlainTokens(pub RaftLog);

impl Enrollment for PlainTokens {
    fn bootstrap(&self, agent: &AgentId) -> AgentBootstrap {
        let view = self.0.view();
        let generation = State::new(&*view).agent(agent).map(|record| record.token_generation);
        AgentBootstrap { token: generation.unwrap_or_default().to_string(), ..AgentBootstrap::default() }
    }

    fn due(&self, _agent: &AgentId) -> Option<BusCertificate> {
        None
    }

    fn mbus(&self, _agent: &AgentId) -> Option<Mbus> {
        None
    }
}

/// A world without a web.
pub struct NoArchives;

#[async_trait]
impl Archives for NoArchives {
    async fn open(&self, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, ArchiveError> {
        Err(ArchiveError::NotFound { url: url.to_owned() })
    }
}

/// Forgets what is written for developers.
pub struct NoOutput;

#[async_trait]
impl OutputSink for NoOutput {
    fn write(&self, task: TaskId, kind: OutputKind, text: &str) {
        tracing::debug!(%task, ?kind, "{}", text.trim_end());
    }

    async fn flush(&self, _task: TaskId) {}
}
