//! Trying the clouds on this machine, for whoever wants to know before something is deployed there.
//!
//! Apart from [`Clouds`](super::Clouds), which is opened once, late, and not at all where it can't be: this is asked for then,
//! too. What executables have said before is not believed here, they are asked again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cpi_api::{Cpi, CpiInfo};
use cpi_local::{Isolation, RungReport};
use cpi_sim::SimCpi;
use executor::ports::Vault;
use model::CpiName;
use serde_json::Map;
use state::log::CommandLog;

use super::external::External;
use super::local_options;
use crate::config;

/// How long a cloud may take to say what it is.
const WITHIN: Duration = Duration::from_secs(15);

/// What was found of one way to make VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The cloud, as CPI configs call it; empty for the default one.
    pub cpi: CpiName,
    /// What the configuration calls its kind.
    pub kind: &'static str,
    /// The way, where there are several.
    pub way: String,
    /// Whether it works.
    pub works: bool,
    /// Whether VMs are made this way, or would be if it worked.
    pub is_used: bool,
    /// What was found, or what failed.
    pub why: String,
}

/// Tries this replica's clouds. Clones are the same.
#[derive(Clone)]
pub struct Prober {
    default: config::Cpi,
    data_dir: PathBuf,
    log: Arc<dyn CommandLog>,
    vault: Arc<dyn Vault>,
}

impl Prober {
    /// Prepares to try the default cloud of a configuration, with a replica's data in `data_dir`, and those of the CPI configs.
    pub fn new(
        default: config::Cpi,
        data_dir: PathBuf,
        log: Arc<dyn CommandLog>,
        vault: Arc<dyn Vault>,
    ) -> Self {
        Self { default, data_dir, log, vault }
    }

    /// Tries each cloud; those of the CPI configs side by side.
    pub async fn probe(&self) -> Vec<Probe> {
        let external = External::new(self.log.clone(), self.vault.clone());
        let named = external.names().into_iter().map(|name| {
            let external = &external;
            async move {
                match external.get(&name) {
                    Some(Ok(cloud)) => asked(name, "external", &cloud).await,
                    Some(Err(error)) => failed(name, "external", error.to_string()),
                    // The config was replaced in between.
                    None => failed(name, "external", "no CPI config names it any more".into()),
                }
            }
        });
        let named = futures::future::join_all(named);
        let (mut probes, named) = tokio::join!(self.probe_default(&external), named);
        if !named.is_empty() {
            // Zones name one of the others then.
            probes.iter_mut().for_each(|probe| probe.is_used = false);
        }
        probes.extend(named);
        probes
    }

    async fn probe_default(&self, external: &External) -> Vec<Probe> {
        let (name, kind) = (CpiName::default(), self.default.name());
        match &self.default {
            config::Cpi::Local(local) => self.probe_local(local).await,
            config::Cpi::Sim(sim) => vec![asked(name, kind, &SimCpi::new(&sim.socket)).await],
            config::Cpi::External(cpi) => {
                let cloud = external.cloud(&name, cpi.program.clone(), Map::new(), cpi.limits);
                vec![asked(name, kind, &cloud).await]
            }
            config::Cpi::Docker(docker) => vec![probe_docker(docker).await],
        }
    }

    async fn probe_local(&self, local: &config::LocalCpi) -> Vec<Probe> {
        let kind = self.default.name();
        let options = match local_options(local, &self.data_dir) {
            Ok(options) => options,
            Err(why) => return vec![failed(CpiName::default(), kind, why)],
        };
        let wanted = options.isolation;
        // A container is made and unmade: off the threads that serve everybody.
        let tried = tokio::task::spawn_blocking(move || cpi_local::probe(&options)).await;
        match tried {
            Ok(reports) => of_rungs(kind, wanted, reports),
            Err(error) => vec![failed(CpiName::default(), kind, error.to_string())],
        }
    }
}

/// Asks the daemon: what the cloud says of itself it says without one.
async fn probe_docker(docker: &config::DockerCpi) -> Probe {
    let (cpi, kind) = (CpiName::default(), "docker");
    match tokio::time::timeout(WITHIN, cpi_docker::version_at(&docker.socket)).await {
        Ok(Ok(why)) => Probe { cpi, kind, way: String::new(), works: true, is_used: true, why },
        Ok(Err(why)) => failed(cpi, kind, why),
        Err(_) => failed(cpi, kind, format!("no answer within {} s", WITHIN.as_secs())),
    }
}

/// Turns what was found of each rung into rows. One is in use: the wanted one, or the best that works.
fn of_rungs(kind: &'static str, wanted: Isolation, reports: Vec<RungReport>) -> Vec<Probe> {
    let used = wanted.stands_on(&reports);
    let row = |report: RungReport| Probe {
        cpi: CpiName::default(),
        kind,
        way: report.rung.to_string(),
        works: report.ok,
        is_used: Some(report.rung) == used,
        why: report.why,
    };
    reports.into_iter().map(row).collect()
}

async fn asked(cpi: CpiName, kind: &'static str, cloud: &dyn Cpi) -> Probe {
    match tokio::time::timeout(WITHIN, cloud.info()).await {
        Ok(Ok(info)) => {
            Probe { cpi, kind, way: String::new(), works: true, is_used: true, why: described(&info) }
        }
        Ok(Err(error)) => failed(cpi, kind, error.to_string()),
        Err(_) => failed(cpi, kind, format!("no answer within {} s", WITHIN.as_secs())),
    }
}

fn described(info: &CpiInfo) -> String {
    let CpiInfo { api_version, stemcell_formats } = info;
    let formats = match &stemcell_formats[..] {
        [] => "any stemcell".to_owned(),
        formats => format!("stemcells in the formats {}", formats.join(", ")),
    };
    format!("speaks version {api_version} of the contract, takes {formats}")
}

fn failed(cpi: CpiName, kind: &'static str, why: String) -> Probe {
    Probe { cpi, kind, way: String::new(), works: false, is_used: true, why }
}

#[cfg(test)]
mod tests {
    use cpi_local::Rung;

    use super::*;

    fn reports() -> Vec<RungReport> {
        let report = |rung, ok| RungReport { rung, ok, why: "why".into() };
        vec![
            report(Rung::Namespaces, false),
            report(Rung::UserNamespaces, true),
            report(Rung::Process, true),
            report(Rung::Qemu, true),
        ]
    }

    fn used(wanted: Isolation, reports: Vec<RungReport>) -> Vec<(String, bool)> {
        let probes = of_rungs("local", wanted, reports);
        probes.into_iter().filter(|probe| probe.is_used).map(|probe| (probe.way, probe.works)).collect()
    }

    #[test]
    fn the_best_way_that_works_is_in_use_unless_one_was_chosen() {
        assert_eq!(used(Isolation::Auto, reports()), [("user-namespaces".to_owned(), true)]);
        assert_eq!(used(Isolation::Exactly(Rung::Process), reports()), [("process".to_owned(), true)]);
        let chosen = used(Isolation::Exactly(Rung::Namespaces), reports());
        assert_eq!(chosen, [("namespaces".to_owned(), false)]);
        assert_eq!(used(Isolation::Exactly(Rung::Qemu), reports()), [("qemu".to_owned(), true)]);
        let none_works = reports().into_iter().map(|report| RungReport { ok: false, ..report }).collect();
        assert_eq!(used(Isolation::Auto, none_works), [("namespaces".to_owned(), false)]);
    }
}
