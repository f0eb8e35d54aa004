//! What a disk that boots by itself has, beside the root file system that it shares with other stemcells.

use std::fs;
use std::path::Path;

use super::tree::{Tree, kernel_version};
use crate::error::StemcellError;
use crate::initrd::Initrd;

/// What leads to a root disk, and to a CD with settings that is attached as an old one: virtio's and QEMU's own. What is not
/// needed for that is found later, by what hardware there is.
const DRIVERS: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix"];

/// Where the archive is that the kernel starts from.
const INITRD: &str = "boot/initrd.img";

/// Where settings are, as in BOSH's stemcells.
const AGENT_JSON: &str = "var/vcap/bosh/agent.json";

/// Path, mode, content.
const FILES: [(&str, u32, &str); 5] = [
    ("etc/systemd/network/dhcp.network", 0o644, include_str!("files/dhcp.network")),
    ("etc/systemd/system/dagent.service.d/drives.conf", 0o644, include_str!("files/drives.conf")),
    ("etc/systemd/system/grow-root.service", 0o644, include_str!("files/grow-root.service")),
    ("etc/udev/rules.d/60-bosh-disk-names.rules", 0o644, include_str!("files/60-bosh-disk-names.rules")),
    ("usr/lib/directorate/grow-root", 0o755, include_str!("files/grow-root")),
];

/// What is started, and where its unit is.
const STARTED: [(&str, &str); 2] = [
    ("systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service"),
    ("grow-root.service", "/etc/systemd/system/grow-root.service"),
];

/// What is different from disk to disk.
pub(crate) struct OwnFiles<'a> {
    /// Where the agent finds its settings, as BOSH's `agent.json`.
    pub agent_json: &'a str,
    /// The agent's program, if it is to be another one: path in the root file system, and where it is.
    pub agent: Option<(&'a str, &'a Path)>,
}

impl OwnFiles<'_> {
    /// Adds them to a tree. `uuid` is how the file system will be found.
    pub(super) fn add(&self, tree: &mut Tree, uuid: &str) -> Result<(), StemcellError> {
        let version = kernel_version(tree)?;
        let initrd = tree.folder.with_extension("initrd");
        let parts = Initrd {
            modules: tree.folder.join("usr/lib/modules").join(&version),
            busybox: tree.folder.join("usr/bin/busybox"),
            drivers: &DRIVERS,
            init: include_str!("files/init.sh"),
        };
        parts.write(&initrd)?;
        let content = fs::read(&initrd).map_err(StemcellError::os("read", &initrd))?;
        tree.put(INITRD, 0o644, &content)?;
        tree.put("boot/grub/grub.cfg", 0o644, menu(&version, uuid).as_bytes())?;
        tree.put(AGENT_JSON, 0o644, self.agent_json.as_bytes())?;
        for (path, mode, content) in FILES {
            tree.put(path, mode, content.as_bytes())?;
        }
        for (unit, at) in STARTED {
            tree.link(&format!("etc/systemd/system/multi-user.target.wants/{unit}"), at);
        }
        if let Some((path, program)) = self.agent {
            let content = fs::read(program).map_err(StemcellError::os("open the agent", program))?;
            tree.put(path, 0o755, &content)?;
        }
        Ok(())
    }
}

/// Returns what GRUB is to do: no menu, no choice. Clouds show the serial port as the machine's console.
fn menu(version: &str, uuid: &str) -> String {
    format!(
        "linux /boot/vmlinuz-{version} root=UUID={uuid} console=tty0 console=ttyS0,115200n8 net.ifnames=0 panic=60\n\
         initrd /{INITRD}\nboot\n"
    )
}
