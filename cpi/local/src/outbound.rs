//! The way out of the lab, for whoever asks for it: VMs that have a network of their own reach whatever the host reaches, and
//! look like the host from there.
//!
//! One more cable, between the lab and the host, with a transfer subnet that the operator names, since it is the one private
//! address that the host then has. What leaves is masqueraded twice: at the lab's end, so that the host needs to know nothing of
//! the VMs' subnets, and at the host's. Nothing comes in this way that was not asked for. `nft` does it, which is installed where
//! anybody asks for this.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;

use cpi_host::HostError;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use sha2::{Digest as _, Sha256};

use crate::cloud::Cloud;
use crate::netlink::Netlink;
use crate::netns::{lab_path, within};

/// The lab's end of the cable.
const UPLINK: &str = "up0";

/// The size of a transfer subnet: two addresses, one for each end.
const PREFIX_BITS: u8 = 30;

/// The transfer subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    host: Ipv4Addr,
    lab: Ipv4Addr,
}

impl FromStr for Outbound {
    type Err = String;

    /// Reads a subnet of four addresses, as `172.31.255.252/30`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "a subnet of four private addresses that nobody else here uses, as `172.31.255.252/30`";
        let network = text.strip_suffix("/30").and_then(|network| network.parse::<Ipv4Addr>().ok());
        let network = network.filter(|ip| ip.is_private() || ip.is_link_local()).ok_or_else(expected)?;
        let base = u32::from(network);
        if base % 4 != 0 {
            return Err(expected().to_owned());
        }
        Ok(Self { host: Ipv4Addr::from(base + 1), lab: Ipv4Addr::from(base + 2) })
    }
}

/// Lays the cable from the lab to the host, unless it is there. All of it is said again for each VM: whoever flushes the host's
/// tables of packets has the way out back with the next one. The caller holds the lab's lock.
pub(crate) fn open(cloud: &Cloud, lab: &File) -> Result<(), HostError> {
    let Some(outbound) = cloud.options.outbound else { return Ok(()) };
    let name = host_end(cloud);
    let here = PathBuf::from("/proc/thread-self/ns/net");
    let host = File::open(&here).map_err(HostError::os("open", &here))?;
    let laid = within(lab, || {
        let netlink = Netlink::open()?;
        // First what is needed for packets to pass, then the cable: one that is there works.
        forward()?;
        nft(&table(&name, UPLINK, None))?;
        netlink.cable_out(UPLINK, &name, host.as_raw_fd())?;
        netlink.address(UPLINK, IpAddr::V4(outbound.lab), PREFIX_BITS)?;
        netlink.link_up(UPLINK)
    });
    laid.map_err(HostError::os("lay a cable out of", lab_path(cloud)))?;
    let joined = || {
        let netlink = Netlink::open()?;
        forward()?;
        nft(&table(&name, &name, Some(outbound.lab)))?;
        netlink.address(&name, IpAddr::V4(outbound.host), PREFIX_BITS)?;
        netlink.link_up(&name)
    };
    joined().map_err(HostError::os("give the host an end of the cable", &name))?;
    let routed = within(lab, || Netlink::open()?.default_route(UPLINK, IpAddr::V4(outbound.host)));
    routed.map_err(HostError::os("route out of", lab_path(cloud)))
}

/// Takes away what the host has of it, also what was laid before somebody took the option back. Idempotent.
pub(crate) fn close(cloud: &Cloud) -> Result<(), HostError> {
    let name = host_end(cloud);
    if cloud.options.outbound.is_none() && if_nametoindex(name.as_str()).is_err() {
        return Ok(());
    }
    // Not left to the end of the lab, which comes when the kernel gets round to it: the next lab's cable has the same name.
    let cut = Netlink::open().and_then(|netlink| netlink.remove_link(&name));
    cut.map_err(HostError::os("remove the cable", &name))?;
    // Made first, since what is not there can't be deleted.
    let gone = nft(&format!("table ip {name} {{}}\ndelete table ip {name}\n"));
    gone.map_err(HostError::os("remove the table of packets", &name))
}

/// Returns what the host calls its end, and the tables of packets: one for each cloud. Fifteen characters at most.
fn host_end(cloud: &Cloud) -> String {
    let digest = Sha256::digest(cloud.store.root().as_os_str().as_encoded_bytes());
    let short: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("dlab-{short}")
}

/// Returns what makes packets look as if they came from this end: in the lab those that leave by the cable, on the host those
/// that have come by it.
fn table(name: &str, cable: &str, from: Option<Ipv4Addr>) -> String {
    let which = match from {
        Some(lab) => format!("ip saddr {lab} oifname != {cable:?}"),
        None => format!("oifname {cable:?}"),
    };
    // Emptied first: the same words may be said again.
    format!(
        "table ip {name} {{}}\nflush table ip {name}\ntable ip {name} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    {which} masquerade\n  }}\n}}\n"
    )
}

/// Has packets passed on in the network namespace of this thread.
fn forward() -> io::Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(path)?.trim() == "1" { Ok(()) } else { fs::write(path, "1\n") }
}

fn nft(text: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.raw_os_error() {
            Some(errno) if errno == Errno::ENOENT as i32 => {
                io::Error::other("there is no `nft`, which `outbound` needs (apt-get install nftables)")
            }
            _ => error,
        })?;
    if let Some(mut words) = child.stdin.take() {
        words.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_subnet_has_an_address_for_each_end() {
        let outbound: Outbound = "172.31.255.252/30".parse().unwrap();
        assert_eq!(outbound.host, Ipv4Addr::new(172, 31, 255, 253));
        assert_eq!(outbound.lab, Ipv4Addr::new(172, 31, 255, 254));
        for wrong in ["172.31.255.253/30", "172.31.255.252", "172.31.255.0/24", "8.8.8.4/30", "yes"] {
            wrong.parse::<Outbound>().unwrap_err();
        }
    }
}
