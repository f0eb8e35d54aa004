//! The clouds, with either agent: what it takes to make a VM, and what a deploy costs the directors.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, Ground};
use chaos_tests::forge;
use chaos_tests::lab::{self, Lab};
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::cpu_of_tree;
use chaos_tests::workload::{Hello, Net, cloud_config, compiling_in_containers, upload_hello, write_file};
use clap::ValueEnum;
use cpi_sim::Knobs;

use crate::table::{Table, shown};
use crate::{calls, folder};

/// Instances of a deploy, and how many are made at once.
const INSTANCES: usize = 10;

/// What the manifest asks for if nobody changes it.
const HOST_SYSTEM: &str = "os: directorate-host, version: '1.0'";

/// The bound on one deploy.
const LIMIT: Duration = Duration::from_secs(600);

/// What carries VMs, and who is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Substrate {
    /// Plain processes.
    Process,
    /// Containers.
    Namespaces,
    /// Containers of an ordinary user, who has to run this.
    UserNamespaces,
    /// Containers at a Docker daemon.
    Docker,
    /// Machines by QEMU.
    Machines,
    /// Nothing: VMs are simulated.
    Sim,
    /// The same behind an executable, as BOSH's CPIs are.
    Program,
    /// Simulated VMs with BOSH's agent, over NATS.
    SimBosh,
}

impl Substrate {
    /// Returns whether this machine has what it needs; prints what is missing.
    fn is_possible(self) -> bool {
        match self {
            Self::Process => needs::met(&[Need::Gcc]),
            Self::Namespaces => needs::met(&[Need::Gcc]) && needs::namespaces(),
            Self::UserNamespaces => needs::met(&[Need::Gcc]) && needs::user_namespaces(),
            Self::Docker => needs::met(&[Need::Gcc]) && needs::docker(),
            Self::Machines => needs::met(&[Need::Mmdebstrap]) && needs::machines(),
            Self::Sim | Self::Program => true,
            Self::SimBosh => needs::met(&[Need::Nats]),
        }
    }

    /// Returns how many instances a deploy has. Machines take minutes to boot where there is no KVM.
    fn instances(self) -> usize {
        if self == Self::Machines { 2 } else { INSTANCES }
    }

    /// Returns the operating system of the stemcell that the deployment asks for.
    fn system(self) -> &'static str {
        match self {
            Self::SimBosh => "os: toronto-os, version: '1'",
            Self::Machines => "os: debian-bookworm, version: '1.0'",
            _ => HOST_SYSTEM,
        }
    }

    fn cloud(self) -> CloudKind {
        let (seed, knobs) = (1, Knobs::default());
        match self {
            Self::Process => CloudKind::Process,
            Self::Namespaces => CloudKind::Namespaces,
            Self::UserNamespaces => CloudKind::UserNamespaces,
            Self::Docker => CloudKind::Docker,
            Self::Machines => CloudKind::Qemu,
            Self::Sim | Self::SimBosh => CloudKind::Sim { seed, knobs },
            Self::Program => CloudKind::Program { seed, knobs, options: "" },
        }
    }
}

impl fmt::Display for Substrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "processes",
            Self::Namespaces => "containers",
            Self::UserNamespaces => "containers without root",
            Self::Docker => "Docker",
            Self::Machines => "machines by QEMU",
            Self::Sim => "simulated",
            Self::Program => "simulated, behind an executable",
            Self::SimBosh => "simulated, with BOSH's agent over NATS",
        })
    }
}

/// Measures each of these substrates that this machine can have; all, if none is named.
pub async fn measure(wanted: &[Substrate], table: &mut Table) -> Result<()> {
    let all = Substrate::value_variants();
    for &substrate in all.iter().filter(|one| wanted.is_empty() || wanted.contains(one)) {
        if !substrate.is_possible() {
            table.line(format!("{substrate}"), "not here, see above");
            continue;
        }
        if substrate != Substrate::SimBosh {
            // Its cloud is that of the simulated one before it.
            calls::measure(substrate, table).await?;
        }
        let lines = match substrate {
            // In a network of its own, where the daemon may do with packets what it likes, and on a thread of its own.
            Substrate::Docker => {
                tokio::task::block_in_place(|| lab::inside(|lab| deploys(substrate, Some(lab))))?
            }
            _ => deploys(substrate, None).await?,
        };
        for (name, value) in lines {
            table.line(name, value);
        }
    }
    Ok(())
}

/// Deploys twice: the second deploy finds its packages compiled, and each of its instances costs one VM and no more. Returns
/// lines for the table.
async fn deploys(substrate: Substrate, lab: Option<Lab>) -> Result<Vec<(String, String)>> {
    let has_bus = substrate == Substrate::SimBosh;
    let ground = Ground { has_bus, lab, folder: Some(folder()?), ..Ground::new(3, substrate.cloud()) };
    let cluster = Cluster::start_on(ground).await?;
    upload(substrate, &cluster).await?;
    let (mut lines, instances) = (Vec::new(), substrate.instances());
    for what in ["with compilation", "compiled before"] {
        let (time, cpu) = deploy(substrate, &cluster).await?;
        let per_instance = cpu / u32::try_from(instances)?;
        let value = format!("{}; CPU of the directors {} per instance", shown(time), shown(per_instance));
        lines.push((format!("{substrate}: deploy of {instances}, {what}"), value));
        cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    }
    cluster.finish().await?;
    Ok(lines)
}

async fn upload(substrate: Substrate, cluster: &Cluster) -> Result<()> {
    let net = match substrate {
        Substrate::Process => Net::Loopback(cluster.loopback_net()),
        _ => Net::Simulated,
    };
    upload_hello(cluster, net).await?;
    let stemcell = match substrate {
        Substrate::SimBosh => forge::stemcell(&cluster.folder().join("bosh.tgz"), "bosh-sim-toronto-os", 3)?,
        Substrate::Machines => {
            let config = compiling_in_containers(&cloud_config(net))?;
            let file = write_file(cluster, "with-machines.yml", &config)?;
            cluster.operate(&["update-cloud-config", &file]).await?;
            calls::debian_stemcell(cluster.folder())?
        }
        _ => return Ok(()),
    };
    cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    Ok(())
}

/// Returns how long a deploy took, and the CPU time of all replicas meanwhile, with what they start: the guards of CPIs,
/// these CPIs, and Ruby.
async fn deploy(substrate: Substrate, cluster: &Cluster) -> Result<(Duration, Duration)> {
    let instances = substrate.instances();
    // A tenth of it lies between two looks at an instance: where it is long, so is the time until one is seen to run.
    let watch_ms = if substrate == Substrate::Machines { 300_000 } else { Hello::default().watch_ms };
    let hello = Hello { instances, max_in_flight: instances, watch_ms, ..Hello::default() };
    let manifest = hello.manifest().replace(HOST_SYSTEM, substrate.system());
    let client = cluster.client()?;
    let (begun, before) = (Instant::now(), cpu(cluster)?);
    let task = client.deploy(&manifest, &dctl::client::request_id()).await?;
    client.done(task, LIMIT).await?;
    let (time, after) = (begun.elapsed(), cpu(cluster)?);
    let made = client.instances(&hello.name).await?.len();
    ensure!(made == instances, "{made} instances instead of {instances}");
    Ok((time, after.saturating_sub(before)))
}

fn cpu(cluster: &Cluster) -> Result<Duration> {
    cluster.started().into_iter().map(|number| Ok(cpu_of_tree(cluster.pid(number)?))).sum()
}
