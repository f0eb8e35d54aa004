//! Addresses as numbers: blocks and sets, for both IP families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error_code::ErrorCode;
use crate::fields::Checked;
use crate::task::TaskError;

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// Returns the number of bits of an address.
    pub fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Returns the address that is this number.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            // The upper bits are zero by construction: every number here came from an address of this family.
            Self::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

/// Returns an address's family and number.
pub fn number(ip: IpAddr) -> (Family, u128) {
    match ip {
        IpAddr::V4(ip) => (Family::V4, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (Family::V6, u128::from(ip)),
    }
}

/// Consecutive addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// The family.
    pub family: Family,
    /// The first address's number.
    pub first: u128,
    /// The last address's number.
    pub last: u128,
}

impl Block {
    /// Returns the block of one address.
    pub fn single(ip: IpAddr) -> Self {
        let (family, first) = number(ip);
        Self { family, first, last: first }
    }

    /// Returns the block of a length that begins at an address; one address if none is given or it is longer than any.
    /// An address that begins no such block gives what there is from it on.
    pub fn starting(ip: IpAddr, prefix: Option<u8>) -> Self {
        let (family, first) = number(ip);
        let bits = family.bits().saturating_sub(prefix.map_or(family.bits(), u32::from));
        Self { family, first, last: first | host_mask(bits) }
    }

    /// Returns the blocks of a length that lie in it whole, by their first addresses.
    pub fn bases(&self, prefix: u32) -> impl Iterator<Item = IpAddr> + use<> {
        let (family, last) = (self.family, self.last);
        let host = host_mask(family.bits().saturating_sub(prefix));
        let first = align(self.first, host);
        let next = move |base: &u128| base.checked_add(host)?.checked_add(1);
        std::iter::successors(first, next)
            .take_while(move |base| base.checked_add(host).is_some_and(|end| end <= last))
            .map(move |base| family.address(base))
    }

    /// Reads `a.b.c.d/n`, or an address as a block of one; bits below the prefix are cleared.
    pub fn parse_cidr(text: &str) -> Option<(Self, u32)> {
        let (address, prefix) = match text.trim().split_once('/') {
            None => (text.trim(), None),
            Some((address, prefix)) => (address.trim(), Some(prefix.trim().parse::<u32>().ok()?)),
        };
        let (family, number) = number(address.parse().ok()?);
        let prefix = prefix.unwrap_or(family.bits());
        if prefix > family.bits() {
            return None;
        }
        let host = host_mask(family.bits() - prefix);
        Some((Self { family, first: number & !host, last: number | host }, prefix))
    }

    /// Returns whether the address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (family, number) = number(ip);
        family == self.family && self.first <= number && number <= self.last
    }

    /// Returns whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Returns whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }

    /// Returns its addresses in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let family = self.family;
        (self.first..=self.last).map(move |n| family.address(n))
    }
}

/// Returns the first number from `from` on at which a block with these host bits can begin.
pub fn align(from: u128, host: u128) -> Option<u128> {
    if from & host == 0 { Some(from) } else { (from | host).checked_add(1) }
}

/// Returns a number whose lowest bits are set.
pub fn host_mask(bits: u32) -> u128 {
    1_u128.checked_shl(bits).map_or(u128::MAX, |n| n - 1)
}

/// Returns the mask of a prefix length as text.
pub fn netmask(family: Family, prefix: u32) -> String {
    let host = host_mask(family.bits() - prefix);
    let all = host_mask(family.bits());
    family.address(all & !host).to_string()
}

/// Reads an element of a list of addresses: `a`, `a/n` or `a - b` (160010).
pub fn parse_range(text: &str) -> Checked<Block> {
    let invalid = || {
        TaskError::new(ErrorCode::NetworkInvalidIpRangeFormat, format!("Invalid IP or CIDR format: {text}"))
    };
    // A CIDR of IPv6 has no hyphen either, so a hyphen always means a range.
    let Some((from, to)) = text.split_once('-') else {
        return Block::parse_cidr(text).map(|(block, _)| block).ok_or_else(invalid);
    };
    let from = Block::parse_cidr(from).ok_or_else(invalid)?.0;
    let to = Block::parse_cidr(to).ok_or_else(invalid)?.0;
    if from.family != to.family || from.first > to.last {
        return Err(invalid());
    }
    Ok(Block { family: from.family, first: from.first, last: to.last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_blocks_and_ranges() {
        let (block, prefix) = Block::parse_cidr("10.1.1.7/24").unwrap();
        assert_eq!((block.first & 0xff, block.last & 0xff, prefix), (0, 255, 24));
        assert_eq!(parse_range("10.0.0.1 - 10.0.0.3").unwrap().addresses().count(), 3);
        assert_eq!(parse_range("10.1.1").unwrap_err().code, 160010);
        assert_eq!(netmask(Family::V4, 29), "255.255.255.248");
        assert!(Block::parse_cidr("fd00::/64").unwrap().0.contains("fd00::1".parse().unwrap()));
        assert_eq!(Block::parse_cidr("::/0").unwrap().0.last, u128::MAX);
    }

    #[test]
    fn blocks_within_a_block_begin_where_they_may() {
        let bases = |range: &str, prefix| -> Vec<String> {
            parse_range(range).unwrap().bases(prefix).map(|ip| ip.to_string()).collect()
        };
        assert_eq!(bases("10.0.0.0/30", 32), ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(bases("10.0.0.1-10.0.0.64", 28), ["10.0.0.16", "10.0.0.32", "10.0.0.48"]);
        assert_eq!(bases("10.0.0.0/30", 28), Vec::<String>::new());
        assert_eq!(bases("255.255.255.0/24", 25), ["255.255.255.0", "255.255.255.128"]);
        assert_eq!(bases("ffff::/16", 17), ["ffff::", "ffff:8000::"]);
        let block = Block::starting("10.0.0.16".parse().unwrap(), Some(28));
        assert_eq!((block.first & 0xff, block.last & 0xff), (16, 31));
        let single = Block::starting("10.0.0.16".parse().unwrap(), None);
        assert_eq!(single, Block::single("10.0.0.16".parse().unwrap()));
    }
}
