//! One deployment — Redis: disks, a link from a primary to its replica, an errand that asks both — on everything that can carry
//! it, with either agent, and with the leader killed in the middle each time.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, Ground};
use chaos_tests::deploying::Deploying;
use chaos_tests::lab::{self, Lab};
use chaos_tests::needs::{self, Need};
use chaos_tests::redis::{self, Content, Redis};
use chaos_tests::sim::takes_its_time;
use chaos_tests::workload::{Net, cloud_config, compiling_in_containers, upload_base, write_file};
use chaos_tests::{debian, forge, programs, wait};
use nix::sys::signal::{Signal, kill};
use proto::v1::Instance;

#[path = "../../cpi/local/tests/common/ordinary.rs"]
mod ordinary;

/// What carries a deployment.
struct Substrate {
    cloud: CloudKind,
    agent: Agent,
    /// The leader is killed once a line with this was printed.
    kill_at: &'static str,
    /// How the primary loses its VM.
    loss: Loss,
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

/// How an instance loses its VM, and gets another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It is recreated.
    Recreated,
    /// Its VM is killed, and it is resurrected.
    Killed,
}

const COMPILING: &str = "Compiling packages";
const UPDATING: &str = "Updating instance";

/// How long a machine may take to boot. Without KVM, beside others, that can be a minute.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// Silence until suspicion, the second look, and the repair itself; and for a machine, a boot.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);
const MACHINE_REPAIR_LIMIT: Duration = Duration::from_secs(420);

#[tokio::test]
async fn processes() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Make, Need::Redis]) {
        return Ok(());
    }
    carries(Substrate::ours(CloudKind::Process, COMPILING)).await
}

#[tokio::test]
async fn namespaces() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Make, Need::Redis]) || !needs::namespaces() {
        return Ok(());
    }
    carries(Substrate::ours(CloudKind::Namespaces, UPDATING)).await
}

/// Nobody is root on the host.
#[tokio::test]
async fn user_namespaces() -> Result<()> {
    let is_possible =
        ordinary::does_it() && needs::met(&[Need::Ruby, Need::Make, Need::Redis]) && needs::user_namespaces();
    if !is_possible {
        return Ok(());
    }
    carries(Substrate { loss: Loss::Killed, ..Substrate::ours(CloudKind::UserNamespaces, UPDATING) }).await
}

/// Started by root, it is done as an ordinary user.
#[test]
fn user_namespaces_of_an_ordinary_user() {
    let programs = [programs::directord(), programs::dctl(), programs::dagent()];
    ordinary::run_again(&["--exact", "user_namespaces"], &programs);
}

#[test]
fn docker() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc, Need::Make, Need::Redis]) || !needs::docker() {
        return Ok(());
    }
    lab::inside(|lab| carries(Substrate { lab: Some(lab), ..Substrate::ours(CloudKind::Docker, COMPILING) }))
}

#[tokio::test]
async fn machines() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Redis, Need::Mmdebstrap]) || !needs::machines() {
        return Ok(());
    }
    carries(Substrate { loss: Loss::Killed, ..Substrate::ours(CloudKind::Qemu, UPDATING) }).await
}

#[tokio::test]
async fn a_cpi_made_for_bosh_s_director() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cloud = CloudKind::Program { seed: 11, knobs: takes_its_time(30), options: "" };
    carries(Substrate { agent: Agent::OursSimulated, ..Substrate::ours(cloud, UPDATING) }).await
}

#[tokio::test]
async fn bosh_s_own_agents() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Nats]) {
        return Ok(());
    }
    let cloud = CloudKind::Sim { seed: 12, knobs: takes_its_time(30) };
    carries(Substrate { agent: Agent::BoshSimulated, ..Substrate::ours(cloud, COMPILING) }).await
}

impl Substrate {
    fn ours(cloud: CloudKind, kill_at: &'static str) -> Self {
        Self { cloud, agent: Agent::Ours, kill_at, loss: Loss::Recreated, lab: None }
    }

    fn is_machines(&self) -> bool {
        matches!(self.cloud, CloudKind::Qemu)
    }

    /// Returns the deployment as it suits this.
    fn redis(&self) -> Redis {
        let redis =
            Redis { stemcell: ("directorate-host", "1.0"), errand_vm_type: "small", watch_ms: 60_000 };
        match self.agent {
            Agent::BoshSimulated => Redis { stemcell: ("toronto-os", "1"), ..redis },
            // The errand's VM is the one container among machines: it boots in no time.
            Agent::Ours if self.is_machines() => Redis {
                stemcell: ("debian-bookworm", "1.0"),
                errand_vm_type: "compilation",
                watch_ms: 180_000,
            },
            Agent::Ours | Agent::OursSimulated => redis,
        }
    }
}

async fn carries(mut substrate: Substrate) -> Result<()> {
    let ground = Ground {
        has_bus: substrate.agent == Agent::BoshSimulated,
        // Machines without KVM leave little for others.
        is_patient: substrate.is_machines(),
        lab: substrate.lab.take(),
        ..Ground::new(3, substrate.cloud.clone())
    };
    let mut cluster = Cluster::start_on(ground).await?;
    upload(&cluster, &substrate).await?;

    let leader = deploy_while_the_leader_dies(&mut cluster, &substrate).await?;
    let before = instances(&cluster).await?;
    smoke_tests(&cluster, &substrate, 1).await?;
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;

    match substrate.loss {
        Loss::Recreated => drop(cluster.operate(&["-d", "redis", "recreate", "primary/0"]).await?),
        Loss::Killed => kill_primary(&cluster, &substrate).await?,
    }
    let after = instances(&cluster).await?;
    ensure!(after[0].vm_cid != before[0].vm_cid, "the primary has another VM: {after:?}");
    ensure!(after[1].vm_cid == before[1].vm_cid, "the replica keeps its own: {after:?}");
    for (before, after) in before.iter().zip(&after) {
        ensure!(after.disk_cids == before.disk_cids, "{} keeps its disk: {after:?}", before.group);
    }
    if matches!(substrate.cloud, CloudKind::Namespaces | CloudKind::UserNamespaces) {
        let answer = reached(&cluster, &after[0].ips[0])?;
        ensure!(answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"), "from the machine: {answer}");
    }
    // It counts its runs at the primary, and reads what each has written: nothing of that was lost.
    smoke_tests(&cluster, &substrate, 2).await?;

    cluster.operate(&["-d", "redis", "delete-deployment"]).await?;
    ensure!(cluster.client()?.lost().await?.is_empty(), "something may be left behind");
    ensure!(vms(&cluster).await? == 0, "a VM is left");
    // The files of a stemcell may belong to ids that nobody here can remove but the cloud.
    cluster.operate(&["clean-up", "--all"]).await?;
    cluster.finish().await
}

/// Gives the fleet all that the deployment needs.
async fn upload(cluster: &Cluster, substrate: &Substrate) -> Result<()> {
    let stemcell = match substrate.cloud {
        // Packages are compiled in containers beside the machines, which have the same stemcell below them.
        CloudKind::Qemu => {
            let config = compiling_in_containers(&cloud_config(Net::Simulated))?;
            let file = write_file(cluster, "cloud-config.yml", &config)?;
            cluster.operate(&["update-cloud-config", &file]).await?;
            Some(debian::stemcell(Path::new(env!("CARGO_TARGET_TMPDIR")), cluster.folder())?)
        }
        CloudKind::Process => {
            upload_base(cluster, Net::Loopback(cluster.loopback_net())).await?;
            None
        }
        _ => {
            upload_base(cluster, Net::Simulated).await?;
            let file = cluster.folder().join("bosh.tgz");
            let is_bosh = substrate.agent == Agent::BoshSimulated;
            is_bosh.then(|| forge::stemcell(&file, "bosh-sim-toronto-os", 3)).transpose()?
        }
    };
    if let Some(stemcell) = stemcell {
        cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    }
    let is_real = substrate.agent == Agent::Ours;
    let content = if is_real { Content::Prebuilt } else { Content::StandIn };
    let release = redis::release(cluster.folder(), content)?;
    cluster.operate(&["upload-release", release.to_str().context("UTF-8")?]).await?;
    Ok(())
}

/// Deploys, and returns which replica led and was killed meanwhile.
async fn deploy_while_the_leader_dies(cluster: &mut Cluster, substrate: &Substrate) -> Result<usize> {
    let file = write_file(cluster, "redis.yml", &substrate.redis().manifest()?)?;
    let mut deploying = Deploying::start(cluster, "redis", &file)?;
    if substrate.is_machines() {
        deploying = deploying.silent_for(BOOT_LIMIT);
    }
    deploying.printed_text(substrate.kill_at).await?;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    deploying.end().await?.check_complete(cluster).await?;
    Ok(leader)
}

/// Returns the primary and its replica, which are well and have a disk each.
async fn instances(cluster: &Cluster) -> Result<[Instance; 2]> {
    let mut instances = cluster.client()?.instances("redis").await?;
    instances.retain(|instance| instance.group != "smoke-tests");
    for instance in &instances {
        let is_well = instance.process_state == "running" && instance.update_completed;
        ensure!(is_well && instance.disk_cids.len() == 1, "{instance:?}");
    }
    let groups: Vec<&str> = instances.iter().map(|instance| instance.group.as_str()).collect();
    ensure!(groups == ["primary", "replica"], "{instances:?}");
    instances.try_into().ok().context("two instances")
}

/// Runs the errand, which writes at the primary and reads at both; it must have counted this run as its `run`-th.
async fn smoke_tests(cluster: &Cluster, substrate: &Substrate, run: u32) -> Result<()> {
    let said = cluster.operate(&["-d", "redis", "run-errand", "smoke-tests"]).await?;
    let passed = format!("smoke tests: run {run} passed on 1 primary and 1 replicas");
    ensure!(substrate.agent != Agent::Ours || said.contains(&passed), "{said}");
    Ok(())
}

/// Kills the primary's VM, and waits until it is well in another one.
async fn kill_primary(cluster: &Cluster, substrate: &Substrate) -> Result<()> {
    let [victim, _] = instances(cluster).await?;
    if substrate.is_machines() {
        check_kernel(cluster, &victim)?;
    }
    kill(cluster.first_process(&victim.vm_cid)?, Signal::SIGKILL)?;
    let client = cluster.client()?;
    let limit = if substrate.is_machines() { MACHINE_REPAIR_LIMIT } else { REPAIR_LIMIT };
    let primary = wait::until("the primary has a new VM and is well", limit, async || {
        let primary = client.instances("redis").await?.into_iter().find(|now| now.id == victim.id);
        let has_another = |vm: &str| !vm.is_empty() && vm != victim.vm_cid;
        let is_well = |now: &Instance| now.update_completed && now.process_state == "running";
        Ok(primary.filter(|now| has_another(&now.vm_cid) && is_well(now)))
    })
    .await?;
    if substrate.is_machines() {
        check_kernel(cluster, &primary)?;
    }
    Ok(())
}

/// Returns what Redis answers to whoever comes from the machine.
fn reached(cluster: &Cluster, ip: &str) -> Result<String> {
    let mut reach = Command::new(programs::directord())
        .arg("reach-vm")
        .arg("--cloud")
        .arg(cluster.cloud_root())
        .args([ip, "6379"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    reach.stdin.take().context("piped")?.write_all(b"PING\r\nQUIT\r\n")?;
    let output = reach.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Errs unless a kernel has booted in an instance's machine.
fn check_kernel(cluster: &Cluster, instance: &Instance) -> Result<()> {
    let console = cluster.cloud_root().join("vms").join(&instance.vm_cid).join("console.log");
    let console = fs::read_to_string(console)?;
    let kernel = console.lines().find(|line| line.contains("Linux version "));
    ensure!(kernel.is_some_and(|line| line.contains("-cloud-amd64 ")), "no kernel has booted: {console}");
    Ok(())
}

/// Returns how many VMs the cloud has.
async fn vms(cluster: &Cluster) -> Result<u64> {
    if cluster.is_simulated() {
        return Ok(cluster.sim().control().statistics().await?.vms);
    }
    if let Some(daemon) = cluster.docker() {
        return Ok(daemon.containers()? as u64);
    }
    Ok(fs::read_dir(cluster.cloud_root().join("vms"))?.count() as u64)
}
