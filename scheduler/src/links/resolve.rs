//! Who provides for whom.

use std::collections::BTreeMap;

use model::manifest::job::{Consume, ConsumeFrom};
use model::plan::DeploymentRecord;
use model::release::ConsumedLink;
use model::task::TaskError;
use model::*;
use serde_json::{Map, Value};

use super::{Provider, Stored};
use crate::bind::BoundGroup;

/// What a consumer's link is connected to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A provider of this deployment, by position.
    Own(usize, Choice),
    /// A provider of another deployment.
    Other(Box<Provider>, Choice),
    /// What the manifest gives by hand.
    Manual(Map<String, Value>),
}

/// What the consumer says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) network: Option<NetworkName>,
    pub(crate) ip_addresses: Option<bool>,
}

/// Sources by group, job and link.
pub(crate) type Connections = BTreeMap<(GroupName, JobName, String), Source>;

/// Lists what the groups offer.
pub(crate) fn providers(deployment: &DeploymentName, groups: &[BoundGroup<'_>]) -> Vec<Provider> {
    let mut found = Vec::new();
    for bound in groups {
        for job in &bound.jobs {
            for link in job.provided() {
                let said = job.manifest.provides.get(&link.name);
                found.push(Provider {
                    deployment: deployment.clone(),
                    group: bound.group.name.clone(),
                    job: job.info.name.clone(),
                    name: link.name.clone(),
                    alias: said.and_then(|p| p.alias.clone()),
                    kind: link.kind.clone(),
                    shared: said.is_some_and(|p| p.shared),
                    networks: bound.group.networks.iter().map(|n| n.name.clone()).collect(),
                    blocked: said.is_some_and(|p| p.blocked),
                    content: Vec::new(),
                    ips: Vec::new(),
                    aliases: said.map(|p| p.aliases.clone()).unwrap_or_default(),
                    disk: None,
                });
            }
        }
        let names = bound.group.named_disks.iter().filter_map(|disk| disk.name.as_ref());
        found.extend(names.map(|name| Provider::of_disk(deployment, &bound.group.name, name)));
    }
    found
}

/// Connects every consumer. All that cannot be connected are told together (100).
pub(crate) fn connect(
    deployment: &DeploymentName,
    groups: &[BoundGroup<'_>],
    own: &[Provider],
    others: &[DeploymentRecord],
) -> Result<Connections, TaskError> {
    let mut resolver = Resolver { deployment, own, others, complaints: Vec::new() };
    let mut connections = Connections::new();
    for bound in groups {
        for job in &bound.jobs {
            for link in &job.info.consumes {
                let said = job.manifest.consumes.get(&link.name);
                let place = Place { group: &bound.group.name, job: &job.info.name, link };
                if let Some(source) = resolver.connect(&place, said)? {
                    let key = (bound.group.name.clone(), job.info.name.clone(), link.name.clone());
                    connections.insert(key, source);
                }
            }
        }
    }
    if resolver.complaints.is_empty() {
        return Ok(connections);
    }
    Err(TaskError::plain(format!(
        "Failed to resolve links from deployment '{deployment}'. See errors below:\n{}",
        resolver.complaints.join("\n")
    )))
}

/// Whether the manifest mentions a link, and by which other name.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// It does not.
    Never,
    /// It does, if only by an empty entry.
    For { alias: Option<&'a str> },
}

struct Place<'a> {
    group: &'a GroupName,
    job: &'a JobName,
    link: &'a ConsumedLink,
}

struct Resolver<'a> {
    deployment: &'a DeploymentName,
    own: &'a [Provider],
    others: &'a [DeploymentRecord],
    complaints: Vec<String>,
}

impl Resolver<'_> {
    fn connect(&mut self, place: &Place<'_>, said: Option<&Consume>) -> Result<Option<Source>, TaskError> {
        match said {
            Some(Consume::Manual(given)) => Ok(Some(Source::Manual(given.clone()))),
            Some(Consume::Blocked) => {
                if !place.link.optional {
                    self.complain(place, None, "Details below:", &["No link providers found".into()]);
                }
                Ok(None)
            }
            Some(Consume::From(from)) => self.explicit(place, from),
            None => {
                let candidates: Vec<(usize, &Provider)> =
                    self.own.iter().enumerate().filter(|(_, p)| p.fits(&place.link.kind)).collect();
                Ok(self.choose(place, Asked::Never, &ConsumeFrom::default(), candidates))
            }
        }
    }

    fn explicit(&mut self, place: &Place<'_>, from: &ConsumeFrom) -> Result<Option<Source>, TaskError> {
        let name = from.from.as_deref().unwrap_or(&place.link.name);
        let asked = Asked::For { alias: from.from.as_deref().filter(|f| *f != place.link.name) };
        let fits = |p: &Provider| p.fits(&place.link.kind) && p.called() == name;
        let Some(other) = from.deployment.as_ref().filter(|d| *d != self.deployment) else {
            let candidates = self.own.iter().enumerate().filter(|(_, p)| fits(p)).collect();
            return Ok(self.choose(place, asked, from, candidates));
        };
        let record = self.others.iter().find(|r| r.name == *other).ok_or_else(|| {
            TaskError::plain(format!(
                "Link '{}' in job '{}' from instance group '{}' consumes from deployment '{other}', but the deployment does not exist.",
                place.link.name, place.job, place.group
            ))
        })?;
        let stored = Stored::read(record).providers;
        let candidates = stored.iter().enumerate().filter(|(_, p)| p.shared && fits(p)).collect();
        Ok(match self.choose(place, asked, from, candidates) {
            Some(Source::Own(at, choice)) => Some(Source::Other(Box::new(stored[at].clone()), choice)),
            source => source,
        })
    }

    fn choose(
        &mut self,
        place: &Place<'_>,
        asked: Asked<'_>,
        from: &ConsumeFrom,
        candidates: Vec<(usize, &Provider)>,
    ) -> Option<Source> {
        let (by_name, alias) = match asked {
            Asked::Never => (false, None),
            Asked::For { alias } => (true, alias),
        };
        let on_network = |p: &Provider| from.network.as_ref().is_none_or(|n| p.networks.contains(n));
        let fitting: Vec<&(usize, &Provider)> = candidates.iter().filter(|(_, p)| on_network(p)).collect();
        match &fitting[..] {
            [(at, _)] => {
                let choice = Choice { network: from.network.clone(), ip_addresses: from.ip_addresses };
                Some(Source::Own(*at, choice))
            }
            [] => {
                // An optional link that nobody mentioned may be missing; one that was asked for may not.
                if !place.link.optional || by_name {
                    let lines: Vec<String> = match candidates.is_empty() {
                        true => vec!["No link providers found".into()],
                        false => {
                            candidates.iter().map(|(_, p)| self.describe(p, from.network.as_ref())).collect()
                        }
                    };
                    self.complain(place, alias, "Details below:", &lines);
                }
                None
            }
            several => {
                let lines: Vec<String> = several.iter().map(|(_, p)| self.describe(p, None)).collect();
                self.complain(place, alias, "Multiple link providers found:", &lines);
                None
            }
        }
    }

    fn describe(&self, provider: &Provider, missing: Option<&NetworkName>) -> String {
        let alias = provider.alias.as_ref().map(|a| format!("with alias '{a}' ")).unwrap_or_default();
        let network = missing.map(|n| format!(" does not belong to network '{n}'")).unwrap_or_default();
        format!(
            "Link provider '{}' {alias}from job '{}' in instance group '{}' in deployment '{}'{network}",
            provider.name, provider.job, provider.group, provider.deployment
        )
    }

    fn complain(&mut self, place: &Place<'_>, alias: Option<&str>, head: &str, lines: &[String]) {
        let alias = alias.map(|a| format!("alias '{a}' and ")).unwrap_or_default();
        let mut text = format!(
            "  - Failed to resolve link '{}' with {alias}type '{}' from job '{}' in instance group '{}'. {head}",
            place.link.name, place.link.kind, place.job, place.group
        );
        for line in lines {
            text.push_str("\n    - ");
            text.push_str(line);
        }
        self.complaints.push(text);
    }
}
