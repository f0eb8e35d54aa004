//! Networks and their subnets: which addresses there are, and which of them are spoken for by the config.

mod manual;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::{Az, Surroundings};
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields, canonical};
use crate::ids::*;
use crate::instance::NetworkKind;
use crate::ip::{self, Block, Family};
use crate::managed_network::SubnetWish;
use crate::task::TaskError;

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// How addresses come about.
    pub kind: NetworkKind,
    /// Its subnets. A vip network whose addresses groups name has one without any.
    pub subnets: Vec<Subnet>,
    /// Whether directors have it made when it is first used.
    pub managed: bool,
}

/// A part of a network. Those of dynamic and vip networks have no range, nor may those that directors have not made yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// Its zones; none if the network has no zones at all.
    pub azs: Option<Vec<AzName>>,
    /// All its addresses and their prefix length.
    pub range: Option<(Block, u32)>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Addresses that are never given out.
    pub reserved: Vec<Block>,
    /// Addresses that are given out by name only; in a vip network, those that are given out at all.
    pub statics: Vec<Block>,
    /// The length of the blocks that instances are given, if they are given more than one address each.
    pub prefix: Option<u8>,
    /// What the CPI is told.
    pub cloud_properties: Value,
    /// What a cloud is asked to make of it, if directors have it made.
    pub wish: Option<SubnetWish>,
}

impl Subnet {
    /// Returns whether instances of this zone may use it.
    pub fn serves(&self, az: Option<&AzName>) -> bool {
        match (&self.azs, az) {
            (None, _) => true,
            (Some(azs), Some(az)) => azs.contains(az),
            (Some(_), None) => false,
        }
    }

    /// Returns what an instance is given that is given this address.
    pub fn given(&self, ip: IpAddr) -> Block {
        Block::starting(ip, self.prefix)
    }

    /// Returns whether the address is in its range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.range.is_some_and(|(block, _)| block.covers(&self.given(ip)))
    }

    /// Returns whether the address is in its static pool.
    pub fn is_static(&self, ip: IpAddr) -> bool {
        self.statics.iter().any(|b| b.covers(&self.given(ip)))
    }

    /// Returns whether the address must not be given out at all.
    pub fn is_reserved(&self, ip: IpAddr) -> bool {
        self.reserved.iter().any(|b| b.overlaps(&self.given(ip)))
    }
}

impl Network {
    /// Returns whether it is a vip network that we give addresses out of, instead of groups naming them.
    pub fn gives_vips(&self) -> bool {
        self.kind == NetworkKind::Vip && self.subnets.iter().any(|s| !s.statics.is_empty())
    }

    /// Returns whether a group with these zones can be in it.
    pub fn fits(&self, azs: &[AzName]) -> bool {
        if self.kind == NetworkKind::Vip {
            return true;
        }
        let zoned = self.subnets.iter().any(|s| s.azs.is_some());
        match (zoned, azs.is_empty()) {
            (false, empty) => empty,
            (true, true) => false,
            (true, false) => {
                let known: BTreeSet<&AzName> =
                    self.subnets.iter().filter_map(|s| s.azs.as_ref()).flatten().collect();
                azs.iter().all(|az| known.contains(az))
            }
        }
    }
}

/// What networks are read with.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) azs: &'a BTreeMap<AzName, Az>,
    pub(super) surroundings: Surroundings<'a>,
}

/// Checks the `networks` list.
pub(super) fn parse_all(items: &[Value], scope: &Scope<'_>) -> Checked<Vec<Network>> {
    if items.is_empty() {
        return Err(TaskError::new(ErrorCode::DeploymentNoNetworks, "No networks specified"));
    }
    let (mut networks, mut taken) = (Vec::with_capacity(items.len()), BTreeSet::new());
    for item in items {
        let network = parse(&Fields::of(item)?, scope)?;
        if !taken.insert(canonical(network.name.as_str())?) {
            return Err(TaskError::new(
                ErrorCode::DeploymentCanonicalNetworkNameTaken,
                format!("Invalid network name '{}', canonical name already taken", network.name),
            ));
        }
        networks.push(network);
    }
    Ok(networks)
}

fn parse(fields: &Fields<'_>, scope: &Scope<'_>) -> Checked<Network> {
    let kind = fields.text_opt("type")?.unwrap_or_else(|| "manual".into());
    let name = || fields.text("name").map(NetworkName::new);
    match kind.as_str() {
        "manual" => manual::parse(fields, name()?, scope),
        "dynamic" => parse_dynamic(fields, name()?, scope.azs),
        "vip" => vip::parse(fields, name()?, scope.azs),
        other => Err(TaskError::new(
            ErrorCode::DeploymentInvalidNetworkType,
            format!("Invalid network type '{other}', valid types are: 'manual', 'dynamic' and 'vip'"),
        )),
    }
}

/// Reads a subnet's `prefix`; none if it gives single addresses.
fn parse_prefix(fields: &Fields<'_>, network: &NetworkName, family: Family) -> Checked<Option<u8>> {
    let Some(text) = fields.text_opt("prefix")? else { return Ok(None) };
    let prefix = text.parse::<u8>().ok().filter(|prefix| (1..=family.bits()).contains(&u32::from(*prefix)));
    let prefix = prefix.ok_or_else(|| {
        TaskError::new(
            ErrorCode::NetworkInvalidProperty,
            format!(
                "Network '{network}' has a subnet whose 'prefix' is '{text}', which is no length of a prefix"
            ),
        )
    })?;
    Ok(Some(prefix).filter(|prefix| u32::from(*prefix) < family.bits()))
}

/// All subnets of a network give blocks of one length (16014).
fn check_prefixes(network: &NetworkName, subnets: &[Subnet]) -> Checked<()> {
    if subnets.windows(2).all(|pair| pair[0].prefix == pair[1].prefix) {
        return Ok(());
    }
    Err(TaskError::new(
        ErrorCode::NetworkPrefixStaticIpsMismatch,
        format!("Network '{network}' has subnets that differ in their 'prefix'"),
    ))
}

fn parse_dns(fields: &Fields<'_>, network: &NetworkName) -> Checked<Vec<IpAddr>> {
    let mut servers = Vec::new();
    for item in fields.list_or_empty("dns")? {
        let text = item.as_str().unwrap_or_default();
        let (block, _) = Block::parse_cidr(text)
            .ok_or_else(|| TaskError::plain(format!("Invalid IP or CIDR format: {text}")))?;
        if block.first != block.last {
            return Err(TaskError::new(
                ErrorCode::NetworkInvalidDns,
                format!("Invalid DNS for network '{network}': must be a single IP"),
            ));
        }
        servers.push(block.family.address(block.first));
    }
    Ok(servers)
}

fn parse_zones(
    fields: &Fields<'_>,
    network: &NetworkName,
    azs: &BTreeMap<AzName, Az>,
) -> Checked<Option<Vec<AzName>>> {
    let invalid = |why: &str| {
        Err(TaskError::new(ErrorCode::NetworkInvalidProperty, format!("Network '{network}' {why}")))
    };
    let zones: Vec<AzName> = match (fields.has("az"), fields.list_opt("azs")?) {
        (true, Some(_)) => return invalid("contains both 'az' and 'azs'. Choose one."),
        (true, None) => vec![AzName::new(fields.text("az")?)],
        (false, None) => return Ok(None),
        (false, Some([])) => return invalid("refers to an empty 'azs' array"),
        (false, Some(items)) => items.iter().map(|i| AzName::new(i.as_str().unwrap_or_default())).collect(),
    };
    if let Some(unknown) = zones.iter().find(|z| !azs.contains_key(*z)) {
        return Err(TaskError::new(
            ErrorCode::NetworkSubnetUnknownAvailabilityZone,
            format!("Network '{network}' refers to an unknown availability zone '{unknown}'"),
        ));
    }
    Ok(Some(zones))
}

fn parse_blocks(fields: &Fields<'_>, key: &str) -> Checked<Vec<Block>> {
    let one = |value: &Value| ip::parse_range(value.as_str().unwrap_or_default());
    match fields.raw(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(value @ Value::String(_)) => Ok(vec![one(value)?]),
        Some(other) => Err(crate::fields::wrong_type(key, other, "Array")),
    }
}

fn check_all_or_none(network: &NetworkName, subnets: &[Subnet]) -> Checked<()> {
    let zoned = subnets.iter().filter(|s| s.azs.is_some()).count();
    if zoned != 0 && zoned != subnets.len() {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupInvalidAvailabilityZone,
            format!(
                "Subnets on network '{network}' must all either specify availability zone or not. Availability zones must be consistent across subnets"
            ),
        ));
    }
    Ok(())
}

fn parse_dynamic(fields: &Fields<'_>, name: NetworkName, azs: &BTreeMap<AzName, Az>) -> Checked<Network> {
    let invalid = |why: String| {
        Err(TaskError::new(ErrorCode::NetworkInvalidProperty, format!("Network '{name}' {why}")))
    };
    for key in ["az", "azs", "managed", "prefix"] {
        if fields.has(key) {
            return invalid(format!("must not specify '{key}'."));
        }
    }
    let subnet = |fields: &Fields<'_>, azs: Option<Vec<AzName>>| -> Checked<Subnet> {
        Ok(Subnet {
            azs,
            range: None,
            gateway: None,
            dns: parse_dns(fields, &name)?,
            reserved: Vec::new(),
            statics: Vec::new(),
            prefix: None,
            cloud_properties: fields.mapping_or_empty("cloud_properties")?,
            wish: None,
        })
    };
    let Some(items) = fields.list_opt("subnets")? else {
        let subnets = vec![subnet(fields, None)?];
        return Ok(Network { name, kind: NetworkKind::Dynamic, subnets, managed: false });
    };
    if let Some(key) = ["dns", "cloud_properties"].into_iter().find(|k| fields.has(k)) {
        return invalid(format!("top-level '{key}' and 'subnets' cannot both be specified"));
    }
    let mut subnets = Vec::new();
    for item in items {
        let item = Fields::of(item)?;
        if item.integer_opt("prefix")?.is_some_and(|prefix| prefix != 32) {
            return invalid("is dynamic: the 'prefix' of its subnets can only be 32.".into());
        }
        let zones = parse_zones(&item, &name, azs)?;
        subnets.push(subnet(&item, zones)?);
    }
    check_all_or_none(&name, &subnets)?;
    Ok(Network { name, kind: NetworkKind::Dynamic, subnets, managed: false })
}
