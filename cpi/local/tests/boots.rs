//! A disk for a cloud boots by itself, as that cloud would boot it, and its agent dials the director that a config drive names.
//! Needs QEMU, genisoimage, mmdebstrap and its mirror, and the agent beside the test programs; says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{AUTHORITY, TLS_HANDSHAKE, dagent, debian::debian};
use cpi_local::{DebianFormat, RepackedDebian, repack_debian_stemcell};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// A boot takes half a minute without KVM on a machine that has nothing else to do.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// What a machine is given as its disk, which is more than the image has.
const DISK_BYTES: u64 = 4 << 30;

/// As OpenStack makes machines by QEMU: a disk, a network card, and an old CD drive.
const MACHINE: &str = "-nodefaults -no-user-config -display none -machine pc -accel tcg -m 512 -no-reboot \
    -drive file=root.img,format=raw,if=virtio -drive file=drive.iso,format=raw,if=ide,media=cdrom,readonly=on \
    -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci -serial file:console.log";

/// A machine; ends with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns what is missing.
fn missing() -> Option<String> {
    ["qemu-system-x86_64", "genisoimage", "mmdebstrap"].into_iter().find_map(|program| {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.err().map(|error| format!("{program}: {error}"))
    })
}

/// Writes a config drive with the settings of a VM, as BOSH's CPI for OpenStack leaves them.
fn write_drive(folder: &Path, director_port: u16) {
    // The machine's own network is QEMU's: this machine has that address in it.
    let director = json!({
        "endpoints": [format!("10.0.2.2:{director_port}")], "authorities_pem": AUTHORITY, "token": "t",
    });
    let settings = json!({
        "agent_id": "agent-1", "vm": { "name": "vm-1" }, "networks": { "default": { "type": "dynamic" } },
        "disks": { "system": "/dev/vda", "persistent": {} }, "env": { "bosh": { "directorate": director } },
    });
    let latest = folder.join("drive/ec2/latest");
    fs::create_dir_all(&latest).unwrap();
    fs::write(latest.join("user-data"), settings.to_string()).unwrap();
    run("genisoimage", &["-quiet", "-V", "config-2", "-J", "-r", "-o", "drive.iso", "drive"], folder);
}

/// Waits until the console has said everything.
async fn says(console: &Path, all: &[&str]) {
    let begun = Instant::now();
    loop {
        let said = fs::read(console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        match all.iter().find(|text| !said.contains(**text)) {
            None => return,
            Some(text) => assert!(begun.elapsed() < BOOT_LIMIT, "`{text}` was not said: {said}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_disk_boots_by_itself_grows_and_its_agent_dials_the_director_of_its_config_drive() {
    let Some(dagent) = dagent() else { return println!("skipped: dagent has not been built") };
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let from = match debian() {
        Ok(from) => from,
        Err(why) => return println!("skipped: {why}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let stemcell = RepackedDebian { from, format: DebianFormat::OpenstackRaw, dagent: Some(dagent) };
    repack_debian_stemcell(&dir.path().join("stemcell.tgz"), &stemcell).unwrap();
    run("sh", &["-c", "tar -xzf stemcell.tgz image && tar -xzSf image && rm image"], dir.path());
    let disk = File::options().write(true).open(dir.path().join("root.img")).unwrap();
    disk.set_len(DISK_BYTES).unwrap();

    let director = TcpListener::bind("127.0.0.1:0").await.unwrap();
    write_drive(dir.path(), director.local_addr().unwrap().port());
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(MACHINE.split_ascii_whitespace()).current_dir(dir.path()).stdin(Stdio::null());
    let _machine = Machine(qemu.spawn().unwrap());

    let console = dir.path().join("console.log");
    let greeting = async { director.accept().await.unwrap().0.read_u8().await.unwrap() };
    match tokio::time::timeout(BOOT_LIMIT, greeting).await {
        Ok(byte) => assert_eq!(byte, TLS_HANDSHAKE),
        Err(_) => panic!("no greeting; the console has {}", fs::read_to_string(&console).unwrap_or_default()),
    }
    let blocks = format!("is now {} (4k) blocks long", (DISK_BYTES >> 12) - 256);
    says(&console, &["Linux version 6.1.", "settings were found source=\"ConfigDrive\"", &blocks]).await;
}
