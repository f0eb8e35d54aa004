//! The local cloud, the embedded default: a VM is a Linux container that we make ourselves, or a machine by QEMU.
//!
//! How much of a container depends on what the machine allows, and whether we are root: [`probe`] tries each [`Rung`]. The
//! whole cloud lives in one directory that all replicas on the machine share: a VM that one of them made is found, used and
//! deleted by any other, also after the first was killed in the middle. That rests on three things: every object has a lock
//! that dies with its holder (`cpi_host::NamedLock`), an intent is on disk before the deed (`record`), and a call asks whether
//! it may still act once it has the lock (`cpi_host::Scope`). VMs are nobody's children: they outlive every replica.
//!
//! Not here: several hosts (a VM lives where its directory is).
//!
//! Read next: `vm` for the life of a VM, [`helper`] for what runs inside.

mod cgroup;
mod cloud;
mod disk;
pub mod helper;
mod ids;
mod image;
mod limits;
mod loop_device;
mod mounts;
mod netlink;
mod netns;
mod network;
mod outbound;
mod power;
mod process;
mod reach;
mod record;
mod rung;
mod settings;
mod snapshot;
mod stemcell;
mod store;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind};
use cpi_host::{CallError as _, carry_out};
pub use cpi_host::{HostError, LockWaits};
use serde_json::Value;

use cloud::Cloud;
pub use outbound::Outbound;
pub use reach::reach_vm;
pub use rung::{Isolation, Rung, RungReport, probe};

/// Where the cloud is and what it is made with.
///
/// VMs leave the session of whoever made them, but not its control group: a service manager that stops a replica must
/// end its main process only (systemd: `KillMode=process`).
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The directory that holds the cloud; the same for all replicas on the machine.
    pub root: PathBuf,
    /// The agent's program.
    pub dagent: PathBuf,
    /// The program, with its first arguments, that runs [`helper::main`] on the arguments that follow.
    pub helper: Vec<OsString>,
    /// Which rung to stand on.
    pub isolation: Isolation,
    /// Whether machines by QEMU may have the processor's help, where a kernel has been seen to boot with it.
    pub kvm: bool,
    /// Directories of the host that a VM on the host stemcell must not see, beside the usual ones and `root`.
    pub hidden: Vec<PathBuf>,
    /// Whether VMs with a network of their own reach what the host reaches, and by which subnet.
    pub outbound: Option<Outbound>,
    /// How long a call waits for an object that another one works on.
    pub lock_waits: LockWaits,
}

impl LocalOptions {
    /// Returns options for a cloud in `root` whose VMs run `dagent`, with this very program as helper
    /// (`local-vm ROLE SPEC`, see [`helper::main`]).
    pub fn new(root: impl Into<PathBuf>, dagent: impl Into<PathBuf>) -> Self {
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
        Self {
            root: root.into(),
            dagent: dagent.into(),
            helper: vec![own.into(), "local-vm".into()],
            isolation: Isolation::Auto,
            kvm: true,
            hidden: Vec::new(),
            outbound: None,
            lock_waits: LockWaits::default(),
        }
    }
}

/// Why there is no local cloud.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory can't be used.
    #[error("failed to open the local cloud")]
    Directory(#[source] HostError),
    /// No rung, or not the one that was asked for, works here.
    #[error("no VM can be made here: {}", reasons(.0))]
    NoRung(Vec<RungReport>),
    /// VMs are to reach what the host reaches, and only root can lay the cable.
    #[error(
        "`outbound` takes root: VMs on the rung `{}` reach each other and the replicas, and nothing else. Take `outbound` out of \
         the configuration, or run as root",
        Rung::UserNamespaces
    )]
    NoWayOut,
    /// Root in a VM is the cloud's user, and sees what the VM shares with the host.
    #[error(
        "`{}` can't be hidden from VMs on the rung `{}`, since they share `{}` with the host: move it elsewhere, to /var/lib or a \
         home, say, or choose another isolation",
        dir.display(), Rung::UserNamespaces, shared.display()
    )]
    Shared {
        /// What is to be hidden: the cloud itself, or one of [`LocalOptions::hidden`].
        dir: PathBuf,
        /// What is shared.
        shared: PathBuf,
    },
}

fn reasons(reports: &[RungReport]) -> String {
    let lines: Vec<String> = reports.iter().map(|r| format!("{}: {}", r.rung, r.why)).collect();
    lines.join("; ")
}

/// The local cloud. Clones and other instances on the same directory are the same cloud.
#[derive(Clone)]
pub struct LocalCpi {
    cloud: Arc<Cloud>,
}

impl LocalCpi {
    /// Opens the cloud in `options.root`, making it if there is none. Probes the isolation: takes some milliseconds, and
    /// blocks.
    pub fn open(options: LocalOptions) -> Result<Self, OpenError> {
        Ok(Self { cloud: Arc::new(Cloud::open(options)?) })
    }

    /// Returns the rung that new VMs stand on.
    pub fn rung(&self) -> Rung {
        self.cloud.rung
    }

    /// Makes the replicas' addresses of now known to the VMs that can't reach them directly.
    ///
    /// Only needed when a replica was added: each `create_vm` brings the addresses too.
    pub async fn announce_endpoints(&self, endpoints: Vec<String>) -> Result<(), CpiError> {
        let cloud = self.cloud.clone();
        let written = tokio::task::spawn_blocking(move || cloud.announce(&endpoints)).await;
        let failed = |message: String| CpiError::new(CpiErrorKind::Other, "announce_endpoints", message);
        written
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| error.into_cpi("announce_endpoints", CpiErrorKind::Other))
    }
}

#[async_trait]
impl CallPort for LocalCpi {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let (cloud, waits) = (self.cloud.clone(), self.cloud.options.lock_waits);
        let Some(context) = context else { return Ok(cloud.info()) };
        carry_out(context, call, waits, move |scope, call| {
            cloud.store.check(scope)?;
            cloud.perform(scope, call)
        })
        .await
    }
}
