//! Job archives: `job.MF`, `monit`, templates.

use std::collections::BTreeMap;
use std::io::{self, Read};

use model::fields::Fields;
use model::instance::ReleaseRef;
use model::release::{ConsumedLink, JobInfo, PropertyDefinition, ProvidedLink};
use model::{BlobDigest, ErrorCode, Fingerprint, JobName, PackageName, yaml};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use super::ArchiveError;
use super::entries::{Halt, Kind, Limits, Next, for_each, invalid, read_small};
use crate::blobstore::Blobstore;
use crate::render::{JobTemplates, Template};

/// An archive that is unpacked on the spot.
const SMALL_BYTES: usize = 16 << 10;

/// The largest job.MF in the field has 100 KB, most of it descriptions. What it says is filed in the state.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Keys of a JSON schema that demand nothing of the values.
const SCHEMA_NOTES: [&str; 5] = ["$schema", "$id", "$comment", "title", "description"];

/// Links that may lead to one another before the archive counts as malicious.
const LINK_STEPS_MAX: usize = 8;

/// A job archive, read and checked. Jobs are texts that people wrote, so it is held in memory, within
/// [`Limits::JOB`].
#[derive(Clone, Debug)]
pub struct JobArchive {
    name: JobName,
    packages: Vec<PackageName>,
    properties: Vec<PropertyDefinition>,
    provides: Vec<ProvidedLink>,
    consumes: Vec<ConsumedLink>,
    templates: Vec<(String, String)>,
    logs: Value,
    document: Value,
    files: BTreeMap<String, Vec<u8>>,
}

impl JobArchive {
    /// Reads the archive of the job called `name`.
    pub fn read(name: &JobName, archive: impl Read) -> Result<Self, ArchiveError> {
        let files = read_files(name, archive)?;
        let refuse = |code, why: String| ArchiveError::new(code, why);
        let manifest = files.get("job.MF").ok_or_else(|| {
            refuse(ErrorCode::JobMissingManifest, format!("Missing job manifest for '{name}'"))
        })?;
        let invalid =
            |why: String| refuse(ErrorCode::JobInvalidArchive, format!("job.MF of job '{name}' {why}"));
        let text = std::str::from_utf8(manifest).map_err(|_| invalid("is not UTF-8".into()))?;
        let document = yaml::parse(text).map_err(|e| invalid(format!("is not YAML: {e}")))?;
        let fields = Fields::of(&document).map_err(|e| invalid(format!("is not a hash: {}", e.message)))?;
        let own_name = fields.text("name")?;
        if own_name != name.as_str() {
            let message = format!("Inconsistent name for job '{name}': job.MF says '{own_name}'");
            return Err(refuse(ErrorCode::JobInvalidName, message));
        }
        let spec = Spec { job: name, fields };
        let properties = spec.properties()?;
        let job = Self {
            packages: spec.packages()?,
            provides: spec.provides(&properties)?,
            consumes: spec.consumes()?,
            templates: spec.templates()?,
            logs: spec.logs()?,
            name: name.clone(),
            properties,
            document: Value::Null,
            files,
        };
        job.check_files()?;
        Ok(Self { document, ..job })
    }

    /// Reads the archive that a blob holds.
    pub async fn load(
        store: &dyn Blobstore,
        name: &JobName,
        blob: &BlobDigest,
    ) -> Result<Self, ArchiveError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("failed to read the archive of job '{name}' from blob {blob}");
            ArchiveError::caused(ErrorCode::JobInvalidArchive, message, source)
        };
        let reader = store.get(blob).await.map_err(|e| failed(e.into()))?;
        let mut bytes = Vec::new();
        // What compresses worse than its limit cannot expand within it.
        let mut bounded = reader.take(Limits::JOB.bytes_max);
        bounded.read_to_end(&mut bytes).await.map_err(|e| failed(e.into()))?;
        // Nearly all are: to hand them to a thread takes longer than to unpack them.
        if bytes.len() <= SMALL_BYTES {
            return Self::read(name, &bytes[..]);
        }
        let unpacked = {
            let name = name.clone();
            tokio::task::spawn_blocking(move || Self::read(&name, &bytes[..]))
        };
        unpacked.await.map_err(|e| failed(e.into()))?
    }

    /// Returns what the renderer needs of the job.
    pub fn templates(&self, release: &ReleaseRef) -> Result<JobTemplates, ArchiveError> {
        let monit = self.files.get("monit").ok_or_else(|| self.missing_monit())?.clone();
        let template = |(source, destination): &(String, String)| Template {
            source: source.clone(),
            destination: destination.clone(),
            text: self.files.get(&format!("templates/{source}")).cloned().unwrap_or_default(),
        };
        let templates = self.templates.iter().map(template).collect();
        Ok(JobTemplates { name: self.name.clone(), release: release.clone(), monit, templates })
    }

    /// Returns what `job.MF` says.
    pub fn spec(&self) -> &Value {
        &self.document
    }

    /// Returns the job as the state files it.
    pub fn info(&self, fingerprint: Fingerprint, digest: String, blob: BlobDigest) -> JobInfo {
        JobInfo {
            name: self.name.clone(),
            fingerprint,
            digest,
            blob,
            packages: self.packages.clone(),
            properties: self.properties.clone(),
            provides: self.provides.clone(),
            consumes: self.consumes.clone(),
            templates: self.templates.clone(),
            logs: self.logs.clone(),
        }
    }

    /// Refuses a job that wants its properties checked against a schema, which we can't do: it would be deployed with
    /// properties that its authors have ruled out. A schema that demands nothing is no reason.
    pub(super) fn check_schema(&self) -> Result<(), ArchiveError> {
        let Some(text) = self.files.get("properties_schema.json") else { return Ok(()) };
        let refuse = |why: String| {
            let message = format!("properties_schema.json of job '{}' {why}", self.name);
            ArchiveError::new(ErrorCode::JobInvalidPropertySpec, message)
        };
        let schema: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| refuse(format!("is not a hash in JSON: {e}")))?;
        match schema.keys().find(|key| !SCHEMA_NOTES.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(refuse(format!(
                "makes demands ('{key}'), and this director can't check properties against a schema: leave the file out \
                 to use the job without the check"
            ))),
        }
    }

    fn check_files(&self) -> Result<(), ArchiveError> {
        let missing = self
            .templates
            .iter()
            .find(|(source, _)| !self.files.contains_key(&format!("templates/{source}")));
        if let Some((source, _)) = missing {
            let message = format!("Missing template file '{source}' for job '{}'", self.name);
            return Err(ArchiveError::new(ErrorCode::JobMissingTemplateFile, message));
        }
        // Upload takes any `*.monit`; only rendering insists on `monit` itself.
        let is_monit = |path: &String| path == "monit" || (path.ends_with(".monit") && !path.contains('/'));
        if self.files.keys().any(is_monit) { Ok(()) } else { Err(self.missing_monit()) }
    }

    fn missing_monit(&self) -> ArchiveError {
        ArchiveError::new(ErrorCode::JobMissingMonit, format!("Job '{}' is missing monit file", self.name))
    }
}

fn read_files(name: &JobName, archive: impl Read) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
    let read = for_each(archive, Limits::JOB, |mut item| {
        match item.kind.clone() {
            Kind::Folder => {}
            Kind::Link(target) => {
                links.insert(item.path.clone(), target);
            }
            Kind::File => {
                let is_manifest = item.path == "job.MF";
                let bytes_max = if is_manifest { MANIFEST_BYTES_MAX } else { Limits::JOB.bytes_max };
                let content = read_small(&mut item, bytes_max)?;
                files.insert(item.path, content);
            }
        }
        Ok(Next::Continue)
    });
    let read = read.and_then(|()| Ok(follow_links(&mut files, &links)?));
    read.map_err(|h: Halt| {
        h.refuse(ErrorCode::JobInvalidArchive, &format!("Extracting the archive of job '{name}'"))
    })?;
    Ok(files)
}

/// Gives every link its target's content. A link costs a few bytes in the archive and a whole file here, so together
/// with the files they stay within what the archive may expand to.
fn follow_links(files: &mut BTreeMap<String, Vec<u8>>, links: &BTreeMap<String, String>) -> io::Result<()> {
    let mut bytes: u64 = files.values().map(|content| content.len() as u64).sum();
    for (path, target) in links {
        let mut target = target;
        for _ in 0..LINK_STEPS_MAX {
            target = links.get(target).unwrap_or(target);
        }
        let Some(content) = files.get(target) else { continue };
        bytes += content.len() as u64;
        if bytes > Limits::JOB.bytes_max {
            let bytes_max = Limits::JOB.bytes_max;
            return Err(invalid(format!("its links expand it to more than {bytes_max} bytes")));
        }
        files.insert(path.clone(), content.clone());
    }
    Ok(())
}

/// `job.MF` as the readers of its sections see it.
struct Spec<'a> {
    job: &'a JobName,
    fields: Fields<'a>,
}

impl<'a> Spec<'a> {
    fn refuse(&self, code: ErrorCode, why: &str) -> ArchiveError {
        ArchiveError::new(code, format!("Job '{}' has {why}", self.job))
    }

    /// Returns a section, none if it is absent or null.
    fn section(&self, key: &str) -> Option<&'a Value> {
        self.fields.raw(key).filter(|v| !v.is_null())
    }

    fn packages(&self) -> Result<Vec<PackageName>, ArchiveError> {
        let refuse = || self.refuse(ErrorCode::JobInvalidPackageSpec, "invalid package spec format");
        let Some(section) = self.section("packages") else { return Ok(Vec::new()) };
        let names =
            section.as_array().ok_or_else(refuse)?.iter().map(|name| name.as_str().map(PackageName::from));
        names.collect::<Option<_>>().ok_or_else(refuse)
    }

    fn templates(&self) -> Result<Vec<(String, String)>, ArchiveError> {
        let refuse =
            || self.refuse(ErrorCode::JobInvalidArchive, "invalid templates, expected source: destination");
        let Some(section) = self.section("templates") else { return Ok(Vec::new()) };
        let pairs = section.as_object().ok_or_else(refuse)?;
        pairs
            .iter()
            .map(|(from, to)| Ok((from.clone(), self.destination(to.as_str().ok_or_else(refuse)?)?)))
            .collect()
    }

    /// A destination becomes a path in the archive for the agent, so it must stay in the job's folder.
    fn destination(&self, text: &str) -> Result<String, ArchiveError> {
        let leaves = text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..");
        if leaves || text.contains('\0') {
            let why = format!("a template with destination '{text}', outside of the job's folder");
            return Err(self.refuse(ErrorCode::JobInvalidArchive, &why));
        }
        Ok(text.to_owned())
    }

    fn logs(&self) -> Result<Value, ArchiveError> {
        match self.section("logs") {
            None => Ok(Value::Null),
            Some(logs @ Value::Object(_)) => Ok(logs.clone()),
            Some(_) => Err(self.refuse(ErrorCode::JobInvalidLogSpec, "invalid logs spec format")),
        }
    }

    fn properties(&self) -> Result<Vec<PropertyDefinition>, ArchiveError> {
        let refuse = || self.refuse(ErrorCode::JobInvalidPropertySpec, "invalid properties spec format");
        let Some(section) = self.section("properties") else { return Ok(Vec::new()) };
        let definition = |(name, value): (&String, &Value)| {
            let empty = Map::new();
            let definition = match value {
                Value::Null => &empty,
                value => value.as_object().ok_or_else(refuse)?,
            };
            let default = definition.get("default").filter(|v| !v.is_null()).cloned();
            Ok(PropertyDefinition { name: name.clone(), default })
        };
        section.as_object().ok_or_else(refuse)?.iter().map(definition).collect()
    }

    fn provides(&self, declared: &[PropertyDefinition]) -> Result<Vec<ProvidedLink>, ArchiveError> {
        let link = |fields: &Map<String, Value>, name: &str, kind: &str| {
            let properties: Vec<String> = match fields.get("properties").filter(|v| !v.is_null()) {
                None => Vec::new(),
                Some(list) => self.link_properties(list)?,
            };
            if let Some(unknown) = properties.iter().find(|p| !declared.iter().any(|d| d.name == **p)) {
                let why =
                    format!("link '{name}' with property '{unknown}', which is not defined in its spec");
                return Err(self.refuse(ErrorCode::JobInvalidLinkSpec, &why));
            }
            Ok(ProvidedLink { name: name.to_owned(), kind: kind.to_owned(), properties })
        };
        self.links("provides", link)
    }

    fn link_properties(&self, list: &Value) -> Result<Vec<String>, ArchiveError> {
        let names = list.as_array().and_then(|l| l.iter().map(|p| p.as_str().map(str::to_owned)).collect());
        names.ok_or_else(|| {
            self.refuse(ErrorCode::JobInvalidLinkSpec, "a link whose properties are not a list of names")
        })
    }

    fn consumes(&self) -> Result<Vec<ConsumedLink>, ArchiveError> {
        self.links("consumes", |fields, name, kind| {
            let optional = fields.get("optional").and_then(Value::as_bool).unwrap_or_default();
            Ok(ConsumedLink { name: name.to_owned(), kind: kind.to_owned(), optional })
        })
    }

    fn links<T>(
        &self,
        key: &str,
        make: impl Fn(&Map<String, Value>, &str, &str) -> Result<T, ArchiveError>,
    ) -> Result<Vec<T>, ArchiveError> {
        let refuse = || {
            self.refuse(
                ErrorCode::JobInvalidLinkSpec,
                &format!("invalid '{key}': a list of hashes with name and type is expected"),
            )
        };
        let Some(section) = self.section(key) else { return Ok(Vec::new()) };
        let (mut links, mut names) = (Vec::new(), Vec::new());
        for item in section.as_array().ok_or_else(refuse)? {
            let fields = item.as_object().ok_or_else(refuse)?;
            let text = |key| fields.get(key).and_then(Value::as_str).ok_or_else(refuse);
            let (name, kind) = (text("name")?, text("type")?);
            if names.contains(&name) {
                let why = format!("'{key}' with two links called '{name}'");
                return Err(self.refuse(ErrorCode::JobDuplicateLinkName, &why));
            }
            names.push(name);
            links.push(make(fields, name, kind)?);
        }
        Ok(links)
    }
}
