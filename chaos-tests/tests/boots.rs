//! A disk for a cloud boots by itself, as that cloud would boot it, and its agent dials the director that a config drive names.
//! Needs QEMU, genisoimage, mmdebstrap and its mirror.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::needs::{self, Need};
use chaos_tests::{programs, wait};
use serde_json::json;
use stemcell::{DebianFormat, RepackedDebian};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// The first byte of a TLS record that opens a conversation.
const TLS_HANDSHAKE: u8 = 0x16;

/// A boot takes half a minute without KVM on a machine that has nothing else to do. For everything that is waited for.
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

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output =
        Command::new(program).args(arguments).current_dir(folder).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes a config drive with the settings of a VM, as BOSH's CPI for OpenStack leaves them.
fn write_drive(folder: &Path, director_port: u16) -> Result<()> {
    // Nobody has its key: the agent is only to dial.
    let authority = rcgen::generate_simple_self_signed(["nobody".into()])?.cert.pem();
    // The machine's own network is QEMU's: this machine has that address in it.
    let director = json!({
        "endpoints": [format!("10.0.2.2:{director_port}")], "authorities_pem": authority, "token": "t",
    });
    let settings = json!({
        "agent_id": "agent-1", "vm": { "name": "vm-1" }, "networks": { "default": { "type": "dynamic" } },
        "disks": { "system": "/dev/vda", "persistent": {} }, "env": { "bosh": { "directorate": director } },
    });
    let latest = folder.join("drive/ec2/latest");
    fs::create_dir_all(&latest)?;
    fs::write(latest.join("user-data"), settings.to_string())?;
    run("genisoimage", &["-quiet", "-V", "config-2", "-J", "-r", "-o", "drive.iso", "drive"], folder)
}

#[tokio::test]
async fn a_disk_boots_by_itself_grows_and_its_agent_dials_the_director_of_its_config_drive() -> Result<()> {
    if !needs::met(&[Need::Qemu, Need::Genisoimage, Need::Mmdebstrap]) {
        return Ok(());
    }
    let from = stemcell::kept::debian(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let dir = tempfile::tempdir()?;
    let stemcell =
        RepackedDebian { from, format: DebianFormat::OpenstackRaw, dagent: Some(programs::dagent()) };
    stemcell::repack_debian(&dir.path().join("stemcell.tgz"), &stemcell)?;
    run("sh", &["-c", "tar -xzf stemcell.tgz image && tar -xzSf image && rm image"], dir.path())?;
    File::options().write(true).open(dir.path().join("root.img"))?.set_len(DISK_BYTES)?;

    let director = TcpListener::bind("127.0.0.1:0").await?;
    write_drive(dir.path(), director.local_addr()?.port())?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(MACHINE.split_ascii_whitespace()).current_dir(dir.path()).stdin(Stdio::null());
    let _machine = Machine(qemu.spawn()?);
    let deadline = Instant::now() + BOOT_LIMIT;

    let console = || fs::read(dir.path().join("console.log")).unwrap_or_default();
    let greeting = async { director.accept().await?.0.read_u8().await };
    let greeting = tokio::time::timeout_at(deadline, greeting).await;
    let greeting =
        greeting.with_context(|| format!("no greeting: {}", String::from_utf8_lossy(&console())))??;
    ensure!(greeting == TLS_HANDSHAKE, "the agent does not speak TLS");
    let blocks = format!("is now {} (4k) blocks long", (DISK_BYTES >> 12) - 256);
    for text in ["Linux version 6.1.", "settings were found source=\"ConfigDrive\"", &blocks] {
        let limit = deadline.saturating_duration_since(Instant::now());
        wait::until_true(&format!("the console says `{text}`"), limit, async || {
            Ok(String::from_utf8_lossy(&console()).contains(text))
        })
        .await?;
    }
    Ok(())
}
