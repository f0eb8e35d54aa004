//! The clouds: the default one, which the configuration names, and those of the CPI configs ([`external`]).

mod external;
pub mod probe;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cpi_api::Cpi;
use cpi_docker::{DockerCpi, DockerOptions};
use cpi_local::{Isolation, LocalCpi, LocalOptions, Rung};
use cpi_sim::SimCpi;
use executor::clouds::NoCloud;
use executor::ports::{Cpis, Vault};
use model::CpiName;
use serde_json::Map;
use state::State;
use state::log::CommandLog;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::external::External;
use crate::config::{self, Config};
use crate::fleet::log::RaftLog;

/// How soon an announcement that failed is made again.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);

/// The CPIs by name.
pub struct Clouds {
    default: Standard,
    external: External,
    /// The default one, if it is the local cloud, whose VMs are told where the replicas are.
    local: Option<LocalCpi>,
}

/// The cloud under the empty name.
enum Standard {
    /// Opened once.
    BuiltIn(Arc<dyn Cpi>),
    /// An executable.
    Program(config::ExternalCpi),
}

impl Clouds {
    /// Opens the cloud that the configuration names, under the empty name.
    pub async fn open(
        config: &Config,
        log: Arc<dyn CommandLog>,
        vault: Arc<dyn Vault>,
    ) -> anyhow::Result<Self> {
        let external = External::new(log, vault);
        match &config.cpi {
            config::Cpi::Sim(sim) => {
                let default = Standard::BuiltIn(Arc::new(SimCpi::new(&sim.socket)));
                Ok(Self { default, external, local: None })
            }
            config::Cpi::External(cpi) => {
                Ok(Self { default: Standard::Program(cpi.clone()), external, local: None })
            }
            config::Cpi::Docker(docker) => {
                let config::DockerCpi { socket, name, root, agent } = docker;
                let cloud = DockerCpi::open(DockerOptions::new(socket, name, root, agent))
                    .with_context(|| format!("open the Docker cloud in {}", root.display()))?;
                Ok(Self { default: Standard::BuiltIn(Arc::new(cloud)), external, local: None })
            }
            config::Cpi::Local(local) => {
                let options = local_options(local, &config.data_dir).map_err(anyhow::Error::msg)?;
                // Probing makes and unmakes a container: off the threads that serve everybody.
                let opened = tokio::task::spawn_blocking(move || LocalCpi::open(options)).await?;
                let cloud =
                    opened.with_context(|| format!("open the local cloud in {}", local.root.display()))?;
                tracing::info!(rung = %cloud.rung(), "local cloud");
                Ok(Self { default: Standard::BuiltIn(Arc::new(cloud.clone())), external, local: Some(cloud) })
            }
        }
    }

    /// Tells the local cloud's VMs where the replicas are, whenever that changes: an agent knows a new replica's address
    /// from its stream, but one in a network of its own can't reach it before the cloud has laid a way. Ends at once where
    /// there is no local cloud.
    pub fn announce_replicas(
        &self,
        log: RaftLog,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let local = self.local.clone();
        async move {
            let Some(local) = local else { return };
            tokio::select! {
                () = announce(local, log) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

async fn announce(cloud: LocalCpi, log: RaftLog) {
    let mut announced = Vec::new();
    loop {
        let seen = log.revision();
        let addresses: Vec<String> = {
            let view = log.view();
            State::new(&*view).members().into_iter().map(|member| member.agent_address).collect()
        };
        if addresses != announced {
            match cloud.announce_endpoints(addresses.clone()).await {
                Ok(()) => announced = addresses,
                Err(error) => {
                    warn!(error = %error, "the local cloud's VMs could not be told where the replicas are");
                    tokio::time::sleep(ANNOUNCE_AGAIN).await;
                    continue;
                }
            }
        }
        log.changed(seen).await;
    }
}

/// Returns what a configuration says of the local cloud, for a replica with its data in `data_dir`.
fn local_options(local: &config::LocalCpi, data_dir: &Path) -> Result<LocalOptions, String> {
    let isolation = isolation(&local.isolation);
    Ok(LocalOptions {
        isolation: isolation.map_err(|wanted| format!("cpi.local.isolation should be {wanted}"))?,
        hidden: vec![data_dir.to_owned()],
        kvm: local.kvm,
        outbound: local.outbound,
        ..LocalOptions::new(&local.root, &local.agent)
    })
}

/// Returns an isolation by its name, or what names there are.
pub fn isolation(name: &str) -> Result<Isolation, String> {
    let rung = Rung::ALL.into_iter().find(|rung| rung.name() == name).map(Isolation::Exactly);
    match name {
        "auto" => Ok(Isolation::Auto),
        _ => rung.ok_or_else(|| format!("`auto`, `{}`", Rung::ALL.map(Rung::name).join("`, `"))),
    }
}

impl Cpis for Clouds {
    fn get(&self, name: &CpiName) -> Result<Arc<dyn Cpi>, NoCloud> {
        // One that says it was the default one before has what the default one has made.
        match self.external.get(name) {
            Some(cloud) => Ok(Arc::new(cloud?)),
            None if !name.as_str().is_empty() => Err(NoCloud::Unknown(name.clone())),
            None => Ok(match &self.default {
                Standard::BuiltIn(cloud) => cloud.clone(),
                Standard::Program(cpi) => {
                    Arc::new(self.external.cloud(name, cpi.program.clone(), Map::new(), cpi.limits))
                }
            }),
        }
    }

    fn names(&self) -> Vec<CpiName> {
        match self.external.names() {
            none if none.is_empty() => vec![CpiName::default()],
            names => names,
        }
    }
}

#[cfg(test)]
mod tests {
    use owned_tasks::{OnExit, OwnedTasks};
    use state::command::Command;

    use super::*;
    use crate::secrets::KekVault;
    use crate::test_support::replica::Replica;
    use crate::test_support::state::member;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn vms_are_told_of_a_replica_that_was_added() {
        let (replica, folder) = (Replica::start().await, tempfile::tempdir().unwrap());
        let mut options = LocalOptions::new(folder.path(), "/no/agent");
        options.isolation = Isolation::Exactly(Rung::Process);
        let local = LocalCpi::open(options).unwrap();
        let vault = Arc::new(KekVault::new(replica.kek.clone()));
        let external = External::new(Arc::new(replica.log.clone()), vault);
        let clouds =
            Clouds { default: Standard::BuiltIn(Arc::new(local.clone())), external, local: Some(local) };
        let (tasks, log) = (OwnedTasks::new(), replica.log.clone());
        tasks.spawn("announcements", OnExit::Ignore, |stop| clouds.announce_replicas(log, stop));
        let told = || {
            let text = std::fs::read_to_string(folder.path().join("endpoints.json")).unwrap_or_default();
            serde_json::from_str::<Vec<String>>(&text).unwrap_or_default()
        };
        for members in [vec![1], vec![1, 2]] {
            for id in &members {
                replica.must(Command::MemberPut { member: member(*id) }).await;
            }
            let expected: Vec<String> = members.iter().map(|id| member(*id).agent_address).collect();
            let waiting = async {
                while told() != expected {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("the VMs are told");
        }
        assert!(tasks.stop(Duration::from_secs(10)).await);
        replica.stop().await;
    }
}
