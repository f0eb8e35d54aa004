//! One deployment — disks, a link, an errand that follows it — on everything that can carry it, with either agent, and with
//! the leader killed in the middle each time.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, Ground};
use chaos_tests::deploying::Deploying;
use chaos_tests::forge;
use chaos_tests::lab::{self, Lab};
use chaos_tests::needs::{self, Need};
use chaos_tests::sim::takes_its_time;
use chaos_tests::workload::{Hello, Net, upload_hello, write_file};

/// What carries a deployment.
struct Substrate {
    cloud: CloudKind,
    agent: Agent,
    /// The leader is killed once a line with this was printed.
    kill_at: &'static str,
    /// The network, if it is not the host's loopback.
    lab: Option<Lab>,
}

/// Who is in the VMs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    /// Ours, at work.
    Ours,
    /// Ours, in a VM that is simulated: nothing runs there.
    OursSimulated,
    /// BOSH's, in a VM that is simulated.
    BoshSimulated,
}

const COMPILING: &str = "Compiling packages";
const UPDATING: &str = "Updating instance";

#[tokio::test]
async fn processes() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    carries(Substrate { cloud: CloudKind::Process, agent: Agent::Ours, kill_at: COMPILING, lab: None }).await
}

#[tokio::test]
async fn namespaces() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) || !needs::namespaces() {
        return Ok(());
    }
    carries(Substrate { cloud: CloudKind::Namespaces, agent: Agent::Ours, kill_at: UPDATING, lab: None })
        .await
}

#[test]
fn docker() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) || !needs::docker() {
        return Ok(());
    }
    lab::inside(|lab| {
        let (cloud, agent, lab) = (CloudKind::Docker, Agent::Ours, Some(lab));
        carries(Substrate { cloud, agent, kill_at: COMPILING, lab })
    })
}

#[tokio::test]
async fn a_cpi_made_for_bosh_s_director() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cloud = CloudKind::Program { seed: 11, knobs: takes_its_time(30), options: "" };
    carries(Substrate { cloud, agent: Agent::OursSimulated, kill_at: UPDATING, lab: None }).await
}

#[tokio::test]
async fn bosh_s_own_agents() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Nats]) {
        return Ok(());
    }
    let cloud = CloudKind::Sim { seed: 12, knobs: takes_its_time(30) };
    carries(Substrate { cloud, agent: Agent::BoshSimulated, kill_at: COMPILING, lab: None }).await
}

async fn carries(substrate: Substrate) -> Result<()> {
    let Substrate { cloud, agent, kill_at, lab } = substrate;
    let has_bus = agent == Agent::BoshSimulated;
    let mut cluster = Cluster::start_on(Ground { has_bus, lab, ..Ground::new(3, cloud.clone()) }).await?;
    let net = match cloud {
        CloudKind::Process => Net::Loopback(cluster.loopback_net()),
        _ => Net::Simulated,
    };
    upload_hello(&cluster, net).await?;
    let file = write_file(&cluster, "hello.yml", &manifest(agent))?;
    if has_bus {
        let stemcell = forge::stemcell(&cluster.folder().join("bosh.tgz"), "bosh-sim-toronto-os", 3)?;
        cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    }

    let mut deploying = Deploying::start(&cluster, "hello", &file)?;
    deploying.printed_text(kill_at).await?;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    deploying.end().await?.check_complete(&cluster).await?;
    let instances = cluster.client()?.instances("hello").await?;
    ensure!(instances.len() == 2, "{instances:?}");
    for instance in &instances {
        let is_well = instance.process_state == "running" && instance.update_completed;
        ensure!(is_well && instance.disk_cids.len() == 1, "{instance:?}");
    }
    let said =
        cluster.operate(&["-d", "hello", "run-errand", "hello-check", "--instance", "hello/0"]).await?;
    if agent == Agent::Ours {
        for instance in &instances {
            ensure!(said.contains(&format!("Hello from hello/{} ", instance.index)), "{said}");
        }
    }
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    ensure!(cluster.client()?.lost().await?.is_empty(), "something may be left behind");
    ensure!(vms(&cluster).await? == 0, "a VM is left");
    cluster.finish().await
}

fn manifest(agent: Agent) -> String {
    let hello = Hello { disk: Some("small"), ..Hello::default() }.manifest();
    let hello = format!("{hello}  - {{name: hello-check, release: hello}}\n");
    match agent {
        Agent::BoshSimulated => {
            hello.replace("os: directorate-host, version: '1.0'", "os: toronto-os, version: '1'")
        }
        Agent::Ours | Agent::OursSimulated => hello,
    }
}

/// Returns how many VMs the cloud has.
async fn vms(cluster: &Cluster) -> Result<u64> {
    if cluster.is_simulated() {
        return Ok(cluster.sim().control().statistics().await?.vms);
    }
    if let Some(daemon) = cluster.docker() {
        return Ok(daemon.containers()? as u64);
    }
    Ok(std::fs::read_dir(cluster.cloud_root().join("vms"))?.count() as u64)
}
