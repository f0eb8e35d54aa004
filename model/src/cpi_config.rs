//! CPI configs: which clouds there are beside the default one, which zones they serve, and what they were called before.
//!
//! Not here: resolving placeholders in properties, which are secret and resolved at the moment of use.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde_json::{Map, Value};

use crate::cloud_config::Az;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::CpiName;
use crate::task::TaskError;
use crate::yaml;

/// One cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct CpiEntry {
    /// Its name.
    pub name: CpiName,
    /// What kind of cloud: tells where its executable is, unless that is said.
    pub kind: String,
    /// Where its executable is, if that is said.
    pub exec_path: Option<String>,
    /// What the executable is told with every call; placeholders unresolved.
    pub properties: Map<String, Value>,
    /// What it was called before; empty for what was the default one.
    pub migrated_from: Vec<CpiName>,
    /// How fast it may be asked.
    pub limits: CpiLimits,
}

/// How fast a cloud may be asked. What is not said is up to whoever asks. An addition of ours to BOSH's CPI configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpiLimits {
    /// Calls side by side.
    pub calls_at_once: Option<NonZeroU32>,
    /// Calls in a minute.
    pub calls_per_minute: Option<NonZeroU32>,
}

impl CpiLimits {
    fn parse(cpi: &str, given: &Map<String, Value>) -> Checked<Self> {
        let mut limits = Self::default();
        for (key, value) in given {
            let limit = match key.as_str() {
                "calls_at_once" => &mut limits.calls_at_once,
                "calls_per_minute" => &mut limits.calls_per_minute,
                _ => {
                    return Err(TaskError::plain(format!(
                        "CPI '{cpi}' has an unknown limit '{key}': there are 'calls_at_once' and 'calls_per_minute'"
                    )));
                }
            };
            let number = value.as_u64().and_then(|number| NonZeroU32::new(number.try_into().ok()?));
            let wrong = || {
                TaskError::plain(format!("CPI '{cpi}': limit '{key}' should be a whole number, 1 or more"))
            };
            *limit = Some(number.ok_or_else(wrong)?);
        }
        Ok(limits)
    }
}

impl CpiEntry {
    fn parse(item: &Value) -> Checked<Self> {
        let fields = Fields::of(item)?;
        let name = fields.text("name")?;
        let limits = fields.mapping_opt("limits")?.map(|given| CpiLimits::parse(&name, given));
        let before = fields.list_or_empty("migrated_from")?.iter();
        let before = before.map(|item| Ok(CpiName::new(Fields::of(item)?.text("name")?)));
        Ok(Self {
            name: CpiName::new(name),
            kind: fields.text("type")?,
            exec_path: fields.text_opt("exec_path")?,
            properties: fields.mapping_opt("properties")?.cloned().unwrap_or_default(),
            migrated_from: before.collect::<Checked<_>>()?,
            limits: limits.transpose()?.unwrap_or_default(),
        })
    }

    /// Returns the executable's path.
    pub fn program(&self) -> String {
        self.exec_path.clone().unwrap_or_else(|| format!("/var/vcap/jobs/{}_cpi/bin/cpi", self.kind))
    }

    /// Returns whether this is, or was, the cloud of that name.
    pub fn answers_to(&self, name: &CpiName) -> bool {
        self.name == *name || self.migrated_from.contains(name)
    }
}

/// All CPI configs together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpiConfigs {
    entries: Vec<CpiEntry>,
    is_there: bool,
}

impl CpiConfigs {
    /// Reads the contents of all of them.
    pub fn parse<'a>(contents: impl IntoIterator<Item = &'a str>) -> Checked<Self> {
        let mut all = Self::default();
        let mut names = BTreeSet::new();
        for content in contents {
            all.is_there = true;
            for item in Fields::new(&yaml::parse_mapping(content)?).list("cpis")? {
                let entry = CpiEntry::parse(item)?;
                for name in std::iter::once(&entry.name).chain(&entry.migrated_from) {
                    if !names.insert(name.clone()) {
                        return Err(TaskError::new(
                            ErrorCode::CpiDuplicateName,
                            format!("Duplicate CPI name '{name}'"),
                        ));
                    }
                }
                all.entries.push(entry);
            }
        }
        Ok(all)
    }

    /// Returns all clouds.
    pub fn entries(&self) -> &[CpiEntry] {
        &self.entries
    }

    /// Returns the cloud that has, or had, a name.
    pub fn find(&self, name: &CpiName) -> Option<&CpiEntry> {
        let exact = self.entries.iter().find(|entry| entry.name == *name);
        exact.or_else(|| self.entries.iter().find(|entry| entry.answers_to(name)))
    }

    /// Returns whether what was made under a name belongs to a cloud that is called `cpi` now.
    pub fn is_same(&self, cpi: &CpiName, made_under: &CpiName) -> bool {
        cpi == made_under || self.find(cpi).is_some_and(|entry| entry.answers_to(made_under))
    }

    /// Fails unless a zone names a cloud that there is, or none where there are no CPI configs.
    pub fn check_zone(&self, az: &Az) -> Checked<()> {
        let name = &az.name;
        match (self.is_there, az.cpi.as_str()) {
            (false, "") => Ok(()),
            (true, "") => Err(TaskError::new(
                ErrorCode::CpiNotFound,
                format!("AZ '{name}' must specify a CPI when CPI config is defined."),
            )),
            (false, cpi) => Err(TaskError::plain(format!(
                "CPI '{cpi}' of AZ '{name}' not found: no CPI config is defined. Upload one with `update-cpi-config`"
            ))),
            (true, cpi) if self.entries.iter().all(|entry| entry.name != az.cpi) => {
                Err(TaskError::plain(format!("CPI '{cpi}' of AZ '{name}' not found in any CPI config")))
            }
            (true, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TWO: &str = "cpis:\n- {name: east, type: aws, properties: {key: ((/key))}}\n\
                       - {name: west, type: gcp, exec_path: /opt/x/cpi, migrated_from: [{name: ''}, {name: old}]}\n";

    fn az(cpi: &str) -> Az {
        Az { name: "z1".into(), cloud_properties: json!({}), cpi: cpi.into() }
    }

    #[test]
    fn clouds_are_found_by_what_they_are_and_were_called() {
        let all = CpiConfigs::parse([TWO, "cpis: [{name: third, type: vsphere}]"]).unwrap();
        let program = |name: &str| all.find(&name.into()).map(CpiEntry::program);
        assert_eq!(program("east").as_deref(), Some("/var/vcap/jobs/aws_cpi/bin/cpi"));
        assert_eq!(program("old").as_deref(), Some("/opt/x/cpi"));
        assert_eq!(program("").as_deref(), Some("/opt/x/cpi"));
        assert_eq!(program("nowhere"), None);
        assert!(all.is_same(&"west".into(), &"old".into()) && !all.is_same(&"east".into(), &"old".into()));
        assert_eq!(all.entries().len(), 3);
    }

    #[test]
    fn how_fast_a_cloud_may_be_asked_is_said_in_its_entry() {
        let limits = |text: &str| {
            let all = CpiConfigs::parse([format!("cpis: [{{name: a, type: t, limits: {text}}}]").as_str()]);
            all.map(|all| all.entries()[0].limits).map_err(|error| error.message)
        };
        let some = |number| NonZeroU32::new(number);
        assert_eq!(
            limits("{calls_at_once: 4, calls_per_minute: 600}"),
            Ok(CpiLimits { calls_at_once: some(4), calls_per_minute: some(600) })
        );
        assert_eq!(limits("{}"), Ok(CpiLimits::default()));
        for (text, why) in [
            ("{calls_at_once: 0}", "CPI 'a': limit 'calls_at_once' should be a whole number, 1 or more"),
            ("{calls_per_minute: many}", "limit 'calls_per_minute' should be"),
            ("{calls_per_hour: 1}", "unknown limit 'calls_per_hour'"),
            ("5", "'limits'"),
        ] {
            let error = limits(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_name_belongs_to_one_cloud_old_names_too() {
        for twice in ["cpis: [{name: east, type: x}]", "cpis: [{name: old, type: x}]"] {
            let error = CpiConfigs::parse([TWO, twice]).unwrap_err();
            assert_eq!(error.code, ErrorCode::CpiDuplicateName.number());
        }
        let error = CpiConfigs::parse(["cpis: [{name: east}]"]).unwrap_err();
        assert!(error.message.contains("'type'"), "{}", error.message);
    }

    #[test]
    fn a_zone_names_a_cloud_exactly_if_there_are_cpi_configs() {
        let (none, two) = (CpiConfigs::default(), CpiConfigs::parse([TWO]).unwrap());
        assert_eq!(none.check_zone(&az("")), Ok(()));
        assert_eq!(two.check_zone(&az("east")), Ok(()));
        let silent = two.check_zone(&az("")).unwrap_err();
        assert_eq!(silent.code, ErrorCode::CpiNotFound.number());
        assert_eq!(silent.message, "AZ 'z1' must specify a CPI when CPI config is defined.");
        assert!(
            two.check_zone(&az("old")).is_err(),
            "an old name is for what is there, not for what is made"
        );
        assert!(none.check_zone(&az("east")).is_err());
    }
}
