//! The sample deployment of Redis holds together: release, manifest and cloud configs, as the demo uses them. The package
//! is not compiled and nothing is downloaded: in place of the source there is a stand-in.

use std::fs;
use std::path::{Path, PathBuf};

use model::instance::{Instance, Lifecycle};
use model::task::{DeployOptions, TaskKind};
use model::{DeploymentName, JobName, VariableName};
use release::create::{CreateOptions, create_dev_release};
use release::digest::{Algorithm, Hashed};
use serde_json::Value;

use crate::artifacts::stemcell_for;
use crate::uploads::rendered_file;
use crate::world::{TestWorld, renderer};

const BLOB: &str = "redis/redis-7.0.15.tar.gz";

/// The two that the demo chooses from.
const CLOUD_CONFIGS: [&str; 2] = ["cloud-config-local.yml", "cloud-config-process.yml"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Copies a release as it is checked in, without what creating one leaves behind.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_name().to_str().unwrap() {
            "blobs" | ".blobs" | ".dev_builds" | "dev_releases" | "dev.yml" => {}
            _ if from.is_dir() => copy(&from, &to),
            _ => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// Puts a few bytes where the release wants its source, and has the copy's list of blobs say so.
fn stand_in_for_the_blob(root: &Path) {
    let content = b"not the source of Redis";
    let list = root.join("config/blobs.yml");
    let blobs = model::yaml::parse_mapping(&fs::read_to_string(&list).unwrap()).unwrap();
    assert_eq!(blobs.keys().collect::<Vec<_>>(), [BLOB]);
    let (bytes, hashed) = (content.len(), Hashed::of(content));
    let sha = hashed.hex(Algorithm::Sha256);
    fs::write(&list, format!("{BLOB}: {{size: {bytes}, sha: 'sha256:{sha}'}}\n")).unwrap();
    fs::create_dir_all(root.join("blobs/redis")).unwrap();
    fs::write(root.join("blobs").join(BLOB), content).unwrap();
}

fn created_release() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("redis-release");
    copy(&examples().join("redis-release"), &root);
    stand_in_for_the_blob(&root);
    let tarball = Some(folder.path().join("redis.tgz"));
    let created = create_dev_release(&root, &CreateOptions { tarball, ..CreateOptions::default() }).unwrap();
    fs::read(created.tarball.unwrap()).unwrap()
}

/// Returns a world in which the sample was deployed.
async fn deployed(cloud_config: &str) -> TestWorld {
    let world = TestWorld::seed_with(renderer().await).await;
    let blob = world.put(created_release()).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
    let blob = world.put(stemcell_for("directorate-host", "1.0", "a host")).await;
    world.run(TaskKind::UploadStemcell { blob, fix: false }).await.done();
    let config = fs::read_to_string(examples().join(cloud_config)).unwrap();
    world.put_cloud_config(&Value::Object(model::yaml::parse_mapping(&config).unwrap()));
    let manifest_text = fs::read_to_string(examples().join("redis.yml")).unwrap();
    world.run(TaskKind::Deploy { manifest_text, options: DeployOptions::default() }).await.done();
    world.assert_consistent();
    world
}

/// Returns the instances of a group, by index.
fn group(world: &TestWorld, name: &str) -> Vec<Instance> {
    let mut found = world.read(|state| state.instances(&DeploymentName::new("redis")));
    found.retain(|instance| instance.spec.group.as_str() == name);
    found.sort_by_key(|instance| instance.spec.index);
    found
}

fn zones(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|i| i.spec.az.as_ref().unwrap().as_str()).collect()
}

fn address(instance: &Instance) -> String {
    instance.spec.networks[0].ip.unwrap().to_string()
}

/// Returns the addresses behind a link of an instance's only job.
fn linked(instance: &Instance, link: &str) -> Vec<String> {
    let instances = instance.spec.jobs[0].links[link]["instances"].as_array().unwrap().clone();
    instances.iter().map(|i| i["address"].as_str().unwrap().to_owned()).collect()
}

fn password(world: &TestWorld) -> String {
    let name = VariableName::new("/directorate/redis/redis_password");
    let variable = world.read(|state| state.latest_variable(&name)).unwrap();
    assert_eq!(variable.kind, "password");
    let value = world.ports.vault.open(name.as_str(), &variable.sealed).unwrap();
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_replicas_in_two_zones_follow_one_primary() {
    for cloud_config in CLOUD_CONFIGS {
        let world = deployed(cloud_config).await;
        let (primaries, replicas) = (group(&world, "primary"), group(&world, "replica"));
        assert_eq!((zones(&primaries), zones(&replicas)), (vec!["z1"], vec!["z1", "z2"]), "{cloud_config}");
        let (primary, password) = (address(&primaries[0]), password(&world));
        assert!(password.len() >= 20, "{password}");
        for instance in primaries.iter().chain(&replicas) {
            assert_eq!(linked(instance, "redis-primary"), [primary.as_str()], "{cloud_config}");
            let config = rendered_file(&world, instance, "redis/config/redis.conf");
            let lines: Vec<&str> = config.lines().collect();
            assert!(lines.contains(&&*format!("bind {}", address(instance))), "{config}");
            assert!(lines.contains(&&*format!("requirepass \"{password}\"")), "{config}");
            let follows: Vec<&&str> = lines.iter().filter(|line| line.starts_with("replicaof")).collect();
            match instance.spec.group.as_str() {
                "primary" => assert_eq!(follows, Vec::<&&str>::new()),
                _ => assert_eq!(follows, [&&*format!("replicaof {primary} 6379")]),
            }
        }
    }
}

#[tokio::test]
async fn every_server_has_a_disk_of_its_own() {
    for cloud_config in CLOUD_CONFIGS {
        let world = deployed(cloud_config).await;
        for instance in group(&world, "primary").iter().chain(&group(&world, "replica")) {
            let disks = world.read(|state| state.disks(&instance.spec.id));
            let sizes: Vec<u64> = disks.iter().map(|disk| disk.spec.size_mib).collect();
            assert_eq!((sizes, disks[0].active), (vec![256], true), "{cloud_config}");
        }
        assert_eq!(world.outside.cloud.cloud().disks.len(), 3, "{cloud_config}");
    }
}

#[tokio::test]
async fn the_smoke_tests_are_an_errand_that_asks_all_servers() {
    for cloud_config in CLOUD_CONFIGS {
        let world = deployed(cloud_config).await;
        let errands = group(&world, "smoke-tests");
        let [errand] = &errands[..] else { panic!("{} errands", errands.len()) };
        assert_eq!(errand.spec.lifecycle, Lifecycle::Errand);
        assert!(world.read(|state| state.vms(&errand.spec.id)).is_empty(), "it has no VM until it runs");
        let servers: Vec<String> = group(&world, "replica").iter().map(address).collect();
        assert_eq!(linked(errand, "replicas"), servers);
        assert_eq!(linked(errand, "primary"), [address(&group(&world, "primary")[0])]);

        let run = TaskKind::RunErrand {
            errand: "smoke-tests".into(),
            keep_alive: true,
            instances: Vec::new(),
            when_changed: false,
        };
        let task = world.queue_in("redis", run);
        world.ended(task).await.done();
        let errand = &group(&world, "smoke-tests")[0];
        let script = rendered_file(&world, errand, "smoke-tests/bin/run");
        assert!(script.contains(&format!("export REDISCLI_AUTH={}\n", password(&world))), "{script}");
        let checks = script.lines().filter(|line| line.starts_with("check \""));
        assert_eq!(checks.count(), 3, "one primary and two replicas:\n{script}");
        assert_eq!(errand.spec.jobs[0].name, JobName::new("smoke-tests"));
    }
}
