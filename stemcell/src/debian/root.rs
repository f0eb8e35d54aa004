//! The root file system that all Debian stemcells have in common, made by `mmdebstrap`.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::DebianStemcell;
use crate::archive::{EPOCH, add};
use crate::error::StemcellError;

/// What a machine of its own takes: a kernel, an init, devices with names, and what our agent and operators who log in use.
/// A static `busybox` is what we boot by; the kernel's package wants something that makes its own archives to start from, and
/// this is the smallest.
const MACHINE: [&str; 14] = [
    "linux-image-cloud-amd64",
    "tiny-initramfs",
    "busybox-static",
    "systemd-sysv",
    "dbus",
    "udev",
    "iproute2",
    "ca-certificates",
    "procps",
    "e2fsprogs",
    "fdisk",
    "openssh-server",
    "sudo",
    "passwd",
];

/// Where the agent is, as in BOSH's stemcells.
pub(super) const AGENT: &str = "var/vcap/bosh/bin/dagent";

/// Files that make a Debian a stemcell: path, mode, content.
const FILES: [(&str, u32, &str); 3] = [
    ("var/vcap/bosh/agent.json", 0o644, include_str!("files/agent.json")),
    ("etc/systemd/system/dagent.service", 0o644, include_str!("files/dagent.service")),
    ("etc/systemd/system/ssh.service.d/host-keys.conf", 0o644, include_str!("files/host-keys.conf")),
];

/// Done in the root file system in the end. Every VM makes its own host keys and machine id: what is in a stemcell, everybody
/// has who has the stemcell. What waits for terminals or looks for updates only makes a boot longer.
const FINISH: &str = r#"set -eu
chroot "$1" groupadd --gid 1000 vcap
chroot "$1" useradd --uid 1000 --gid 1000 --create-home --comment 'BOSH system user' --shell /bin/bash vcap
chroot "$1" systemctl enable dagent.service
chroot "$1" systemctl mask getty@.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-timesyncd.service
rm -f "$1"/etc/ssh/ssh_host_* "$1"/boot/initrd.img-* "$1"/initrd.img* "$1"/vmlinuz* "$1"/etc/resolv.conf "$1"/etc/hostname
: > "$1"/etc/machine-id
"#;

/// Makes a boot loader for disks: GRUB's first sector, and its core with all that it takes to read a kernel from the first
/// partition. Its packages are only borrowed: whoever boots has no use for them.
const BOOT_LOADER: &str = r#"set -eu
mkdir -p "$1"/tmp/grub "$1"/boot/grub/i386-pc
cd "$1"/tmp/grub
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q download grub-common grub-pc-bin libdevmapper1.02.1
for package in *.deb; do dpkg-deb -x "$package" .; done
chroot "$1" env LD_LIBRARY_PATH=/tmp/grub/lib/x86_64-linux-gnu /tmp/grub/usr/bin/grub-mkimage \
    --directory=/tmp/grub/usr/lib/grub/i386-pc --format=i386-pc --prefix='(,msdos1)/boot/grub' \
    --output=/boot/grub/i386-pc/core.img biosdisk part_msdos ext2 normal linux
cp usr/lib/grub/i386-pc/boot.img "$1"/boot/grub/i386-pc/boot.img
cd /
rm -r "$1"/tmp/grub
"#;

/// What nobody reads in a VM.
const EXCLUDED: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

/// Returns the digest of what goes into a Debian with these tools, but for its packages' versions and the agent.
pub(crate) fn digest_of_parts(tools: &[&str]) -> String {
    let modes = FILES.map(|(_, mode, _)| mode.to_string());
    let files = FILES.iter().flat_map(|(path, _, content)| [*path, *content]);
    let lists = [&MACHINE[..], tools, &EXCLUDED, &[FINISH, BOOT_LOADER]].concat();
    let mut digest = Sha256::new();
    for part in lists.into_iter().chain(files).chain(modes.each_ref().map(String::as_str)) {
        // Where a part ends counts, too.
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the archive of a root file system to `root`, with `scratch` to work in; returns what is installed in it.
pub(super) fn make(root: &Path, stemcell: &DebianStemcell, scratch: &Path) -> Result<Vec<u8>, StemcellError> {
    let (files, packages) = (scratch.join("files.tar"), scratch.join("packages.txt"));
    write_files(&files, &stemcell.dagent)?;
    debootstrap(stemcell, &files, root, &packages)?;
    fs::read(&packages).map_err(StemcellError::os("read", &packages))
}

fn debootstrap(
    stemcell: &DebianStemcell,
    files: &Path,
    root: &Path,
    packages: &Path,
) -> Result<(), StemcellError> {
    let tools = stemcell.tools.iter().map(String::as_str);
    let include: Vec<&str> = MACHINE.into_iter().chain(tools).collect();
    let excluded = EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}"));
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", include.join(",")))
        .args(excluded)
        .arg(format!("--customize-hook=tar-in {} /", files.display()))
        .arg(format!("--customize-hook={FINISH}"))
        .arg(format!("--customize-hook={BOOT_LOADER}"))
        .arg(format!(
            "--customize-hook=dpkg-query --admindir=\"$1\"/var/lib/dpkg --show > {}",
            packages.display()
        ))
        .arg("bookworm")
        .arg(root)
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .output()
        .map_err(StemcellError::os("run", "mmdebstrap"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).collect();
    Err(StemcellError::refused(format!("mmdebstrap failed: {}", errors.join("; "))))
}

/// Writes what is added to the Debian as an archive.
fn write_files(to: &Path, dagent: &Path) -> Result<(), StemcellError> {
    let agent = File::open(dagent).map_err(StemcellError::os("open the agent", dagent))?;
    let write = || -> io::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
        for (path, mode, content) in FILES {
            add(&mut archive, path, mode, content.len() as u64, content.as_bytes())?;
        }
        add(&mut archive, AGENT, 0o755, agent.metadata()?.len(), &agent)?;
        archive.into_inner()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    };
    write().map_err(StemcellError::os("write", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_with_other_tools_has_another_digest() {
        let [none, make, two, one] =
            [&[][..], &["make"], &["gcc", "make"], &["gccmake"]].map(digest_of_parts);
        assert_eq!(make, digest_of_parts(&["make"]));
        assert!(none != make && make != two && two != one);
    }
}
