//! A VM dies; its instance comes back with its disk.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::end_all_of;
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};

/// Silence until suspicion, the second look, and the repair itself; not the time that a VM may take to boot.
const REPAIR_LIMIT: Duration = Duration::from_secs(50);

#[tokio::test]
async fn a_dead_vm_is_replaced_and_its_disk_attached_again() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let hello = Hello { disk: Some("small"), ..Hello::default() };
    cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;
    let client = cluster.client()?;
    let before = client.instances("hello").await?;
    let (victim, other) = (&before[0], &before[1]);
    let disk = cluster.cloud_root().join("disks").join(&victim.disk_cids[0]).join("data");
    fs::write(disk.join("diary"), "day one")?;

    end_all_of(&cluster.cloud_root().join("vms").join(&victim.vm_cid));
    let repaired = wait::until("the instance has a new VM that runs", REPAIR_LIMIT, async || {
        let instances = client.instances("hello").await?;
        let now = instances.into_iter().find(|i| i.id == victim.id).expect("it stays an instance");
        Ok(Some(now).filter(|i| i.vm_cid != victim.vm_cid && i.process_state == "running"))
    })
    .await?;
    assert_eq!(repaired.disk_cids, victim.disk_cids, "the same disk");
    assert_eq!(fs::read_to_string(disk.join("diary"))?, "day one");
    let instances = client.instances("hello").await?;
    let untouched = instances.iter().find(|i| i.id == other.id).expect("it is there");
    assert_eq!(untouched.vm_cid, other.vm_cid, "nobody else was touched");
    let repairs =
        client.tasks().await?.into_iter().filter(|t| t.description.contains("scan and fix")).count();
    assert_eq!(repairs, 1, "one death, one repair");
    cluster.finish().await
}
