//! What a rendering starts from: a job's templates and, per instance, what they may see.

use std::collections::BTreeMap;

use model::{JobName, instance::ReleaseRef};
use serde::Serialize;
use serde_json::value::RawValue;

/// One template of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its path below `templates/` in the job archive.
    pub source: String,
    /// Where the result goes, below the job's folder.
    pub destination: String,
    /// The ERB text.
    pub text: Vec<u8>,
}

/// The templates of a job, as its archive holds them ([`crate::archive::JobArchive::templates`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTemplates {
    /// The job's name.
    pub name: JobName,
    /// The release it came with; templates see it as `spec.release`.
    pub release: ReleaseRef,
    /// The ERB text of `monit`.
    pub monit: Vec<u8>,
    /// The other templates, in the order of the job's spec: an earlier one can leave instance variables to a later one.
    pub templates: Vec<Template>,
}

/// What one instance's templates see.
///
/// The spec is JSON text and not a parsed value, so that numbers of any size and the order of keys reach Ruby as they
/// are. It is the instance's spec with `properties` and `links` as maps from job name to content; only the entry of the
/// job that is rendered becomes visible.
#[derive(Clone, Debug)]
pub struct RenderContext {
    /// The instance's spec.
    pub spec: Box<RawValue>,
    /// The links this job provides, for `.bosh/links.json`.
    pub provided_links: Vec<LinkGroup>,
}

impl RenderContext {
    /// Returns a context for a spec that is a parsed value.
    pub fn new(spec: &serde_json::Value, provided_links: Vec<LinkGroup>) -> Self {
        let spec = serde_json::value::to_raw_value(spec).expect("a JSON value is JSON");
        Self { spec, provided_links }
    }

    /// Returns a context for a spec that is JSON text already.
    pub fn from_json(spec: &str, provided_links: Vec<LinkGroup>) -> Result<Self, serde_json::Error> {
        Ok(Self { spec: serde_json::from_str(spec)?, provided_links })
    }
}

/// An entry of `.bosh/links.json`: how DNS knows a link that the job provides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkGroup {
    /// The link's name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of its DNS group, as text.
    pub group: String,
}

/// The numbers that `link.address` puts into DNS names. One table serves a whole deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsIds {
    /// Ids of availability zones.
    pub azs: BTreeMap<String, u32>,
    /// Ids of networks.
    pub networks: BTreeMap<String, u32>,
    /// Ids of instance groups and links.
    pub groups: Vec<GroupDnsId>,
}

/// The id of an instance group or of a link's group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupDnsId {
    /// `instance-group` or `link`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The instance group's name, or `<link>-<type>`.
    pub name: String,
    /// The deployment that it belongs to.
    pub deployment: String,
    /// Its number.
    pub id: u32,
}
