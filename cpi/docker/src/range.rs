//! Ranges of addresses. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::ip::Block;

/// Where ranges come from that the cloud is to choose: a quarter of 10.0.0.0/8, far from where people begin to count.
const POOL: (Ipv4Addr, u32) = (Ipv4Addr::new(10, 192, 0, 0), 10);

/// A range and its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub cidr: String,
    pub gateway: Option<IpAddr>,
    pub is_ipv6: bool,
}

/// Returns the range that an address is in, by its netmask.
pub(crate) fn around(ip: IpAddr, netmask: Option<&str>, gateway: Option<IpAddr>) -> Option<Range> {
    let (base, bits): (IpAddr, u32) = match (ip, netmask?.parse().ok()?) {
        (IpAddr::V4(ip), IpAddr::V4(mask)) => {
            let (ip, mask) = (u32::from(ip), u32::from(mask));
            (Ipv4Addr::from(ip & mask).into(), mask.leading_ones())
        }
        (IpAddr::V6(ip), IpAddr::V6(mask)) => {
            let (ip, mask) = (u128::from(ip), u128::from(mask));
            (Ipv6Addr::from(ip & mask).into(), mask.leading_ones())
        }
        _ => return None,
    };
    Some(Range { cidr: format!("{base}/{bits}"), gateway, is_ipv6: ip.is_ipv6() })
}

/// Returns the range that was asked for.
pub(crate) fn of(cidr: &str, gateway: Option<IpAddr>) -> Option<Range> {
    Block::parse_cidr(cidr).filter(|_| cidr.contains('/'))?;
    Some(Range { cidr: cidr.to_owned(), gateway, is_ipv6: cidr.contains(':') })
}

/// Returns a range of `bits`: a repeat for the same id begins with the same one, and each attempt gives another.
pub(crate) fn some(id: &str, bits: u8, attempt: u32) -> Option<Range> {
    let (first, pool_bits) = POOL;
    let bits = u32::from(bits);
    if !(16..=29).contains(&bits) {
        return None;
    }
    let count = 1_u32 << (bits - pool_bits);
    let start = id.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    let nth = start.wrapping_add(attempt) % count;
    let base = u32::from(first) + (nth << (32 - bits));
    let gateway = Some(Ipv4Addr::from(base + 1).into());
    Some(Range { cidr: format!("{}/{bits}", Ipv4Addr::from(base)), gateway, is_ipv6: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_netmask_make_a_range() {
        let gateway = Some(IpAddr::from([10, 0, 3, 1]));
        let range = around("10.0.3.77".parse().unwrap(), Some("255.255.255.192"), gateway).unwrap();
        assert_eq!((range.cidr.as_str(), range.gateway, range.is_ipv6), ("10.0.3.64/26", gateway, false));
        let range = around("fd00::7".parse().unwrap(), Some("ffff:ffff:ffff:ffff::"), None).unwrap();
        assert_eq!((range.cidr.as_str(), range.is_ipv6), ("fd00::/64", true));
        assert_eq!(around("10.0.3.77".parse().unwrap(), None, None), None);
        assert_eq!(around("10.0.3.77".parse().unwrap(), Some("ffff::"), None), None);
    }

    #[test]
    fn a_chosen_range_is_of_its_size_in_the_pool_and_another_each_time() {
        let (pool, _) = Block::parse_cidr("10.192.0.0/10").unwrap();
        let all: Vec<_> = (0..100).map(|attempt| some("subnet", 26, attempt).unwrap()).collect();
        for range in &all {
            let (block, bits) = Block::parse_cidr(&range.cidr).unwrap();
            assert!(bits == 26 && pool.covers(&block) && block.contains(range.gateway.unwrap()), "{range:?}");
        }
        let distinct: std::collections::BTreeSet<&str> = all.iter().map(|r| r.cidr.as_str()).collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(some("subnet", 30, 0), None);
        assert_eq!(some("subnet", 15, 0), None);
    }

    #[test]
    fn what_is_no_range_is_none() {
        assert_eq!(of("10.0.0.0", None), None);
        assert_eq!(of("10.0.0.0/24", None).map(|range| range.cidr), Some("10.0.0.0/24".into()));
    }
}
