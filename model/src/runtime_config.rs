//! Runtime configs: what every deployment gets on top of its manifest.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::ReleaseRef;
use crate::manifest::addon::{self, Addon};
use crate::manifest::variable::{self, VariableSpec};
use crate::task::TaskError;
use crate::version;

/// One runtime config.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeConfig {
    /// Releases that its addons may use.
    pub releases: Vec<ReleaseRef>,
    /// Addons.
    pub addons: Vec<Addon>,
    /// Variables of every deployment.
    pub variables: Vec<VariableSpec>,
    /// Tags of every deployment.
    pub tags: Vec<(String, String)>,
}

impl RuntimeConfig {
    /// Checks one config.
    pub fn parse(config: &Map<String, Value>) -> Checked<Self> {
        let fields = Fields::new(config);
        let mut releases: Vec<ReleaseRef> = Vec::new();
        for item in fields.list_or_empty("releases")? {
            let item = Fields::of(item)?;
            let (name, wanted) = (item.text("name")?, item.text("version")?);
            if version::is_latest(&wanted) {
                return Err(TaskError::new(
                    ErrorCode::RuntimeInvalidReleaseVersion,
                    format!(
                        "Runtime manifest contains the release '{name}' with version as '{wanted}'. Please specify the actual version string."
                    ),
                ));
            }
            releases.push(ReleaseRef { name: ReleaseName::new(name), version: Version::new(wanted) });
        }
        let addons = addon::parse_all(fields.list_or_empty("addons")?, addon::Level::Runtime)?;
        check_releases(&addons, &releases)?;
        let variables = variable::parse_all(fields.list_or_empty("variables")?)?;
        let tags = crate::manifest::parse_tags(&fields)?;
        Ok(Self { releases, addons, variables, tags })
    }
}

fn check_releases(addons: &[Addon], releases: &[ReleaseRef]) -> Checked<()> {
    let known: BTreeSet<&ReleaseName> = releases.iter().map(|r| &r.name).collect();
    match addons.iter().flat_map(|a| &a.jobs).find(|j| !known.contains(&j.release)) {
        Some(job) => Err(TaskError::new(
            ErrorCode::AddonReleaseNotListedInReleases,
            format!(
                "Manifest specifies job '{}' which is defined in '{}', but '{}' is not listed in the runtime releases section.",
                job.name, job.release, job.release
            ),
        )),
        None => Ok(()),
    }
}

/// Checks all runtime configs of a director, in order; tags may be in one of them only (530006).
pub fn parse_all<'a>(
    configs: impl IntoIterator<Item = &'a Map<String, Value>>,
) -> Checked<Vec<RuntimeConfig>> {
    let parsed: Vec<RuntimeConfig> = configs.into_iter().map(RuntimeConfig::parse).collect::<Checked<_>>()?;
    if parsed.iter().filter(|c| !c.tags.is_empty()).count() > 1 {
        return Err(TaskError::new(
            ErrorCode::RuntimeConfigParseError,
            "Runtime config 'tags' key cannot be defined in multiple runtime configs.",
        ));
    }
    Ok(parsed)
}
