//! Making stemcell archives: the one that costs nothing, and a real one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use cpi_api::CpiErrorKind;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

use super::{HOST_FORMAT, TAR_FORMAT};
use crate::error::LocalError;

/// What `stemcell.MF` calls a stemcell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StemcellNames {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The operating system that manifests ask for.
    pub operating_system: String,
}

impl StemcellNames {
    /// Returns the names of the host stemcell that the examples use.
    pub fn host() -> Self {
        Self { name: HOST_FORMAT.into(), version: "1.0".into(), operating_system: HOST_FORMAT.into() }
    }

    /// Returns the names of a Debian stemcell.
    pub fn debian() -> Self {
        let operating_system = "debian-bookworm".into();
        Self {
            name: "bosh-directorate-debian-bookworm-go_agent".into(),
            version: "1.0".into(),
            operating_system,
        }
    }
}

/// Packages that jobs, our agent and operators who log in expect of a Debian stemcell.
const DEBIAN_PACKAGES: &str =
    "build-essential,iproute2,ca-certificates,procps,curl,rsync,psmisc,e2fsprogs,openssh-server,sudo";

/// Every VM makes its own: what is in a stemcell, everybody has who has the stemcell.
const NO_HOST_KEYS: &str = r#"--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*"#;

/// Writes a stemcell archive to `out` whose VMs run on the host's own files. Takes milliseconds, needs no network.
///
/// Not for jobs that are not trusted: they can read what everybody can read on the host, minus what is hidden.
pub fn build_host_stemcell(out: &Path, names: &StemcellNames) -> Result<(), LocalError> {
    let image = format!("{HOST_FORMAT}\n");
    pack(out, names, HOST_FORMAT, image.as_bytes()).map_err(LocalError::os("write stemcell", out))
}

/// Writes a stemcell archive to `out` with a small Debian, made by `mmdebstrap` from the mirror that apt is set to.
/// Takes about a minute.
pub fn build_debian_stemcell(out: &Path, names: &StemcellNames) -> Result<(), LocalError> {
    let scratch = tempfile::tempdir().map_err(LocalError::os("make a scratch directory for", out))?;
    let image = scratch.path().join("image.tar.gz");
    let include = format!("--include={DEBIAN_PACKAGES}");
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", &include, NO_HOST_KEYS, "bookworm"])
        .arg(&image)
        .output()
        .map_err(LocalError::os("run", "mmdebstrap"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        return Err(LocalError::refused(CpiErrorKind::Other, format!("mmdebstrap failed: {last}")));
    }
    let image = fs::read(&image).map_err(LocalError::os("read", &image))?;
    pack(out, names, TAR_FORMAT, &image).map_err(LocalError::os("write stemcell", out))
}

fn pack(out: &Path, names: &StemcellNames, format: &str, image: &[u8]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(out)?, Compression::fast()));
    add(&mut archive, "stemcell.MF", manifest(names, format, image).as_bytes())?;
    add(&mut archive, "packages.txt", b"")?;
    add(&mut archive, "dev_tools_file_list.txt", b"")?;
    add(&mut archive, "image", image)?;
    archive.into_inner()?.finish()?.sync_all()
}

fn manifest(names: &StemcellNames, format: &str, image: &[u8]) -> String {
    let sha1: String = Sha1::digest(image).iter().map(|byte| format!("{byte:02x}")).collect();
    let StemcellNames { name, version, operating_system } = names;
    // Names are ours or an operator's plain words; quoting keeps a version like 1.0 a text.
    format!(
        "---\nname: {name:?}\nversion: {version:?}\nbosh_protocol: \"1\"\napi_version: 3\nsha1: {sha1}\n\
         operating_system: {operating_system:?}\nstemcell_formats: [{format}]\nagent: directorate\ncloud_properties:\n  \
         name: {name:?}\n  version: {version:?}\n  infrastructure: directorate-local\n  \
         architecture: {}\n  os_type: linux\n",
        std::env::consts::ARCH
    )
}

fn add(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    // A fixed time: the same stemcell is the same bytes.
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}
