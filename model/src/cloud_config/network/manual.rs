//! Manual networks: we know their addresses, from the config, or from the cloud that made them for us.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{
    Network, Scope, Subnet, check_all_or_none, check_prefixes, parse_blocks, parse_dns, parse_prefix,
    parse_zones,
};
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::NetworkKind;
use crate::ip::{self, Block, Family};
use crate::managed_network::{MadeSubnet, ManagedNetwork, SubnetWish};
use crate::task::TaskError;

/// Where the addresses of a subnet come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// From the config, which must say all of it.
    Config,
    /// From the cloud that was asked to make it; until it has, from the config, as far as it says anything.
    Cloud(Option<&'a MadeSubnet>),
}

impl Source<'_> {
    /// Returns what the cloud said, or what the config does.
    fn text(
        self,
        fields: &Fields<'_>,
        key: &str,
        said: impl Fn(&MadeSubnet) -> Option<String>,
    ) -> Checked<Option<String>> {
        match self {
            Self::Config => fields.text(key).map(Some),
            Self::Cloud(Some(made)) => Ok(said(made)),
            Self::Cloud(None) => fields.text_opt(key),
        }
    }
}

pub(super) fn parse(fields: &Fields<'_>, name: NetworkName, scope: &Scope<'_>) -> Checked<Network> {
    let is_wanted = fields.boolean_opt("managed")?.unwrap_or(false);
    let made = scope.surroundings.made.filter(|_| is_wanted);
    let row = made.and_then(|made| made.iter().find(|row| row.name == name));
    let (mut subnets, mut names): (Vec<Subnet>, _) = (Vec::new(), BTreeSet::new());
    for item in fields.list("subnets")? {
        let item = Fields::of(item)?;
        let subnet = match made {
            Some(_) => parse_managed(&item, &name, scope, row)?,
            None if is_wanted => parse_subnet(&item, &name, scope, Source::Config)
                .map_err(|error| if_not_made(&item, &name, error))?,
            None => parse_subnet(&item, &name, scope, Source::Config)?,
        };
        if let Some(twice) = subnet.wish.as_ref().filter(|wish| !names.insert(wish.name.clone())) {
            let text = format!("Network '{name}' has two subnets with the name '{}'", twice.name);
            return Err(TaskError::new(ErrorCode::NetworkInvalidProperty, text));
        }
        if let Some((new, _)) = subnet.range {
            let overlap = subnets.iter().filter_map(|s| s.range).any(|(other, _)| other.overlaps(&new));
            if overlap {
                return Err(TaskError::new(
                    ErrorCode::NetworkOverlappingSubnets,
                    format!("Network '{name}' has overlapping subnets"),
                ));
            }
        }
        subnets.push(subnet);
    }
    check_all_or_none(&name, &subnets)?;
    check_prefixes(&name, &subnets)?;
    Ok(Network { name, kind: NetworkKind::Manual, subnets, managed: made.is_some() })
}

/// Says of what is missing why it would not have to be there.
fn if_not_made(fields: &Fields<'_>, network: &NetworkName, error: TaskError) -> TaskError {
    if fields.has("range") && fields.has("gateway") {
        return error;
    }
    let why = format!(
        "network '{network}' is 'managed', but these directors make no networks: give its range and gateway, or have them \
         make networks (`dctl managed-networks on`)"
    );
    TaskError { message: format!("{} ({why})", error.message), ..error }
}

/// Reads a subnet that directors have made, or will.
fn parse_managed(
    fields: &Fields<'_>,
    network: &NetworkName,
    scope: &Scope<'_>,
    row: Option<&ManagedNetwork>,
) -> Checked<Subnet> {
    let name = fields.text("name")?;
    let made = row.and_then(|row| row.subnet(&name)).and_then(|subnet| subnet.made.as_ref());
    let subnet = parse_subnet(fields, network, scope, Source::Cloud(made))?;
    let netmask_bits = fields.integer_opt("netmask_bits")?.map(|bits| {
        let known = u8::try_from(bits).ok().filter(|bits| (1..=128).contains(bits));
        known.ok_or_else(|| {
            let text = format!("Network '{network}' has a subnet whose 'netmask_bits' are '{bits}', which is no length of a prefix");
            TaskError::new(ErrorCode::NetworkInvalidProperty, text)
        })
    });
    let (cpi, of_zones) = zones_of(network, &name, subnet.azs.as_deref(), scope)?;
    let wish = SubnetWish {
        name,
        cpi,
        range: fields.text_opt("range")?,
        gateway: fields.text_opt("gateway")?,
        netmask_bits: netmask_bits.transpose()?,
        cloud_properties: merged(of_zones, fields.mapping_or_empty("cloud_properties")?),
    };
    Ok(Subnet { wish: Some(wish), ..subnet })
}

/// Returns the one CPI of a subnet's zones, and their properties.
fn zones_of(
    network: &NetworkName,
    subnet: &str,
    azs: Option<&[AzName]>,
    scope: &Scope<'_>,
) -> Checked<(CpiName, Value)> {
    let zones: Vec<_> = azs.unwrap_or_default().iter().filter_map(|az| scope.azs.get(az)).collect();
    let cpis: BTreeSet<&CpiName> = zones.iter().map(|az| &az.cpi).collect();
    if cpis.len() > 1 {
        let text = format!(
            "Network '{network}' has a subnet '{subnet}' in zones of several CPIs: only one can make it"
        );
        return Err(TaskError::new(ErrorCode::NetworkInvalidProperty, text));
    }
    let cpi = cpis.first().map(|cpi| (*cpi).clone()).unwrap_or_default();
    let none = Value::Object(Map::new());
    Ok((cpi, zones.into_iter().fold(none, |all, az| merged(all, az.cloud_properties.clone()))))
}

/// Returns a mapping with another one over it.
fn merged(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            below.extend(above);
            Value::Object(below)
        }
        (_, above) => above,
    }
}

fn parse_subnet(
    fields: &Fields<'_>,
    network: &NetworkName,
    scope: &Scope<'_>,
    source: Source<'_>,
) -> Checked<Subnet> {
    let range_text = source.text(fields, "range", |made| Some(made.range.clone()))?;
    let range = range_text.as_deref().map(parse_range).transpose()?;
    let family = range.map_or(Family::V4, |(block, _)| block.family);
    let given = parse_prefix(fields, network, family)?;
    check_block(network, given, range.zip(range_text.as_deref()))?;
    let gateway = source.text(fields, "gateway", |made| made.gateway.clone())?;
    let gateway =
        gateway.map(|text| parse_gateway(&text, range.map(|(block, _)| block), network)).transpose()?;
    let dns = parse_dns(fields, network)?;
    let azs = parse_zones(fields, network, scope.azs)?;
    let cloud_properties = match source {
        Source::Cloud(Some(made)) => made.cloud_properties.clone(),
        _ => fields.mapping_or_empty("cloud_properties")?,
    };
    let mut reserved = parse_reserved(fields, network, range.map(|(block, _)| block), source)?;
    reserved.extend(gateway.map(Block::single));
    if let Some((range, _)) = range {
        let own = scope.surroundings.own;
        reserved.extend(own.iter().filter(|ip| range.contains(**ip)).map(|ip| Block::single(*ip)));
    }
    let statics = parse_statics(fields, network, range.map(|(block, _)| block), &reserved)?;
    let prefix = given;
    Ok(Subnet { azs, range, gateway, dns, reserved, statics, prefix, cloud_properties, wish: None })
}

fn parse_range(text: &str) -> Checked<(Block, u32)> {
    let plain = || TaskError::plain(format!("Invalid IP or CIDR format: {text}"));
    let (range, prefix) = Block::parse_cidr(text).ok_or_else(plain)?;
    if range.first == range.last {
        return Err(TaskError::new(
            ErrorCode::NetworkInvalidRange,
            format!("Invalid network range '{text}', should include at least 2 IPs"),
        ));
    }
    Ok((range, prefix))
}

/// A block that instances are given is no larger than the range (16013).
fn check_block(network: &NetworkName, given: Option<u8>, range: Option<((Block, u32), &str)>) -> Checked<()> {
    match (given, range) {
        (Some(given), Some(((_, prefix), text))) if u32::from(given) < prefix => Err(TaskError::new(
            ErrorCode::NetworkPrefixSizeTooBig,
            format!("Network '{network}': 'prefix' /{given} is larger than the range '{text}'"),
        )),
        _ => Ok(()),
    }
}

/// Reads what is never given out: what the config and the cloud say, and the ends of the range.
fn parse_reserved(
    fields: &Fields<'_>,
    network: &NetworkName,
    range: Option<Block>,
    source: Source<'_>,
) -> Checked<Vec<Block>> {
    let mut reserved = parse_blocks(fields, "reserved")?;
    if let Source::Cloud(Some(made)) = source {
        for text in &made.reserved {
            reserved.push(ip::parse_range(text)?);
        }
    }
    let Some(range) = range else { return Ok(reserved) };
    if let Some(outside) = reserved.iter().find(|block| !range.covers(block)) {
        return Err(TaskError::new(
            ErrorCode::NetworkReservedIpOutOfRange,
            format!(
                "Reserved IP '{}' is out of network '{network}' range",
                outside.family.address(outside.first)
            ),
        ));
    }
    let single = |n| Block { family: range.family, first: n, last: n };
    reserved.extend([single(range.first), single(range.last)]);
    Ok(reserved)
}

fn parse_statics(
    fields: &Fields<'_>,
    network: &NetworkName,
    range: Option<Block>,
    reserved: &[Block],
) -> Checked<Vec<Block>> {
    let statics = parse_blocks(fields, "static")?;
    for block in &statics {
        let clash = reserved.iter().find(|r| r.overlaps(block)).map(|r| r.first.max(block.first));
        let outside = range.is_some_and(|range| !range.covers(block)).then_some(block.first);
        if let Some(bad) = outside.or(clash) {
            let fault = if outside.is_some() { "out of" } else { "in reserved range of" };
            let ip = block.family.address(bad);
            return Err(TaskError::new(
                ErrorCode::NetworkStaticIpOutOfRange,
                format!("Static IP '{ip}' is {fault} network '{network}' range"),
            ));
        }
    }
    Ok(statics)
}

fn parse_gateway(text: &str, range: Option<Block>, network: &NetworkName) -> Checked<IpAddr> {
    let bad = |why: &str| {
        TaskError::new(
            ErrorCode::NetworkInvalidGateway,
            format!("Invalid gateway '{text}' for network '{network}': {why}"),
        )
    };
    let (block, _) = Block::parse_cidr(text)
        .ok_or_else(|| TaskError::plain(format!("Invalid IP or CIDR format: {text}")))?;
    if block.first != block.last {
        return Err(bad("must be a single IP"));
    }
    let gateway = block.family.address(block.first);
    let Some(range) = range else { return Ok(gateway) };
    if !range.contains(gateway) {
        return Err(bad("must be inside the range"));
    }
    if block.first == range.first {
        return Err(bad("can't be the network id"));
    }
    if block.first == range.last {
        return Err(bad("can't be the broadcast IP"));
    }
    Ok(gateway)
}
