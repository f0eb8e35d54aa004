//! A fleet of an ordinary user: containers with addresses and disks of their own, and nobody is root. Started by root, it does
//! all of it as an ordinary user.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello, write_file};
use chaos_tests::{programs, wait};
use nix::sys::signal::{Signal, kill};

#[path = "../../cpi/local/tests/common/ordinary.rs"]
mod ordinary;

/// Silence until suspicion, the second look, and the repair itself.
const REPAIR_LIMIT: Duration = Duration::from_secs(50);

#[test]
fn an_ordinary_user_has_a_fleet() {
    let programs = [programs::directord(), programs::dctl(), programs::dagent()];
    ordinary::run_the_others("an_ordinary_user_has_a_fleet", &programs);
}

#[tokio::test]
async fn a_deployment_outlives_its_leader_and_a_disk_its_vm() -> Result<()> {
    if !ordinary::does_it() || !needs::met(&[Need::Ruby, Need::Gcc]) || !needs::user_namespaces() {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::UserNamespaces).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let hello = Hello { disk: Some("small"), ..Hello::default() }.manifest();
    let manifest = format!("{hello}  - {{name: hello-check, release: hello}}\n");
    let file = write_file(&cluster, "hello.yml", &manifest)?;

    let mut deploying = Deploying::start(&cluster, "hello", &file)?;
    deploying.printed_text("Updating instance").await?;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    deploying.end().await?.check_complete(&cluster).await?;
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;

    // The errand asks both instances, by their addresses.
    let check = ["-d", "hello", "run-errand", "hello-check", "--instance", "hello/0"];
    let said = cluster.operate(&check).await?;
    ensure!(said.contains("Hello from hello/0 ") && said.contains("Hello from hello/1 "), "{said}");

    let client = cluster.client()?;
    let victim = client.instances("hello").await?.remove(0);
    let page = reached(&cluster, &victim.ips[0])?;
    ensure!(page.contains(&format!("Hello from hello/{} ", victim.index)), "{page}");

    let disk = cluster.cloud_root().join("disks").join(&victim.disk_cids[0]).join("data");
    fs::write(disk.join("diary"), "day one")?;
    kill(cluster.first_process(&victim.vm_cid)?, Signal::SIGKILL)?;
    let repaired = wait::until("the instance has a new VM that runs", REPAIR_LIMIT, async || {
        let now = client.instances("hello").await?.into_iter().find(|instance| instance.id == victim.id);
        let is_new = |vm: &str| !vm.is_empty() && vm != victim.vm_cid;
        Ok(now.filter(|now| is_new(&now.vm_cid) && now.process_state == "running"))
    })
    .await?;
    ensure!(repaired.disk_cids == victim.disk_cids, "the same disk: {repaired:?}");
    // Through the mounts of the VM: what its jobs see.
    let diary = format!("/proc/{}/root/var/vcap/store/diary", cluster.first_process(&repaired.vm_cid)?);
    let is_there = async || Ok(fs::read_to_string(&diary).is_ok_and(|text| text == "day one"));
    wait::until_true("the disk is mounted in the new VM", REPAIR_LIMIT, is_there).await?;
    ensure!(fs::metadata(&disk)?.uid() == nix::unistd::geteuid().as_raw(), "root inside is the user");

    cluster.operate(&["-d", "hello", "delete-deployment", "--force"]).await?;
    ensure!(client.lost().await?.is_empty(), "something may be left behind");
    let vms: Vec<_> = fs::read_dir(cluster.cloud_root().join("vms"))?.flatten().collect();
    ensure!(vms.is_empty(), "{vms:?} are left");
    cluster.operate(&["clean-up", "--all"]).await?;
    cluster.finish().await
}

/// Returns what a job answers to whoever comes from the machine.
fn reached(cluster: &Cluster, ip: &str) -> Result<String> {
    let mut reach = Command::new(programs::directord())
        .arg("reach-vm")
        .arg("--cloud")
        .arg(cluster.cloud_root())
        .args([ip, "8080"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut words = reach.stdin.take().context("piped")?;
    words.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let output = reach.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
