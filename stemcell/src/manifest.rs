//! What `stemcell.MF` says of a stemcell.

use crate::HOST_FORMAT;

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
}

/// What a manifest is made of.
pub(crate) struct Manifest<'a> {
    pub names: &'a StemcellNames,
    /// Which clouds take it: each has words of its own.
    pub formats: &'a [&'a str],
    pub infrastructure: &'a str,
    /// Lines of `cloud_properties`, beside those that all have.
    pub properties: &'a str,
}

impl Manifest<'_> {
    /// Returns the text, for an image with this digest.
    pub fn text(&self, sha1: &str) -> String {
        let StemcellNames { name, version, operating_system } = self.names;
        let formats = self.formats.join(", ");
        // Names are ours or an operator's plain words; quoting keeps a version like 1.0 a text.
        format!(
            "---\nname: {name:?}\nversion: {version:?}\nbosh_protocol: \"1\"\napi_version: 3\nsha1: {sha1}\n\
             operating_system: {operating_system:?}\nstemcell_formats: [{formats}]\nagent: directorate\n\
             cloud_properties:\n  name: {name:?}\n  version: {version:?}\n  infrastructure: {}\n  \
             architecture: {}\n  os_type: linux\n{}",
            self.infrastructure,
            std::env::consts::ARCH,
            self.properties,
        )
    }
}

/// Returns the formats that the manifest of a stemcell lists; none, if it is not written as ours are.
pub(crate) fn formats(text: &str) -> Vec<&str> {
    let lists = text.lines().filter_map(|line| line.strip_prefix("stemcell_formats: [")?.strip_suffix(']'));
    lists.flat_map(|list| list.split(", ")).collect()
}
