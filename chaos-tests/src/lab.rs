//! A network of our own: a bridge in a network namespace that the story itself lives in, and a namespace for each replica.
//!
//! The thread that [`inside`] starts leaves the host's network before it does anything else; whatever it opens or starts
//! is in the laboratory: clients, the simulated cloud with its agents, `dctl`. So nothing here can name an interface
//! of the host, let alone touch one. Each replica sits behind a cable ([`Port`]) that ends at the bridge, where
//! [`Lab::filter`] says what passes. Deliberately *not* here: which faults there are (see [`crate::nemesis`]).
//!
//! Namespaces have no names: they live as long as a process in them, and the one that holds each of them ends when its
//! standard input, a pipe of ours, closes. Killed or not, a test leaves none behind.

use std::future::Future;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::processes::Process;

/// Programs that a laboratory needs, with the package each is in.
const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")];

/// The bridge's name.
const BRIDGE: &str = "lab";

/// Returns why there can be no laboratory here, if there can't.
pub fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".into());
    }
    let absent = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    let (program, package) = PROGRAMS.into_iter().find(|(program, _)| absent(program))?;
    Some(format!("there is no `{program}` here (apt-get install {package})"))
}

/// Runs a story in a laboratory of its own, on a thread of its own.
pub fn inside<T, S>(story: impl FnOnce(Lab) -> S + Send) -> Result<T>
where
    T: Send,
    S: Future<Output = Result<T>>,
{
    let live = || {
        unshare(CloneFlags::CLONE_NEWNET).context("leave the host's network")?;
        let lab = Lab::build()?;
        // Of one thread: whoever else would open a socket might do so elsewhere.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(story(lab))
    };
    std::thread::scope(|scope| {
        let told = scope.spawn(live).join();
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lets replicas reach each other although a Docker daemon in the laboratory forbids what it does not know: where the host has
/// bridges filtered as routes are, that is meant, too.
pub fn let_pass_beside_docker() -> Result<()> {
    let rule = ["-I", "DOCKER-USER", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
    run(Command::new("iptables").args(rule), None).map(drop)
}

/// The bridge, and whatever is plugged in. Clones are the same one.
#[derive(Clone)]
pub struct Lab {
    /// Set to nothing by a heal; read to know whether a fault was felt.
    table: Arc<str>,
}

impl Lab {
    fn build() -> Result<Self> {
        for line in [
            "link set lo up".to_owned(),
            format!("link add {BRIDGE} type bridge"),
            format!("addr add {}/24 dev {BRIDGE}", Self::host()),
            format!("link set {BRIDGE} up"),
        ] {
            ip(&line)?;
        }
        Ok(Self { table: "faults".into() })
    }

    /// Returns the address of everybody who is no replica: clients and agents.
    pub fn host() -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 254)
    }

    /// Returns a replica's address.
    pub fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(number).expect("a fleet is small"))
    }

    /// Makes a replica's namespace and plugs it in.
    pub fn plug(&self, number: usize) -> Result<Port> {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = Process::new(format!("namespace {number}"), holder.spawn().context("run unshare")?);
        let port = Port { number, holder };
        port.wait_for_namespace()?;
        let (cable, pid) = (port.cable(), port.holder.pid());
        ip(&format!("link add {cable} type veth peer name eth0 netns {pid}"))?;
        ip(&format!("link set {cable} master {BRIDGE} up"))?;
        for line in [
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", Self::address(number)),
            "link set eth0 up".to_owned(),
        ] {
            let mut command = port.command("ip");
            run(command.args(line.split(' ')), None)?;
        }
        Ok(port)
    }

    /// Lets pass everything but what these rules drop, in nft's words, by where a packet passes: between two replicas,
    /// to whoever is no replica, from whoever is none. What a rule drops is to be counted.
    pub fn filter(&self, forward: &[String], input: &[String], output: &[String]) -> Result<()> {
        let table = &self.table;
        // The first line makes sure that there is one to be flushed: all of this is one transaction.
        let mut text =
            format!("table bridge {table} {{}}\ndelete table bridge {table}\ntable bridge {table} {{\n");
        for (hook, rules) in [("forward", forward), ("input", input), ("output", output)] {
            text +=
                &format!("chain {hook} {{\ntype filter hook {hook} priority 0;\n{}\n}}\n", rules.join("\n"));
        }
        text += "}\n";
        run(Command::new("nft").args(["-f", "-"]), Some(&text)).map(drop)
    }

    /// Returns how many packets the rules have dropped since they were set.
    pub fn dropped(&self) -> Result<u64> {
        let listed = run(Command::new("nft").args(["-j", "list", "table", "bridge", &self.table]), None)?;
        let listed: Value = serde_json::from_slice(&listed.stdout).context("nft prints JSON")?;
        let items = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
        let expressions = items.iter().filter_map(|item| item["rule"]["expr"].as_array()).flatten();
        Ok(expressions.filter_map(|e| e["counter"]["packets"].as_u64()).sum())
    }
}

/// A replica's end of a cable, and the namespace that it is in; gone with this value, once nobody runs there.
pub struct Port {
    number: usize,
    holder: Process,
}

impl Port {
    /// Returns a command that runs a program in the replica's namespace. It keeps the number that it is started with.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).arg("--").arg(program);
        command
    }

    /// Makes the cable so slow in both directions.
    pub fn slow(&self, kilobits: u32) -> Result<()> {
        let line = |device: &str| {
            format!("qdisc add dev {device} root tbf rate {kilobits}kbit burst 2kb latency 400ms")
        };
        run(Command::new("tc").args(line(&self.cable()).split(' ')), None)?;
        run(self.command("tc").args(line("eth0").split(' ')), None).map(drop)
    }

    /// Returns how many packets had to wait, or found no place to, since the cable was made slow.
    pub fn slowed(&self) -> Result<u64> {
        let cable = self.cable();
        let there = run(Command::new("tc").args(["-s", "-j", "qdisc", "show", "dev", &cable]), None)?;
        let back = run(self.command("tc").args(["-s", "-j", "qdisc", "show", "dev", "eth0"]), None)?;
        let count = |shown: &Output| {
            let shown: Value = serde_json::from_slice(&shown.stdout).context("tc prints JSON")?;
            let queues = shown.as_array().cloned().unwrap_or_default();
            let waits = |q: &Value| q["overlimits"].as_u64().unwrap_or(0) + q["drops"].as_u64().unwrap_or(0);
            Ok::<_, anyhow::Error>(queues.iter().map(waits).sum::<u64>())
        };
        Ok(count(&there)? + count(&back)?)
    }

    /// Makes the cable as fast as it was.
    pub fn quicken(&self) -> Result<()> {
        run(Command::new("tc").args(["qdisc", "del", "dev", &self.cable(), "root"]), None)?;
        run(self.command("tc").args(["qdisc", "del", "dev", "eth0", "root"]), None).map(drop)
    }

    fn cable(&self) -> String {
        format!("replica-{}", self.number)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// Waits until the holder has left our namespace: it does so first of all.
    fn wait_for_namespace(&self) -> Result<()> {
        let ours = std::fs::read_link("/proc/thread-self/ns/net")?;
        let begun = std::time::Instant::now();
        while std::fs::read_link(self.namespace()).context("the holder of a namespace has ended")? == ours {
            ensure!(begun.elapsed() < crate::cluster::SETTLE, "a namespace was never made");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
}

fn ip(line: &str) -> Result<()> {
    run(Command::new("ip").args(line.split(' ')), None).map(drop)
}

/// Runs a short program to its end, which must be a good one.
fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    let shown = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {shown}"))?;
    if let Some(input) = input {
        child.stdin.take().context("standard input is piped")?.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(output),
        false => Err(anyhow!("{shown}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
