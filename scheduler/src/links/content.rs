//! What a consumer's templates see of a link.

use std::collections::BTreeMap;

use model::dns::DnsSubject;
use model::instance::{InstanceSpec, NetworkKind};
use model::manifest::Features;
use model::task::TaskError;
use model::*;
use serde_json::{Map, Value, json};

use super::resolve::{Choice, Source};
use super::{Addresses, Provider};
use crate::bind::{BoundGroup, dig, plant};
use crate::dns::{self, Place};
use crate::input::Director;
use crate::network::default_network;

/// How addresses of a deployment are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addressing<'a> {
    pub(crate) director: &'a Director,
    pub(crate) features: &'a Features,
    /// Numbers in DNS names.
    pub(crate) numbers: &'a BTreeMap<DnsSubject, u32>,
}

impl Addressing<'_> {
    /// Returns whether names are given instead of addresses, unless a consumer says otherwise.
    pub(crate) fn uses_names(&self) -> bool {
        self.features.use_dns_addresses.unwrap_or(self.director.use_dns_addresses)
    }

    /// Returns whether those names are short ones.
    pub(crate) fn uses_short_names(&self) -> bool {
        self.director.local_dns && self.features.use_short_dns_addresses == Some(true)
    }

    /// Returns an instance's short name in a network: of its group, or of the link that it is told about, where those are to have
    /// names of their own. None as long as something in it has no number.
    fn short_name(
        &self,
        spec: &InstanceSpec,
        network: &NetworkName,
        link: Option<&Provider>,
    ) -> Option<String> {
        let of = &spec.deployment;
        let group = match link.filter(|_| self.features.use_link_dns_names == Some(true)) {
            Some(link) => DnsSubject::Link(of.clone(), link.provided_name().group_name()),
            None => DnsSubject::Group(of.clone(), spec.group.clone()),
        };
        let instance = DnsSubject::Instance(of.clone(), spec.id.clone());
        let number = |subject: DnsSubject| self.numbers.get(&subject);
        Some(format!(
            "q-m{}n{}s0.q-g{}.{}",
            number(instance)?,
            number(DnsSubject::Network(network.clone()))?,
            number(group)?,
            self.director.dns_domain
        ))
    }
}

/// Fills in what the jobs of a group give, once its instances and their addresses are known.
pub(crate) fn fill(
    providers: &mut [Provider],
    bound: &BoundGroup<'_>,
    instances: &[&InstanceSpec],
    addressing: &Addressing<'_>,
) -> Result<(), TaskError> {
    for provider in providers.iter_mut().filter(|p| p.group == bound.group.name && p.disk.is_none()) {
        let mut content = Vec::with_capacity(provider.networks.len());
        for network in &provider.networks {
            content.push((network.clone(), describe(provider, bound, instances, network, addressing)?));
        }
        provider.content = content;
        if addressing.uses_names() {
            provider.ips = ips(provider, instances, addressing)?;
        }
    }
    Ok(())
}

/// Returns the addresses that consumers are told who want no names.
fn ips(
    provider: &Provider,
    instances: &[&InstanceSpec],
    addressing: &Addressing<'_>,
) -> Result<Vec<Addresses>, TaskError> {
    let of = |network: &NetworkName| {
        let all = instances.iter().map(|spec| address(spec, network, false, (Some(provider), addressing)));
        Ok((network.clone(), all.collect::<Result<_, TaskError>>()?))
    };
    provider.networks.iter().map(of).collect()
}

fn describe(
    provider: &Provider,
    bound: &BoundGroup<'_>,
    instances: &[&InstanceSpec],
    network: &NetworkName,
    addressing: &Addressing<'_>,
) -> Result<Value, TaskError> {
    let default = default_network(&bound.group.networks).map(|n| n.name.as_str());
    let mut members = Vec::with_capacity(instances.len());
    for spec in instances {
        members.push(json!({
            "name": spec.group,
            "id": spec.id,
            "index": spec.index,
            "bootstrap": spec.bootstrap,
            "az": spec.az,
            "address": address(spec, network, addressing.uses_names(), (Some(provider), addressing))?,
        }));
    }
    let mut content = json!({
        "deployment_name": provider.deployment,
        "domain": addressing.director.dns_domain,
        "default_network": default,
        "networks": provider.networks,
        "instance_group": provider.group,
        "properties": properties(provider, bound),
        "use_short_dns_addresses": addressing.features.use_short_dns_addresses.unwrap_or(false),
        "use_dns_addresses": addressing.uses_names(),
        "use_link_dns_names": addressing.features.use_link_dns_names.unwrap_or(false),
        "instances": members,
    });
    if addressing.features.use_link_dns_names == Some(true) {
        // Templates that ask for the link's address ask by it for the number of the link's own group.
        content["group_name"] = json!(provider.provided_name().group_name());
    }
    Ok(content)
}

fn properties(provider: &Provider, bound: &BoundGroup<'_>) -> Value {
    let mut out = Map::new();
    let Some(job) = bound.jobs.iter().find(|j| j.info.name == provider.job) else {
        return Value::Object(out);
    };
    let Some(link) = job.provided().find(|l| l.name == provider.name) else { return Value::Object(out) };
    for path in &link.properties {
        let value = dig(&job.properties, path).ok().flatten().cloned().unwrap_or(Value::Null);
        plant(&mut out, path, value);
    }
    Value::Object(out)
}

/// Returns an instance's address in a network, for the consumers of a link if there is one: its IP, or its name where names
/// are wanted and served, or where the cloud has yet to choose the IP.
pub(crate) fn address(
    spec: &InstanceSpec,
    network: &NetworkName,
    names: bool,
    (link, addressing): (Option<&Provider>, &Addressing<'_>),
) -> Result<Option<String>, TaskError> {
    let director = addressing.director;
    let Some(settings) = spec.networks.iter().find(|n| n.name == *network) else { return Ok(None) };
    if settings.kind == NetworkKind::Dynamic || (names && director.local_dns) {
        let short = addressing.uses_short_names().then(|| addressing.short_name(spec, network, link));
        if let Some(Some(short)) = short {
            return Ok(Some(short));
        }
        let place = Place {
            group: spec.group.as_str(),
            network: network.as_str(),
            deployment: spec.deployment.as_str(),
            domain: &director.dns_domain,
        };
        return dns::instance_name(spec.id.as_str(), &place).map(Some);
    }
    Ok(settings.ip.map(|ip| ip.to_string()))
}

/// Returns the content of a consumer's link.
pub(crate) fn of(
    source: &Source,
    own: &[Provider],
    deployment: &DeploymentName,
    director: &Director,
) -> Result<Value, TaskError> {
    let (provider, choice) = match source {
        Source::Manual(given) => {
            let mut content = given.clone();
            content.insert("deployment_name".into(), json!(deployment));
            return Ok(Value::Object(content));
        }
        Source::Own(at, choice) => (&own[*at], choice),
        Source::Other(provider, choice) => (&**provider, choice),
    };
    let network = chosen_network(provider, choice);
    let mut content = pick(provider, &network)?;
    // What the consumer asks by name gets answers from the network that it has chosen.
    if choice.network.is_some() {
        content["default_network"] = json!(network);
    }
    match choice.ip_addresses {
        Some(true) => give_ips(&mut content, provider, &network)?,
        Some(false) if director.local_dns => give_names(&mut content, provider, &network)?,
        _ => {}
    }
    Ok(content)
}

fn members(content: &mut Value) -> impl Iterator<Item = &mut Value> {
    content["instances"].as_array_mut().into_iter().flatten()
}

fn give_ips(content: &mut Value, provider: &Provider, network: &NetworkName) -> Result<(), TaskError> {
    let ips = provider.ips.iter().find(|(name, _)| name == network).map(|(_, ips)| ips);
    let Some(ips) = ips else {
        if content["use_dns_addresses"] != json!(true) {
            return Ok(());
        }
        // It was deployed before the addresses behind its names were kept.
        let text = format!(
            "Unable to retrieve the addresses of link provider '{}'. Please redeploy deployment '{}'",
            provider.name, provider.deployment
        );
        return Err(TaskError::new(ErrorCode::LinkNotFound, text));
    };
    for (member, ip) in members(content).zip(ips) {
        member["address"] = json!(ip);
    }
    Ok(())
}

fn give_names(content: &mut Value, provider: &Provider, network: &NetworkName) -> Result<(), TaskError> {
    let domain = content["domain"].as_str().unwrap_or_default().to_owned();
    let place = Place {
        group: provider.group.as_str(),
        network: network.as_str(),
        deployment: provider.deployment.as_str(),
        domain: &domain,
    };
    for member in members(content) {
        let name = dns::instance_name(member["id"].as_str().unwrap_or_default(), &place)?;
        member["address"] = json!(name);
    }
    Ok(())
}

/// Returns the network in which a consumer wants addresses.
pub(crate) fn chosen_network(provider: &Provider, choice: &Choice) -> NetworkName {
    let default = || {
        let (_, content) = provider.content.first()?;
        content["default_network"].as_str().map(NetworkName::new)
    };
    choice.network.clone().or_else(default).unwrap_or_default()
}

fn pick(provider: &Provider, network: &NetworkName) -> Result<Value, TaskError> {
    let found = provider.content.iter().find(|(name, _)| name == network).or(provider.content.first());
    found.map(|(_, content)| content.clone()).ok_or_else(|| {
        TaskError::new(
            ErrorCode::LinkNotFound,
            format!(
                "Link provider '{}' of deployment '{}' has no addresses in network '{network}'",
                provider.name, provider.deployment
            ),
        )
    })
}
