//! Making stemcell archives: what they look like, and the one that costs nothing. A real one is in [`super::debian`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

use super::HOST_FORMAT;
use crate::error::LocalError;

/// The time that all files in a stemcell are of, in Unix seconds.
pub(super) const EPOCH: u64 = 1_700_000_000;

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

/// Writes a stemcell archive to `out` whose VMs run on the host's own files. Takes milliseconds, needs no network.
///
/// Not for jobs that are not trusted: they can read what everybody can read on the host, minus what is hidden.
pub fn build_host_stemcell(out: &Path, names: &StemcellNames) -> Result<(), LocalError> {
    let mut image = tempfile::NamedTempFile::new().map_err(LocalError::os("make a scratch file for", out))?;
    writeln!(image, "{HOST_FORMAT}").map_err(LocalError::os("write", image.path()))?;
    let (formats, image) = (&[HOST_FORMAT], image.path());
    let contents = Contents { names, formats, properties: "", packages: b"", image };
    pack(out, &contents, Compression::fast()).map_err(LocalError::os("write stemcell", out))
}

/// What goes into an archive.
pub(super) struct Contents<'a> {
    pub names: &'a StemcellNames,
    pub formats: &'a [&'a str],
    /// Lines of `cloud_properties`, beside those that all have.
    pub properties: &'a str,
    /// What is installed, as `packages.txt` has it.
    pub packages: &'a [u8],
    pub image: &'a Path,
}

/// Writes an archive. An image that is compressed already is not compressed once more.
pub(super) fn pack(out: &Path, contents: &Contents<'_>, compression: Compression) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(out)?, compression));
    let mut image = File::open(contents.image)?;
    let size = image.metadata()?.len();
    let mut sha1 = Sha1::new();
    io::copy(&mut image, &mut sha1)?;
    let sha1: String = sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = manifest(contents, &sha1);
    add(&mut archive, "stemcell.MF", 0o644, manifest.len() as u64, manifest.as_bytes())?;
    add(&mut archive, "packages.txt", 0o644, contents.packages.len() as u64, contents.packages)?;
    add(&mut archive, "dev_tools_file_list.txt", 0o644, 0, io::empty())?;
    add(&mut archive, "image", 0o644, size, File::open(contents.image)?)?;
    archive.into_inner()?.finish()?.sync_all()
}

fn manifest(contents: &Contents<'_>, sha1: &str) -> String {
    let StemcellNames { name, version, operating_system } = contents.names;
    let formats = contents.formats.join(", ");
    // Names are ours or an operator's plain words; quoting keeps a version like 1.0 a text.
    format!(
        "---\nname: {name:?}\nversion: {version:?}\nbosh_protocol: \"1\"\napi_version: 3\nsha1: {sha1}\n\
         operating_system: {operating_system:?}\nstemcell_formats: [{formats}]\nagent: directorate\ncloud_properties:\n  \
         name: {name:?}\n  version: {version:?}\n  infrastructure: directorate-local\n  \
         architecture: {}\n  os_type: linux\n{}",
        std::env::consts::ARCH,
        contents.properties,
    )
}

/// Adds a file. Time and owner are fixed: the same stemcell is the same bytes.
pub(super) fn add(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    mode: u32,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH);
    header.set_size(size);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}
