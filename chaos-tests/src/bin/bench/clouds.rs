//! The clouds, with either agent: what it takes to make a VM, and what a deploy costs the directors.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, Ground};
use chaos_tests::forge;
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::cpu_of_tree;
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::Knobs;

use crate::table::{Table, shown};
use crate::{calls, folder};

/// Instances of a deploy, and how many are made at once.
const INSTANCES: usize = 10;

/// The bound on one deploy.
const LIMIT: Duration = Duration::from_secs(600);

/// What carries VMs, and who is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Substrate {
    /// Plain processes.
    Process,
    /// Containers.
    Namespaces,
    /// Nothing: VMs are simulated.
    Sim,
    /// The same behind an executable, as BOSH's CPIs are.
    Program,
    /// Simulated VMs with BOSH's agent, over NATS.
    SimBosh,
}

impl Substrate {
    const ALL: [Self; 5] = [Self::Process, Self::Namespaces, Self::Sim, Self::Program, Self::SimBosh];

    /// Returns whether this machine has what it needs; prints what is missing.
    fn is_possible(self) -> bool {
        match self {
            Self::Process => needs::met(&[Need::Gcc]),
            Self::Namespaces => needs::met(&[Need::Gcc]) && needs::namespaces(),
            Self::Sim | Self::Program => true,
            Self::SimBosh => needs::met(&[Need::Nats]),
        }
    }

    fn cloud(self) -> CloudKind {
        let (seed, knobs) = (1, Knobs::default());
        match self {
            Self::Process => CloudKind::Process,
            Self::Namespaces => CloudKind::Namespaces,
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
            Self::Sim => "simulated",
            Self::Program => "simulated, behind an executable",
            Self::SimBosh => "simulated, with BOSH's agent over NATS",
        })
    }
}

/// Measures each substrate that this machine can have.
pub async fn measure(table: &mut Table) -> Result<()> {
    for substrate in Substrate::ALL {
        if !substrate.is_possible() {
            table.line(format!("{substrate}"), "not here, see above");
            continue;
        }
        if substrate != Substrate::SimBosh {
            // The cloud of the fourth is the third's.
            calls::measure(substrate, table).await?;
        }
        deploys(substrate, table).await?;
    }
    Ok(())
}

/// Deploys twice: the second deploy finds its packages compiled, and each of its instances costs one VM and no more.
async fn deploys(substrate: Substrate, table: &mut Table) -> Result<()> {
    let has_bus = substrate == Substrate::SimBosh;
    let ground = Ground { has_bus, folder: Some(folder()?), ..Ground::new(3, substrate.cloud()) };
    let cluster = Cluster::start_on(ground).await?;
    let net = match substrate {
        Substrate::Process => Net::Loopback(cluster.loopback_net()),
        _ => Net::Simulated,
    };
    upload_hello(&cluster, net).await?;
    if has_bus {
        let stemcell = forge::stemcell(&cluster.folder().join("bosh.tgz"), "bosh-sim-toronto-os", 3)?;
        cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    }
    for what in ["with compilation", "compiled before"] {
        let (time, cpu) = deploy(&cluster, has_bus).await?;
        let per_vm = cpu / INSTANCES as u32;
        let value = format!("{}; CPU of the directors {} per instance", shown(time), shown(per_vm));
        table.line(format!("{substrate}: deploy of {INSTANCES}, {what}"), value);
        cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    }
    cluster.finish().await
}

/// Returns how long a deploy took, and the CPU time of all replicas meanwhile, with what they start: the guards of CPIs,
/// these CPIs, and Ruby.
async fn deploy(cluster: &Cluster, has_bus: bool) -> Result<(Duration, Duration)> {
    let hello = Hello { instances: INSTANCES, max_in_flight: INSTANCES, ..Hello::default() };
    let mut manifest = hello.manifest();
    if has_bus {
        manifest = manifest.replace("os: directorate-host, version: '1.0'", "os: toronto-os, version: '1'");
    }
    let client = cluster.client()?;
    let (begun, before) = (Instant::now(), cpu(cluster)?);
    let task = client.deploy(&manifest, &dctl::client::request_id()).await?;
    client.done(task, LIMIT).await?;
    let (time, after) = (begun.elapsed(), cpu(cluster)?);
    let made = client.instances(&hello.name).await?.len();
    ensure!(made == INSTANCES, "{made} instances instead of {INSTANCES}");
    Ok((time, after.saturating_sub(before)))
}

fn cpu(cluster: &Cluster) -> Result<Duration> {
    cluster.started().into_iter().map(|number| Ok(cpu_of_tree(cluster.pid(number)?))).sum()
}
