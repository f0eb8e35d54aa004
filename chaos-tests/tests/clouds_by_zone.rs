//! Clouds behind executables, as CPIs made for BOSH's director are: zones in two of them, one deployment over both, and a
//! leader that dies on the way.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::sim_cpi::InstalledCpi;
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, cloud_config, upload_hello, write_file};
use cpi_sim::{Chances, Knobs, Span};
use nix::unistd::{Pid, getpgid};
use proto::v1::follow_task_request::Kind as Output;
use serde_json::Value;

/// A CPI, and what it was asked.
struct Cpi(InstalledCpi);

impl Cpi {
    fn install(cluster: &Cluster, name: &str) -> Result<Self> {
        Ok(Self(InstalledCpi::install(cluster.folder().join(name), cluster.sim().socket(), "")?))
    }

    /// Returns the process group of a call that is under way.
    fn process_group(&self) -> Result<Option<i32>> {
        let script = self.0.folder().to_str().context("UTF-8")?;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if line.contains(&format!("--script {script}")) {
                return Ok(getpgid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw));
            }
        }
        Ok(None)
    }

    /// Returns the first arguments of all calls of a method.
    fn objects(&self, method: &str) -> Result<BTreeSet<String>> {
        let calls = self.0.calls(method)?;
        Ok(calls.iter().filter_map(|call| call["arguments"][0].as_str().map(str::to_owned)).collect())
    }
}

fn slow() -> Knobs {
    let (call, action) = (Span { min_ms: 50, max_ms: 150 }, Span { min_ms: 20, max_ms: 60 });
    let calls = Chances { latency: call, ..Chances::default() };
    Knobs { calls, boot: action, action, ..Knobs::default() }
}

#[tokio::test]
async fn each_zone_is_served_by_its_cloud_while_the_leader_dies() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 21, knobs: slow() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let before = Hello { name: "before".into(), instances: 1, ..Hello::default() };
    let secret = "variables: [{name: /cloud_key, type: password}]\n";
    let file = write_file(&cluster, "before.yml", &format!("{}{secret}", before.manifest()))?;
    cluster.operate(&["-d", "before", "deploy", &file]).await?;

    let (east, west) = (Cpi::install(&cluster, "east")?, Cpi::install(&cluster, "west")?);
    let config = format!(
        "cpis:\n- {{name: east, type: sim, exec_path: {}, properties: {{key: ((/cloud_key))}}, \
         migrated_from: [{{name: ''}}]}}\n- {{name: west, type: sim, exec_path: {}}}\n",
        east.0.program().display(),
        west.0.program().display()
    );
    let config = write_file(&cluster, "cpi.yml", &config)?;
    cluster.operate(&["update-cpi-config", &config]).await?;
    let hello = Hello { instances: 4, disk: Some("small"), max_in_flight: 2, ..Hello::default() };
    let file = hello.file(&cluster)?;
    let refused = cluster.operate(&["-d", "hello", "deploy", &file]).await.unwrap_err().to_string();
    ensure!(refused.contains("AZ 'z1' must specify a CPI when CPI config is defined."), "{refused}");

    let clouds = cloud_config(Net::Simulated)
        .replace("{name: z1}", "{name: z1, cpi: east}")
        .replace("{name: z2}", "{name: z2, cpi: west}");
    let clouds = write_file(&cluster, "clouds.yml", &clouds)?;
    cluster.operate(&["update-cloud-config", &clouds]).await?;
    let stemcell = cluster.folder().join("stemcell.tgz");
    cluster.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?]).await?;
    ensure!(east.0.calls("create_stemcell")?.len() == 1 && west.0.calls("create_stemcell")?.len() == 1);

    let probed = cluster.operate(&["cpi", "probe", "--json"]).await?;
    let probed: Value = serde_json::from_str(&probed)?;
    let probed = probed["rows"].as_array().context("a list")?;
    let found = |probe: &&Value| probe["works"] == true && probe["kind"] == "external";
    ensure!(probed.len() == 9 && probed.iter().filter(found).count() == 6, "{probed:?}");

    let task = deploy_while_the_leader_dies(&mut cluster, &file, [&east, &west]).await?;
    check_zones(&cluster, &east, &west).await?;
    check_secret(&cluster, &east, task).await?;

    // What the default cloud has made goes to the one that says it was the default one.
    for deployment in ["before", "hello"] {
        cluster.operate(&["-d", deployment, "delete-deployment"]).await?;
    }
    let statistics = cluster.sim().control().statistics().await?;
    ensure!(statistics.vms == 0, "{statistics:?}");
    ensure!(east.objects("delete_vm")?.len() >= 3 && west.objects("delete_vm")?.len() == 2);
    cluster.finish().await
}

/// Kills the leader when the clouds have made all four VMs: nobody hears the answers, and these clouds can't be searched.
/// Returns the task.
async fn deploy_while_the_leader_dies(cluster: &mut Cluster, file: &str, clouds: [&Cpi; 2]) -> Result<u64> {
    let leader = cluster.leader().await?;
    clouds.iter().try_for_each(|cloud| cloud.0.hang("create_vm"))?;
    let deploying = Deploying::start(cluster, "hello", file)?;
    // One more was made before.
    wait::until_true("four VMs are made", SETTLE, async || {
        Ok(cluster.sim().control().statistics().await?.vms == 5)
    })
    .await?;
    cluster.kill(leader)?;
    clouds.iter().try_for_each(|cloud| cloud.0.recover("create_vm"))?;
    let deployed = deploying.end().await?;
    ensure!(deployed.exit == Some(0), "{deployed:?}");
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    let tasks = cluster.client()?.tasks().await?;
    let deploy = tasks.iter().find(|task| task.deployment == "hello" && task.state == "done");
    Ok(deploy.context("the deploy")?.id)
}

async fn check_zones(cluster: &Cluster, east: &Cpi, west: &Cpi) -> Result<()> {
    let client = cluster.client()?;
    let instances = wait::until("all run", SETTLE, async || {
        let instances = client.instances("hello").await?;
        Ok(instances.iter().all(|row| row.process_state == "running").then_some(instances))
    })
    .await?;
    ensure!(instances.len() == 4, "{instances:?}");
    for row in &instances {
        let (own, other) = if row.az == "z1" { (east, west) } else { (west, east) };
        ensure!(own.objects("create_vm")?.contains(&row.agent_id), "{row:?}");
        ensure!(!other.objects("create_vm")?.contains(&row.agent_id), "{row:?}");
        for disk in &row.disk_cids {
            let attached = own.0.calls("attach_disk")?;
            let is_it = |call: &Value| call["arguments"] == serde_json::json!([row.vm_cid, disk]);
            ensure!(attached.iter().any(is_it), "{row:?}: {attached:?}");
        }
    }
    // One of them may have been made by a call that the leader did not live to hear the answer of: it was adopted.
    let statistics = cluster.sim().control().statistics().await?;
    ensure!(statistics.vms == 5, "{statistics:?}");
    Ok(())
}

/// The executable is told the secret; nobody else is.
async fn check_secret(cluster: &Cluster, east: &Cpi, task: u64) -> Result<()> {
    let calls = east.0.calls("create_vm")?;
    let key = calls[0]["context"]["key"].as_str().context("the property")?;
    ensure!(key.len() >= 20 && !key.contains("(("), "{key}");
    let told = cluster.client()?.output(task, Output::Cpi).await?;
    ensure!(told.contains("\"method\":\"attach_disk\"") && told.contains("\"key\":\"<redacted>\""), "{told}");
    ensure!(!told.contains(key), "the secret is in the task's output");
    for number in cluster.started() {
        ensure!(!cluster.log_of(number)?.contains(key), "the secret is in the log of director-{number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cpi_does_not_outlive_its_director() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 22, knobs: slow() }).await?;
    let cpi = Cpi::install(&cluster, "only")?;
    let config = format!("cpis: [{{name: only, type: sim, exec_path: {}}}]\n", cpi.0.program().display());
    let config = write_file(&cluster, "cpi.yml", &config)?;
    cluster.operate(&["update-cpi-config", &config]).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let clouds = cloud_config(Net::Simulated).replace("{name: z1}", "{name: z1, cpi: only}");
    let clouds = write_file(&cluster, "clouds.yml", &clouds.replace("{name: z2}", "{name: z2, cpi: only}"))?;
    cluster.operate(&["update-cloud-config", &clouds]).await?;

    cpi.0.hang("create_vm")?;
    let (leader, client) = (cluster.leader().await?, cluster.client()?);
    let hello = Hello { instances: 1, ..Hello::default() };
    let task = client.deploy(&hello.manifest(), "the-deploy").await?;
    let group = wait::until("the CPI hangs, with a child", SETTLE, async || {
        let group = cpi.process_group()?;
        Ok(group.filter(|group| members(*group).len() >= 3))
    })
    .await?;
    cluster.kill(leader)?;
    wait::until_true("nothing is left of the CPI", SETTLE, async || Ok(members(group).is_empty())).await?;

    // The next leader waits for the agent of a VM that it cannot look for; whoever is tired of that cancels.
    cpi.0.recover("create_vm")?;
    cluster.operate(&["cancel-task", &task.to_string()]).await?;
    let ended = cluster.client()?.ended(task, SETTLE * 2).await?;
    ensure!(ended.state == "cancelled", "{ended:?}");
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    cluster.finish().await
}

/// Returns the processes of a group that have not ended.
fn members(group: i32) -> Vec<String> {
    let stats = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_member = |stat: &String| {
        // After the name in parentheses: state, parent, group.
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        rest.first() != Some(&"Z") && rest.get(2) == Some(&group.to_string().as_str())
    };
    stats.filter(is_member).collect()
}
