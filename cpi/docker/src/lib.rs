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
mod lock;
mod names;
mod network;
pub mod own_daemon;
mod properties;
mod range;
mod scope;
mod settings;
mod snapshot;
mod stemcell;
mod store;
mod vm;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind};
use serde_json::Value;

use cloud::Cloud;
pub use daemon::version_at;
pub use error::DockerError;
pub use names::{WANTED_NAME, is_name};
use scope::Scope;

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
    /// How long a call that only looks waits for an object that another one works on.
    pub wait_to_look: Duration,
    /// How long all others do.
    pub wait_to_act: Duration,
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
            // Longer than a VM takes to be made.
            wait_to_look: Duration::from_secs(20),
            // Longer than a stemcell takes to import, the longest that anybody works on an object.
            wait_to_act: Duration::from_secs(300),
        }
    }

    fn lock_wait(&self, call: &Call) -> Duration {
        match call {
            Call::FindVm(_)
            | Call::HasVm(_)
            | Call::FindDisk(_)
            | Call::HasDisk(_)
            | Call::FindSnapshot(_)
            | Call::FindNetwork(_) => self.wait_to_look,
            _ => self.wait_to_act,
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
        let (method, cloud) = (call.method(), self.cloud.clone());
        let Some(context) = context else { return Ok(Cloud::info()) };
        let otherwise = match call {
            Call::CreateVm(_) => CpiErrorKind::VmCreationFailed,
            _ => CpiErrorKind::Other,
        };
        // `_waiter` ends with this future: a caller that goes away takes its call with it, unless it has begun. What has
        // begun goes on to its end with its lock: the daemon would not stop either.
        let (scope, _waiter) = Scope::new(context, cloud.options.lock_wait(&call));
        let work = tokio::task::spawn_blocking(move || {
            scope.check(&cloud.store)?;
            cloud.perform(&scope, call)
        });
        let answer = match tokio::time::timeout(context.timeout, work).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| error.into_cpi(method, otherwise)),
            Ok(Err(panic)) => Err(CpiError::new(CpiErrorKind::Other, method, panic.to_string())),
            Err(_) => Err(CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time")),
        };
        answer.map_err(|error| error.for_request(&context.request_id))
    }
}
