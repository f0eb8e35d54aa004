//! A simulated machine whose compilations and logs are real blobs: whoever asks a director for one must find it.

use std::sync::Arc;

use async_trait::async_trait;
use dagent::{ActionError, Behaviour, Blobs, Machine, Method, Order, Report, SimulatedMachine, Stored, Work};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::calls::AgentCalls;

/// What all simulated machines of a cloud share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// Where blobs are while they are made.
    pub scratch: Arc<tempfile::TempDir>,
    /// The script that is held, if one is.
    pub held_script: watch::Receiver<Option<String>>,
    /// Where calls are written down, if somebody wants to know.
    pub calls: Option<Arc<AgentCalls>>,
}

/// See the module's header.
pub(crate) struct SimMachine {
    agent: model::AgentId,
    plain: SimulatedMachine,
    blobs: Arc<dyn Blobs>,
    around: Surroundings,
}

impl SimMachine {
    pub fn new(
        agent: model::AgentId,
        behaviour: Behaviour,
        blobs: Arc<dyn Blobs>,
        around: Surroundings,
    ) -> Self {
        Self { plain: SimulatedMachine::new(agent.clone(), behaviour), agent, blobs, around }
    }

    /// Waits while a script is held.
    async fn let_go(&self, script: &str, work: &Work) -> Result<(), ActionError> {
        let mut held_script = self.around.held_script.clone();
        tokio::select! {
            // If nobody is left to hold it, it goes on.
            _ = held_script.wait_for(|held| held.as_deref() != Some(script)) => Ok(()),
            () = work.cancel.cancelled() => Err(ActionError::Cancelled),
        }
    }

    async fn upload(&self, content: &[u8]) -> Result<Stored, ActionError> {
        let file = tempfile::NamedTempFile::new_in(self.around.scratch.path()).map_err(no_room)?;
        std::fs::write(file.path(), content).map_err(no_room)?;
        self.blobs.store(file.path()).await
    }

    /// The same package always gives the same blob.
    async fn compiled(&self, content: &str) -> Result<Value, ActionError> {
        let Stored { digest, size_bytes } = self.upload(&archive_of("compiled", content)?).await?;
        Ok(json!({ "result": {
            "blobstore_id": digest, "sha1": format!("sha256:{digest}"), "size": size_bytes } }))
    }

    /// What a machine without processes has to say: who it is, and what was asked of it.
    async fn logs(&self, kinds: &str) -> Result<Value, ActionError> {
        if kinds.split(',').any(|kind| !["job", "agent", "system"].contains(&kind)) {
            return Err(ActionError::failed("Invalid log type"));
        }
        let text =
            format!("simulated agent {}, {} deeds, asked for {kinds}\n", self.agent, self.plain.deeds());
        let content = archive_of("agent.log", &text)?;
        let digest = self.upload(&content).await?.digest;
        Ok(json!({ "blobstore_id": digest, "sha1": format!("sha256:{digest}") }))
    }
}

#[async_trait]
impl Machine for SimMachine {
    async fn boot(&self) -> Result<(), ActionError> {
        self.plain.boot().await
    }

    async fn perform(&self, order: Order, work: &Work) -> Result<Value, ActionError> {
        if let Some(calls) = &self.around.calls {
            calls.note(&self.agent, order.method.name(), &order.arguments);
        }
        match order.method {
            Method::CompilePackage => {
                let content = format!("{} {}", order.text(2)?, order.text(3)?);
                self.plain.perform(order, work).await?;
                self.compiled(&content).await
            }
            Method::FetchLogs => {
                let kinds = order.text(0)?.to_owned();
                self.plain.perform(order, work).await?;
                self.logs(&kinds).await
            }
            Method::RunScript => {
                self.let_go(order.text(0)?, work).await?;
                self.plain.perform(order, work).await
            }
            _ => self.plain.perform(order, work).await,
        }
    }

    async fn report(&self) -> Report {
        self.plain.report().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.plain.changes()
    }
}

/// Returns an archive of one file: always the same one for the same text.
fn archive_of(name: &str, text: &str) -> Result<Vec<u8>, ActionError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.append_data(&mut header, name, text.as_bytes()).map_err(no_room)?;
    archive.into_inner().and_then(GzEncoder::finish).map_err(no_room)
}

fn no_room(error: std::io::Error) -> ActionError {
    ActionError::failed(format!("no room for what is to be uploaded: {error}"))
}
