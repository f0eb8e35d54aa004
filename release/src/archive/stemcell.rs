//! Stemcell tarballs: `stemcell.MF` and the image.

use std::fs::File;
use std::path::{Path, PathBuf};

use model::fields::{Fields, inspect};
use model::stemcell::AgentKind;
use model::{ErrorCode, Version, yaml};
use serde_json::Value;

use super::ArchiveError;
use super::entries::{Halt, Kind, Limits, Next, for_each, read_small};
use super::manifest::{check_identifier, check_version};
use crate::blobstore::{BlobError, BlobSink, BlobStat};
use crate::digest::{DigestMismatch, MultiDigest, Verifying};

/// The largest stemcell.MF in the field has a few kilobytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

const EXTRACTING: &str = "Extracting stemcell archive";

/// `stemcell.MF`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct StemcellManifest {
    /// The stemcell's name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its operating system (the name, where it gives none).
    pub os: String,
    /// The image's digest.
    pub digest: String,
    /// What it tells the CPI.
    pub cloud_properties: Value,
    /// The agent's settings contract, 1 if absent.
    pub api_version: u32,
    /// Formats of the image.
    pub formats: Vec<String>,
    /// Whose agent is inside, if it says so.
    pub agent: Option<AgentKind>,
}

/// A stemcell tarball whose manifest is known and sound.
#[derive(Debug)]
pub struct StemcellArchive {
    path: PathBuf,
    manifest: StemcellManifest,
}

/// What a stemcell tarball brought.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedStemcell {
    /// What it says about itself.
    pub manifest: StemcellManifest,
    /// Where the image is; it is empty for light stemcells.
    pub image: BlobStat,
}

impl StemcellArchive {
    /// Finds and checks the manifest of the tarball at `path`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let path = path.into();
        let mut text = None;
        let read = for_each(open(&path)?, Limits::TARBALL, |mut item| {
            if item.path != "stemcell.MF" || item.kind != Kind::File {
                return Ok(Next::Continue);
            }
            text = Some(read_small(&mut item, MANIFEST_BYTES_MAX)?);
            Ok(Next::Stop)
        });
        read.map_err(|h| h.refuse(ErrorCode::StemcellInvalidArchive, EXTRACTING))?;
        let missing = || ArchiveError::new(ErrorCode::StemcellInvalidArchive, "Stemcell manifest not found");
        let manifest = StemcellManifest::parse(&text.ok_or_else(missing)?)?;
        Ok(Self { path, manifest })
    }

    /// Returns what the stemcell says about itself.
    pub fn manifest(&self) -> &StemcellManifest {
        &self.manifest
    }

    /// Stores the image if it has its digest. It streams: nothing is stored before its end was seen.
    pub fn import(&self, sink: &mut dyn BlobSink) -> Result<ImportedStemcell, ArchiveError> {
        let mut image = None;
        let read = for_each(open(&self.path)?, Limits::TARBALL, |item| {
            if item.path != "image" || item.kind != Kind::File {
                return Ok(Next::Continue);
            }
            let expected = MultiDigest::parse(&self.manifest.digest).map_err(|e| self.wrong_digest(&e))?;
            let stored = sink.put(&mut Verifying::new(item.content, expected));
            image = Some(stored.map_err(|e| self.not_stored(e))?);
            Ok(Next::Continue)
        });
        read.map_err(|h| h.refuse(ErrorCode::StemcellInvalidArchive, EXTRACTING))?;
        let missing = || ArchiveError::new(ErrorCode::StemcellImageNotFound, "Stemcell image not found");
        Ok(ImportedStemcell { manifest: self.manifest.clone(), image: image.ok_or_else(missing)? })
    }

    fn wrong_digest(&self, why: &dyn std::fmt::Display) -> ArchiveError {
        let message =
            format!("The image of stemcell '{}/{}': {why}", self.manifest.name, self.manifest.version);
        ArchiveError::new(ErrorCode::StemcellDigestMismatch, message)
    }

    fn not_stored(&self, error: BlobError) -> Halt {
        let BlobError::ReadContent { source } = error else {
            let message = format!("failed to store the image of stemcell '{}'", self.manifest.name);
            return ArchiveError::caused(ErrorCode::StemcellInvalidArchive, message, error).into();
        };
        match source.get_ref().and_then(|inner| inner.downcast_ref::<DigestMismatch>()) {
            Some(mismatch) => self.wrong_digest(mismatch).into(),
            None => Halt::Broken(source),
        }
    }
}

impl StemcellManifest {
    /// Reads a manifest's text.
    pub fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        let refuse =
            |why: String| ArchiveError::new(ErrorCode::StemcellInvalidArchive, format!("stemcell.MF {why}"));
        let text = std::str::from_utf8(text).map_err(|_| refuse("is not UTF-8".into()))?;
        let document = yaml::parse(text).map_err(|e| refuse(format!("is not YAML: {e}")))?;
        let fields = Fields::of(&document)?;
        let (name, version) = (fields.text("name")?, fields.text("version")?);
        check_identifier("stemcell name", &name, ErrorCode::ValidationInvalidValue)?;
        check_version("stemcell version", &version, ErrorCode::ValidationInvalidValue)?;
        let formats = fields.list_or_empty("stemcell_formats")?.iter();
        let api_version = fields.integer_opt("api_version")?.unwrap_or(1);
        Ok(Self {
            os: fields.text_opt("operating_system")?.unwrap_or_else(|| name.clone()),
            name,
            version: version.into(),
            digest: fields.text("sha1")?,
            cloud_properties: fields.mapping_or_empty("cloud_properties")?,
            api_version: u32::try_from(api_version)
                .map_err(|_| refuse(format!("has api_version {api_version}")))?,
            formats: formats.filter_map(|f| f.as_str().map(str::to_owned)).collect(),
            agent: fields.raw("agent").map(agent).transpose()?,
        })
    }
}

/// Reads whose agent it is. A word that is unknown may be a later one's: it is no reason to go by the name.
fn agent(said: &Value) -> Result<AgentKind, ArchiveError> {
    AgentKind::ALL.into_iter().find(|kind| said == kind.name()).ok_or_else(|| {
        let known = AgentKind::ALL.map(|kind| format!("'{}'", kind.name())).join(" or ");
        let message = format!("Property 'agent' of stemcell.MF is {}: it must be {known}", inspect(said));
        ArchiveError::new(ErrorCode::ValidationInvalidValue, message)
    })
}

fn open(path: &Path) -> Result<File, ArchiveError> {
    File::open(path).map_err(|e| {
        let message = format!("failed to open the stemcell archive `{}`", path.display());
        ArchiveError::caused(ErrorCode::StemcellInvalidArchive, message, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> Result<StemcellManifest, ArchiveError> {
        StemcellManifest::parse(format!("name: s\nversion: '1'\nsha1: abc\n{more}").as_bytes())
    }

    #[test]
    fn a_manifest_may_say_whose_agent_is_inside() {
        let agent = |more: &str| parse(more).map(|manifest| manifest.agent);
        assert_eq!(agent("").ok(), Some(None));
        assert_eq!(agent("agent: bosh").ok(), Some(Some(AgentKind::Bosh)));
        assert_eq!(agent("agent: directorate").ok(), Some(Some(AgentKind::Directorate)));
    }

    #[test]
    fn an_agent_that_nobody_knows_is_refused() {
        for (said, shown) in
            [("Bosh", "\"Bosh\""), ("''", "\"\""), ("7", "7"), ("[bosh]", "[\"bosh\"]"), ("", "nil")]
        {
            let refused = parse(&format!("agent: {said}")).expect_err(said);
            assert_eq!(refused.code, ErrorCode::ValidationInvalidValue, "{said}");
            let message =
                format!("Property 'agent' of stemcell.MF is {shown}: it must be 'bosh' or 'directorate'");
            assert_eq!(refused.to_string(), message);
        }
    }
}
