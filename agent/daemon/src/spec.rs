//! The apply spec: what an instance should have installed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::sha1_hex;

/// An apply spec. Fields that BOSH's agent does not know are dropped, as it drops them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ApplySpec {
    pub(crate) job: Job,
    pub(crate) packages: BTreeMap<String, Package>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) configuration_hash: String,
    pub(crate) networks: BTreeMap<String, Value>,
    pub(crate) resource_pool: Value,
    pub(crate) deployment: String,
    pub(crate) name: String,
    pub(crate) index: Option<u64>,
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) az: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) persistent_disk: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) rendered_templates_archive: Archive,
}

/// The jobs of an instance, under one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) release: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) template: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) version: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) templates: Vec<Template>,
}

/// One job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Template {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
}

/// One package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha1: String,
    pub(crate) blobstore_id: String,
}

/// The rendered templates of all jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Archive {
    pub(crate) sha1: String,
    pub(crate) blobstore_id: String,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ApplySpec {
    /// Returns the jobs that are to be installed: none without rendered templates.
    pub(crate) fn jobs(&self) -> &[Template] {
        if self.rendered_templates_archive.blobstore_id.is_empty() { &[] } else { &self.job.templates }
    }

    /// Returns the directory name of an installed job.
    pub(crate) fn job_version_hash(&self, template: &Template) -> String {
        version_hash(&template.version, &self.rendered_templates_archive.sha1)
    }
}

impl Package {
    /// Returns the directory name of the installed package.
    pub(crate) fn version_hash(&self) -> String {
        version_hash(&self.version, &self.sha1)
    }
}

fn version_hash(version: &str, digest: &str) -> String {
    sha1_hex(&format!("{version}-{digest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_known_fields_are_kept() {
        let sent = json!({
            "deployment": "d", "name": "web", "id": "u", "az": null, "index": 0, "template_hashes": { "j": "x" },
            "job": { "name": "web", "template": "j", "version": "1", "templates": [{ "name": "j", "version": "1", "sha1": "s" }] },
            "packages": {}, "networks": { "n": { "ip": "10.0.0.2" } }, "configuration_hash": "c",
            "rendered_templates_archive": null,
        });
        let spec: ApplySpec = serde_json::from_value(sent).unwrap();
        let kept = serde_json::to_value(&spec).unwrap();
        assert!(kept.get("template_hashes").is_none() && kept.get("properties").is_none());
        assert_eq!(kept["networks"]["n"]["ip"], "10.0.0.2");
        assert_eq!(spec.jobs(), [], "no rendered templates, no jobs");
    }

    #[test]
    fn before_any_apply_names_are_null_and_maps_empty() {
        let empty = serde_json::to_value(ApplySpec::default()).unwrap();
        assert_eq!(empty["job"]["name"], Value::Null);
        assert_eq!(empty["index"], Value::Null);
        assert_eq!(empty["packages"], json!({}));
    }

    #[test]
    fn an_installed_directory_is_named_by_version_and_digest() {
        // sha1("1-abc")
        let package = Package { version: "1".into(), sha1: "abc".into(), ..Package::default() };
        assert_eq!(package.version_hash(), sha1_hex("1-abc"));
        assert_eq!(package.version_hash().len(), 40);
    }
}
