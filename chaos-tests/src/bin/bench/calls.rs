//! What it takes a cloud to make a VM and to delete it: the calls alone, one after the other, without a director.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chaos_tests::sim::SimCloud;
use chaos_tests::sim_cpi::InstalledCpi;
use chaos_tests::{debian, programs};
use cpi_api::{AgentBootstrap, CallContext, Cpi, CreateStemcell, CreateVm, Metadata};
use cpi_docker::own_daemon::{Network, OwnDaemon, Rootfs};
use cpi_docker::{DockerCpi, DockerOptions};
use cpi_external::{ExternalCpi, Limits, Pace, Program};
use cpi_local::{Isolation, LocalCpi, LocalOptions};
use cpi_sim::Knobs;
use futures::future::try_join_all;
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::{AgentId, Epoch, StemcellCid, VmCid};
use serde_json::json;

use crate::clouds::Substrate;
use crate::folder;
use crate::table::Table;

/// VMs that are made, and deleted again.
const VMS: u8 = 20;

/// What a VM has to have to be booted, run a shell, and be told what to do.
const PROGRAMS: [&str; 4] = ["/bin/sh", "/bin/sleep", "/bin/cp", "/bin/cat"];

/// Adds a line for making and one for deleting.
pub async fn measure(substrate: Substrate, table: &mut Table) -> Result<()> {
    let folder = folder()?;
    let cloud = Cloud::open(substrate, folder.path())?;
    let stemcell = cloud.stemcell(substrate, folder.path()).await?;
    let authority = rcgen::generate_simple_self_signed(["nobody".into()])?.cert.pem();
    let (mut making, mut deleting, mut vms) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=VMS {
        let request = request(substrate, &stemcell, n, &authority);
        let begun = Instant::now();
        let vm = cloud.cpi.create_vm(&context(), request).await?;
        making.push(begun.elapsed());
        vms.push(vm.cid);
        if substrate == Substrate::Machines {
            // Twenty that boot without KVM would measure each other.
            deleting.extend(delete(&cloud, std::mem::take(&mut vms)).await?);
        }
    }
    deleting.extend(delete(&cloud, vms).await?);
    table.times(format!("{substrate}: create_vm"), making);
    table.times(format!("{substrate}: delete_vm"), deleting);
    if substrate != Substrate::Machines {
        let (cpi, begun) = (&cloud.cpi, Instant::now());
        let requests = (1..=VMS).map(|n| request(substrate, &stemcell, n, &authority));
        let calls = requests.map(|request| async move { cpi.create_vm(&context(), request).await });
        let made = try_join_all(calls).await?;
        table.time(format!("{substrate}: {VMS} VMs at once"), begun.elapsed());
        delete(&cloud, made.into_iter().map(|vm| vm.cid).collect()).await?;
    }
    Ok(())
}

async fn delete(cloud: &Cloud, vms: Vec<VmCid>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for vm in vms {
        let begun = Instant::now();
        cloud.cpi.delete_vm(&context(), &vm).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// A cloud, and what has to be there for as long as it is.
struct Cloud {
    cpi: Arc<dyn Cpi>,
    _behind: Behind,
}

/// The processes behind a cloud, which end with this value.
enum Behind {
    Nothing,
    Sim(#[expect(dead_code, reason = "held for its end")] SimCloud),
    Docker(#[expect(dead_code, reason = "held for its end")] OwnDaemon),
}

impl Cloud {
    fn open(substrate: Substrate, folder: &Path) -> Result<Self> {
        let local = |rung| {
            let options = LocalOptions {
                helper: vec![programs::directord().into(), "local-vm".into()],
                isolation: Isolation::Exactly(rung),
                ..LocalOptions::new(folder.join("cloud"), programs::dagent())
            };
            Ok(Self { cpi: Arc::new(LocalCpi::open(options)?), _behind: Behind::Nothing })
        };
        let sim = || SimCloud::start(folder, 1, &Knobs::default(), None);
        match substrate {
            Substrate::Process => local(cpi_local::Rung::Process),
            Substrate::Namespaces => local(cpi_local::Rung::Namespaces),
            Substrate::UserNamespaces => local(cpi_local::Rung::UserNamespaces),
            Substrate::Machines => local(cpi_local::Rung::Qemu),
            Substrate::Docker => {
                let daemon = OwnDaemon::start(&folder.join("docker"), Network::Apart)?;
                let (socket, root) = (daemon.socket(), folder.join("cloud"));
                let cpi = DockerCpi::open(DockerOptions::new(socket, "bench", root, programs::dagent()))?;
                Ok(Self { cpi: Arc::new(cpi), _behind: Behind::Docker(daemon) })
            }
            Substrate::Sim | Substrate::SimBosh => {
                let sim = sim()?;
                Ok(Self { cpi: Arc::new(sim.control()), _behind: Behind::Sim(sim) })
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
                Ok(Self { cpi: Arc::new(cpi), _behind: Behind::Sim(sim) })
            }
        }
    }

    async fn stemcell(&self, substrate: Substrate, folder: &Path) -> Result<StemcellCid> {
        let image = folder.join("image");
        match substrate {
            Substrate::Docker => {
                let (programs, guests) = (PROGRAMS.map(PathBuf::from).to_vec(), vec![programs::dagent()]);
                Rootfs { programs, guests, ..Rootfs::default() }.write(&image)?;
            }
            Substrate::Machines => image_of(&debian_stemcell(folder)?, &image)?,
            _ => std::fs::write(&image, "directorate-host\n")?,
        }
        let stemcell = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        self.cpi.create_stemcell(&context(), stemcell).await.context("create the stemcell")
    }
}

/// Returns a Debian stemcell; one that was made before is beside this program.
pub fn debian_stemcell(folder: &Path) -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    debian::stemcell(us.parent().context("a program is in a folder")?, folder)
}

/// Takes the image out of a stemcell.
fn image_of(stemcell: &Path, out: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(File::open(stemcell)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("image") {
            std::io::copy(&mut entry, &mut File::create(out)?)?;
            return Ok(());
        }
    }
    anyhow::bail!("{} has no image", stemcell.display())
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
fn request(substrate: Substrate, stemcell: &StemcellCid, n: u8, authority: &str) -> CreateVm {
    let first = if substrate == Substrate::Process { 127 } else { 10 };
    let address = |last| Some(IpAddr::V4(Ipv4Addr::new(first, 250, 1, last)));
    CreateVm {
        agent_id: AgentId::new(format!("bench-{n}")),
        stemcell: stemcell.clone(),
        cloud_properties: json!({}),
        networks: vec![NetworkSettings {
            name: "default".into(),
            kind: NetworkKind::Manual,
            ip: address(n + 10),
            address: AddressKind::Automatic,
            prefix: "32".into(),
            netmask: Some("255.255.255.0".into()),
            gateway: address(1),
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
