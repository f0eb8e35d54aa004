//! What a VM at a daemon is made of, and what comes of one whose maker or agent has died. Needs root and Docker; says so where
//! it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use cpi_api::*;
use cpi_docker::own_daemon::OwnDaemon;
use cpi_docker::{DockerCpi, DockerOptions};
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::*;
use serde_json::{Value, json};

/// A cloud at a daemon of its own.
struct Stage {
    cpi: DockerCpi,
    docker: Docker,
    stemcell: StemcellCid,
    daemon: OwnDaemon,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn open() -> Option<Self> {
        let (dir, daemon) = common::daemon()?;
        let image = dir.path().join("image.tar");
        common::image(&image);
        let agent = common::small_agent(dir.path());
        let options = DockerOptions::new(daemon.socket(), "life", dir.path().join("cloud"), agent);
        let cpi = DockerCpi::open(options).unwrap();
        let socket = daemon.socket().display().to_string();
        let docker = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let request = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
        let stemcell = cpi.create_stemcell(&context(1), request).await.unwrap();
        Some(Self { cpi, docker, stemcell, daemon, _dir: dir })
    }

    fn request(&self, n: u8, cloud_properties: Value) -> CreateVm {
        let network = |name: &str, ip: String, defaults: Vec<String>| NetworkSettings {
            name: name.into(),
            kind: NetworkKind::Manual,
            ip: Some(ip.parse().unwrap()),
            address: AddressKind::Automatic,
            prefix: "32".into(),
            netmask: Some("255.255.255.0".into()),
            gateway: None,
            dns: vec![],
            defaults,
            cloud_properties: json!({}),
            nic_group: None,
        };
        CreateVm {
            agent_id: AgentId::new(format!("agent-{n}")),
            stemcell: self.stemcell.clone(),
            cloud_properties,
            networks: vec![
                network("back", format!("10.212.0.{n}"), vec![]),
                network("front", format!("10.211.0.{n}"), vec!["dns".into(), "gateway".into()]),
            ],
            disks: vec![],
            env: json!({}),
            bootstrap: AgentBootstrap { endpoints: vec!["10.211.0.1:9".into()], ..Default::default() },
        }
    }

    async fn create(&self, n: u8, cloud_properties: Value) -> VmCid {
        self.cpi.create_vm(&context(1), self.request(n, cloud_properties)).await.unwrap().cid
    }

    /// Returns a path in a VM as the host sees it.
    async fn inside(&self, vm: &VmCid, path: &str) -> PathBuf {
        let container = self.docker.inspect_container(vm.as_str(), None).await.unwrap();
        let pid = container.state.unwrap().pid.unwrap();
        self.daemon.inside(pid, path).unwrap()
    }
}

fn context(epoch: u64) -> CallContext {
    CallContext {
        director_uuid: "test".into(),
        request_id: "cpi-1".into(),
        epoch: Epoch(epoch),
        stemcell_api_version: Some(3),
        timeout: Duration::from_secs(60),
        log: Default::default(),
    }
}

async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_and_its_disk_live_on() {
    let Some(stage) = Stage::open().await else { return };
    let said = cpi_docker::version_at(&stage.daemon.socket()).await.unwrap();
    assert!(said.contains("of its API"), "{said}");
    let vm = stage.create(2, json!({ "cpu": 0.5, "memory_mib": 128, "pids": 50 })).await;
    it_has_what_it_was_given(&stage, &vm).await;

    let disk = CreateDisk { disk_id: "d".into(), size_mib: 16, cloud_properties: json!({}), vm: None };
    let disk = stage.cpi.create_disk(&context(1), disk).await.unwrap();
    let hint = stage.cpi.attach_disk(&context(1), &vm, &disk).await.unwrap();
    let path = hint.0["path"].as_str().unwrap().to_owned();
    fs::write(stage.inside(&vm, &path).await.join("kept"), "yes").unwrap();
    let on_volume = stage.daemon.volume(disk.as_str()).join("data/kept");
    assert_eq!(fs::read_to_string(&on_volume).unwrap(), "yes", "it was written beside the disk");

    // What is open there keeps the disk: it must not be written to any more once the next VM has it.
    let open = fs::File::open(stage.inside(&vm, &path).await.join("kept")).unwrap();
    let error = stage.cpi.detach_disk(&context(1), &vm, &disk).await.unwrap_err();
    assert!(error.message.contains("busy"), "{error}");
    drop(open);

    stage.cpi.reboot_vm(&context(1), &vm).await.unwrap();
    assert!(stage.inside(&vm, &path).await.join("kept").exists(), "a reboot has lost the disk");
    stage.cpi.detach_disk(&context(1), &vm, &disk).await.unwrap();
    assert!(!stage.inside(&vm, &path).await.exists(), "where no disk is, nobody may write to it");

    let other = stage.create(3, json!({})).await;
    stage.cpi.attach_disk(&context(1), &other, &disk).await.unwrap();
    assert_eq!(fs::read_to_string(stage.inside(&other, &path).await.join("kept")).unwrap(), "yes");
    let request = SnapshotDisk { snapshot_id: "s".into(), disk: disk.clone(), metadata: Metadata::new() };
    let snapshot = stage.cpi.snapshot_disk(&context(1), request).await.unwrap();
    assert_eq!(fs::read_to_string(stage.daemon.volume(snapshot.as_str()).join("data/kept")).unwrap(), "yes");

    let error = stage.cpi.delete_stemcell(&context(1), &stage.stemcell).await.unwrap_err();
    assert!(error.message.contains("is below VM"), "{error}");
    for vm in [&vm, &other] {
        stage.cpi.delete_vm(&context(1), vm).await.unwrap();
    }
    let networks =
        stage.docker.list_networks(None::<bollard::query_parameters::ListNetworksOptions>).await.unwrap();
    let names: Vec<_> = networks.into_iter().filter_map(|network| network.name).collect();
    assert!(!names.iter().any(|name| name.starts_with("life-")), "a network has outlived its VMs: {names:?}");
    stage.cpi.delete_stemcell(&context(1), &stage.stemcell).await.unwrap();
    assert!(
        stage
            .docker
            .list_images(None::<bollard::query_parameters::ListImagesOptions>)
            .await
            .unwrap()
            .is_empty(),
        "an image is left"
    );
}

async fn it_has_what_it_was_given(stage: &Stage, vm: &VmCid) {
    let container = stage.docker.inspect_container(vm.as_str(), None).await.unwrap();
    let host = container.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.memory, host.pids_limit),
        (Some(500_000_000), Some(128 << 20), Some(50))
    );
    assert_ne!(host.privileged, Some(true));
    let networks = container.network_settings.unwrap().networks.unwrap();
    let addresses: Vec<_> = networks.into_values().filter_map(|network| network.ip_address).collect();
    assert!(
        ["10.211.0.2", "10.212.0.2"].iter().all(|ip| addresses.contains(&(*ip).to_owned())),
        "{addresses:?}"
    );

    let agent = |inside: PathBuf| {
        let settings = fs::read_to_string(inside).unwrap();
        assert!(settings.contains("\"agent_id\": \"agent-2\"") && settings.contains("\"container\""));
    };
    agent(stage.inside(vm, "/var/vcap/bosh/settings.json").await);
    let resolver = stage.inside(vm, "/etc/resolv.conf").await;
    until("the VM asks its agent for names", || {
        fs::read_to_string(&resolver).ok().filter(|text| text == "nameserver 127.0.0.53\n")
    })
    .await;
    let accounts = fs::read_to_string(stage.inside(vm, "/etc/passwd").await).unwrap();
    assert!(accounts.contains("vcap:x:1000:1000:"), "{accounts}");
    // The agent is at work: it makes its own directories first.
    let jobs = stage.inside(vm, "/var/vcap/jobs").await;
    until("the agent makes its directories", || jobs.exists().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_half_made_goes_and_is_never_found() {
    let Some(stage) = Stage::open().await else { return };
    let vm = stage.create(2, json!({})).await;
    let whole = stage.docker.inspect_container(vm.as_str(), None).await.unwrap().config.unwrap();
    stage.cpi.delete_vm(&context(1), &vm).await.unwrap();

    // A director that died between the first step and the last.
    let half = ContainerCreateBody { image: whole.image, labels: whole.labels, ..Default::default() };
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::new().name(vm.as_str()).build();
    stage.docker.create_container(Some(options.clone()), half.clone()).await.unwrap();
    assert_eq!(stage.cpi.find_vm(&context(2), &"agent-2".into()).await, Ok(Found::none()));
    stage.docker.inspect_container(vm.as_str(), None).await.unwrap_err();
    stage.docker.create_container(Some(options.clone()), half).await.unwrap();
    assert_eq!(stage.create_again(&vm).await, vm);
    stage.cpi.delete_vm(&context(2), &vm).await.unwrap();

    // A container of somebody else, by chance of that name, is none of ours.
    let others = ContainerCreateBody {
        image: Some(stage.stemcell.to_string()),
        cmd: Some(vec!["x".into()]),
        ..Default::default()
    };
    stage.docker.create_container(Some(options), others).await.unwrap();
    assert!(!stage.cpi.has_vm(&context(2), &vm).await.unwrap());
    stage.cpi.delete_vm(&context(2), &vm).await.unwrap();
    stage.docker.inspect_container(vm.as_str(), None).await.expect("it was not ours to remove");
}

impl Stage {
    async fn create_again(&self, expected: &VmCid) -> VmCid {
        let vm = self.cpi.create_vm(&context(2), self.request(2, json!({}))).await.unwrap().cid;
        assert!(self.cpi.has_vm(&context(2), expected).await.unwrap());
        vm
    }
}
