//! The archives that were uploaded: recordings hold only their digests.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha1::{Digest as _, Sha1};
use tar::EntryType;

use crate::forge::Forge;

/// A folder of releases as they were made by the CLI, and a stemcell.
pub struct Archives {
    releases: PathBuf,
    stemcell: Vec<u8>,
}

impl Archives {
    /// Takes releases from a folder.
    pub fn new(releases: PathBuf) -> Result<Self> {
        let image = b"an empty test stemcell";
        let manifest = format!(
            "name: ubuntu-stemcell\nversion: '1'\noperating_system: toronto-os\nsha1: {}\nbosh_protocol: 1\n\
             stemcell_formats: [dummy]\ncloud_properties: {{}}\n",
            hex(&Sha1::digest(image))
        );
        let mut forge = Forge::default();
        forge.entry(EntryType::Regular, "stemcell.MF", "", manifest.as_bytes())?;
        forge.entry(EntryType::Regular, "image", "", image)?;
        let folder = tempfile::tempdir()?;
        let path = forge.write(folder.path().join("stemcell.tgz"))?;
        Ok(Self { releases, stemcell: std::fs::read(path)? })
    }

    /// Returns the archive that a command names.
    pub fn named_in(&self, command: &str) -> Result<Vec<u8>> {
        let is_archive = |word: &&str| word.ends_with(".tgz") && !word.contains("://");
        let name = command
            .split([' ', ':'])
            .find(is_archive)
            .with_context(|| format!("an archive in `{command}`"))?;
        if name == "stemcell.tgz" {
            return Ok(self.stemcell.clone());
        }
        let path = self.releases.join(name);
        match std::fs::read(&path) {
            Ok(content) => Ok(content),
            // Made there by a command that may not be built here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(b"not kept".to_vec()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
