//! Links as operators can ask for them: what a deployment offers and wants, and where it is found.

use model::link::{LinkOffer, LinkOwner, LinkOwnerKind, LinkPlace, LinkSource, LinkWant, Links};
use model::manifest::job::Consume;
use model::manifest::variable::VariableSpec;
use model::release::ConsumedLink;
use model::task::TaskError;
use model::*;
use serde_json::Value;

use super::Provider;
use super::content::chosen_network;
use super::resolve::{Choice, Connections, Source};
use crate::bind::BoundGroup;
use crate::variables;

/// Lists all links of a deployment, in the manifest's order.
pub(crate) fn of(
    deployment: &DeploymentName,
    groups: &[BoundGroup<'_>],
    variables: &[VariableSpec],
    providers: &[Provider],
    connections: &Connections,
) -> Result<Links, TaskError> {
    let mut links = Links::default();
    for bound in groups {
        let former: Vec<GroupName> = bound.group.migrated_from.iter().map(|from| from.name.clone()).collect();
        let of_group = providers.iter().filter(|p| p.group == bound.group.name);
        links.offers.extend(of_group.map(|provider| offer(provider, &former)));
        for job in &bound.jobs {
            let owner = |kind| LinkOwner {
                kind,
                name: job.info.name.to_string(),
                group: Some(bound.group.name.clone()),
            };
            for link in &job.info.consumes {
                let key = (bound.group.name.clone(), job.info.name.clone(), link.name.clone());
                let source = connections.get(&key).map(|connected| match connected {
                    Source::Own(at, choice) => source(&providers[*at], choice),
                    Source::Other(provider, choice) => source(provider, choice),
                    Source::Manual(given) => LinkSource {
                        deployment: deployment.clone(),
                        owner: owner(LinkOwnerKind::Manual),
                        name: link.name.clone(),
                        place: by_hand(given.get("address")),
                    },
                });
                let manual = source.as_ref().filter(|source| source.owner.kind == LinkOwnerKind::Manual);
                links.offers.extend(manual.map(|source| offer_by_hand(source, link, &former)));
                links.wants.push(LinkWant {
                    owner: owner(LinkOwnerKind::Job),
                    former_groups: former.clone(),
                    name: link.name.clone(),
                    alias: alias(job.manifest.consumes.get(&link.name), link).to_owned(),
                    kind: link.kind.clone(),
                    optional: link.optional,
                    source,
                });
            }
        }
    }
    for variable in variables {
        for (key, wanted) in &variable.consumes {
            links.wants.push(of_variable(variable, key, wanted, providers)?);
        }
    }
    Ok(links)
}

/// Returns the name by which a job asks for a link.
fn alias<'a>(said: Option<&'a Consume>, link: &'a ConsumedLink) -> &'a str {
    match said {
        Some(Consume::From(from)) => from.from.as_deref().unwrap_or(&link.name),
        _ => &link.name,
    }
}

/// What the manifest gives by hand is offered to the one job alone.
fn offer_by_hand(source: &LinkSource, link: &ConsumedLink, former_groups: &[GroupName]) -> LinkOffer {
    LinkOffer {
        owner: source.owner.clone(),
        former_groups: former_groups.to_vec(),
        name: link.name.clone(),
        alias: link.name.clone(),
        kind: link.kind.clone(),
        shared: false,
        networks: Vec::new(),
        place: source.place.clone(),
    }
}

fn of_variable(
    variable: &VariableSpec,
    key: &str,
    wanted: &Value,
    providers: &[Provider],
) -> Result<LinkWant, TaskError> {
    let asked = variables::Asked::of(key, wanted);
    let provider = asked.provider(variable, providers)?;
    Ok(LinkWant {
        owner: LinkOwner { kind: LinkOwnerKind::Variable, name: variable.name.clone(), group: None },
        former_groups: Vec::new(),
        name: key.to_owned(),
        alias: asked.from.to_owned(),
        kind: asked.kind.to_owned(),
        optional: false,
        source: Some(source(provider, &Choice::default())),
    })
}

fn offer(provider: &Provider, former_groups: &[GroupName]) -> LinkOffer {
    LinkOffer {
        owner: owner_of(provider),
        former_groups: former_groups.to_vec(),
        name: provider.name.clone(),
        alias: provider.called().to_owned(),
        kind: provider.kind.clone(),
        shared: provider.shared,
        networks: provider.networks.clone(),
        place: place(provider, &Choice::default()),
    }
}

fn owner_of(provider: &Provider) -> LinkOwner {
    let kind = if provider.disk.is_some() { LinkOwnerKind::Disk } else { LinkOwnerKind::Job };
    let (name, group) = (provider.job.to_string(), Some(provider.group.clone()));
    LinkOwner { kind, name, group }
}

fn source(provider: &Provider, choice: &Choice) -> LinkSource {
    LinkSource {
        deployment: provider.deployment.clone(),
        owner: owner_of(provider),
        name: provider.name.clone(),
        place: place(provider, choice),
    }
}

fn place(provider: &Provider, choice: &Choice) -> LinkPlace {
    if provider.disk.is_some() {
        return by_hand(None);
    }
    let content = provider.content.first().map_or(&Value::Null, |(_, content)| content);
    let is_on = |feature: &str| content[feature].as_bool().unwrap_or(false);
    LinkPlace::Group {
        deployment: provider.deployment.clone(),
        group: provider.group.clone(),
        network: chosen_network(provider, choice),
        domain: content["domain"].as_str().unwrap_or_default().to_owned(),
        short_names: is_on("use_short_dns_addresses"),
        link_group: is_on("use_link_dns_names").then(|| provider.provided_name().group_name()),
    }
}

fn by_hand(address: Option<&Value>) -> LinkPlace {
    LinkPlace::ByHand { address: address.and_then(Value::as_str).map(str::to_owned) }
}
