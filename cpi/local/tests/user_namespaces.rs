//! VMs that an ordinary user makes: the cloud's promises, and what is inside. Started by root, it does all of it as an ordinary
//! user; says so where that can't be.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;
#[path = "common/ordinary.rs"]
mod ordinary;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use common::{Stage, context};
use cpi_api::conformance::{Subject, run_together};
use cpi_api::*;
use cpi_local::{Isolation, LocalCpi, LocalOptions, OpenError, Rung};
use serde_json::json;

const REST: &str = "exec sleep 1000000";

/// How many promises are looked at side by side.
const WIDTH: usize = 2;

#[test]
fn all_of_it_is_done_by_an_ordinary_user() {
    ordinary::run_the_others("all_of_it_is_done_by_an_ordinary_user", &[common::helper()]);
}

fn cloud(dir: &Path) -> Result<Subject, String> {
    common::subject(dir, Isolation::Exactly(Rung::UserNamespaces), [10, 97, 1, 10])
}

#[test]
fn the_clouds_promises_are_kept() {
    if ordinary::does_it() {
        run_together(&cpi_api::conformance!(list cloud), WIDTH);
    }
}

#[tokio::test]
async fn a_vm_has_an_inside_of_its_own() {
    let agent = format!(
        r#"cd /var/vcap
           hostname > name; id -u vcap > user; readlink /proc/1/exe > first; ls -A /root /home /tmp > hidden
           id -G > groups; setpriv --reuid vcap --regid vcap --init-groups id -u > as-vcap
           test -r /proc/self/environ && ls -d /proc/[0-9]* | wc -l > processes
           echo 'int main(void) {{ return 0; }}' > a.c; gcc -o a a.c && ./a && echo yes > compiled
           touch /etc/written-inside /var/lib/written-inside && echo x > /etc/passwd.new && mv /etc/passwd.new /etc/passwd &&
           test -s bosh/settings.json && test -c /dev/null && echo > /dev/null && test -w /dev/shm &&
           ! echo 1 2>/dev/null > /proc/sys/vm/drop_caches && ! touch /usr/bin/written-inside 2>/dev/null &&
           ! echo x 2>/dev/null >> bosh/bin/dagent && echo yes > usable
           cat "$2" > arguments; cat /etc/resolv.conf > resolver; echo done > done; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 2], &agent).await else { return };
    stage.create(2, json!({})).await;
    stage.wait_for(2, "done", |text| text == "done\n").await;
    let read = |file| std::fs::read_to_string(stage.vcap(2, file)).unwrap();
    assert_eq!(read("name"), "agent-2\n");
    assert_eq!(
        (read("user"), read("as-vcap"), read("groups")),
        ("1000\n".into(), "1000\n".into(), "0\n".into())
    );
    assert_eq!(read("usable"), "yes\n", "{}", stage.console(2));
    assert_eq!(read("hidden"), "/home:\nvcap\n\n/root:\n\n/tmp:\n");
    assert!(read("processes").trim().parse::<u32>().unwrap() < 10, "it sees processes of the host");
    assert!(!Path::new("/etc/written-inside").exists(), "it wrote on the host");
    assert_eq!(read("resolver"), "nameserver 127.0.0.53\n", "the agent answers names");
    assert!(read("arguments").contains("\"agent_id\": \"agent-2\""));
    if Path::new("/usr/bin/gcc").exists() {
        assert_eq!(read("compiled"), "yes\n");
    }
    stage.close(2).await;
}

/// Mounts the disk when it comes, as an agent does, adds its name to what is on it, and keeps it until it is told to let go.
const VISITOR: &str = r#"
until [ -d /run/disks/disk-d ]; do sleep 0.02; done
mkdir -p /var/vcap/store; mount --bind /run/disks/disk-d /var/vcap/store
hostname >> /var/vcap/store/visitors; echo mine > /var/vcap/store/vcaps; chown 1000:1000 /var/vcap/store/vcaps
chmod 600 /var/vcap/store/vcaps; cp /var/vcap/store/visitors /var/vcap/seen
until [ -e /var/vcap/enough ]; do sleep 0.02; done
umount /var/vcap/store; rm /var/vcap/enough; exec sleep 1000000
"#;

#[tokio::test]
async fn a_disk_moves_between_vms_that_run() {
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 3], VISITOR).await else { return };
    let (cpi, now) = (&stage.cpi, context(1));
    let request = CreateDisk { disk_id: "d".into(), size_mib: 16, cloud_properties: json!({}), vm: None };
    let disk = cpi.create_disk(&now, request).await.unwrap();
    let (first, second) = (stage.create(2, json!({})).await, stage.create(3, json!({})).await);
    let hint = json!({ "path": "/run/disks/disk-d", "kind": "directory" });
    assert_eq!(cpi.attach_disk(&now, &first, &disk).await.unwrap().0, hint);
    assert_eq!(cpi.attach_disk(&now, &first, &disk).await.unwrap().0, hint);
    stage.wait_for(2, "seen", |text| text == "agent-2\n").await;
    // Its agent has it mounted: the next VM would write beside this one.
    let impatient = CallContext { timeout: Duration::from_millis(500), ..context(1) };
    let error = cpi.detach_disk(&impatient, &first, &disk).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut, "{error}");
    cpi.attach_disk(&now, &second, &disk).await.expect_err("it is still the first one's");
    std::fs::write(stage.vcap(2, "enough"), "").unwrap();
    cpi.detach_disk(&now, &first, &disk).await.unwrap();
    cpi.attach_disk(&now, &second, &disk).await.unwrap();
    stage.wait_for(3, "seen", |text| text == "agent-2\nagent-3\n").await;

    let request = SnapshotDisk { snapshot_id: "s".into(), disk: disk.clone(), metadata: Metadata::new() };
    let snapshot = cpi.snapshot_disk(&now, request).await.unwrap();
    let copy = stage.dir.path().join("cloud/snapshots/snapshot-s/data");
    assert_eq!(std::fs::read_to_string(copy.join("visitors")).unwrap(), "agent-2\nagent-3\n");
    let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
    let original = stage.dir.path().join("cloud/disks/disk-d/data/vcaps");
    assert_eq!(owner(&copy.join("vcaps")), owner(&original), "the copy has other owners");
    assert_ne!(owner(&original), owner(&copy), "vcap is root");
    cpi.delete_snapshot(&now, &snapshot).await.unwrap();

    // A VM that is started again has its disk before its agent asks for it.
    cpi.reboot_vm(&now, &second).await.unwrap();
    stage.wait_for(3, "seen", |text| text == "agent-2\nagent-3\nagent-3\n").await;
    cpi.delete_vm(&now, &second).await.unwrap();
    cpi.delete_disk(&now, &disk).await.unwrap();
    assert!(!original.exists());
    stage.close(3).await;
}

#[tokio::test]
async fn vms_share_a_network_with_those_that_came_before_the_first_one_went() {
    // Whoever is told of another one waits until that one serves.
    let agent = format!(
        r#"perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 80, ReuseAddr => 1) or die $!;
             while ($c = $s->accept) {{ print $c "served"; close $c }}' &
           until [ -s /var/vcap/other ]; do sleep 0.02; done
           until exec 3<>/dev/tcp/$(cat /var/vcap/other)/80; do sleep 0.05; done 2>/dev/null; cat <&3 > /var/vcap/got; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 4], &agent).await else { return };
    let first = stage.create(2, json!({})).await;
    stage.create(3, json!({})).await;
    stage.cpi.delete_vm(&context(1), &first).await.unwrap();
    stage.create(4, json!({})).await;
    std::fs::write(stage.vcap(4, "other"), "10.97.4.3").unwrap();
    stage.wait_for(4, "got", |text| text == "served").await;
    stage.close(4).await;
}

#[tokio::test]
async fn another_replica_finds_the_vms_and_removes_them() {
    let agent = format!("echo up >> /var/vcap/up; {REST}");
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 5], &agent).await else { return };
    let request = stage.request(2, json!({}));
    let vm = stage.create(2, json!({})).await;
    stage.wait_for(2, "up", |text| text == "up\n").await;
    let dagent = stage.dir.path().join("agent");
    let options = common::options(stage.dir.path(), Isolation::Auto);
    let other = LocalCpi::open(LocalOptions { dagent, ..options }).unwrap();
    assert_eq!(other.rung(), Rung::UserNamespaces, "the best that an ordinary user has");
    assert_eq!(other.find_vm(&context(2), &request.agent_id).await.unwrap(), Found::one(vm.clone()));
    other.reboot_vm(&context(2), &vm).await.unwrap();
    stage.wait_for(2, "up", |text| text == "up\nup\n").await;
    other.delete_vm(&context(2), &vm).await.unwrap();
    other.delete_vm(&context(2), &vm).await.unwrap();
    assert!(!stage.vcap(2, "..").exists());
    stage.close(2).await;
}

#[test]
fn a_way_out_is_refused_when_the_cloud_is_opened() {
    if !ordinary::does_it() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), Isolation::Exactly(Rung::UserNamespaces));
    if let Err(error) = LocalCpi::open(options.clone()) {
        return println!("skipped: {error}");
    }
    let outbound = Some("172.31.255.252/30".parse().unwrap());
    match LocalCpi::open(LocalOptions { outbound, ..options }) {
        Err(error @ OpenError::NoWayOut) => assert!(error.to_string().contains("takes root"), "{error}"),
        other => panic!("{:?}", other.map(|cpi| cpi.rung())),
    }
}
