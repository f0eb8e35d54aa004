//! The main job, end to end, with real agents and real processes, by any user.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello, write_file};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn hello_is_deployed_again_changed_and_deleted() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let client = cluster.client()?;
    let hello = Hello { disk: Some("small"), ..Hello::default() };

    let deployed = cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;
    for stage in ["Compiling packages", "Creating missing vms", "Updating instance hello"] {
        assert!(deployed.contains(stage), "{deployed}");
    }
    let first = client.instances("hello").await?;
    assert_eq!(first.len(), 2);
    for instance in &first {
        assert_eq!(instance.process_state, "running", "{instance:?}");
        let said = ask(&instance.ips[0]).await?;
        assert!(said.contains(&format!("Hello from hello/{} in {}", instance.index, instance.az)), "{said}");
    }
    let zones: Vec<_> = first.iter().map(|i| i.az.as_str()).collect();
    assert!(zones.contains(&"z1") && zones.contains(&"z2"), "{zones:?}");

    // The same again touches nothing.
    let again = cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;
    assert!(!again.contains("Updating instance") && !again.contains("Compiling"), "{again}");
    assert_eq!(vms(&client.instances("hello").await?), vms(&first));

    // A changed greeting is brought to the same VMs.
    let changed = Hello { greeting: "Moin".into(), ..hello };
    cluster.operate(&["-d", "hello", "deploy", &changed.file(&cluster)?]).await?;
    let second = client.instances("hello").await?;
    assert_eq!(vms(&second), vms(&first));
    for instance in &second {
        assert!(ask(&instance.ips[0]).await?.contains("Moin from hello/"));
    }

    cluster.operate(&["-d", "hello", "delete-deployment"]).await?;
    assert_eq!(client.deployments().await?, Vec::<String>::new());
    assert_eq!(client.lost().await?, Vec::new());
    let left = std::fs::read_dir(cluster.cloud_root().join("vms"))?.count();
    assert_eq!(left, 0, "VMs are left in {}", cluster.cloud_root().display());
    assert!(TcpStream::connect((first[0].ips[0].as_str(), 8080)).await.is_err(), "the daemon is still there");
    cluster.finish().await
}

#[tokio::test]
async fn disks_with_names_are_found_by_their_names_in_whatever_vm_the_instance_has() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let cluster = Cluster::start(1, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let client = cluster.client()?;
    let hello = Hello { instances: 1, disk: Some("small"), ..Hello::default() };
    let with = |disks: &str| {
        let named = format!("persistent_disks: [{disks}]");
        write_file(&cluster, "named.yml", &hello.manifest().replace("persistent_disk_type: small", &named))
    };
    let disks = "{name: data, type: small}, {name: wal, type: small}";
    cluster.operate(&["-d", "hello", "deploy", &with(disks)?]).await?;
    let disk = async |name: &str| -> Result<(String, PathBuf)> {
        let found = client.instances("hello").await?;
        let vm = found.first().context("an instance")?.vm_cid.clone();
        Ok((vm.clone(), cluster.cloud_root().join("vms").join(vm).join("vcap/instance/disks").join(name)))
    };
    let (first_vm, data) = disk("data").await?;
    std::fs::write(data.join("rows"), "precious")?;
    assert!(disk("wal").await?.1.join(".").is_dir());

    cluster.operate(&["-d", "hello", "deploy", &with(disks)?, "--recreate"]).await?;
    let (second_vm, data) = disk("data").await?;
    assert_ne!(first_vm, second_vm);
    assert_eq!(std::fs::read_to_string(data.join("rows"))?, "precious");

    cluster.operate(&["-d", "hello", "deploy", &with("{name: data, type: small}")?]).await?;
    assert!(!disk("wal").await?.1.is_symlink());
    assert_eq!(std::fs::read_to_string(data.join("rows"))?, "precious");
    assert_eq!(client.lost().await?, Vec::new());
    cluster.finish().await
}

fn vms(instances: &[proto::v1::Instance]) -> Vec<(u32, String, Vec<String>)> {
    let mut vms: Vec<_> =
        instances.iter().map(|i| (i.index, i.vm_cid.clone(), i.disk_cids.clone())).collect();
    vms.sort();
    vms
}

/// Asks the daemon what it has to say.
async fn ask(ip: &str) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect((ip, 8080)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(5), talk).await.context("the daemon does not answer")?
}
