//! Vip networks: public addresses in front of others, named by groups or given out by us.

use std::collections::BTreeMap;

use super::{Network, Subnet, check_all_or_none, check_prefixes, parse_blocks, parse_prefix, parse_zones};
use crate::cloud_config::Az;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::NetworkKind;
use crate::ip::{Block, Family};
use crate::task::TaskError;

pub(super) fn parse(fields: &Fields<'_>, name: NetworkName, azs: &BTreeMap<AzName, Az>) -> Checked<Network> {
    let cloud_properties = fields.mapping_or_empty("cloud_properties")?;
    let subnet = |azs, statics, prefix| Subnet {
        azs,
        range: None,
        gateway: None,
        dns: Vec::new(),
        reserved: Vec::new(),
        statics,
        prefix,
        cloud_properties: cloud_properties.clone(),
        wish: None,
    };
    let mut subnets: Vec<Subnet> = Vec::new();
    for item in fields.list_or_empty("subnets")? {
        let item = Fields::of(item)?;
        let statics = parse_blocks(&item, "static")?;
        let overlaps = |block: &Block| subnets.iter().flat_map(|s| &s.statics).any(|b| b.overlaps(block));
        if statics.iter().any(overlaps) {
            return Err(TaskError::new(
                ErrorCode::NetworkOverlappingSubnets,
                format!("Network '{name}' has overlapping subnets"),
            ));
        }
        let family = statics.first().map_or(Family::V4, |block| block.family);
        let prefix = parse_prefix(&item, &name, family)?;
        subnets.push(subnet(parse_zones(&item, &name, azs)?, statics, prefix));
    }
    check_all_or_none(&name, &subnets)?;
    check_prefixes(&name, &subnets)?;
    if subnets.is_empty() {
        subnets.push(subnet(None, Vec::new(), None));
    }
    Ok(Network { name, kind: NetworkKind::Vip, subnets, managed: false })
}
