//! Archives that no tool would make.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};
use tar::{Builder, EntryType, Header};

/// A tarball in the making.
pub struct Forge {
    tar: Builder<Vec<u8>>,
}

impl Default for Forge {
    fn default() -> Self {
        Self { tar: Builder::new(Vec::new()) }
    }
}

impl Forge {
    /// Begins with what an archive holds, each entry's content changed as told.
    pub fn from(archive: &Path, edit: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> Result<Self> {
        let mut forge = Self::default();
        let mut tar = tar::Archive::new(GzDecoder::new(fs::File::open(archive)?));
        for entry in tar.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            match entry.header().entry_type().is_file() {
                true => forge.entry(EntryType::Regular, &name, "", &edit(&name, content))?,
                false => &mut forge,
            };
        }
        Ok(forge)
    }

    /// Adds an entry with its name as it is: the library refuses the interesting ones.
    pub fn entry(&mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Result<&mut Self> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.tar.append(&header, content)?;
        Ok(self)
    }

    /// Writes the tarball and returns its path.
    pub fn write(self, path: PathBuf) -> Result<PathBuf> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.tar.into_inner()?)?;
        fs::write(&path, gzip.finish()?)?;
        Ok(path)
    }
}

/// Returns the digest that manifests and lists of blobs tell.
pub fn sha1(content: &[u8]) -> String {
    Sha1::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a stemcell of a root file system, with our agent, by the name of its operating system.
pub fn rootfs_stemcell(path: &Path, name: &str, image: &[u8]) -> Result<PathBuf> {
    let digest = sha1(image);
    let manifest = format!(
        "name: {name}\nversion: '1.0'\noperating_system: {name}\nsha1: {digest}\nbosh_protocol: 1\n\
         api_version: 3\nstemcell_formats: [directorate-tar]\nagent: directorate\ncloud_properties: {{}}\n",
    );
    let mut forge = Forge::default();
    forge.entry(EntryType::Regular, "stemcell.MF", "", manifest.as_bytes())?;
    forge.entry(EntryType::Regular, "image", "", image)?;
    forge.write(path.to_owned())
}

/// Writes a stemcell with an empty image, as BOSH's makers would call it.
pub fn stemcell(path: &Path, name: &str, api_version: u32) -> Result<PathBuf> {
    let image = b"an empty test stemcell";
    let digest = sha1(image);
    let manifest = format!(
        "name: {name}\nversion: '1'\noperating_system: toronto-os\nsha1: {digest}\nbosh_protocol: 1\n\
         api_version: {api_version}\nstemcell_formats: [dummy]\ncloud_properties: {{}}\n",
    );
    let mut forge = Forge::default();
    forge.entry(EntryType::Regular, "stemcell.MF", "", manifest.as_bytes())?;
    forge.entry(EntryType::Regular, "image", "", image)?;
    forge.write(path.to_owned())
}
