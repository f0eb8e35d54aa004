//! Another agent's program in the archive of a root file system.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::root;
use crate::disk_image::RootArchive;
use crate::error::StemcellError;

/// Writes the archive to `to`, compressed, with the program `agent` in the place of the one that is in it.
pub(super) fn exchange(
    archive: RootArchive<'_, impl Read>,
    agent: &Path,
    to: &Path,
) -> Result<(), StemcellError> {
    let program = fs::read(agent).map_err(StemcellError::os("read the agent", agent))?;
    let found = copy(archive.content, &program, to)
        .map_err(StemcellError::os("put an agent into the root file system of", archive.of))?;
    match found {
        true => Ok(()),
        false => Err(StemcellError::refused(format!(
            "the root file system of `{}` has no agent at `/{}`",
            archive.of.display(),
            root::AGENT
        ))),
    }
}

/// Returns whether there was an agent.
fn copy(content: impl Read, program: &[u8], to: &Path) -> io::Result<bool> {
    let mut out = tar::Builder::new(GzEncoder::new(BufWriter::new(File::create(to)?), Compression::fast()));
    let (mut archive, mut found) = (tar::Archive::new(content), false);
    // Raw: what an archive says of an entry in others before it, long names and attributes, is copied as it is.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let path = entry.path_bytes();
        let is_agent = path.strip_prefix(b"./").unwrap_or(&path) == root::AGENT.as_bytes();
        if is_agent && header.entry_type().is_file() {
            header.set_size(program.len() as u64);
            header.set_cksum();
            out.append(&header, program)?;
            found = true;
        } else {
            out.append(&header, &mut entry)?;
        }
    }
    // To its end, where a damaged archive shows.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    let file = out.into_inner()?.finish()?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(found)
}
