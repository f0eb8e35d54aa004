//! VMs with BOSH's own agent, over a bus of three servers of which one dies, beside VMs with ours: a leader killed in the
//! middle of a deploy is as little of an event as ever, and so is one that is killed while agents are given other certificates.

use anyhow::{Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, Ground, SETTLE};
use chaos_tests::deploying::{DEPLOY_LIMIT, Deploying};
use chaos_tests::forge;
use chaos_tests::needs::{self, Need};
use chaos_tests::sim::takes_its_time;
use chaos_tests::wait;
use chaos_tests::workload::{Net, ReleaseFolder, upload_base, write_file};
use proto::v1::Task;

/// Returns a deployment with a group on either stemcell.
fn manifest(instances: usize, text: &str) -> String {
    let group = |name: &str, stemcell: &str| {
        format!(
            "- {{name: {name}, azs: [z1], instances: {instances}, vm_type: small, stemcell: {stemcell}, \
             persistent_disk_type: small, networks: [{{name: default}}], \
             jobs: [{{name: greeter, release: greeter}}], env: {{bosh: {{remark: {text}}}}}}}\n"
        )
    };
    format!(
        "name: both\nreleases: [{{name: greeter, version: latest}}]\n\
         stemcells:\n- {{alias: ours, os: directorate-host, version: '1.0'}}\n\
         - {{alias: bosh, os: toronto-os, version: '1'}}\n\
         update: {{canaries: 1, max_in_flight: 1, canary_watch_time: 100-30000, update_watch_time: 100-30000}}\n\
         instance_groups:\n{}{}",
        group("ours", "ours"),
        group("bosh", "bosh"),
    )
}

#[tokio::test]
async fn either_agent_is_served_while_a_leader_and_a_bus_server_die() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Nats]) {
        return Ok(());
    }
    let cloud = CloudKind::Sim { seed: 3, knobs: takes_its_time(30) };
    let mut cluster = Cluster::start_on(Ground { has_bus: true, ..Ground::new(3, cloud) }).await?;
    upload_base(&cluster, Net::Simulated).await?;
    let stemcell = forge::stemcell(&cluster.folder().join("bosh.tgz"), "bosh-sim-toronto-os", 3)?;
    cluster.operate(&["upload-stemcell", stemcell.to_str().unwrap_or_default()]).await?;
    let release = ReleaseFolder::new(&cluster, "greeter")?;
    release.package("words", &[], "echo hello >$BOSH_INSTALL_TARGET/words")?;
    release.job("greeter", &["words"], "hello")?;
    let archive = release.archive()?;
    cluster.operate(&["upload-release", archive.to_str().unwrap_or_default()]).await?;

    let file = write_file(&cluster, "both.yml", &manifest(2, "first"))?;
    let mut deploying = Deploying::start(&cluster, "both", &file)?;
    deploying.printed(4).await?;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    cluster.bus().kill(leader)?;
    deploying.end().await?.check_complete(&cluster).await?;
    let instances = cluster.client()?.instances("both").await?;
    ensure!(instances.len() == 4, "{instances:?}");
    for instance in instances {
        ensure!(instance.process_state == "running" && instance.update_completed, "{instance:?}");
    }
    cluster.run(leader)?;
    cluster.bus().revive(leader)?;
    rotate(&mut cluster).await?;
    cluster.operate(&["-d", "both", "delete-deployment"]).await?;
    cluster.finish().await
}

/// Has agents given other certificates, since another authority of their servers is to be trusted, and kills the leader in the
/// middle of it.
async fn rotate(cluster: &mut Cluster) -> Result<()> {
    let first_end = async |cluster: &Cluster| -> Result<String> {
        let told = cluster.operate(&["cluster", "certificates"]).await?;
        Ok(told.lines().find(|line| line.contains("agent.bosh/")).unwrap_or_default().to_owned())
    };
    let before = first_end(cluster).await?;
    ensure!(!before.is_empty(), "no certificate of an agent is listed");
    cluster.bus().trust_another()?;
    let leader = cluster.leader().await?;
    let client = cluster.client()?;
    let rotation = wait::until("certificates are being replaced", SETTLE, async || {
        let is_rotation = |task: &Task| task.description == "rotate certificates of agents";
        let rotation = client.tasks().await?.into_iter().find(is_rotation);
        Ok(rotation.filter(|task| task.state == "processing"))
    })
    .await?;
    cluster.kill(leader)?;
    cluster.client()?.done(rotation.id, DEPLOY_LIMIT).await?;
    let after = first_end(cluster).await?;
    ensure!(!after.is_empty() && after != before, "the first to end was {before}, and is {after}");
    for instance in cluster.client()?.instances("both").await? {
        ensure!(instance.process_state == "running", "{instance:?}");
    }
    cluster.run(leader)
}
