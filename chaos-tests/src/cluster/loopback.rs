//! Addresses of VMs that are processes of the host's: all of them are on its loopback interface.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, UdpSocket};

use rand::seq::SliceRandom as _;

/// Bound for as long as a part is taken; no VM's.
const CLAIM: u16 = 65_000;

/// A part of the loopback network that is nobody else's, for as long as this value is: fleets live side by side.
pub(super) struct LoopbackNet {
    pub number: u8,
    _claim: UdpSocket,
}

impl LoopbackNet {
    pub fn claim() -> Result<Self> {
        let mut numbers: Vec<u8> = (2..=254).collect();
        numbers.shuffle(&mut rand::rng());
        for number in numbers {
            match UdpSocket::bind((Ipv4Addr::new(127, number, 255, 254), CLAIM)) {
                Ok(claim) => return Ok(Self { number, _claim: claim }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::AddrInUse, "other fleets have every part of the loopback network"))
    }
}
