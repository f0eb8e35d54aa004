//! Releases, stemcells, blobs and configs.

use std::str::FromStr;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use stemcell::DebianFormat;

use super::{Overlay, Wait};

/// `NAME[/VERSION]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug {
    /// The name.
    pub name: String,
    /// The version; all of them if absent.
    pub version: Option<String>,
}

impl FromStr for Slug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if name.is_empty() || version.is_some_and(|version| version.is_empty() || version.contains('/')) {
            return Err("wanted: NAME or NAME/VERSION".into());
        }
        Ok(Self { name: name.into(), version: version.map(Into::into) })
    }
}

/// `create-release`
#[derive(Debug, Args)]
pub struct CreateRelease {
    /// The release folder
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub dir: Utf8PathBuf,
    /// Name of the release [default: the one in config/final.yml]
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the release [default: the next dev version]
    #[arg(long = "version", value_name = "VERSION")]
    pub release_version: Option<String>,
    /// Also with changes that are not committed
    #[arg(long)]
    pub force: bool,
    /// Write the archive here
    #[arg(long, value_name = "FILE")]
    pub tarball: Option<Utf8PathBuf>,
}

/// `build-stemcell`
#[derive(Debug, Args)]
pub struct BuildStemcell {
    /// The archive to write
    #[arg(value_name = "FILE")]
    pub output: Utf8PathBuf,
    /// A Debian 12 with a kernel and our agent, by mmdebstrap from the mirror that apt is set to: takes minutes
    #[arg(long)]
    pub debian: bool,
    /// The agent's program to put in [default: the one beside this program; with `--from`, the one that is in there]
    #[arg(long, requires = "debian", value_name = "PROGRAM")]
    pub agent: Option<Utf8PathBuf>,
    /// Debian packages for jobs and for compiling, instead of the usual ones
    #[arg(long, requires = "debian", value_delimiter = ',', value_name = "PACKAGE")]
    pub tools: Option<Vec<String>>,
    /// What the Debian's image is: `tar`, for containers and machines of ours; `openstack-qcow2` or `openstack-raw`, a disk
    /// that boots by itself
    #[arg(long, requires = "debian", default_value_t)]
    pub format: DebianFormat,
    /// Take the root file system of this Debian stemcell, whose format is `tar`, instead of making one: for another format, or
    /// to put another agent in
    #[arg(long, requires = "debian", conflicts_with = "tools", value_name = "FILE")]
    pub from: Option<Utf8PathBuf>,
}

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    File(Utf8PathBuf),
    /// Where the director can fetch it.
    Url(String),
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        let path = text.strip_prefix("file://").unwrap_or(text);
        Ok(if is_url { Self::Url(text.to_owned()) } else { Self::File(path.into()) })
    }
}

/// What is known of an archive at a URL.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// What the archive at the URL must have: SHA-1, or `sha256:…`
    #[arg(long, value_name = "DIGEST")]
    pub sha1: Option<String>,
    /// Nothing is fetched if this name and version are there already
    #[arg(long, requires = "archive_version")]
    pub name: Option<String>,
    /// The version
    #[arg(long = "version", requires = "name", value_name = "VERSION")]
    pub archive_version: Option<String>,
}

/// `upload-release`
#[derive(Debug, Args)]
pub struct UploadRelease {
    /// The release archive: a file, or an http or https URL from where the director fetches it
    #[arg(value_name = "FILE|URL")]
    pub archive: Place,
    /// What is known of it at a URL.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Give it the next version there instead of its own
    #[arg(long)]
    pub rebase: bool,
    /// Replace jobs and packages that are there but damaged
    #[arg(long)]
    pub fix: bool,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `OS/VERSION` of a stemcell
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StemcellSlug {
    /// The operating system.
    pub os: String,
    /// The version.
    pub version: String,
}

impl FromStr for StemcellSlug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((os, version)) if !os.is_empty() && !version.is_empty() && !version.contains('/') => {
                Ok(Self { os: os.into(), version: version.into() })
            }
            _ => Err("wanted: OS/VERSION".into()),
        }
    }
}

/// `export-release`
#[derive(Debug, Args)]
pub struct ExportRelease {
    /// The release; the deployment must use it
    #[arg(value_name = "NAME/VERSION", value_parser = exact_release)]
    pub release: Slug,
    /// What it is compiled for
    #[arg(value_name = "OS/VERSION")]
    pub stemcell: StemcellSlug,
    /// Only this job, and the packages that it needs; repeat it for more
    #[arg(long = "job", value_name = "NAME")]
    pub jobs: Vec<String>,
    /// Where to put the archive
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: Utf8PathBuf,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

fn exact_release(text: &str) -> Result<Slug, String> {
    let slug: Slug = text.parse()?;
    if slug.version.is_some() { Ok(slug) } else { Err("wanted: NAME/VERSION".into()) }
}

/// `inspect-release`, `delete-release`
#[derive(Debug, Args)]
pub struct ReleaseSlug {
    /// The release: NAME/VERSION, or NAME for all versions
    #[arg(value_name = "NAME[/VERSION]")]
    pub slug: Slug,
}

/// `upload-stemcell`
#[derive(Debug, Args)]
pub struct UploadStemcell {
    /// The stemcell archive: a file, or an http or https URL from where the director fetches it
    #[arg(value_name = "FILE|URL")]
    pub archive: Place,
    /// What is known of it at a URL.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Upload it again even if the cloud has it
    #[arg(long)]
    pub fix: bool,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `delete-stemcell`
#[derive(Debug, Args)]
pub struct DeleteStemcell {
    /// The stemcell
    #[arg(value_name = "NAME/VERSION")]
    pub slug: Slug,
    /// Forget it even if the cloud fails to delete it
    #[arg(long)]
    pub force: bool,
}

/// `blob …`
#[derive(Debug, Subcommand)]
pub enum BlobCommand {
    /// Fetch a blob
    Get {
        /// Its SHA-256
        digest: String,
        /// Write it to this file instead of standard output
        #[arg(long, short = 'O', value_name = "FILE")]
        output: Option<Utf8PathBuf>,
    },
}

/// `update-config`
#[derive(Debug, Args)]
pub struct UpdateConfig {
    /// cloud, runtime, cpi, resurrection or any other
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// The config
    pub file: Utf8PathBuf,
    /// The config's name
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Refuse unless this is the newest version's number (0: there is none)
    #[arg(long, value_name = "ID")]
    pub expected_latest_id: Option<u64>,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// `update-cloud-config`, `update-runtime-config`, `update-cpi-config`
#[derive(Debug, Args)]
pub struct UpdateTypedConfig {
    /// The config
    pub file: Utf8PathBuf,
    /// The config's name
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// `configs`
#[derive(Debug, Args)]
pub struct ListConfigs {
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    pub kind: String,
    /// Only of this name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Also older versions
    #[arg(long)]
    pub history: bool,
}

/// `config`
#[derive(Debug, Args)]
pub struct ShowConfig {
    /// A version's number
    #[arg(required_unless_present = "kind", conflicts_with = "kind")]
    pub id: Option<u64>,
    /// The newest version of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// … and this name
    #[arg(long, default_value = "default")]
    pub name: String,
}

/// `delete-config`
#[derive(Debug, Args)]
pub struct DeleteConfig {
    /// The config's type: all versions are deleted
    #[arg(value_name = "TYPE", required_unless_present = "id", conflicts_with = "id")]
    pub kind: Option<String>,
    /// Delete only the version with this number
    #[arg(long, conflicts_with = "name")]
    pub id: Option<u64>,
    /// The config's name
    #[arg(long, default_value = "default")]
    pub name: String,
}
