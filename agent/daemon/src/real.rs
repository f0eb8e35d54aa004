//! A real machine: what the actions have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::JobState;
use async_trait::async_trait;
use model::agent_settings::{AgentPlatform, AgentSettings};
use owned_tasks::OwnedTasks;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::actions;
use crate::blobs::Blobs;
use crate::disks::Disks;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::layout::{BASE_DIR, Layout};
use crate::machine::{Machine, Notices, Order, Report, Work};
use crate::method::Method;
use crate::names::{self, Names};
use crate::platform::container::ContainerPlatform;
use crate::platform::linux::LinuxPlatform;
use crate::platform::process::ProcessPlatform;
use crate::platform::{FileSystem, Platform};
use crate::spec::ApplySpec;
use crate::ssh_server::{self, SshServer};
use crate::supervisor::{Supervisor, Surroundings, Timing};
use crate::vitals::Vitals;

/// A machine that jobs run on.
pub struct RealMachine {
    pub(crate) settings: AgentSettings,
    pub(crate) layout: Layout,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) supervisor: Supervisor,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) disks: Disks,
    pub(crate) names: Arc<Names>,
    /// Where nobody else starts one.
    pub(crate) ssh_server: Option<Arc<SshServer>>,
    /// Fires when the machine is to be switched off.
    pub(crate) off: CancellationToken,
    vitals: Vitals,
}

/// What a real machine is made of.
pub struct RealMachineParts {
    /// Who the agent is, and what it may do here.
    pub settings: AgentSettings,
    /// Where everything goes.
    pub layout: Layout,
    /// Where blobs come from.
    pub blobs: Arc<dyn Blobs>,
    /// Where the supervisor's notices go.
    pub notices: Arc<Notices>,
    /// How the supervisor paces itself.
    pub timing: Timing,
    /// Fires when the machine is to be switched off: that is for whoever runs the agent.
    pub off: CancellationToken,
}

impl RealMachine {
    /// Makes a machine; its supervised services are looked after in `tasks`.
    pub fn new(parts: RealMachineParts, tasks: OwnedTasks) -> Self {
        let RealMachineParts { settings, layout, blobs, notices, timing, off } = parts;
        let platform: Arc<dyn Platform> = match settings.platform {
            AgentPlatform::Linux => Arc::new(LinuxPlatform::new()),
            AgentPlatform::Process => Arc::new(ProcessPlatform),
            AgentPlatform::Container => Arc::new(ContainerPlatform::default()),
        };
        let surroundings = Surroundings {
            platform: platform.clone(),
            notices,
            timing,
            output: layout.log().join("supervisor"),
            environment: environment(&layout),
            addresses: addresses(&settings),
            changes: watch::channel(0).0,
            memory: layout.looked_after(),
        };
        let names = Arc::new(Names::remembered(&layout));
        names::start(&settings, names.clone(), &tasks);
        let ssh_server = ssh_server::start(&settings, &layout, &tasks);
        let supervisor = Supervisor::new(surroundings, layout.stopped(), tasks);
        let initial =
            settings.disks.persistent.iter().map(|(cid, hint)| (cid.to_string(), hint.clone())).collect();
        let disks = Disks::new(layout.clone(), platform.clone(), file_system(&settings.env), initial);
        let vitals = Vitals::default();
        Self { settings, layout, platform, supervisor, blobs, disks, names, ssh_server, off, vitals }
    }

    /// Returns the stored apply spec; an empty one before any apply.
    pub(crate) fn spec(&self) -> Result<ApplySpec, ActionError> {
        let path = self.layout.spec();
        Ok(durable::read_json(&path).map_err(ActionError::file("read", &path))?.unwrap_or_default())
    }

    /// Returns what every script is told about where it runs.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        environment(&self.layout).into_iter().collect()
    }

    /// Returns the vitals now.
    pub(crate) fn vitals(&self) -> Value {
        self.vitals.now(&self.layout, &*self.platform)
    }

    /// Writes the jobs' state where jobs may read it.
    pub(crate) fn mirror_health(&self, state: JobState) {
        let (path, content) =
            (self.layout.instance().join("health.json"), json!({ "state": state }).to_string());
        if std::fs::read_to_string(&path).is_ok_and(|current| current == content) {
            return;
        }
        if let Err(error) = durable::write(&path, content.as_bytes(), Readers::All) {
            warn!(error = %error, "the jobs' state can't be written");
        }
    }

    fn create_directories(&self) -> Result<(), ActionError> {
        let layout = &self.layout;
        let directories: [PathBuf; 9] = [
            layout.bosh(),
            layout.jobs(),
            layout.packages(),
            layout.data_jobs(),
            layout.data_packages(),
            layout.log(),
            layout.run(),
            layout.monit_jobs(),
            layout.instance(),
        ];
        for directory in &directories {
            std::fs::create_dir_all(directory).map_err(ActionError::file("create", directory))?;
        }
        private_directory(&layout.sensitive_blobs())?;
        if !layout.sys().exists() {
            crate::archive::link(Path::new("data/sys"), &layout.sys())?;
        }
        // Half-finished installations of an earlier life.
        match std::fs::remove_dir_all(layout.tmp()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ActionError::file("sweep", &layout.tmp())(error))
            }
            _ => private_directory(&layout.tmp()),
        }
    }
}

#[async_trait]
impl Machine for RealMachine {
    async fn boot(&self) -> Result<(), ActionError> {
        self.create_directories()?;
        self.disks.boot().await;
        // A control file that can't be read is the next start's trouble: the agent must be there to be told.
        match self.supervisor.load(&self.layout.monit_jobs()) {
            Ok(()) if !self.layout.stopped().exists() => self.supervisor.resume(),
            Ok(()) => {}
            Err(error) => warn!(error = error.chain(), "the jobs' control files can't be read"),
        }
        Ok(())
    }

    async fn perform(&self, order: Order, work: &Work) -> Result<Value, ActionError> {
        actions::perform(self, order, work).await
    }

    fn answered(&self, method: Method) {
        if method == Method::Shutdown {
            self.off.cancel();
        }
    }

    async fn report(&self) -> Report {
        let job_state = self.supervisor.job_state();
        self.mirror_health(job_state);
        self.names.set_own(&self.settings.agent_id, job_state == JobState::Running);
        Report { job_state, vitals: self.vitals(), processes: self.supervisor.count() }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.supervisor.changes()
    }
}

pub(crate) fn private_directory(path: &Path) -> Result<(), ActionError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path).map_err(ActionError::file("create", path))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(ActionError::file("protect", path))
}

fn environment(layout: &Layout) -> Vec<(String, String)> {
    match layout.base() {
        base if base == Path::new(BASE_DIR) => vec![],
        base => vec![("BOSH_BASE_DIR".to_owned(), base.display().to_string())],
    }
}

fn addresses(settings: &AgentSettings) -> Vec<String> {
    settings.networks.values().filter_map(|network| network["ip"].as_str()).map(str::to_owned).collect()
}

fn file_system(env: &Value) -> FileSystem {
    let options = env["persistent_disk_mount_options"].as_array();
    FileSystem {
        kind: env["persistent_disk_fs"].as_str().map(str::to_owned),
        options: options.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}
