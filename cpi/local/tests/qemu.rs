//! Machines by QEMU keep the cloud's promises, and are what they are asked to be. Needs root, QEMU, mmdebstrap and its mirror;
//! says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Stage, context};
use cpi_api::conformance::Subject;
use cpi_api::*;
use cpi_local::{Isolation, LocalCpi, LocalOptions, Rung};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// The first program of the machines here: names their disks, says what it sees, and waits for the end.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys
settings=/sys/firmware/qemu_fw_cfg/by_name/opt/bosh/settings.json/raw
exec >/dev/console
echo "up with $($b grep -c agent_id $settings) settings"
[ -e /var/vcap/data/kept ] && echo "kept" || echo one >/var/vcap/data/kept
$b sync
known=
while $b sleep 0.2; do
  now=
  for disk in /sys/block/vd*; do
    serial=$($b cat $disk/serial 2>/dev/null)
    case $serial in base|own) ;; *) now="$now$serial " ;; esac
  done
  [ "$now" = "$known" ] || echo "disks:$now."
  known=$now
done
"#;

/// Returns the image of a stemcell that boots in a blink: a kernel, and busybox.
fn tiny() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let debian = stemcell::kept::debian(folder).map_err(|error| cpi_host::Chain(&error).to_string())?;
    let lock = File::create(folder.join("tiny.lock")).map_err(|error| error.to_string())?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
    let made = folder.join("tiny.tgz");
    let is_older = |a: &Path, b: &Path| {
        let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        time(a).and_then(|a| Ok(a < time(b)?)).unwrap_or(true)
    };
    // The first program in it is part of this one.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    if is_older(&made, &debian) || is_older(&made, &this) {
        write_tiny(&debian, &made).map_err(|error| error.to_string())?;
    }
    Ok(made)
}

fn write_tiny(debian: &Path, made: &Path) -> std::io::Result<()> {
    let half = made.with_extension("half");
    let mut out = tar::Builder::new(GzEncoder::new(File::create(&half)?, Compression::fast()));
    let mut stemcell = tar::Archive::new(GzDecoder::new(File::open(debian)?));
    let image =
        stemcell.entries()?.flatten().find(|entry| entry.path().is_ok_and(|path| path.ends_with("image")));
    let mut image = tar::Archive::new(GzDecoder::new(image.unwrap()));
    let drivers = ["virtio", "overlay", "failover", "fw_cfg", "modules.dep"];
    for entry in image.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let path = path.trim_start_matches("usr/").to_owned();
        let is_driver = path.starts_with("lib/modules/") && drivers.iter().any(|name| path.contains(name));
        if entry.header().entry_type().is_file()
            && (path.starts_with("boot/vmlinuz-") || path == "bin/busybox" || is_driver)
        {
            let mut header = entry.header().clone();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            out.append_data(&mut header, path, content.as_slice())?;
        }
    }
    let header = |kind, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header
    };
    out.append_data(&mut header(tar::EntryType::Regular, INIT.len()), "sbin/init", INIT.as_bytes())?;
    for folder in ["proc", "sys", "dev", "tmp", "var"] {
        out.append_data(&mut header(tar::EntryType::Directory, 0), folder, std::io::empty())?;
    }
    out.into_inner()?.finish()?;
    fs::rename(half, made)
}

fn machines(dir: &Path) -> Result<Subject, String> {
    // Finding out whether KVM helps takes ten seconds where it does not, and is a test of its own.
    let options = LocalOptions { kvm: false, ..common::options(dir, Isolation::Exactly(Rung::Qemu)) };
    let cpi = LocalCpi::open(options).map_err(|error| error.to_string())?;
    Ok(Subject::new(cpi).image(tiny()?).first_address([10, 97, 1, 10].into()))
}

cpi_api::conformance!(machines);

/// Waits until the second VM has said this so many times.
async fn says(stage: &Stage, text: &str, times: usize) {
    for _ in 0..1200 {
        if stage.console(2).matches(text).count() >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("`{text}` was not said {times} times: {}", stage.console(2));
}

fn record(stage: &Stage) -> serde_json::Value {
    serde_json::from_slice(&fs::read(stage.vcap(2, "../vm.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn a_machine_boots_keeps_its_own_disk_and_has_others_while_it_runs() {
    let agent = std::path::Path::new("/bin/true");
    let Some(stage) = Stage::open_with(Rung::Qemu, [10, 97, 2], agent).await else { return };
    let image = match tiny() {
        Ok(image) => image,
        Err(why) => return println!("skipped: {why}"),
    };
    let stemcell = CreateStemcell { image, cloud_properties: json!({}), tags: Metadata::new() };
    let stemcell = stage.cpi.create_stemcell(&context(1), stemcell).await.unwrap();
    let request =
        CreateVm { stemcell, ..stage.request(2, json!({ "memory_mib": 256, "ephemeral_disk_mib": 64 })) };
    let vm = stage.cpi.create_vm(&context(1), request).await.unwrap().cid;
    says(&stage, "up with 1 settings", 1).await;
    let answer = fs::read_to_string(stage.dir.path().join("cloud/accelerator.json")).unwrap();
    assert!(
        answer.contains("KVM") || answer.contains("kvm"),
        "KVM was tried, and something is known of it: {answer}"
    );

    let disk = CreateDisk { disk_id: "d".into(), size_mib: 16, cloud_properties: json!({}), vm: None };
    let disk = stage.cpi.create_disk(&context(1), disk).await.unwrap();
    let hint = stage.cpi.attach_disk(&context(1), &vm, &disk).await.unwrap();
    let serial = hint.0.as_str().unwrap().rsplit("virtio-").next().unwrap().to_owned();
    says(&stage, &format!("disks:{serial} ."), 1).await;
    stage.cpi.reboot_vm(&context(1), &vm).await.unwrap();
    says(&stage, "up with 1 settings", 2).await;
    says(&stage, "kept", 1).await;
    says(&stage, &format!("disks:{serial} ."), 2).await;
    stage.cpi.detach_disk(&context(1), &vm, &disk).await.unwrap();
    says(&stage, "disks:.", 1).await;

    // Containers are in the same cloud, and the same disk is theirs.
    let container = stage.create(3, json!({ "isolation": "namespaces" })).await;
    stage.cpi.attach_disk(&context(1), &container, &disk).await.unwrap();
    let machine = record(&stage)["processes"]["init"]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(machine as i32), Signal::SIGKILL).unwrap();
    assert!(stage.cpi.has_vm(&context(1), &vm).await.unwrap(), "off, and still there");
    stage.cpi.delete_vm(&context(1), &vm).await.unwrap();
    stage.close(3).await;
}

#[tokio::test]
async fn a_machine_needs_a_kernel_in_its_stemcell_and_a_gateway_beside_it() {
    let agent = std::path::Path::new("/bin/true");
    let Some(stage) = Stage::open_with(Rung::Qemu, [10, 97, 3], agent).await else { return };
    let error = stage.cpi.create_vm(&context(1), stage.request(2, json!({}))).await.unwrap_err();
    assert!(error.message.contains("no kernel"), "{}", error.message);
    let mut alone = stage.request(2, json!({}));
    alone.networks[0].gateway = None;
    let error = stage.cpi.create_vm(&context(1), alone).await.unwrap_err();
    assert!(error.message.contains("needs a network with a gateway"), "{}", error.message);
    stage.close(2).await;
}
