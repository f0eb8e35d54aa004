//! A cloud for tests, with a stand-in for the agent.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]
#![allow(dead_code, reason = "each test file is a crate of its own and uses what it needs")]

pub mod ordinary;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpi_api::conformance::Subject;
use cpi_api::*;
use cpi_local::{Isolation, LocalCpi, LocalOptions, Rung};
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::*;
use serde_json::{Value, json};

/// Does nothing, as long as it is let, and has a child that does the same.
const STAND_IN: &str = "#!/bin/sh\nsleep 1000000 &\nexec sleep 1000000\n";

/// Returns the program that makes VMs.
pub fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_local-vm").into()
}

/// Returns options for a cloud in `dir` whose agent is the stand-in.
pub fn options(dir: &Path, isolation: Isolation) -> LocalOptions {
    let agent = dir.join("stand-in");
    if !agent.exists() {
        fs::write(&agent, STAND_IN).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    LocalOptions { helper: vec![helper().into()], isolation, ..LocalOptions::new(dir.join("cloud"), agent) }
}

/// Returns the cloud in `dir` for the conformance suite.
pub fn subject(dir: &Path, isolation: Isolation, first_address: [u8; 4]) -> Result<Subject, String> {
    let cpi = LocalCpi::open(options(dir, isolation)).map_err(|error| error.to_string())?;
    let image = dir.join("image");
    fs::write(&image, "directorate-host\n").unwrap();
    Ok(Subject::new(cpi).image(image).first_address(first_address.into()))
}

fn script(dir: &Path, text: &str) -> PathBuf {
    let program = dir.join("agent");
    fs::write(&program, format!("#!/bin/bash\n{text}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Some authority; nobody has its key.
pub const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUEp05BSk+AGa3feoHALf8FPv2WIMwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTIyMTEyODEwWhgPMjEy
NjEwMjkxMTI4MTBaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEHfvtWhomHw13igC4NfrNjQ5vZxYee6Ke9F95WqEV
vz04f0l39qIMuxtgmvTKovAoeh1uDLAQPPL0If2TvWTx0KNTMFEwHQYDVR0OBBYE
FLml0RGMwgmDzlKvrxsJSSRksmBbMB8GA1UdIwQYMBaAFLml0RGMwgmDzlKvrxsJ
SSRksmBbMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgY+mDGZq5
ljnV51S8lzh921sEnM3SFXfVRxiDd75Y3OICIDXW/jZ0pgEPjtJyy2p15i2tbDXB
k/+ULqr0iV64nVD3
-----END CERTIFICATE-----
";

/// A cloud whose agents run a script of the test.
pub struct Stage {
    /// Holds the cloud.
    pub dir: tempfile::TempDir,
    /// The cloud.
    pub cpi: LocalCpi,
    options: LocalOptions,
    stemcell: StemcellCid,
    subnet: [u8; 3],
}

impl Stage {
    /// Opens a cloud whose agent is the shell script `agent`; none, and a line that says why, where that can't be.
    pub async fn open(rung: Rung, subnet: [u8; 3], agent: &str) -> Option<Self> {
        Self::open_set(rung, subnet, agent, |options| options).await
    }

    /// As [`Stage::open`], with other options.
    pub async fn open_set(
        rung: Rung,
        subnet: [u8; 3],
        agent: &str,
        set: impl FnOnce(LocalOptions) -> LocalOptions,
    ) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), agent);
        Self::open_in(dir, rung, subnet, &program, set).await
    }

    /// Opens a cloud whose agent is the program `agent`.
    pub async fn open_with(rung: Rung, subnet: [u8; 3], agent: &Path) -> Option<Self> {
        Self::open_in(tempfile::tempdir().unwrap(), rung, subnet, agent, |options| options).await
    }

    async fn open_in(
        dir: tempfile::TempDir,
        rung: Rung,
        subnet: [u8; 3],
        agent: &Path,
        set: impl FnOnce(LocalOptions) -> LocalOptions,
    ) -> Option<Self> {
        let options =
            LocalOptions { dagent: agent.to_owned(), ..options(dir.path(), Isolation::Exactly(rung)) };
        let options = set(options);
        let cpi = match LocalCpi::open(options.clone()) {
            Ok(cpi) => cpi,
            // Not skipped: another test of the file has an ordinary user do it, and root does what takes root.
            Err(_) if rung == Rung::UserNamespaces && nix::unistd::geteuid().is_root() => return None,
            Err(_) if rung == Rung::Namespaces && ordinary::root_does_it_too() => return None,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let image = dir.path().join("image");
        fs::write(&image, "directorate-host\n").unwrap();
        let stemcell = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        let stemcell = cpi.create_stemcell(&context(1), stemcell).await.unwrap();
        Some(Self { dir, cpi, options, stemcell, subnet })
    }

    /// Returns a request for the `n`-th VM.
    pub fn request(&self, n: u8, cloud_properties: Value) -> CreateVm {
        let [a, b, c] = self.subnet;
        CreateVm {
            agent_id: AgentId::new(format!("agent-{n}")),
            stemcell: self.stemcell.clone(),
            cloud_properties,
            networks: vec![NetworkSettings {
                name: "default".into(),
                kind: NetworkKind::Manual,
                ip: Some(IpAddr::from([a, b, c, n])),
                address: AddressKind::Automatic,
                prefix: "32".into(),
                netmask: Some("255.255.255.0".into()),
                gateway: Some(IpAddr::from([a, b, c, 1])),
                dns: vec![],
                defaults: vec!["gateway".into()],
                cloud_properties: json!({}),
                nic_group: None,
            }],
            disks: vec![],
            env: json!({}),
            bootstrap: AgentBootstrap::default(),
        }
    }

    /// Makes the `n`-th VM.
    pub async fn create(&self, n: u8, cloud_properties: Value) -> VmCid {
        self.cpi.create_vm(&context(1), self.request(n, cloud_properties)).await.unwrap().cid
    }

    /// Returns the host's path of a file below the `n`-th VM's `/var/vcap`.
    pub fn vcap(&self, n: u8, file: &str) -> PathBuf {
        self.dir.path().join(format!("cloud/vms/vm-agent-{n}/vcap")).join(file)
    }

    /// Waits until a file below the `n`-th VM's `/var/vcap` satisfies `is_right`, and returns its content.
    pub async fn wait_for(&self, n: u8, file: &str, is_right: impl Fn(&str) -> bool) -> String {
        let path = self.vcap(n, file);
        for _ in 0..2000 {
            let content = fs::read_to_string(&path).unwrap_or_default();
            if is_right(&content) {
                return content;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{file} never became right: {:?}; the console has {}",
            fs::read_to_string(path),
            self.console(n)
        );
    }

    /// Returns what the `n`-th VM has printed.
    pub fn console(&self, n: u8) -> String {
        let console = self.dir.path().join(format!("cloud/vms/vm-agent-{n}/console.log"));
        fs::read_to_string(console).unwrap_or_default()
    }

    /// Deletes VMs `1..=count`, whatever became of them.
    pub async fn close(self, count: u8) {
        for n in 1..=count {
            self.cpi.delete_vm(&context(1 << 40), &VmCid::new(format!("vm-agent-{n}"))).await.unwrap();
        }
        assert!(!self.dir.path().join("cloud/lab.net").exists(), "the lab outlived its VMs");
        assert_eq!(self.processes(), Vec::<String>::new(), "something outlived its VM");
        // What a replica that was killed had not removed yet goes when the cloud is opened again.
        LocalCpi::open(self.options.clone()).unwrap();
        let trash: Vec<_> = fs::read_dir(self.dir.path().join("cloud/trash")).unwrap().flatten().collect();
        assert!(trash.is_empty(), "{trash:?} could not be removed");
    }

    /// Returns the processes that were started for VMs of this cloud.
    fn processes(&self) -> Vec<String> {
        let place = self.dir.path().join("cloud/vms").display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let lines = all.map(|process| fs::read(process.join("cmdline")).unwrap_or_default());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&place)).collect()
    }
}

impl Drop for Stage {
    /// A test that fails leaves no VM behind either.
    fn drop(&mut self) {
        let (cpi, vms) = (self.cpi.clone(), self.dir.path().join("cloud/vms"));
        // A thread of its own: the one that drops may be a runtime's.
        let sweep = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            for entry in fs::read_dir(vms).into_iter().flatten().flatten() {
                let vm = VmCid::new(entry.file_name().to_string_lossy());
                runtime.block_on(cpi.delete_vm(&context(1 << 41), &vm)).unwrap();
            }
        });
        if let Err(panic) = sweep.join() {
            println!("the VMs of a failed test are still there: {:?}", panic.downcast_ref::<String>());
        }
    }
}

/// Makes a VM whose own user looks around, in a cloud of somebody who keeps what he makes to himself.
pub async fn check_under_a_strict_umask(rung: Rung, subnet: [u8; 3]) {
    // The process's: a test that runs beside this one must do with it, too.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let agent = "cd /var/vcap; install -d -o vcap data; mkdir own
        setpriv --reuid vcap --regid vcap --clear-groups sh -c \
          'cd / && cat /etc/passwd > /dev/null && ls /etc > /dev/null && { [ ! -d /etc/alternatives ] || ls /etc/alternatives > /dev/null; } && cd /var/vcap/own && echo in' > data/seen 2>&1
        echo done > done; exec sleep 1000000";
    let Some(stage) = Stage::open(rung, subnet, agent).await else { return };
    stage.create(2, json!({})).await;
    stage.wait_for(2, "done", |text| text == "done\n").await;
    assert_eq!(fs::read_to_string(stage.vcap(2, "data/seen")).unwrap(), "in\n", "{}", stage.console(2));
    stage.close(2).await;
}

/// Returns the context of a patient call.
pub fn context(epoch: u64) -> CallContext {
    CallContext {
        director_uuid: "test".into(),
        request_id: "cpi-1".into(),
        epoch: Epoch(epoch),
        stemcell_api_version: Some(3),
        timeout: Duration::from_secs(30),
        log: Default::default(),
    }
}
