//! VMs that an ordinary user makes: the cloud's promises, and what is inside. Started by root, it does all of it as an ordinary
//! user; says so where that can't be.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Stage, context, ordinary};
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
    let impatient = CallContext { timeout: Duration::from_secs(5), ..context(1) };
    let error = cpi.detach_disk(&impatient, &first, &disk).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut, "{error}");
    // It had got as far as to that.
    assert!(error.to_string().contains("VM `vm-agent-2` to unmount disk `disk-d`"), "{error}");
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
    assert_eq!(owner(original.parent().unwrap()), nix::unistd::geteuid().as_raw(), "root inside is the user");
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
async fn a_vm_is_started_again_without_disks_that_are_not_its_own() {
    let agent = format!("ls -A /run/disks > /var/vcap/disks 2>&1; echo up >> /var/vcap/up; {REST}");
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 6], &agent).await else { return };
    let (cpi, now) = (&stage.cpi, context(1));
    let (first, second) = (stage.create(2, json!({})).await, stage.create(3, json!({})).await);
    for (id, vm) in [("own", &first), ("others", &second)] {
        let request = CreateDisk { disk_id: id.into(), size_mib: 16, cloud_properties: json!({}), vm: None };
        let disk = cpi.create_disk(&now, request).await.unwrap();
        cpi.attach_disk(&now, vm, &disk).await.unwrap();
    }
    // What attachments and detachments leave that were broken off.
    let path = stage.dir.path().join("cloud/vms/vm-agent-2/vm.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["disks"] = json!(["disk-own", "disk-others", "disk-gone"]);
    std::fs::write(&path, record.to_string()).unwrap();
    stage.wait_for(2, "up", |text| text == "up\n").await;
    cpi.reboot_vm(&now, &first).await.unwrap();
    stage.wait_for(2, "up", |text| text == "up\nup\n").await;
    assert_eq!(std::fs::read_to_string(stage.vcap(2, "disks")).unwrap(), "disk-own\n");
    stage.close(3).await;
}

#[tokio::test]
async fn root_in_a_vm_can_not_change_the_agent_that_others_run() {
    let agent = format!(
        "mount -o remount,bind,rw /var/vcap/bosh/bin/dagent && echo '# harm' >> /var/vcap/bosh/bin/dagent
         tail -n 1 /var/vcap/bosh/bin/dagent > /var/vcap/tail; echo done > /var/vcap/done
         {REST}"
    );
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 7], &agent).await else { return };
    let program = stage.dir.path().join("agent");
    let before = std::fs::read_to_string(&program).unwrap();
    let vm = stage.create(2, json!({})).await;
    stage.wait_for(2, "done", |text| text == "done\n").await;
    assert_eq!(std::fs::read_to_string(stage.vcap(2, "tail")).unwrap(), "# harm\n", "it did not even try");
    assert_eq!(std::fs::read_to_string(&program).unwrap(), before);
    // It comes back with the user's.
    std::fs::remove_file(stage.vcap(2, "done")).unwrap();
    std::fs::write(&program, format!("#!/bin/sh\nwc -c < $0 > /var/vcap/size; {REST}\n")).unwrap();
    stage.cpi.reboot_vm(&context(1), &vm).await.unwrap();
    let size = format!("{}\n", std::fs::metadata(&program).unwrap().len());
    stage.wait_for(2, "size", |text| text == size).await;
    stage.close(2).await;
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

#[tokio::test]
async fn a_vms_users_get_around_in_it_whatever_umask_it_is_made_under() {
    common::check_under_a_strict_umask(Rung::UserNamespaces, [10, 97, 21]).await;
}

#[test]
fn a_cloud_that_vms_could_look_into_is_refused_when_it_is_opened() {
    if !ordinary::does_it() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), Isolation::Exactly(Rung::UserNamespaces));
    if let Err(error) = LocalCpi::open(options.clone()) {
        return println!("skipped: {error}");
    }
    // By another name, as an operator may have it.
    let link = dir.path().join("secrets");
    std::os::unix::fs::symlink("/usr/share", &link).unwrap();
    let refused = LocalCpi::open(LocalOptions { hidden: vec![link], ..options }).err().unwrap();
    assert!(matches!(&refused, OpenError::Shared { shared, .. } if shared == Path::new("/usr")), "{refused}");
    assert!(refused.to_string().contains("`/usr/share` can't be hidden"), "{refused}");
}

/// Returns how to start an errand of `starter`'s.
fn errand(starter: u32, errand: serde_json::Value) -> Command {
    let mut command = Command::new(common::helper());
    command.arg("errand").arg(json!({ "starter": starter, "errand": errand }).to_string());
    command
}

#[test]
fn a_copy_ends_with_whoever_makes_it() {
    if !ordinary::does_it() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), Isolation::Exactly(Rung::UserNamespaces));
    if let Err(error) = LocalCpi::open(options) {
        return println!("skipped: {error}");
    }
    // One that takes for ever.
    let (programs, number) = (dir.path().join("programs"), dir.path().join("number"));
    std::fs::create_dir(&programs).unwrap();
    let script = format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}; {REST}\n", number.display());
    std::fs::write(programs.join("cp"), script).unwrap();
    std::fs::set_permissions(programs.join("cp"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let copy = json!({ "copy": { "from": dir.path().join("from"), "to": dir.path().join("to") } });
    let mut errand = errand(std::process::id(), copy).env("PATH", path).spawn().unwrap();
    wait_until("it copies", || number.exists());
    let copier = std::fs::read_to_string(&number).unwrap();
    errand.kill().unwrap();
    errand.wait().unwrap();
    wait_until("the copier has ended", || !Path::new("/proc").join(copier.trim()).exists());
}

#[test]
fn an_errand_of_somebody_who_has_ended_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let output = errand(1, json!({ "remove": { "dir": dir.path() } })).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("whoever started this has ended") && dir.path().exists(), "{said}");
}

#[test]
fn nothing_is_written_into_a_connection_that_could_not_be_made() {
    let network = json!({ "users": "/nowhere", "other": "/nowhere" });
    let reach = json!({ "reach": { "network": network, "address": "127.0.0.1:1" } });
    let output = errand(std::process::id(), reach).output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(!output.status.success() && said.contains("/nowhere"), "{said}");
    assert_eq!(out, "");
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}
