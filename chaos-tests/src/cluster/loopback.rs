//! Addresses of VMs that are processes of the host's: all of them are on its loopback interface.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;

use rand::seq::SliceRandom as _;

/// The UDP port that is held while a part is taken. No VM uses it.
const CLAIM_PORT: u16 = 65_000;

/// The parts that fleets may have. Tests of single crates and benches have their own outside.
const PARTS: RangeInclusive<u8> = 100..=249;

/// A part of the loopback network that no other fleet has, for as long as this value is: fleets live side by side.
pub(super) struct LoopbackNet {
    pub number: u8,
    _claim: UdpSocket,
}

impl LoopbackNet {
    pub fn claim() -> Result<Self> {
        let mut numbers: Vec<u8> = PARTS.collect();
        numbers.shuffle(&mut rand::rng());
        for number in numbers {
            match UdpSocket::bind((Ipv4Addr::new(127, number, 255, 254), CLAIM_PORT)) {
                Ok(claim) => return Ok(Self { number, _claim: claim }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::AddrInUse, "other fleets have every part of the loopback network"))
    }
}
