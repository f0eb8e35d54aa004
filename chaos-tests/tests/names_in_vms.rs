//! Names, asked for inside VMs: long, short and of groups; and who fares badly falls out of them.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait::until_true;
use chaos_tests::workload::{Hello, Net, upload_hello};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::v1::Instance;
use serde_json::Value;

/// Long enough for silence to be noticed (9 s), asked about and told; and for slow machines.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn instances_find_each_other_by_name_and_who_fares_badly_falls_out() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) || !needs::namespaces() {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Namespaces).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    // What dies here stays dead: a new VM would be found in its place.
    cluster.operate(&["health", "resurrection", "off"]).await?;
    let hello = Hello { max_in_flight: 2, ..Hello::default() };
    cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;
    let mut instances = cluster.client()?.instances("hello").await?;
    instances.sort_by_key(|instance| instance.index);
    let [one, other] = instances.as_slice() else { anyhow::bail!("two instances: {instances:?}") };
    let ips = |of: &[&Instance]| of.iter().map(|instance| instance.ips[0].clone()).collect::<BTreeSet<_>>();

    let vm = Vm::of(&cluster, one)?;
    let all = "q-s0.hello.default.hello.bosh";
    until_true("both are found", PATIENCE, async || Ok(vm.find(all)? == ips(&[one, other]))).await?;
    ensure!(vm.find(&format!("{}.hello.default.hello.bosh", other.id))? == ips(&[other]), "by its id");
    ensure!(vm.find("nobody.hello.default.hello.bosh")?.is_empty(), "there is nobody of that name");
    let records = vm.records()?;
    let record = |instance: &Instance| -> Result<Vec<Value>> {
        let rows = records["record_infos"].as_array().context("records")?;
        let row = rows.iter().find(|row| row[0] == instance.id.as_str());
        row.and_then(Value::as_array).cloned().context("every instance has a record")
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = record(other)?;
    let (number, group, zone, network) = (text(&row[1]), text(&row[3][0]), text(&row[5]), text(&row[7]));
    ensure!(vm.find(&format!("q-s0.q-g{group}.bosh"))? == ips(&[one, other]), "by the group's number");
    let short = format!("q-m{number}n{network}s0.q-g{group}.bosh");
    ensure!(vm.find(&short)? == ips(&[other]), "by its own number");
    let in_zone = format!("q-a{zone}s0.hello.default.hello.bosh");
    ensure!(vm.find(&in_zone)? == ips(&[other]), "each zone has one");

    // Jobs that are stopped are no use to anybody.
    cluster.operate(&["-d", "hello", "stop", &format!("hello/{}", other.index)]).await?;
    until_true("who is stopped falls out", PATIENCE, async || Ok(vm.find(all)? == ips(&[one]))).await?;
    ensure!(vm.find("q-s4.hello.default.hello.bosh")? == ips(&[one, other]), "all are all");
    cluster.operate(&["-d", "hello", "start", &format!("hello/{}", other.index)]).await?;
    until_true("who runs is back", PATIENCE, async || Ok(vm.find(all)? == ips(&[one, other]))).await?;

    // And who dies without a word.
    kill(Vm::of(&cluster, other)?.first_process, Signal::SIGKILL)?;
    until_true("who died falls out", PATIENCE, async || Ok(vm.find(all)? == ips(&[one]))).await?;
    ensure!(vm.find(&short)? == ips(&[other]), "whoever asks for it alone gets it, however it fares");

    cluster.operate(&["-d", "hello", "delete-deployment", "--force"]).await?;
    cluster.finish().await
}

/// The inside of a VM.
struct Vm {
    first_process: Pid,
}

impl Vm {
    fn of(cluster: &Cluster, instance: &Instance) -> Result<Self> {
        Ok(Self { first_process: cluster.first_process(&instance.vm_cid)? })
    }

    fn run(&self, program: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--root", "--wd=/", "--target", &self.first_process.to_string()]);
        command.args(program).output().context("nsenter")
    }

    /// Has a program in the VM ask for a name, as any would.
    fn find(&self, name: &str) -> Result<BTreeSet<String>> {
        let output = self.run(&["getent", "ahostsv4", name])?;
        let lines = String::from_utf8(output.stdout)?;
        Ok(lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn records(&self) -> Result<Value> {
        let output = self.run(&["cat", "/var/vcap/instance/dns/records.json"])?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
