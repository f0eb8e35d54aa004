//! Machines by QEMU keep the cloud's promises, and are what they are asked to be. Needs root, QEMU, mmdebstrap and its mirror;
//! says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpi_api::conformance::Subject;
use cpi_local::{DebianStemcell, Isolation, LocalCpi, LocalOptions, Rung};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::fcntl::{Flock, FlockArg};

/// The first program of the machines here: names their disks, says what it sees, and waits for the end.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys
settings=/sys/firmware/qemu_fw_cfg/by_name/opt/bosh/settings.json/raw
echo "up $($b cat /proc/sys/kernel/hostname 2>/dev/null) $($b grep -c agent_id $settings)"
[ -e /var/vcap/data/kept ] && echo "kept" || echo one >/var/vcap/data/kept
$b sync
known=
while $b sleep 0.2; do
  now=$($b cat /sys/block/vd*/serial 2>/dev/null | $b grep -v '^base$\|^own$' | $b sort | $b tr '\n' ' ')
  [ "$now" = "$known" ] || echo "disks:$now."
  known=$now
done
"#;

/// Returns a Debian stemcell, made once for all tests. It has what `hello` is compiled with.
fn debian() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(folder.join("debian.lock")).map_err(|error| error.to_string())?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
    let (made, out) = (folder.join("debian.tgz"), folder.join("debian.tgz.half"));
    if !made.exists() {
        let tools = ["gcc", "libc6-dev"].map(str::to_owned).to_vec();
        // Whoever boots it for its agent puts a fresh one in.
        let stemcell = DebianStemcell { tools, ..DebianStemcell::new("/bin/true") };
        cpi_local::build_debian_stemcell(&out, &stemcell).map_err(|error| {
            std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"))
        })?;
        fs::rename(out, &made).map_err(|error| error.to_string())?;
    }
    Ok(made)
}

/// Returns the image of a stemcell that boots in a blink: a kernel, and busybox.
fn tiny() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let debian = debian()?;
    let lock = File::create(folder.join("tiny.lock")).map_err(|error| error.to_string())?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
    let made = folder.join("tiny.tgz");
    let is_older = |a: &Path, b: &Path| {
        let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        time(a).and_then(|a| Ok(a < time(b)?)).unwrap_or(true)
    };
    if is_older(&made, &debian) {
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
