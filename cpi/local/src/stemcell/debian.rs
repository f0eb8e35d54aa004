//! A Debian with our agent in it: the root file system of containers, and of machines that boot a kernel.
//!
//! The image is the archive of the root file system, with a kernel and its modules below `/boot` and `/lib/modules`, and no
//! boot loader: whoever boots it hands the kernel over. In a container that is not booted the agent's unit means nothing;
//! there the host starts its own agent.
//!
//! The same mirror and the same agent give the same bytes.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpi_api::CpiErrorKind;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::TAR_FORMAT;
use super::build::{Contents, EPOCH, StemcellNames, add, pack};
use crate::error::LocalError;

/// What goes into a Debian stemcell.
#[derive(Clone, Debug)]
pub struct DebianStemcell {
    /// What it is called.
    pub names: StemcellNames,
    /// Our agent's program, made for a Debian of this release or an older one.
    pub dagent: PathBuf,
    /// Packages for jobs and for compiling.
    pub tools: Vec<String>,
}

impl DebianStemcell {
    /// Returns one with the usual tools.
    pub fn new(dagent: impl Into<PathBuf>) -> Self {
        let tools = TOOLS.map(str::to_owned).to_vec();
        Self { names: StemcellNames::debian(), dagent: dagent.into(), tools }
    }
}

/// What jobs and packaging scripts expect.
const TOOLS: [&str; 4] = ["build-essential", "curl", "rsync", "psmisc"];

/// What a machine of its own takes: a kernel, an init, devices with names, and what our agent and operators who log in use.
/// A static `busybox` is what we boot by; the kernel's package wants something that makes its own archives to start from, and
/// this is the smallest.
const MACHINE: [&str; 13] = [
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
    "openssh-server",
    "sudo",
    "passwd",
];

/// Where the agent is, as in BOSH's stemcells.
const AGENT: &str = "var/vcap/bosh/bin/dagent";

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

/// What nobody reads in a VM.
const EXCLUDED: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

/// Writes a stemcell archive to `out`, made by `mmdebstrap` from the mirror that apt is set to. Takes some minutes.
pub fn build_debian_stemcell(out: &Path, stemcell: &DebianStemcell) -> Result<(), LocalError> {
    let scratch = tempfile::tempdir().map_err(LocalError::os("make a scratch directory for", out))?;
    let [files, root, image, packages] =
        ["files.tar", "root.tar", "image.tgz", "packages.txt"].map(|name| scratch.path().join(name));
    write_files(&files, &stemcell.dagent)?;
    debootstrap(stemcell, &files, &root, &packages)?;
    compress(&root, &image).map_err(LocalError::os("compress", &root))?;
    let contents = Contents {
        names: &stemcell.names,
        formats: &[TAR_FORMAT, "warden-tar", "general-tar"],
        properties: "  os_distro: debian\n  hypervisor: qemu\n  disk: 8192\n  disk_format: raw\n  \
                     container_format: bare\n  root_device_name: /dev/vda\n",
        packages: &fs::read(&packages).map_err(LocalError::os("read", &packages))?,
        image: &image,
    };
    pack(out, &contents, Compression::none()).map_err(LocalError::os("write stemcell", out))
}

fn debootstrap(
    stemcell: &DebianStemcell,
    files: &Path,
    root: &Path,
    packages: &Path,
) -> Result<(), LocalError> {
    let tools = stemcell.tools.iter().map(String::as_str);
    let include: Vec<&str> = MACHINE.into_iter().chain(tools).collect();
    let excluded = EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}"));
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", include.join(",")))
        .args(excluded)
        .arg(format!("--customize-hook=tar-in {} /", files.display()))
        .arg(format!("--customize-hook={FINISH}"))
        .arg(format!(
            "--customize-hook=dpkg-query --admindir=\"$1\"/var/lib/dpkg --show > {}",
            packages.display()
        ))
        .arg("bookworm")
        .arg(root)
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .output()
        .map_err(LocalError::os("run", "mmdebstrap"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).collect();
    Err(LocalError::refused(CpiErrorKind::Other, format!("mmdebstrap failed: {}", errors.join("; "))))
}

/// Writes what is added to the Debian as an archive.
fn write_files(to: &Path, dagent: &Path) -> Result<(), LocalError> {
    let agent = File::open(dagent).map_err(LocalError::os("open the agent", dagent))?;
    let write = || -> io::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
        for (path, mode, content) in FILES {
            add(&mut archive, path, mode, content.len() as u64, content.as_bytes())?;
        }
        add(&mut archive, AGENT, 0o755, agent.metadata()?.len(), &agent)?;
        archive.into_inner()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    };
    write().map_err(LocalError::os("write", to))
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::fast());
    io::copy(&mut BufReader::new(File::open(from)?), &mut out)?;
    out.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}
