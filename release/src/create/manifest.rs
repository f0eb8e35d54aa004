//! The text of `release.MF`, in the form that the `bosh` CLI gives it.

use std::fmt::Write as _;
use std::path::PathBuf;

use model::Fingerprint;
use model::instance::ReleaseRef;

use super::CreateError;
use super::files::{Source, sha256_of};
use super::git::Commit;
use crate::yaml::quoted;

/// A job, package or licence that was built.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub name: String,
    pub fingerprint: Fingerprint,
    /// Packages that a job or package needs directly, in its order.
    pub dependencies: Vec<String>,
    /// Where the archive is.
    pub archive: PathBuf,
    /// The archive's digest.
    pub digest: String,
    /// What it was made from.
    pub sources: Vec<Source>,
    /// Who made it.
    pub origin: Origin,
}

/// Who made an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// We did, from the release's sources.
    Sources,
    /// Another release's maker.
    Vendored,
}

impl Built {
    pub(super) fn new(
        name: String,
        fingerprint: Fingerprint,
        archive: PathBuf,
        sources: Vec<Source>,
    ) -> Result<Self, CreateError> {
        let sha256 = sha256_of(&archive).map_err(CreateError::file("read", &archive))?;
        let digest = format!("sha256:{sha256}");
        let (dependencies, origin) = (Vec::new(), Origin::Sources);
        Ok(Self { name, fingerprint, dependencies, archive, digest, sources, origin })
    }
}

/// What goes into `release.MF`.
pub(super) struct ReleaseText<'a> {
    pub release: &'a ReleaseRef,
    pub commit: &'a Commit,
    pub jobs: &'a [Built],
    pub packages: &'a [Built],
    pub license: Option<&'a Built>,
}

impl ReleaseText<'_> {
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("a string takes everything");
        };
        line(format_args!("name: {}", quoted(self.release.name.as_str())));
        line(format_args!("version: {}", quoted(self.release.version.as_str())));
        line(format_args!("commit_hash: {}", quoted(&self.commit.hash)));
        line(format_args!("uncommitted_changes: {}", self.commit.is_dirty));
        for (section, key, parts) in
            [("jobs", "packages", self.jobs), ("packages", "dependencies", self.packages)]
        {
            line(format_args!("{section}:{}", if parts.is_empty() { " []" } else { "" }));
            for part in parts {
                line(format_args!("- name: {}", quoted(&part.name)));
                identity(part).into_iter().for_each(|l| line(format_args!("  {l}")));
                line(format_args!("  {key}:{}", if part.dependencies.is_empty() { " []" } else { "" }));
                part.dependencies.iter().for_each(|d| line(format_args!("  - {}", quoted(d))));
            }
        }
        if let Some(license) = self.license {
            line(format_args!("license:"));
            identity(license).into_iter().for_each(|l| line(format_args!("  {l}")));
        }
        line(format_args!("no_compression: false"));
        text
    }
}

fn identity(part: &Built) -> [String; 3] {
    let fingerprint = quoted(part.fingerprint.as_str());
    [
        format!("version: {fingerprint}"),
        format!("fingerprint: {fingerprint}"),
        format!("sha1: {}", quoted(&part.digest)),
    ]
}
