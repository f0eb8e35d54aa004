//! The local cloud, the embedded default: a VM is a Linux container that we make ourselves, or a machine by QEMU.
//!
//! How much of a container depends on what the machine allows, and whether we are root: [`probe`] tries each [`Rung`]. The
//! whole cloud lives in one directory that all replicas on the machine share: a VM that one of them made is found, used and
//! deleted by any other, also after the first was killed in the middle. That rests on three things: every object has a lock
//! that dies with its holder (`lock`), an intent is on disk before the deed (`record`), and a call asks whether it may still
//! act once it has the lock (`scope`). VMs are nobody's children: they outlive every replica.
//!
//! Not here: several hosts (a VM lives where its directory is). Stemcells for other clouds are only made here ([`DebianFormat`]).
//!
//! Read next: `vm` for the life of a VM, [`helper`] for what runs inside.

mod cgroup;
mod cloud;
mod disk;
mod error;
pub mod helper;
mod ids;
mod image;
mod initrd;
mod limits;
mod lock;
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
mod scope;
mod settings;
mod snapshot;
mod stemcell;
mod store;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind};
use serde_json::Value;

use cloud::Cloud;
pub use error::LocalError;
pub use outbound::Outbound;
pub use reach::reach_vm;
pub use rung::{Isolation, Rung, RungReport, probe};
use scope::Scope;
pub use stemcell::{
    DebianFormat, DebianStemcell, RepackedDebian, StemcellNames, build_debian_stemcell, build_host_stemcell,
    repack_debian_stemcell,
};

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

/// How long calls wait for an object that another one works on, maybe in another replica. A replica that was stopped in
/// the middle (and not killed) never comes to an end: then the call fails and says whom it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockWaits {
    /// Calls that only ask whether something is there: a new leader asks so first, and can ask again.
    pub to_look: Duration,
    /// All others.
    pub to_act: Duration,
}

impl Default for LockWaits {
    /// To look: longer than a VM takes to be made on a busy machine. To act: longer than a stemcell takes to unpack, the
    /// longest that anybody works on an object.
    fn default() -> Self {
        Self { to_look: Duration::from_secs(20), to_act: Duration::from_secs(300) }
    }
}

impl LockWaits {
    fn of(self, call: &Call) -> Duration {
        match call {
            Call::FindVm(_)
            | Call::HasVm(_)
            | Call::FindDisk(_)
            | Call::HasDisk(_)
            | Call::FindSnapshot(_)
            | Call::FindNetwork(_) => self.to_look,
            _ => self.to_act,
        }
    }
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
    Directory(#[source] error::LocalError),
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
        let (method, cloud) = (call.method(), self.cloud.clone());
        let Some(context) = context else { return Ok(cloud.info()) };
        let otherwise = match call {
            Call::CreateVm(_) => CpiErrorKind::VmCreationFailed,
            _ => CpiErrorKind::Other,
        };
        // `_waiter` ends with this future: a caller that goes away takes its call with it, unless it has begun.
        let (scope, _waiter) = Scope::new(context, cloud.options.lock_waits.of(&call));
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
