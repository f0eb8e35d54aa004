//! Addons: jobs that are added to every group that matches.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::job::{Consume, Provide, parse_links};
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::task::TaskError;

/// Where an addon was written; decides which filters make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// In a deployment manifest.
    Deployment,
    /// In a runtime config.
    Runtime,
}

/// An addon.
#[derive(Clone, Debug, PartialEq)]
pub struct Addon {
    /// Its name.
    pub name: String,
    /// The jobs it adds.
    pub jobs: Vec<AddonJob>,
    /// Groups it is for; all if none is given.
    pub include: Option<Filter>,
    /// Groups it is not for.
    pub exclude: Option<Filter>,
}

/// A job of an addon.
#[derive(Clone, Debug, PartialEq)]
pub struct AddonJob {
    /// The job's name.
    pub name: JobName,
    /// The release's name.
    pub release: ReleaseName,
    /// Its properties; the addon's own if it gives none.
    pub properties: Value,
    /// What is said about links that it consumes.
    pub consumes: BTreeMap<String, Consume>,
    /// What is said about links that it provides.
    pub provides: BTreeMap<String, Provide>,
}

/// A filter: every kind that is given must match, by any of its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    deployments: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    jobs: Option<Vec<(String, String)>>,
    stemcells: Option<Vec<String>>,
    networks: Option<Vec<String>>,
    azs: Option<Vec<String>>,
    lifecycle: Option<String>,
}

/// What a filter sees of a group.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The deployment.
    pub deployment: &'a str,
    /// The group.
    pub group: &'a str,
    /// Its jobs so far, as (name, release); addons that came before count.
    pub jobs: Vec<(&'a str, &'a str)>,
    /// Its operating system.
    pub os: &'a str,
    /// Its networks.
    pub networks: Vec<&'a str>,
    /// Its zones.
    pub azs: Vec<&'a str>,
    /// `service` or `errand`.
    pub lifecycle: &'static str,
}

impl Addon {
    /// Returns whether the addon is for this group.
    pub fn applies(&self, candidate: &Candidate<'_>) -> bool {
        self.include.as_ref().is_none_or(|f| f.matches(candidate))
            && !self.exclude.as_ref().is_some_and(|f| f.matches(candidate))
    }
}

impl Filter {
    fn matches(&self, c: &Candidate<'_>) -> bool {
        let any = |wanted: &Option<Vec<String>>, has: &[&str]| {
            wanted.as_ref().is_none_or(|w| w.iter().any(|w| has.contains(&w.as_str())))
        };
        any(&self.deployments, &[c.deployment])
            && any(&self.groups, &[c.group])
            && any(&self.stemcells, &[c.os])
            && any(&self.networks, &c.networks)
            && any(&self.azs, &c.azs)
            && self.lifecycle.as_ref().is_none_or(|l| l == c.lifecycle)
            && self.jobs.as_ref().is_none_or(|jobs| {
                jobs.iter().any(|(name, release)| c.jobs.contains(&(name.as_str(), release.as_str())))
            })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads `addons`.
pub fn parse_all(items: &[Value], level: Level) -> Checked<Vec<Addon>> {
    items.iter().map(|item| parse(&Fields::of(item)?, level)).collect()
}

fn parse(fields: &Fields<'_>, level: Level) -> Checked<Addon> {
    let name = fields.text("name")?;
    let own = fields.mapping_or_empty("properties")?;
    let mut jobs = Vec::new();
    for item in fields.list_or_empty("jobs")? {
        let item = Fields::of(item)?;
        let job = item.text("name")?;
        let release = item.text("release")?;
        let properties =
            item.mapping_opt("properties")?.map_or_else(|| own.clone(), |p| Value::Object(p.clone()));
        let (provides, consumes) = parse_links(&item, &job, &format!("addon {name}"))?;
        jobs.push(AddonJob {
            name: JobName::new(job),
            release: ReleaseName::new(release),
            properties,
            consumes,
            provides,
        });
    }
    let include = parse_filter(fields.mapping_opt("include")?, level)?;
    let exclude = parse_filter(fields.mapping_opt("exclude")?, level)?;
    // An exclude without any kind would match everything; BOSH reads it as nothing.
    Ok(Addon { name, jobs, include, exclude: exclude.filter(|f| !f.is_empty()) })
}

fn parse_filter(section: Option<&Map<String, Value>>, level: Level) -> Checked<Option<Filter>> {
    let Some(section) = section else { return Ok(None) };
    let fields = Fields::new(section);
    let texts = |key: &str| -> Checked<Option<Vec<String>>> {
        let list = fields.list_opt(key)?;
        Ok(list.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
    };
    let mut filter = Filter::default();
    if let Some(items) = fields.list_opt("jobs")? {
        let incomplete = || {
            TaskError::new(
                ErrorCode::AddonIncompleteFilterJobSection,
                "Addon filter for 'jobs' needs both 'name' and 'release' of every job",
            )
        };
        let mut jobs = Vec::new();
        for item in items {
            let item = Fields::of(item)?;
            let name = item.text_opt("name")?.ok_or_else(incomplete)?;
            jobs.push((name, item.text_opt("release")?.ok_or_else(incomplete)?));
        }
        filter.jobs = Some(jobs);
    }
    if let Some(items) = fields.list_opt("stemcell")? {
        let mut stemcells = Vec::new();
        for item in items {
            stemcells.push(Fields::of(item)?.text_opt("os")?.ok_or_else(|| {
                TaskError::new(
                    ErrorCode::AddonIncompleteFilterStemcellSection,
                    "Addon filter for 'stemcell' needs the 'os' of every stemcell",
                )
            })?);
        }
        filter.stemcells = Some(stemcells);
    }
    filter.deployments = texts("deployments")?;
    if filter.deployments.is_some() && level == Level::Deployment {
        return Err(TaskError::new(
            ErrorCode::RuntimeConfigParseError,
            "Deployments are not allowed for deployment level addons",
        ));
    }
    filter.groups = texts("instance_groups")?;
    filter.networks = texts("networks")?;
    // In a deployment manifest BOSH passes it over.
    if fields.has("teams") && level == Level::Runtime {
        return Err(TaskError::plain(
            "Addon filter 'teams' can't be used: deployments have no teams in this release",
        ));
    }
    filter.azs = texts("azs")?;
    filter.lifecycle = fields.text_opt("lifecycle")?;
    Ok(Some(filter))
}
