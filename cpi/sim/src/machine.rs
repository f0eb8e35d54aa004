//! A simulated machine whose compilations leave a real blob: whoever asks a director for it must find it.

use std::sync::Arc;

use async_trait::async_trait;
use dagent::{ActionError, Behaviour, Blobs, Machine, Method, Order, Report, SimulatedMachine, Work};
use serde_json::{Value, json};
use tokio::sync::watch;

/// See the module's header.
pub(crate) struct SimMachine {
    plain: SimulatedMachine,
    blobs: Arc<dyn Blobs>,
    scratch: Arc<tempfile::TempDir>,
}

impl SimMachine {
    pub fn new(
        agent: model::AgentId,
        behaviour: Behaviour,
        blobs: Arc<dyn Blobs>,
        scratch: Arc<tempfile::TempDir>,
    ) -> Self {
        Self { plain: SimulatedMachine::new(agent, behaviour), blobs, scratch }
    }

    async fn upload(&self, content: &str) -> Result<Value, ActionError> {
        let failed =
            |error: std::io::Error| ActionError::failed(format!("no room for a compiled package: {error}"));
        let file = tempfile::NamedTempFile::new_in(self.scratch.path()).map_err(failed)?;
        std::fs::write(file.path(), content).map_err(failed)?;
        let stored = self.blobs.store(file.path()).await?;
        let digest = stored.digest;
        Ok(json!({ "result": {
            "blobstore_id": digest, "sha1": format!("sha256:{digest}"), "size": stored.size_bytes } }))
    }
}

#[async_trait]
impl Machine for SimMachine {
    async fn boot(&self) -> Result<(), ActionError> {
        self.plain.boot().await
    }

    async fn perform(&self, order: Order, work: &Work) -> Result<Value, ActionError> {
        if order.method != Method::CompilePackage {
            return self.plain.perform(order, work).await;
        }
        // The same package always gives the same blob.
        let content = format!("{} {}", order.text(2)?, order.text(3)?);
        self.plain.perform(order, work).await?;
        self.upload(&content).await
    }

    async fn report(&self) -> Report {
        self.plain.report().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.plain.changes()
    }
}
