//! Jobs of a group, and what the manifest says about their links.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::group::{Scope, duplicates};
use crate::dns::LinkAlias;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::ReleaseRef;
use crate::task::TaskError;

/// A job of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupJob {
    /// The job's name.
    pub name: JobName,
    /// The release it comes from.
    pub release: ReleaseRef,
    /// Properties as given, not yet reduced to those the job declares; placeholders unresolved.
    pub properties: Value,
    /// What the manifest says about links that it consumes.
    pub consumes: BTreeMap<String, Consume>,
    /// What the manifest says about links that it provides.
    pub provides: BTreeMap<String, Provide>,
    /// Links that it provides although its release does not say so.
    pub custom_providers: Vec<crate::release::ProvidedLink>,
}

/// How a link is consumed.
#[derive(Clone, Debug, PartialEq)]
pub enum Consume {
    /// Explicitly not at all.
    Blocked,
    /// From a provider, looked up by name.
    From(ConsumeFrom),
    /// From what the manifest itself gives.
    Manual(Map<String, Value>),
}

/// Where a link comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumeFrom {
    /// The provider's alias; the link's own name if absent.
    pub from: Option<String>,
    /// Another deployment.
    pub deployment: Option<DeploymentName>,
    /// The provider's network whose addresses count.
    pub network: Option<NetworkName>,
    /// Whether addresses are IPs (true) or names (false); the provider's choice if absent.
    pub ip_addresses: Option<bool>,
}

/// How a link is provided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provide {
    /// Not at all.
    pub blocked: bool,
    /// Under another name.
    pub alias: Option<String>,
    /// Whether other deployments may consume it.
    pub shared: bool,
    /// Other names in DNS for what it leads to.
    pub aliases: Vec<LinkAlias>,
}

/// Reads a group's `jobs`.
pub(super) fn parse_all(fields: &Fields<'_>, group: &str, scope: &Scope<'_>) -> Checked<Vec<GroupJob>> {
    let Some(items) = fields.list_opt("jobs")? else {
        return Err(TaskError::new(
            ErrorCode::ValidationMissingField,
            format!("Instance group '{group}' does not specify jobs key"),
        ));
    };
    let group_properties = fields.mapping_opt("properties")?;
    let mut jobs = Vec::with_capacity(items.len());
    for item in items {
        let item = Fields::of(item)?;
        let name = item.text("name")?;
        let release_name = item.text("release")?;
        let release = scope.releases.iter().find(|r| r.release.name.as_str() == release_name).ok_or_else(|| {
            TaskError::new(
                ErrorCode::InstanceGroupUnknownRelease,
                format!("Job '{name}' (instance group '{group}') references an unknown release '{release_name}'"),
            )
        })?;
        let uploaded = scope.context.stock.release(&release.release)?;
        if uploaded.job(&name).is_none() {
            return Err(TaskError::new(
                ErrorCode::InstanceGroupUnknownJob,
                format!("Job '{name}' not found in release '{release_name}'"),
            ));
        }
        let properties = match item.mapping_opt("properties")? {
            Some(own) => Value::Object(own.clone()),
            None => deep_merge(scope.properties.clone(), group_properties),
        };
        let (provides, consumes) = parse_links(&item, &name, group)?;
        jobs.push(GroupJob {
            name: JobName::new(name),
            release: uploaded.release.clone(),
            properties,
            consumes,
            provides,
            custom_providers: parse_custom_providers(&item)?,
        });
    }
    match duplicates(jobs.iter().map(|j| j.name.as_str())) {
        Some(name) => Err(TaskError::new(
            ErrorCode::InstanceGroupDuplicateJob,
            format!("Colocated job '{name}' is already added to the instance group '{group}'"),
        )),
        None => Ok(jobs),
    }
}

/// Reads `provides` and `consumes` of a job. All complaints of a job come together, one per line (100).
pub(super) fn parse_links(
    fields: &Fields<'_>,
    job: &str,
    group: &str,
) -> Checked<(BTreeMap<String, Provide>, BTreeMap<String, Consume>)> {
    let (mut provides, mut consumes, mut complaints) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let place = |link: &str| format!("for link '{link}' in job '{job}' in instance group '{group}'");
    let empty = Map::new();
    for (link, value) in fields.mapping_opt("provides")?.unwrap_or(&empty) {
        match parse_provide(value) {
            Ok(provide) => {
                provides.insert(link.clone(), provide);
            }
            Err(why) => complaints.push(format!("{why} {}.", place(link))),
        }
    }
    for (link, value) in fields.mapping_opt("consumes")?.unwrap_or(&empty) {
        match parse_consume(value) {
            Ok(consume) => {
                consumes.insert(link.clone(), consume);
            }
            Err(why) => complaints.push(format!("{why} {}.", place(link))),
        }
    }
    if complaints.is_empty() {
        Ok((provides, consumes))
    } else {
        Err(TaskError::plain(complaints.join("\n")))
    }
}

fn parse_provide(value: &Value) -> Result<Provide, &'static str> {
    match value {
        Value::String(text) if text == "nil" => Ok(Provide { blocked: true, ..Provide::default() }),
        Value::Object(map) if map.contains_key("name") || map.contains_key("type") => {
            Err("Cannot specify 'name' or 'type' properties in the manifest")
        }
        Value::Object(map) => Ok(Provide {
            blocked: false,
            alias: map.get("as").and_then(Value::as_str).map(str::to_owned),
            shared: map.get("shared").and_then(Value::as_bool).unwrap_or(false),
            aliases: parse_aliases(map.get("aliases"))?,
        }),
        _ => Err("Provider should be specified as hash or string 'nil'"),
    }
}

fn parse_aliases(value: Option<&Value>) -> Result<Vec<LinkAlias>, &'static str> {
    const WHY: &str = "DNS 'aliases' should be a list of hashes of texts, each with a 'domain'";
    match value {
        None => Ok(Vec::new()),
        Some(list @ Value::Array(_)) => LinkAliases::deserialize(list).map_err(|_| WHY),
        Some(_) => Err(WHY),
    }
}

type LinkAliases = Vec<LinkAlias>;

fn parse_consume(value: &Value) -> Result<Consume, &'static str> {
    let map = match value {
        Value::String(text) if text == "nil" => return Ok(Consume::Blocked),
        Value::Object(map) => map,
        _ => return Err("Consumer should be specified as hash or string 'nil'"),
    };
    let (instances, properties, from) =
        (map.contains_key("instances"), map.contains_key("properties"), map.contains_key("from"));
    match () {
        () if instances && from => Err("Cannot specify both 'instances' and 'from' keys"),
        () if properties && from => Err("Cannot specify both 'properties' and 'from' keys"),
        () if properties && !instances => Err("Cannot specify 'properties' without 'instances'"),
        () if map.contains_key("name") || map.contains_key("type") => {
            Err("Cannot specify 'name' or 'type' properties in the manifest")
        }
        () if map.get("ip_addresses").is_some_and(|v| !v.is_boolean()) => {
            Err("Cannot specify non boolean values for 'ip_addresses' field")
        }
        () if instances || map.contains_key("address") => Ok(Consume::Manual(map.clone())),
        () => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
            Ok(Consume::From(ConsumeFrom {
                // What comes before a dot has no meaning (any more).
                from: text("from").map(|from| from.rsplit('.').next().unwrap_or(&from).to_owned()),
                deployment: text("deployment").map(DeploymentName::new),
                network: text("network").map(NetworkName::new),
                ip_addresses: map.get("ip_addresses").and_then(Value::as_bool),
            }))
        }
    }
}

fn parse_custom_providers(fields: &Fields<'_>) -> Checked<Vec<crate::release::ProvidedLink>> {
    let mut found = Vec::new();
    for item in fields.list_or_empty("custom_provider_definitions")? {
        let item = Fields::of(item)?;
        let properties = item.list_or_empty("properties")?;
        found.push(crate::release::ProvidedLink {
            name: item.text("name")?,
            kind: item.text("type")?,
            properties: properties.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        });
    }
    Ok(found)
}

/// Merges `over` into `base`, mapping by mapping.
pub fn deep_merge(base: Value, over: Option<&Map<String, Value>>) -> Value {
    let Value::Object(mut merged) = base else { return Value::Object(over.cloned().unwrap_or_default()) };
    for (key, value) in over.into_iter().flatten() {
        let new = match (merged.remove(key), value) {
            (Some(old @ Value::Object(_)), Value::Object(map)) => deep_merge(old, Some(map)),
            _ => value.clone(),
        };
        merged.insert(key.clone(), new);
    }
    Value::Object(merged)
}
