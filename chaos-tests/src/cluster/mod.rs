//! A fleet of real `directord` processes, on loopback or in a laboratory's network, and everything that can happen to one.

mod cloud;
mod ground;
mod growth;
mod loopback;
mod replica;
mod vms;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cpi_docker::own_daemon::OwnDaemon;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::cloud::Cloud;
pub use self::ground::{CloudKind, Ground};
use self::loopback::LoopbackNet;
use self::replica::Replica;
pub use self::replica::free_ports;
use crate::bus::Bus;
use crate::client::{Client, Credentials};
use crate::lab::{Lab, Port};
use crate::machine::{Machine, Preload, SmallDisk};
use crate::processes::{Process, end_all_of};
use crate::sim::SimCloud;
use crate::sim_cpi::InstalledCpi;
use crate::{programs, wait};

/// How long a replica may take to be up, or a fleet to have a leader again, on a machine that is busy.
pub const SETTLE: Duration = Duration::from_secs(30);

/// Set, fleets leave their folders behind: for whoever looks for the reason of a failure.
const KEEP: &str = "CHAOS_KEEP";

/// Last lines of each replica's log that a failed story prints.
const LOG_LINES: usize = 25;

/// A fleet; ends with this value, with all its VMs.
pub struct Cluster {
    // Dropped in this order: replicas first, since they would bring VMs back.
    replicas: Vec<Replica>,
    cloud: Cloud,
    bus: Option<Bus>,
    credentials: Option<Credentials>,
    folder: TempDir,
    /// What every configuration has beside the usual.
    extra: String,
    /// The profile by which replicas elect.
    timing: &'static str,
    /// What makes clocks and disks go wrong, if they can.
    preload: Option<Preload>,
    small_disk: Option<(usize, u32)>,
    lab: Option<Lab>,
    /// Makes the addresses of this fleet's VMs differ from those of others on this machine.
    loopback_net: LoopbackNet,
    /// The story has come to its end; otherwise somebody will want to read the logs.
    ended_well: bool,
}

impl Cluster {
    /// Starts a fleet and waits until all its replicas vote.
    pub async fn start(size: usize, cloud: CloudKind) -> Result<Self> {
        Self::start_with(size, cloud, "").await
    }

    /// As [`Cluster::start`], with more in every replica's configuration.
    pub async fn start_with(size: usize, cloud: CloudKind, extra: &str) -> Result<Self> {
        Self::start_on(Ground { extra: extra.to_owned(), ..Ground::new(size, cloud) }).await
    }

    /// As [`Cluster::start`], in a given folder: for whoever cares on which disk it is.
    pub async fn start_in(folder: TempDir, size: usize, cloud: CloudKind) -> Result<Self> {
        Self::start_on(Ground { folder: Some(folder), ..Ground::new(size, cloud) }).await
    }

    /// As [`Cluster::start`], on ground that was chosen.
    pub async fn start_on(ground: Ground) -> Result<Self> {
        let (size, fleet) = (ground.size, ground.fleet);
        let mut cluster = Self::empty_on(ground)?;
        cluster.initialise(fleet).await?;
        for _ in 1..size {
            let number = cluster.add().await?;
            cluster.wait_for_voter(number).await?;
            cluster.start_bus(number).await?;
        }
        Ok(cluster)
    }

    /// Returns a fleet without replicas: for whoever wants to see how the first one comes to be. See [`Cluster::prepare`].
    pub fn empty() -> Result<Self> {
        Self::empty_on(Ground::new(0, CloudKind::Process))
    }

    fn empty_on(mut ground: Ground) -> Result<Self> {
        let folder = ground.take_folder()?;
        let cloud = Cloud::start(&ground.cloud, folder.path())?;
        let bus = ground.has_bus.then(|| Bus::new(folder.path().join("bus"), ground.size)).transpose()?;
        Ok(Self {
            replicas: Vec::new(),
            cloud,
            bus,
            credentials: None,
            extra: ground.extra,
            timing: if ground.is_patient { "slow-disk" } else { "default" },
            preload: ground.can_go_wrong.then(|| Preload::build(folder.path())).transpose()?,
            small_disk: ground.small_disk,
            lab: ground.lab,
            folder,
            loopback_net: LoopbackNet::claim().context("find addresses for VMs")?,
            ended_well: false,
        })
    }

    async fn initialise(&mut self, fleet: Option<&str>) -> Result<()> {
        let number = self.prepare()?;
        let profile = self.profile();
        let mut arguments = vec!["init", "--profile", profile.to_str().context("UTF-8")?];
        arguments.extend(fleet.iter().flat_map(|name| ["--fleet", name]));
        let init = self.directord(number, &arguments, &[])?;
        ensure!(init.status.success(), "init failed: {}", String::from_utf8_lossy(&init.stderr));
        self.credentials = Some(Credentials::from_profile(&profile)?);
        self.run(number)?;
        self.wait_for_voter(number).await?;
        self.start_bus(number).await
    }

    /// Runs a command of a replica's program to its end.
    pub fn directord(
        &self,
        number: usize,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Output> {
        let replica = self.replica(number);
        let mut command = replica.command(programs::directord());
        command.args(arguments).arg("--config").arg(replica.config());
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        command.output().context("run directord")
    }

    /// Starts a replica's process.
    pub fn run(&mut self, number: usize) -> Result<()> {
        self.run_with(number, &[])
    }

    /// Starts a replica's process in some environment.
    pub fn run_with(&mut self, number: usize, environment: &[(&str, &str)]) -> Result<()> {
        let replica = &mut self.replicas[number - 1];
        ensure!(replica.process.is_none(), "director-{number} runs already");
        let log = OpenOptions::new().create(true).append(true).open(replica.log())?;
        let mut command = replica.command(programs::directord());
        command.arg("run").arg("--config").arg(replica.config());
        if let Some(preload) = &self.preload {
            command.envs(preload.environment(&replica.folder));
        }
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start directord")?;
        replica.process = Some(Process::new(format!("director-{number}"), child));
        Ok(())
    }

    /// Kills a replica (SIGKILL).
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.take(number)?.kill()
    }

    /// Asks a replica to stop (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self, number: usize) -> Result<()> {
        self.take(number)?.terminate(SETTLE).await
    }

    /// Stops a replica's clock: it does nothing, and does not know it (SIGSTOP).
    pub fn pause(&self, number: usize) -> Result<()> {
        self.process(number)?.signal(Signal::SIGSTOP)
    }

    /// Lets a paused replica go on (SIGCONT).
    pub fn resume(&self, number: usize) -> Result<()> {
        self.process(number)?.signal(Signal::SIGCONT)
    }

    /// Waits until the fleet says that a replica votes, and the replica itself answers.
    pub async fn wait_for_voter(&self, number: usize) -> Result<()> {
        let (fleet, own) = (self.client()?, self.client_of(number)?);
        let name = format!("director-{number}");
        wait::until_true(&format!("{name} votes"), SETTLE, async || {
            let votes = |m: &proto::v1::MemberStatus| {
                m.name == name && ["leader", "follower"].contains(&m.role.as_str())
            };
            Ok(fleet.status().await?.members.iter().any(votes) && own.status().await?.leader != 0)
        })
        .await
    }

    /// Returns the number of the replica that leads, once there is one that runs.
    pub async fn leader(&self) -> Result<usize> {
        let client = self.client()?;
        wait::until("some replica leads", SETTLE, async || {
            let status = client.status().await?;
            let leads = status.members.into_iter().find(|m| m.role == "leader");
            let number: Option<usize> = leads.and_then(|m| m.name.strip_prefix("director-")?.parse().ok());
            Ok(number.filter(|n| self.replica(*n).process.is_some()))
        })
        .await
    }

    /// Returns the number of some replica that runs and does not lead.
    pub async fn follower(&self) -> Result<usize> {
        let leader = self.leader().await?;
        let mut others =
            (1..=self.replicas.len()).filter(|n| *n != leader && self.replica(*n).process.is_some());
        others.next_back().context("a fleet of one has no follower")
    }

    /// Returns a client of all replicas.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.addresses(), self.credentials())
    }

    /// Returns the addresses of all replicas' APIs.
    pub fn addresses(&self) -> Vec<String> {
        self.replicas.iter().map(Replica::api).collect()
    }

    /// Returns the numbers of the replicas that are members.
    pub async fn members(&self) -> Result<Vec<usize>> {
        let members = self.client()?.status().await?.members;
        let number = |m: &proto::v1::MemberStatus| m.name.strip_prefix("director-")?.parse().ok();
        Ok(members.iter().filter_map(number).collect())
    }

    /// Returns a client of one replica.
    pub fn client_of(&self, number: usize) -> Result<Client> {
        Client::new(&[self.api(number)], self.credentials())
    }

    /// Returns the address of a replica's API.
    pub fn api(&self, number: usize) -> String {
        self.replica(number).api()
    }

    /// Returns the addresses of a replica's ports: for replicas, for agents, for probes.
    pub fn other_ports(&self, number: usize) -> [String; 3] {
        let (host, [_, peer, agent, probes]) = (self.replica(number).host, self.replica(number).ports);
        [peer, agent, probes].map(|port| format!("{host}:{port}"))
    }

    /// Returns whether a replica that was started has ended by itself, and forgets its process then.
    pub fn has_ended(&mut self, number: usize) -> bool {
        let process = &mut self.replicas[number - 1].process;
        let ended = process.as_mut().is_some_and(|process| !process.is_alive());
        if ended {
            *process = None;
        }
        ended
    }

    /// Takes the login of somebody who has initialised the fleet by hand.
    pub fn log_in(&mut self, credentials: Credentials) {
        self.credentials = Some(credentials);
    }

    /// Returns the admin's login.
    pub fn credentials(&self) -> &Credentials {
        self.credentials.as_ref().expect("set by `initialise`, or by whoever has initialised it")
    }

    /// Returns `dctl` for this fleet, ready for arguments.
    pub fn dctl(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(programs::dctl());
        let endpoints = self.addresses();
        // What the developer has set must not decide a test; PATH and HOME are for git and tar.
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
        command.env("DCTL_PROFILE", self.profile()).env("DCTL_ENDPOINTS", endpoints.join(","));
        command.arg("--yes").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs `dctl` to its end, which must be a good one; returns what it printed.
    pub async fn operate(&self, arguments: &[&str]) -> Result<String> {
        let output = self.dctl().args(arguments).output().await?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "dctl {} failed ({}):\n{stdout}{stderr}",
            arguments.join(" "),
            output.status
        );
        Ok(stdout.into_owned())
    }

    /// Errs if a replica that should run has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        for (at, replica) in self.replicas.iter_mut().enumerate() {
            if replica.process.as_mut().is_some_and(|process| !process.is_alive()) {
                bail!("director-{} has ended by itself: see {}", at + 1, replica.log().display());
            }
        }
        Ok(())
    }

    /// Ends a story: no replica has ended by itself, and no task or lock is left.
    pub async fn finish(mut self) -> Result<()> {
        self.check_alive()?;
        let client = self.client()?;
        wait::until_true("no lock is held", SETTLE, async || Ok(client.locks().await?.is_empty())).await?;
        self.ended_well = true;
        Ok(())
    }

    /// Returns the fleet's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a replica's folder; its data is in `data` there.
    pub fn folder_of(&self, number: usize) -> &Path {
        &self.replica(number).folder
    }

    /// Returns what a replica has logged.
    pub fn log_of(&self, number: usize) -> Result<String> {
        Ok(fs::read_to_string(self.replica(number).log())?)
    }

    /// Returns the machine that a replica runs on.
    pub fn machine(&self, number: usize) -> Machine {
        Machine::of(&self.replica(number).folder)
    }

    /// Returns the disk that a replica has for itself, if it has one.
    pub fn small_disk(&self, number: usize) -> Option<&SmallDisk> {
        self.replica(number).disk.as_ref()
    }

    /// Gives the next replica a small disk if `gone` had the one that there is.
    pub fn hand_on_small_disk(&mut self, gone: usize) {
        let next = self.replicas.len() + 1;
        self.small_disk =
            self.small_disk.map(|(whose, size)| (if whose == gone { next } else { whose }, size));
    }

    /// Returns the network, if it is a laboratory's.
    pub fn lab(&self) -> Option<&Lab> {
        self.lab.as_ref()
    }

    /// Returns a replica's cable in the laboratory.
    pub fn port(&self, number: usize) -> Result<&Port> {
        self.replica(number).port.as_ref().context("this fleet is on loopback")
    }

    /// Returns the numbers of the replicas whose processes were started and not ended by us.
    pub fn started(&self) -> Vec<usize> {
        (1..=self.size()).filter(|number| self.replica(*number).process.is_some()).collect()
    }

    /// Returns a replica's process id.
    pub fn pid(&self, number: usize) -> Result<u32> {
        Ok(self.process(number)?.pid())
    }

    /// Leaves the folder behind, and says where: for whoever looks for the reason of a failure.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Returns how many replicas were laid out.
    pub fn size(&self) -> usize {
        self.replicas.len()
    }

    /// Returns whether the cloud is the simulated one.
    pub fn is_simulated(&self) -> bool {
        self.cloud.sim().is_some()
    }

    /// Returns the simulated cloud.
    pub fn sim(&self) -> &SimCloud {
        self.cloud.sim().expect("this fleet's cloud is the simulated one")
    }

    /// Returns the NATS servers.
    pub fn bus(&mut self) -> &mut Bus {
        self.bus.as_mut().expect("this fleet has a bus")
    }

    /// Returns the executable of the simulated cloud.
    pub fn installed_cpi(&self) -> &InstalledCpi {
        match &self.cloud {
            Cloud::Program(_, cpi) => cpi,
            _ => panic!("this fleet's cloud is no executable"),
        }
    }

    /// Returns the Docker daemon, if VMs come from there.
    pub fn docker(&self) -> Option<&OwnDaemon> {
        match &self.cloud {
            Cloud::Docker { daemon, .. } => Some(daemon),
            _ => None,
        }
    }

    /// Returns the local cloud's folder.
    pub fn cloud_root(&self) -> &Path {
        match &self.cloud {
            Cloud::Local { root, .. } => root,
            _ => panic!("this fleet's cloud is not the local one"),
        }
    }

    /// Returns the second number of this fleet's VMs' addresses, 127.N.0.0/16.
    pub fn loopback_net(&self) -> u8 {
        self.loopback_net.number
    }

    fn profile(&self) -> PathBuf {
        self.folder.path().join("profile.json")
    }

    fn replica(&self, number: usize) -> &Replica {
        &self.replicas[number - 1]
    }

    fn running(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|r| r.process.is_some())
    }

    fn process(&self, number: usize) -> Result<&Process> {
        self.replica(number).process.as_ref().with_context(|| format!("director-{number} does not run"))
    }

    fn take(&mut self, number: usize) -> Result<Process> {
        self.replicas[number - 1].process.take().with_context(|| format!("director-{number} does not run"))
    }

    fn tell_logs(&self) {
        for replica in &self.replicas {
            let log = fs::read_to_string(replica.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {}", replica.log().display());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ended_well {
            self.tell_logs();
        }
        self.replicas.iter_mut().for_each(|replica| drop(replica.process.take()));
        end_all_of(self.folder.path());
        if std::env::var_os(KEEP).is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("kept: {}", self.folder.path().display());
        }
    }
}
