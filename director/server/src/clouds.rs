//! The configured cloud.

use std::sync::Arc;

use anyhow::Context as _;
use cpi_api::Cpi;
use cpi_local::{Isolation, LocalCpi, LocalOptions, Rung};
use cpi_sim::SimCpi;
use executor::ports::Cpis;
use model::CpiName;

use crate::config::{self, Config};

/// Opens the cloud that the configuration names.
pub async fn open(config: &Config) -> anyhow::Result<Arc<dyn Cpi>> {
    match &config.cpi {
        config::Cpi::Sim(sim) => Ok(Arc::new(SimCpi::new(&sim.socket))),
        config::Cpi::Local(local) => {
            let mut options = LocalOptions::new(&local.root, &local.agent);
            options.isolation = isolation(&local.isolation)
                .map_err(|wanted| anyhow::anyhow!("cpi.local.isolation should be {wanted}"))?;
            options.hidden = vec![config.data_dir.clone()];
            // Probing makes and unmakes a container: off the threads that serve everybody.
            let opened = tokio::task::spawn_blocking(move || LocalCpi::open(options)).await?;
            let cloud =
                opened.with_context(|| format!("open the local cloud in {}", local.root.display()))?;
            tracing::info!(rung = %cloud.rung(), "local cloud");
            Ok(Arc::new(cloud))
        }
    }
}

/// Returns an isolation by its name, or what names there are.
pub fn isolation(name: &str) -> Result<Isolation, String> {
    let rungs = [Rung::Namespaces, Rung::UserNamespaces, Rung::Chroot, Rung::Process];
    let rung = rungs.into_iter().find(|rung| rung.name() == name).map(Isolation::Exactly);
    match name {
        "auto" => Ok(Isolation::Auto),
        _ => rung.ok_or_else(|| format!("`auto`, `{}`", rungs.map(Rung::name).join("`, `"))),
    }
}

/// The CPIs by name.
pub struct Clouds {
    default: Arc<dyn Cpi>,
}

impl Clouds {
    /// One cloud, under the empty name.
    pub fn single(cpi: Arc<dyn Cpi>) -> Self {
        Self { default: cpi }
    }
}

impl Cpis for Clouds {
    fn get(&self, name: &CpiName) -> Option<Arc<dyn Cpi>> {
        name.as_str().is_empty().then(|| self.default.clone())
    }

    fn names(&self) -> Vec<CpiName> {
        vec![CpiName::default()]
    }
}
