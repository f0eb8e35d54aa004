//! Somebody logs in to a VM: by a key, as a user who was made for it, and is put out when the user is removed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::{Bosh, Request};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::programs;
use chaos_tests::wait::until_true;
use chaos_tests::workload::{Hello, Net, upload_hello};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Everything that is waited for here takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

const USER: &str = "bosh_0123456789abcde";

#[tokio::test]
async fn an_operator_logs_in_becomes_root_and_is_put_out() -> Result<()> {
    let all = [Need::Ruby, Need::Gcc, Need::Ssh, Need::Sshd, Need::Sudo, Need::Nsenter];
    if !needs::met(&all) || !needs::namespaces() {
        return Ok(());
    }
    let cluster = Cluster::start(1, CloudKind::Namespaces).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let hello = Hello { instances: 1, ..Hello::default() };
    cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;
    Bosh::introduce(&cluster).await?;
    let session = as_the_cli_does(&cluster).await?;
    with_dctl(&cluster, &session).await?;
    cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    cluster.finish().await
}

/// The CLI makes a key, has a user made, starts `ssh`, and has the user removed.
async fn as_the_cli_does(cluster: &Cluster) -> Result<Session> {
    let folder = cluster.folder().join("session");
    fs::create_dir(&folder)?;
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-N", "", "-f"])
        .arg(folder.join("key"))
        .status()?;
    ensure!(made.success());
    let public_key = fs::read_to_string(folder.join("key.pub"))?;
    let told = ssh(cluster, "setup", json!({ "user": USER, "public_key": public_key })).await?;
    ensure!(told["status"] == "success" && told["job"] == "hello" && told["index"] == 0, "{told}");
    let text = |key: &str| told[key].as_str().context("a text").map(str::to_owned);
    let (ip, host_key) = (text("ip")?, text("host_public_key")?);
    ensure!(host_key.starts_with("ssh-rsa ") && host_key.ends_with('\n'), "{host_key:?}");
    let of_the_host = fs::read_to_string("/etc/ssh/ssh_host_rsa_key.pub").unwrap_or_default();
    ensure!(host_key != of_the_host, "the VM's host key is one that others have");
    fs::write(folder.join("known_hosts"), format!("{ip} {host_key}"))?;
    let session = Session { folder, cloud: cluster.cloud_root().to_owned(), ip };

    let id = session.says(&["id"])?;
    ensure!(id.contains(USER) && id.contains("bosh_sshers") && id.contains("bosh_sudoers"), "{id}");
    session.says(&["sudo", "-n", "true"])?;
    ensure!(session.says(&["sudo", "-n", "id", "-u"])? == "0\n");
    let (file, copy) = (session.folder.join("file"), session.folder.join("copy"));
    fs::write(&file, "carried\n")?;
    let there = format!("{USER}@{}:file", session.ip);
    session.copies(file.to_str().context("UTF-8")?, &there)?;
    ensure!(session.says(&["cat", "file"])? == "carried\n");
    session.copies(&there, copy.to_str().context("UTF-8")?)?;
    ensure!(fs::read_to_string(&copy)? == "carried\n");
    ensure!(
        session.says(&["tail -n 1 /var/vcap/sys/log/hello/*.log | head -n 1"]).is_ok(),
        "as `logs -f` does"
    );
    session.only_keys_open_it()?;
    session.listens_only_at_its_address(cluster).await?;

    // Somebody is in, and something that was started as root, when the user is removed.
    let mut lasting = session
        .command("ssh", &[&session.to(), "sudo -n sleep 987654 & echo in; sleep 987654"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = lasting.stdout.take().context("a pipe")?;
    let said = tokio::task::spawn_blocking(move || {
        let mut first = [0; 3];
        std::io::Read::read_exact(&mut said, &mut first).map(|()| first)
    });
    ensure!(&said.await?? == b"in\n");
    let told = ssh(cluster, "cleanup", json!({ "user_regex": format!("^{USER}") })).await?;
    ensure!(told["status"] == "success", "{told}");
    until_true("the session ends", PATIENCE, async || Ok(lasting.try_wait()?.is_some())).await?;
    let left = session.inside(cluster).await?.run(&["pgrep", "-f", "sleep 987654"])?;
    ensure!(!left.status.success(), "left behind: {}", String::from_utf8_lossy(&left.stdout));
    let refused = session.run("ssh", &[&session.to(), "id"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("Permission denied (publickey)"), "{said}");
    Ok(session)
}

/// `dctl` makes key and user itself, and leaves neither, also if it is interrupted.
async fn with_dctl(cluster: &Cluster, session: &Session) -> Result<()> {
    let way = format!("--opts=-oProxyCommand={}", session.way());
    let dctl = async |arguments: &[&str]| {
        let with = [&["-d", "hello"], arguments, &["--opts=-Fnone", way.as_str()]].concat();
        cluster.operate(&with).await
    };
    let said = dctl(&["ssh", "hello/0", "-c", "id -un; sudo -n id -u; cat /nowhere || true"]).await?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 2 && lines[0].starts_with("bosh_") && lines[1] == "0", "{said}");
    let (file, copy) = (session.folder.join("file"), session.folder.join("other copy"));
    let (file, copy) = (file.to_str().context("UTF-8")?, copy.to_str().context("UTF-8")?);
    dctl(&["scp", file, "hello:/var/tmp/file"]).await?;
    dctl(&["scp", "hello/0:/var/tmp/file", copy]).await?;
    ensure!(fs::read_to_string(copy)? == "carried\n");
    let failed = dctl(&["ssh", "hello", "-c", "exit 3"]).await.err().context("an error")?;
    ensure!(failed.to_string().contains("exit status: 3"), "{failed:#}");

    let mut command = cluster.dctl();
    command.args(["-d", "hello", "logs", "--follow", "hello", "--num=1", "--opts=-Fnone", way.as_str()]);
    let mut following = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(following.stdout.take().context("a pipe")?).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await??.context("a line")?;
    ensure!(first.contains(".log") || first.contains("Hello"), "{first}");
    let pid = Pid::from_raw(following.id().context("it runs")?.try_into()?);
    kill(pid, Signal::SIGINT)?;
    let ended = tokio::time::timeout(PATIENCE, following.wait()).await??;
    ensure!(ended.code() == Some(130), "{ended}");
    let vm = session.inside(cluster).await?;
    until_true("all users are removed", PATIENCE, async || {
        Ok(!vm.run(&["grep", "-q", "^bosh_", "/etc/passwd"])?.status.success())
    })
    .await
}

/// Has a user made or removed; returns what the one VM says.
async fn ssh(cluster: &Cluster, command: &str, params: Value) -> Result<Value> {
    let bosh = Bosh::at(cluster, 1)?;
    let target = json!({ "job": "hello", "ids": ["0"], "indexes": ["0"] });
    let wish = json!({ "deployment_name": "hello", "target": target, "command": command, "params": params });
    let task = bosh.start(&Request::json("POST", "/deployments/hello/ssh", &wish)).await?;
    until_true("the task ends", PATIENCE, async || Ok(bosh.look(task, 0).await?.is_over())).await?;
    let output = bosh.send(&Request::new("GET", format!("/tasks/{task}/output?type=result"))).await?;
    let told: Value = serde_json::from_str(&output.text()).with_context(|| output.text())?;
    told.get(0).cloned().with_context(|| format!("one answer: {told}"))
}

/// What an operator's machine knows of a VM.
struct Session {
    folder: PathBuf,
    cloud: PathBuf,
    ip: String,
}

impl Session {
    fn to(&self) -> String {
        format!("{USER}@{}", self.ip)
    }

    fn way(&self) -> String {
        format!("{} reach-vm --cloud {} %h %p", programs::directord().display(), self.cloud.display())
    }

    /// As the CLI starts it: with the one key, and the one host key.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.folder.join(name).display().to_string();
        let way =
            format!("{} reach-vm --cloud {} %h %p", programs::directord().display(), self.cloud.display());
        command.args([
            "-F",
            "none",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
        ]);
        command.args(["-i", &at("key"), "-o", &format!("UserKnownHostsFile={}", at("known_hosts"))]);
        command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", &format!("ProxyCommand={way}")]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.command(program, arguments).output().with_context(|| program.to_owned())
    }

    /// Runs a command there, which must end well.
    fn says(&self, command: &[&str]) -> Result<String> {
        let to = self.to();
        ended_well(self.run("ssh", &[&[to.as_str()], command].concat())?)
    }

    fn copies(&self, from: &str, to: &str) -> Result<()> {
        ended_well(self.run("scp", &["-q", from, to])?).map(drop)
    }

    fn only_keys_open_it(&self) -> Result<()> {
        let to = self.to();
        let methods = self.run("ssh", &["-o", "PubkeyAuthentication=no", &to, "id"])?;
        let said = String::from_utf8_lossy(&methods.stderr).into_owned();
        ensure!(!methods.status.success() && said.contains("Permission denied (publickey)"), "{said}");
        let root = self.run("ssh", &[&format!("root@{}", self.ip), "id"])?;
        ensure!(!root.status.success(), "root is let in");
        // Another key than the one that was told is no VM of ours.
        let other = self.folder.join("other");
        fs::copy(self.folder.join("key.pub"), &other)?;
        let wrong = format!("{} {}", self.ip, fs::read_to_string(&other)?);
        fs::write(&other, wrong)?;
        let option = format!("UserKnownHostsFile={}", other.display());
        let mut command = Command::new("ssh");
        command.args(["-o", &option]).args(self.command("ssh", &[&to, "id"]).get_args());
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("Host key verification failed"), "{said}");
        Ok(())
    }

    async fn inside(&self, cluster: &Cluster) -> Result<Vm> {
        let instances = cluster.client()?.instances("hello").await?;
        let cid = &instances.first().context("an instance")?.vm_cid;
        Ok(Vm { first_process: cluster.first_process(cid)? })
    }

    async fn listens_only_at_its_address(&self, cluster: &Cluster) -> Result<()> {
        let output = self.inside(cluster).await?.run(&["ss", "-Hltn", "sport", "=", "22"])?;
        let listening = ended_well(output)?;
        let places: Vec<&str> = listening.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        ensure!(places == [format!("{}:22", self.ip)], "{listening}");
        Ok(())
    }
}

fn ended_well(output: Output) -> Result<String> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The inside of a VM.
struct Vm {
    first_process: Pid,
}

impl Vm {
    fn run(&self, program: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--net",
            "--pid",
            "--root",
            "--wd=/",
            "--target",
            &self.first_process.to_string(),
        ]);
        command.args(program).output().context("nsenter")
    }
}
