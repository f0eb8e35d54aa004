//! What a VM with namespaces of its own finds inside, and what it can't reach. Says where it skips: some of it needs root, and the
//! rest an ordinary user with a range of ids.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use common::{Stage, context, ordinary};
use cpi_api::*;
use cpi_local::Rung;
use serde_json::json;

const REST: &str = "exec sleep 1000000";

/// What is alike with root and without.
const RUNGS: [(Rung, [u8; 2]); 2] = [(Rung::Namespaces, [10, 93]), (Rung::UserNamespaces, [10, 99])];

#[test]
fn an_ordinary_users_vms_reach_as_much() {
    ordinary::run_the_others("an_ordinary_users_vms_reach_as_much", &[common::helper()]);
}

#[tokio::test]
async fn a_vm_has_an_inside_of_its_own() {
    let agent = format!(
        r#"cd /var/vcap
           hostname > name; id -u vcap > user; readlink /proc/1/exe > first; ls -A /root /home /tmp > hidden
           test -r /proc/self/environ && ls -d /proc/[0-9]* | wc -l > processes
           touch /etc/written-inside && test -s bosh/settings.json && test -c /dev/null && test -w /dev/shm &&
           ! echo 1 2>/dev/null > /proc/sys/vm/drop_caches && echo yes > usable
           cat "$2" > arguments; cat /etc/resolv.conf > resolver; echo done > done; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 2], &agent).await else { return };
    stage.create(2, json!({})).await;
    stage.wait_for(2, "done", |text| text == "done\n").await;
    let read = |file| std::fs::read_to_string(stage.vcap(2, file)).unwrap();
    assert_eq!(read("name"), "agent-2\n");
    assert_eq!(read("user").trim().parse::<u32>().unwrap(), 1000);
    assert_eq!(read("usable"), "yes\n");
    assert_eq!(read("hidden"), "/home:\nvcap\n\n/root:\n\n/tmp:\n");
    assert!(read("processes").trim().parse::<u32>().unwrap() < 10, "it sees processes of the host");
    assert!(!std::path::Path::new("/etc/written-inside").exists(), "it wrote on the host");
    assert_eq!(read("resolver"), "nameserver 127.0.0.53\n", "the agent answers names");
    assert!(read("arguments").contains("\"agent_id\": \"agent-2\""));
    stage.close(2).await;
}

#[tokio::test]
async fn directors_on_the_hosts_loopback_answer_at_their_address_inside() {
    let agent = format!(
        r#"while read -r port; do exec 3<>/dev/tcp/127.0.0.1/$port; echo "hello from $(hostname)" >&3; cat <&3 > /var/vcap/answer-$port; done \
           < <(sed -n 's/.*127.0.0.1:\([0-9]*\)".*/\1/p' /var/vcap/bosh/settings.json); {REST}"#
    );
    for (rung, [a, b]) in RUNGS {
        let Some(stage) = Stage::open(rung, [a, b, 3], &agent).await else { continue };
        let director = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = director.local_addr().unwrap().port();
        let bootstrap = AgentBootstrap { endpoints: vec![format!("127.0.0.1:{port}")], ..Default::default() };
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = director.accept().unwrap();
            let mut greeting = [0; 19];
            stream.read_exact(&mut greeting).unwrap();
            stream.write_all(b"welcome").unwrap();
            String::from_utf8(greeting.to_vec()).unwrap()
        });
        let request = CreateVm { bootstrap, ..stage.request(2, json!({})) };
        stage.cpi.create_vm(&context(1), request).await.unwrap();
        assert_eq!(answering.join().unwrap(), "hello from agent-2\n");
        stage.wait_for(2, &format!("answer-{port}"), |text| text == "welcome").await;
        stage.close(2).await;
    }
}

#[tokio::test]
async fn vms_reach_each_other_and_the_host_reaches_published_ports() {
    for (rung, [a, b]) in RUNGS {
        let agent = format!(
            r#"if [ "$(hostname)" = agent-2 ]; then
                 exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 80, ReuseAddr => 1) or die $!;
                   while ($c = $s->accept) {{ print $c "served"; close $c }}'
               fi
               until exec 3<>/dev/tcp/{a}.{b}.4.2/80; do sleep 0.05; done 2>/dev/null; cat <&3 > /var/vcap/got; {REST}"#
        );
        let Some(stage) = Stage::open(rung, [a, b, 4], &agent).await else { continue };
        // Freed again at once: publishing takes a number, there is no way to ask for any.
        let host_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        stage.create(2, json!({ "publish": [{ "host_port": host_port, "port": 80 }] })).await;
        stage.create(3, json!({})).await;
        stage.wait_for(3, "got", |text| text == "served").await;
        let mut text = String::new();
        TcpStream::connect(("127.0.0.1", host_port)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
        let links: Vec<_> =
            std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!links.iter().any(|name| name == "br0"), "the VMs' bridge is on the host: {links:?}");
        stage.close(3).await;
    }
}

#[tokio::test]
async fn a_disk_keeps_its_content_when_it_moves_and_grows() {
    // Mounts the disk when it comes, adds its name to what is on it, and lets go.
    let agent = format!(
        r#"until [ -b /dev/disk-d ]; do sleep 0.02; done
           mkdir -p /var/vcap/store && mount /dev/disk-d /var/vcap/store && hostname >> /var/vcap/store/visitors &&
           cp /var/vcap/store/visitors /var/vcap/seen && df --output=size -m /var/vcap/store | tail -1 > /var/vcap/size
           umount /var/vcap/store; echo done > /var/vcap/done; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 5], &agent).await else { return };
    let (cpi, now) = (&stage.cpi, context(1));
    let request = CreateDisk { disk_id: "d".into(), size_mib: 16, cloud_properties: json!({}), vm: None };
    let disk = cpi.create_disk(&now, request).await.unwrap();
    let first = stage.create(2, json!({})).await;
    assert_eq!(cpi.attach_disk(&now, &first, &disk).await.unwrap().0, json!("/dev/disk-d"));
    stage.wait_for(2, "done", |text| text == "done\n").await;
    cpi.detach_disk(&now, &first, &disk).await.unwrap();
    cpi.resize_disk(&now, &disk, 64).await.unwrap();
    let second = stage.create(3, json!({})).await;
    cpi.attach_disk(&now, &second, &disk).await.unwrap();
    stage.wait_for(3, "done", |text| text == "done\n").await;
    assert_eq!(stage.wait_for(3, "seen", |_| true).await, "agent-2\nagent-3\n");
    let size_mib: u32 = stage.wait_for(3, "size", |_| true).await.trim().parse().unwrap();
    assert!(size_mib > 40, "the file system has {size_mib} MiB");
    // A reboot brings the device back.
    std::fs::remove_file(stage.vcap(3, "done")).unwrap();
    cpi.reboot_vm(&now, &second).await.unwrap();
    stage.wait_for(3, "done", |text| text == "done\n").await;
    assert_eq!(stage.wait_for(3, "seen", |_| true).await, "agent-2\nagent-3\nagent-3\n");
    cpi.delete_vm(&now, &second).await.unwrap();
    cpi.delete_disk(&now, &disk).await.unwrap();
    stage.close(3).await;
}

#[tokio::test]
async fn a_snapshot_of_a_mounted_disk_has_what_was_written_until_then() {
    let agent = format!(
        r#"until [ -b /dev/disk-d ]; do sleep 0.02; done
           mkdir -p "/var/vcap/my store" && mount /dev/disk-d "/var/vcap/my store" &&
           echo precious > "/var/vcap/my store/kept"; echo done > /var/vcap/done; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 8], &agent).await else { return };
    let (cpi, now) = (&stage.cpi, context(1));
    let request = CreateDisk { disk_id: "d".into(), size_mib: 16, cloud_properties: json!({}), vm: None };
    let disk = cpi.create_disk(&now, request).await.unwrap();
    let vm = stage.create(2, json!({})).await;
    cpi.attach_disk(&now, &vm, &disk).await.unwrap();
    stage.wait_for(2, "done", |text| text == "done\n").await;
    let request = SnapshotDisk { snapshot_id: "s".into(), disk: disk.clone(), metadata: Metadata::new() };
    let snapshot = cpi.snapshot_disk(&now, request).await.unwrap();
    let copy = stage.dir.path().join("cloud/snapshots/snapshot-s/image");
    let read = std::process::Command::new("debugfs").args(["-R", "cat /kept"]).arg(&copy).output().unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), "precious\n");
    cpi.delete_snapshot(&now, &snapshot).await.unwrap();
    assert!(!copy.exists());
    stage.close(2).await;
}

#[tokio::test]
async fn limits_bound_what_a_vm_takes() {
    let agent = format!(
        r#"for n in $(seq 60); do sleep 1000000 & done 2>/dev/null; ls -d /proc/[0-9]* | wc -l > /var/vcap/processes; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 6], &agent).await else { return };
    let has_pids = std::fs::read_to_string("/proc/self/cgroup").unwrap().contains(":pids:");
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !has_pids && !v2.contains("pids") {
        println!("skipped: no control group here bounds processes");
        return;
    }
    stage.create(2, json!({ "pids": 20, "memory_mib": 128, "cpus": 0.5 })).await;
    // bash gives up, and the agent is started again: what counts is that there are never more.
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let groups = |n: u8| {
            std::fs::read_to_string(stage.dir.path().join(format!("cloud/vms/vm-agent-{n}/vm.json"))).unwrap()
        };
        let record: serde_json::Value = serde_json::from_str(&groups(2)).unwrap();
        let init = record["processes"]["init"]["pid"].as_i64().unwrap();
        let group = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
        assert!(group.contains("/directorate/"), "{group}");
        loop {
            let children = std::process::Command::new("pgrep")
                .args(["--ns", &init.to_string(), "--nslist", "pid"])
                .output()
                .unwrap();
            let count = String::from_utf8(children.stdout).unwrap().lines().count();
            assert!(count <= 20, "{count} processes run");
            if count >= 15 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the limit is reached");
    stage.close(2).await;
}

#[tokio::test]
async fn twenty_vms_in_series() {
    for (rung, [a, b]) in RUNGS {
        let agent = "echo up > /var/vcap/up; exec sleep 1000000";
        let Some(stage) = Stage::open(rung, [a, b, 7], agent).await else { continue };
        let begun = std::time::Instant::now();
        for n in 2..22 {
            stage.create(n, json!({ "memory_mib": 128, "cpus": 1, "pids": 100 })).await;
        }
        let created = begun.elapsed();
        for n in 2..22 {
            stage.wait_for(n, "up", |text| text == "up\n").await;
        }
        let begun = std::time::Instant::now();
        stage.close(21).await;
        println!("{rung}: 20 creates in series: {created:?}; 20 deletes: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_vms_users_get_around_in_it_whatever_umask_it_is_made_under() {
    common::check_under_a_strict_umask(Rung::Namespaces, [10, 93, 21]).await;
}
