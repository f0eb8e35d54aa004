//! A deployment on machines with a kernel of their own: compiled in containers beside them, with a disk, and one of them killed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, ReleaseFolder, cloud_config, write_file};
use chaos_tests::{debian, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Silence until suspicion, the repair, and a boot, which takes half a minute without KVM on a busy machine.
const REPAIR_LIMIT: Duration = Duration::from_secs(240);

/// Added to the job: every start leaves on the disk which kernel it was under.
const DIARY: &str = "mountpoint -q /var/vcap/store && uname -r >> /var/vcap/store/diary\n";

#[tokio::test]
async fn a_machine_boots_has_a_disk_and_is_replaced_when_it_dies() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Mmdebstrap]) || !needs::machines() {
        return Ok(());
    }
    let cluster = Cluster::start(1, CloudKind::Qemu).await?;
    upload(&cluster).await?;
    let hello = Hello { instances: 1, disk: Some("small"), watch_ms: 120_000, ..Hello::default() };
    let manifest = hello.manifest().replace("os: directorate-host", "os: debian-bookworm");
    let file = write_file(&cluster, "hello.yml", &manifest)?;
    cluster.operate(&["-d", "hello", "deploy", &file]).await?;

    let client = cluster.client()?;
    let before = client.instances("hello").await?.into_iter().next().context("one instance")?;
    let vm = cluster.cloud_root().join("vms").join(&before.vm_cid);
    let console = fs::read_to_string(vm.join("console.log"))?;
    ensure!(console.contains("Linux version "), "no kernel has booted: {console}");
    kill(Pid::from_raw(machine(&vm)?), Signal::SIGKILL)?;
    let after = wait::until("the instance has a new machine that runs", REPAIR_LIMIT, async || {
        let instances = client.instances("hello").await?;
        let now = instances.into_iter().next().context("it stays an instance")?;
        Ok(Some(now).filter(|i| i.vm_cid != before.vm_cid && i.process_state == "running"))
    })
    .await?;
    ensure!(after.disk_cids == before.disk_cids && after.disk_cids.len() == 1, "the same disk: {after:?}");

    cluster.operate(&["-d", "hello", "stop"]).await?;
    let diary = read_from(&cluster.cloud_root().join("disks").join(&after.disk_cids[0]), "/diary")?;
    let kernels: Vec<&str> = diary.lines().collect();
    ensure!(kernels.len() >= 2 && kernels.iter().all(|k| k.ends_with("-cloud-amd64")), "{diary:?}");
    cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    ensure!(client.lost().await?.is_empty(), "something may be left behind");
    cluster.finish().await
}

/// Gives the fleet all that is needed: packages are compiled in containers, which have the same stemcell below them.
async fn upload(cluster: &Cluster) -> Result<()> {
    let compilation = "{name: compilation, cloud_properties: {isolation: namespaces}}";
    let config = cloud_config(Net::Simulated).replace("{name: compilation}", compilation);
    ensure!(config.contains(compilation));
    cluster.operate(&["update-cloud-config", &write_file(cluster, "cloud-config.yml", &config)?]).await?;
    let stemcell = debian::stemcell(Path::new(env!("CARGO_TARGET_TMPDIR")), cluster.folder())?;
    cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    let release = ReleaseFolder::copy_of_hello(cluster.folder())?;
    let script = cluster.folder().join("hello-release/jobs/hello/templates/bin/pre-start.erb");
    fs::write(&script, fs::read_to_string(&script)? + DIARY)?;
    cluster.operate(&["upload-release", release.archive()?.to_str().context("UTF-8")?]).await?;
    Ok(())
}

/// Returns the process that is a machine.
fn machine(vm: &Path) -> Result<i32> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(vm.join("vm.json"))?)?;
    ensure!(record["rung"] == "qemu", "{record}");
    let pid = record["processes"]["init"]["pid"].as_i64().context("it runs")?;
    Ok(i32::try_from(pid)?)
}

/// Returns a file of a disk that nobody uses.
fn read_from(disk: &Path, file: &str) -> Result<String> {
    let read =
        Command::new("debugfs").args(["-R", &format!("cat {file}")]).arg(disk.join("image")).output()?;
    Ok(String::from_utf8(read.stdout)?)
}
