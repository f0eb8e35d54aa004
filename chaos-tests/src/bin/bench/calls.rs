//! What it takes a cloud to make a VM and to delete it: the calls alone, one after the other, without a director.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chaos_tests::programs;
use chaos_tests::sim::SimCloud;
use chaos_tests::sim_cpi::InstalledCpi;
use cpi_api::{AgentBootstrap, CallContext, Cpi, CreateStemcell, CreateVm, Metadata};
use cpi_external::{ExternalCpi, Limits, Pace, Program};
use cpi_local::{Isolation, LocalCpi, LocalOptions};
use cpi_sim::Knobs;
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::{AgentId, Epoch, StemcellCid};
use serde_json::json;

use crate::clouds::Substrate;
use crate::folder;
use crate::table::Table;

/// VMs that are made, and deleted again.
const VMS: u8 = 20;

/// Adds a line for making and one for deleting.
pub async fn measure(substrate: Substrate, table: &mut Table) -> Result<()> {
    let folder = folder()?;
    let cloud = Cloud::open(substrate, folder.path())?;
    let stemcell = cloud.stemcell(folder.path()).await?;
    let authority = rcgen::generate_simple_self_signed(["nobody".into()])?.cert.pem();
    let (mut making, mut deleting, mut vms) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=VMS {
        let request = request(&stemcell, n, &authority);
        let begun = Instant::now();
        let vm = cloud.cpi.create_vm(&context(), request).await?;
        making.push(begun.elapsed());
        vms.push(vm.cid);
    }
    for vm in vms {
        let begun = Instant::now();
        cloud.cpi.delete_vm(&context(), &vm).await?;
        deleting.push(begun.elapsed());
    }
    table.times(format!("{substrate}: create_vm"), making);
    table.times(format!("{substrate}: delete_vm"), deleting);
    Ok(())
}

/// A cloud, and what has to be there for as long as it is.
struct Cloud {
    cpi: Arc<dyn Cpi>,
    _behind: Option<SimCloud>,
}

impl Cloud {
    fn open(substrate: Substrate, folder: &Path) -> Result<Self> {
        let local = |rung| {
            let options = LocalOptions {
                helper: vec![programs::directord().into(), "local-vm".into()],
                isolation: Isolation::Exactly(rung),
                ..LocalOptions::new(folder.join("cloud"), programs::dagent())
            };
            Ok(Self { cpi: Arc::new(LocalCpi::open(options)?), _behind: None })
        };
        let sim = || SimCloud::start(folder, 1, &Knobs::default(), None);
        match substrate {
            Substrate::Process => local(cpi_local::Rung::Process),
            Substrate::Namespaces => local(cpi_local::Rung::Namespaces),
            Substrate::Sim | Substrate::SimBosh => {
                let sim = sim()?;
                Ok(Self { cpi: Arc::new(sim.control()), _behind: Some(sim) })
            }
            Substrate::Program => {
                let sim = sim()?;
                let program = Program {
                    path: InstalledCpi::install(folder.join("cpi"), sim.socket(), "")?.program(),
                    guard: vec![programs::directord().into(), cpi_external::guard::NAME.into()],
                    director_uuid: "bench".into(),
                    properties: Default::default(),
                };
                let cpi = ExternalCpi::new(program, Limits::default(), Pace::default());
                Ok(Self { cpi: Arc::new(cpi), _behind: Some(sim) })
            }
        }
    }

    async fn stemcell(&self, folder: &Path) -> Result<StemcellCid> {
        let image = folder.join("image");
        std::fs::write(&image, "directorate-host\n")?;
        let stemcell = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        self.cpi.create_stemcell(&context(), stemcell).await.context("create the stemcell")
    }
}

fn context() -> CallContext {
    CallContext {
        director_uuid: "bench".into(),
        request_id: dctl::client::request_id().into(),
        epoch: Epoch(1),
        stemcell_api_version: Some(3),
        timeout: Duration::from_secs(120),
        log: Default::default(),
    }
}

/// Its agent finds nobody: it dials, and goes on dialling, as one does whose director is away.
fn request(stemcell: &StemcellCid, n: u8, authority: &str) -> CreateVm {
    CreateVm {
        agent_id: AgentId::new(format!("bench-{n}")),
        stemcell: stemcell.clone(),
        cloud_properties: json!({}),
        networks: vec![NetworkSettings {
            name: "default".into(),
            kind: NetworkKind::Manual,
            ip: Some(IpAddr::V4(Ipv4Addr::new(127, 250, 1, n + 10))),
            address: AddressKind::Automatic,
            prefix: "32".into(),
            netmask: Some("255.255.255.0".into()),
            gateway: Some(IpAddr::V4(Ipv4Addr::new(127, 250, 1, 1))),
            dns: vec![],
            defaults: vec!["gateway".into()],
            cloud_properties: json!({}),
            nic_group: None,
        }],
        disks: vec![],
        env: json!({}),
        bootstrap: AgentBootstrap {
            endpoints: vec!["127.0.0.1:1".into()],
            authorities_pem: authority.into(),
            token: format!("token-{n}"),
            ..AgentBootstrap::default()
        },
    }
}
