//! VMs on a Docker daemon: a VM is a container, a persistent disk a volume, a stemcell an image, a network a bridge.
//!
//! What there is, the daemon knows: everything of ours carries the fleet's name as a label, and names follow from our own
//! ids, so whoever has lost an answer finds what became of it. Beside that, the replicas that use the daemon share one
//! directory (its socket is on their machine): locks that die with their holder (`lock`), the highest epoch heard from,
//! and what labels can't hold because it changes (`store`). A container that was never started is half-made and goes;
//! starting is the one step that makes it a VM (`vm`).
//!
//! Containers get Docker's usual capabilities and no more: a disk comes into a running one by way of an errand, a
//! short-lived container beside it that runs `dagent volume` (`errand`).
//!
//! Not here: daemons on other machines, TLS, registries, limits on the size of disks.

mod body;
mod cloud;
mod daemon;
mod disk;
mod errand;
mod error;
mod names;
mod network;
pub mod own_daemon;
mod properties;
mod range;
mod settings;
mod snapshot;
mod stemcell;
mod store;
mod vm;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError};
pub use cpi_host::LockWaits;
use cpi_host::carry_out;
use serde_json::Value;

use cloud::Cloud;
pub use daemon::version_at;
pub use error::DockerError;
pub use names::{WANTED_NAME, is_name};

/// Where the daemon is and what VMs are made with.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Tells this fleet's objects from those of others at the same daemon: a lower-case word.
    pub name: String,
    /// The directory that all replicas on the machine share.
    pub root: PathBuf,
    /// The agent's program, copied into every image.
    pub dagent: PathBuf,
    /// How long a call waits for an object that another one works on.
    pub lock_waits: LockWaits,
}

impl DockerOptions {
    /// Returns options with the waits of a daemon that may be busy.
    pub fn new(
        socket: impl Into<PathBuf>,
        name: impl Into<String>,
        root: impl Into<PathBuf>,
        dagent: impl Into<PathBuf>,
    ) -> Self {
        Self {
            socket: socket.into(),
            name: name.into(),
            root: root.into(),
            dagent: dagent.into(),
            lock_waits: LockWaits::default(),
        }
    }
}

/// The cloud at one daemon. Clones, and other instances with the same options, are the same cloud.
#[derive(Clone)]
pub struct DockerCpi {
    cloud: Arc<Cloud>,
}

impl DockerCpi {
    /// Opens the cloud. Asks nothing of the daemon, which may come up later than we do.
    pub fn open(options: DockerOptions) -> Result<Self, DockerError> {
        Ok(Self { cloud: Arc::new(Cloud::open(options)?) })
    }
}

#[async_trait]
impl CallPort for DockerCpi {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let (cloud, waits) = (self.cloud.clone(), self.cloud.options.lock_waits);
        let Some(context) = context else { return Ok(Cloud::info()) };
        carry_out(context, call, waits, move |scope, call| {
            cloud.store.check(scope)?;
            cloud.perform(scope, call)
        })
        .await
    }
}
