//! Making stemcell archives: what they look like, and the one that costs nothing. Real ones are in [`crate::debian`].

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

use crate::HOST_FORMAT;
use crate::error::StemcellError;
use crate::manifest::{Manifest, StemcellNames};

/// The time that all files in a stemcell are of, in Unix seconds.
pub(crate) const EPOCH: u64 = 1_700_000_000;

/// Writes a stemcell archive to `out` whose VMs run on the host's own files. Takes milliseconds, needs no network.
///
/// Not for jobs that are not trusted: they can read what everybody can read on the host, minus what is hidden.
pub fn build_host(out: &Path, names: &StemcellNames) -> Result<(), StemcellError> {
    let mut image =
        tempfile::NamedTempFile::new().map_err(StemcellError::os("make a scratch file for", out))?;
    writeln!(image, "{HOST_FORMAT}").map_err(StemcellError::os("write", image.path()))?;
    let manifest =
        Manifest { names, formats: &[HOST_FORMAT], infrastructure: "directorate-local", properties: "" };
    let contents = Contents { manifest, packages: b"", image: image.path() };
    pack(out, &contents, Compression::fast()).map_err(StemcellError::os("write stemcell", out))
}

/// What goes into an archive.
pub(crate) struct Contents<'a> {
    pub manifest: Manifest<'a>,
    /// What is installed, as `packages.txt` has it.
    pub packages: &'a [u8],
    pub image: &'a Path,
}

/// Writes an archive: whole, or none. An image that is compressed already is not compressed once more.
pub(crate) fn pack(out: &Path, contents: &Contents<'_>, compression: Compression) -> io::Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Rights as any file that is made gets them, not those of secret scratch files.
    let rights = Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".stemcell-").permissions(rights).tempfile_in(folder)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, compression));
    let mut image = File::open(contents.image)?;
    let size = image.metadata()?.len();
    let mut sha1 = Sha1::new();
    io::copy(&mut image, &mut sha1)?;
    let sha1: String = sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = contents.manifest.text(&sha1);
    add(&mut archive, "stemcell.MF", 0o644, manifest.len() as u64, manifest.as_bytes())?;
    add(&mut archive, "packages.txt", 0o644, contents.packages.len() as u64, contents.packages)?;
    add(&mut archive, "dev_tools_file_list.txt", 0o644, 0, io::empty())?;
    add(&mut archive, "image", 0o644, size, File::open(contents.image)?)?;
    let file = archive.into_inner()?.finish()?;
    file.as_file().sync_all()?;
    file.persist(out)?;
    Ok(())
}

/// Adds a file. Time and owner are fixed: the same stemcell is the same bytes.
pub(crate) fn add(
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
