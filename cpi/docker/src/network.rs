//! Networks: bridges of the daemon, with addresses that we give.
//!
//! A network is used by the name in its `cloud_properties`. One that is not there is made with the range of the first VM in
//! it and goes with the last; one that the director had made ([`create`]) stays until the director says so.

use std::net::IpAddr;

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters as query;
use cpi_api::{CpiErrorKind, CreateNetwork};
use cpi_host::Scope;
use model::SubnetCid;
use model::SubnetId;
use model::instance::{NetworkKind, NetworkSettings};
use model::managed_network::MadeSubnet;
use serde_json::json;

use crate::body;
use crate::cloud::Cloud;
use crate::daemon::absent_is_none;
use crate::error::DockerError;
use crate::names::{ID, Kind};
use crate::range::{self, Range};

/// How many ranges are tried where the cloud is to choose one, before it gives up.
const CHOICES_MAX: u32 = 64;

/// Where a VM is in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The network's name.
    pub network: String,
    pub ip: IpAddr,
}

/// A network that a VM wants to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub place: Place,
    /// What it is made with if it is not there.
    pub range: Range,
}

/// Returns the networks that a VM is to be in, the one with its default gateway first. Pure.
pub(crate) fn wanted(cloud: &Cloud, networks: &[NetworkSettings]) -> Result<Vec<Wanted>, DockerError> {
    let refuse = |message| DockerError::refused(CpiErrorKind::VmCreationFailed, message);
    let mut all = Vec::new();
    for network in networks {
        let ip = match (network.kind, network.ip) {
            // A public address would be somebody else's machine in front of us: there is none.
            (NetworkKind::Vip, _) => continue,
            (NetworkKind::Dynamic, None) => {
                return Err(refuse(format!(
                    "network `{}` is dynamic: at a Docker daemon every address is the director's to give, use a manual \
                     network",
                    network.name
                )));
            }
            (_, None) => return Err(refuse(format!("network `{}` has no address", network.name))),
            (_, Some(ip)) => ip,
        };
        let range = range::around(ip, network.netmask.as_deref(), network.gateway).ok_or_else(|| {
            refuse(format!("network `{}`: {ip} has no netmask that makes a range", network.name))
        })?;
        let named = network.cloud_properties["name"].as_str();
        let name = named.map_or_else(|| cloud.names.range(&range.cidr), str::to_owned);
        let is_default = network.defaults.iter().any(|default| default == "gateway");
        all.push((!is_default, Wanted { place: Place { network: name, ip }, range }));
    }
    all.sort_by_key(|(comes_later, _)| *comes_later);
    Ok(all.into_iter().map(|(_, wanted)| wanted).collect())
}

/// Makes a network that a VM wants to be in, unless it is there.
pub(crate) fn ensure(cloud: &Cloud, scope: &Scope, wanted: &Wanted) -> Result<(), DockerError> {
    let name = &wanted.place.network;
    // The daemon would give one name twice.
    let _lock = cloud.store.lock_object(name, scope)?;
    if look(cloud, name)?.is_some() {
        return Ok(());
    }
    make(cloud, name, &wanted.range, Kind::ImplicitNetwork, None)
}

/// Puts a container that does not run yet into one more network.
pub(crate) fn connect(cloud: &Cloud, container: &str, place: &Place) -> Result<(), DockerError> {
    let request = NetworkConnectRequest {
        container: container.to_owned(),
        endpoint_config: Some(body::endpoint(place)),
    };
    let connect = async |docker: Docker| docker.connect_network(&place.network, request).await;
    cloud.daemon.ask("connect to network", &place.network, connect)
}

/// Removes those of the networks that came with their first VM and have none any more.
pub(crate) fn leave(cloud: &Cloud, networks: impl Iterator<Item = String>) {
    for name in networks {
        let gone = look(cloud, &name).and_then(|network| {
            match network.filter(|n| cloud.names.is_ours(n.labels.as_ref(), Kind::ImplicitNetwork)) {
                Some(_) => remove(cloud, &name),
                None => Ok(()),
            }
        });
        match gone {
            // Others are in it: the daemon says so, and nothing else.
            Err(error) if error.status() == Some(403) => {}
            Err(error) => tracing::warn!(network = name, error = %error, "an empty network is left behind"),
            Ok(()) => {}
        }
    }
}

/// Makes a network that the director asked for; one that is there already is the answer too.
pub(crate) fn create(
    cloud: &Cloud,
    scope: &Scope,
    request: &CreateNetwork,
) -> Result<MadeSubnet, DockerError> {
    let name = cloud.names.subnet(&request.subnet_id);
    let _lock = cloud.store.lock_object(&name, scope)?;
    if let Some(there) = look(cloud, &name)? {
        return made(&there);
    }
    let id = Some(&request.subnet_id);
    match &request.range {
        Some(cidr) => {
            let gateway = request.gateway.as_deref().and_then(|gateway| gateway.parse().ok());
            let range = range::of(cidr, gateway).ok_or_else(|| {
                DockerError::refused(CpiErrorKind::Other, format!("`{cidr}` is no range of addresses"))
            })?;
            make(cloud, &name, &range, Kind::Network, id)?;
        }
        None => choose(cloud, &name, request)?,
    }
    let there = look(cloud, &name)?.ok_or_else(|| gone(&name))?;
    made(&there)
}

/// Returns the network that was made for one of the director's subnets.
pub(crate) fn find(
    cloud: &Cloud,
    scope: &Scope,
    subnet: &SubnetId,
) -> Result<Option<MadeSubnet>, DockerError> {
    let name = cloud.names.subnet(subnet);
    let lock = cloud.store.lock_object(&name, scope)?;
    match look(cloud, &name)? {
        Some(there) => made(&there).map(Some),
        None => {
            lock.retire();
            Ok(None)
        }
    }
}

/// Deletes a network; one that is gone counts as deleted.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &SubnetCid) -> Result<(), DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    remove(cloud, cid.as_str())?;
    lock.retire();
    Ok(())
}

/// Makes a network of some free range of the wanted size.
fn choose(cloud: &Cloud, name: &str, request: &CreateNetwork) -> Result<(), DockerError> {
    let bits = request.netmask_bits.unwrap_or(24);
    let mut refused = None;
    for attempt in 0..CHOICES_MAX {
        let range = range::some(request.subnet_id.as_str(), bits, attempt).ok_or_else(|| {
            let message = format!("networks of this cloud have netmasks of 16 to 29 bits, not {bits}");
            DockerError::refused(CpiErrorKind::NotSupported, message)
        })?;
        match make(cloud, name, &range, Kind::Network, Some(&request.subnet_id)) {
            // It overlaps with one that the daemon has.
            Err(error) if error.status() == Some(403) || error.is_conflict() => refused = Some(error),
            outcome => return outcome,
        }
    }
    Err(refused.unwrap_or_else(|| gone(name)))
}

fn make(
    cloud: &Cloud,
    name: &str,
    range: &Range,
    kind: Kind,
    id: Option<&SubnetId>,
) -> Result<(), DockerError> {
    let mut labels = cloud.names.labels(kind);
    labels.extend(id.map(|id| (ID.to_owned(), id.to_string())));
    let config = IpamConfig {
        subnet: Some(range.cidr.clone()),
        gateway: range.gateway.map(|gateway| gateway.to_string()),
        ..Default::default()
    };
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
        enable_ipv6: range.is_ipv6.then_some(true),
        labels: Some(labels),
        ..Default::default()
    };
    let create = async |docker: Docker| docker.create_network(request).await;
    cloud.daemon.ask("create network", name, create).map(drop)
}

fn look(cloud: &Cloud, name: &str) -> Result<Option<NetworkInspect>, DockerError> {
    let inspect =
        async |docker: Docker| docker.inspect_network(name, None::<query::InspectNetworkOptions>).await;
    let found = absent_is_none(cloud.daemon.ask("look at network", name, inspect))?;
    // The daemon is content with the beginning of an id.
    Ok(found.filter(|network| network.name.as_deref() == Some(name)))
}

fn remove(cloud: &Cloud, name: &str) -> Result<(), DockerError> {
    let remove = async |docker: Docker| docker.remove_network(name).await;
    absent_is_none(cloud.daemon.ask("remove network", name, remove)).map(drop)
}

fn made(network: &NetworkInspect) -> Result<MadeSubnet, DockerError> {
    let name = network.name.clone().unwrap_or_default();
    let config = network.ipam.as_ref().and_then(|ipam| ipam.config.as_ref()?.first());
    let range = config.and_then(|config| config.subnet.clone()).ok_or_else(|| {
        DockerError::refused(CpiErrorKind::Other, format!("network `{name}` has no range of addresses"))
    })?;
    Ok(MadeSubnet {
        cid: SubnetCid::new(name.clone()),
        range,
        gateway: config.and_then(|config| config.gateway.clone()),
        reserved: Vec::new(),
        cloud_properties: json!({ "name": name }),
    })
}

fn gone(name: &str) -> DockerError {
    DockerError::refused(CpiErrorKind::Other, format!("network `{name}` was made and is not there"))
}
