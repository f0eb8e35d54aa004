//! The few words of rtnetlink that a VM's network takes: links, addresses, a default route.
//!
//! Spoken directly, because starting `ip` for each would cost more than the rest of a VM, and may not be installed.
//! Everything happens in the network namespace of the calling thread, see [`crate::netns`].

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

// <linux/rtnetlink.h>, <linux/if_link.h>, <linux/veth.h>, <linux/netlink.h>
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE_EXCLUSIVE: u16 = 0x200 | 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// The hardware address of bridges. One that has none of its own takes that of one of its cables, and another one when that
/// cable goes: whoever spoke to a gateway there would not find it for half a minute. The same for every bridge: each is the
/// only one of its network.
const BRIDGE_ADDRESS: [u8; 6] = [0x56, 0x54, 0, 0, 0, 1];

/// A conversation with the kernel about one network namespace.
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one about the namespace that the thread is in now.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket })
    }

    /// Makes a bridge, unless there is one, and switches it on.
    pub fn bridge(&self, name: &str) -> io::Result<()> {
        let mut message = link_message(0);
        message.text(IFLA_IFNAME, name);
        message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        self.ask(RTM_NEWLINK, CREATE_EXCLUSIVE, &message).or_else(exists_already)?;
        // One that is there may have been made by an earlier version, which gave it none.
        self.hardware_address(name, BRIDGE_ADDRESS)?;
        self.link_up(name)
    }

    /// Makes a cable: one end here at the bridge, the other as `inside` in the namespace of process `pid`.
    pub fn cable(&self, name: &str, bridge: &str, inside: &str, pid: i32) -> io::Result<()> {
        let mut message = link_message(IFF_UP);
        message.text(IFLA_IFNAME, name);
        message.number(IFLA_MASTER, if_nametoindex(bridge)?);
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |veth| {
                veth.nested(VETH_INFO_PEER, |peer| {
                    peer.bytes.extend(link_message(0).bytes);
                    peer.text(IFLA_IFNAME, inside);
                    peer.number(IFLA_NET_NS_PID, pid as u32);
                });
            });
        });
        self.ask(RTM_NEWLINK, CREATE_EXCLUSIVE, &message)
    }

    /// Makes a cable: one end here, the other as `outside` in the namespace that the descriptor is a handle of. One that is there
    /// is fine.
    pub fn cable_out(&self, name: &str, outside: &str, namespace: i32) -> io::Result<()> {
        let mut message = link_message(0);
        message.text(IFLA_IFNAME, name);
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |veth| {
                veth.nested(VETH_INFO_PEER, |peer| {
                    peer.bytes.extend(link_message(0).bytes);
                    peer.text(IFLA_IFNAME, outside);
                    peer.number(IFLA_NET_NS_FD, namespace as u32);
                });
            });
        });
        self.ask(RTM_NEWLINK, CREATE_EXCLUSIVE, &message).or_else(exists_already)
    }

    /// Removes a link, and with a cable its other end; one that is gone is fine.
    pub fn remove_link(&self, name: &str) -> io::Result<()> {
        let mut message = link_message(0);
        message.text(IFLA_IFNAME, name);
        self.ask(RTM_DELLINK, 0, &message).or_else(|error| match error.raw_os_error() {
            Some(errno) if errno == Errno::ENODEV as i32 => Ok(()),
            _ => Err(error),
        })
    }

    /// Puts a link at a bridge and switches it on.
    pub fn join(&self, name: &str, bridge: &str) -> io::Result<()> {
        let mut message = link_message(IFF_UP);
        message.text(IFLA_IFNAME, name);
        message.number(IFLA_MASTER, if_nametoindex(bridge)?);
        self.ask(RTM_NEWLINK, 0, &message)
    }

    /// Switches a link on.
    pub fn link_up(&self, name: &str) -> io::Result<()> {
        let mut message = link_message(IFF_UP);
        message.text(IFLA_IFNAME, name);
        self.ask(RTM_NEWLINK, 0, &message)
    }

    /// Gives a link a hardware address.
    pub fn hardware_address(&self, name: &str, address: [u8; 6]) -> io::Result<()> {
        let mut message = link_message(0);
        message.text(IFLA_IFNAME, name);
        message.data(IFLA_ADDRESS, &address);
        self.ask(RTM_NEWLINK, 0, &message)
    }

    /// Gives a link an address; one that it has is fine.
    pub fn address(&self, link: &str, ip: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let ip = v4(ip)?;
        let mut message = Message::default();
        message.bytes.extend([AddressFamily::Inet as u8, prefix_bits, 0, 0]);
        message.bytes.extend(if_nametoindex(link)?.to_ne_bytes());
        message.data(IFA_LOCAL, &ip.octets());
        message.data(IFA_ADDRESS, &ip.octets());
        self.ask(RTM_NEWADDR, CREATE_EXCLUSIVE, &message).or_else(exists_already)
    }

    /// Sends everything that has no other way through `gateway`.
    pub fn default_route(&self, link: &str, gateway: IpAddr) -> io::Result<()> {
        let gateway = v4(gateway)?;
        let mut message = Message::default();
        message.bytes.extend([
            AddressFamily::Inet as u8,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            0,
            RTN_UNICAST,
        ]);
        message.bytes.extend(0_u32.to_ne_bytes());
        message.data(RTA_GATEWAY, &gateway.octets());
        message.number(RTA_OIF, if_nametoindex(link)?);
        self.ask(RTM_NEWROUTE, CREATE_EXCLUSIVE, &message).or_else(exists_already)
    }

    fn ask(&self, kind: u16, flags: u16, message: &Message) -> io::Result<()> {
        let length = 16 + message.bytes.len() as u32;
        let mut packet = Vec::with_capacity(length as usize);
        packet.extend(length.to_ne_bytes());
        packet.extend(kind.to_ne_bytes());
        packet.extend((REQUEST_ACK | flags).to_ne_bytes());
        // Sequence and port: one question at a time on a socket of our own needs neither.
        packet.extend([0; 8]);
        packet.extend(&message.bytes);
        send(self.socket.as_raw_fd(), &packet, MsgFlags::empty())?;
        self.answer()
    }

    fn answer(&self) -> io::Result<()> {
        let mut packet = [0_u8; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty())?;
        let unexpected = || io::Error::other("the kernel's answer is not an acknowledgement");
        let header = packet[..length].first_chunk::<20>().ok_or_else(unexpected)?;
        if u16::from_ne_bytes([header[4], header[5]]) != NLMSG_ERROR {
            return Err(unexpected());
        }
        match i32::from_ne_bytes([header[16], header[17], header[18], header[19]]) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }
}

fn exists_already(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(Errno::EEXIST as i32) { Ok(()) } else { Err(error) }
}

fn v4(ip: IpAddr) -> io::Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => Err(io::Error::other(format!("{ip}: only IPv4 is spoken here"))),
    }
}

/// The part of a message after its header: a fixed struct, then attributes.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

/// Returns the start of a message about a link.
fn link_message(up: u32) -> Message {
    let mut message = Message::default();
    message.bytes.extend([0; 8]);
    message.bytes.extend(up.to_ne_bytes());
    message.bytes.extend(up.to_ne_bytes());
    message
}

impl Message {
    fn data(&mut self, kind: u16, data: &[u8]) {
        self.nested(kind, |inner| inner.bytes.extend(data));
    }

    fn text(&mut self, kind: u16, text: &str) {
        let mut terminated = text.as_bytes().to_vec();
        terminated.push(0);
        self.data(kind, &terminated);
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.data(kind, &number.to_ne_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        let length = 4 + inner.bytes.len() as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(inner.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use nix::ifaddrs::getifaddrs;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Makes a bridge as earlier versions did, then as we do; returns its hardware address.
    fn bridge_made_twice() -> [u8; 6] {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let netlink = Netlink::open().unwrap();
        let mut message = link_message(0);
        message.text(IFLA_IFNAME, "br0");
        message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        netlink.ask(RTM_NEWLINK, CREATE_EXCLUSIVE, &message).unwrap();
        netlink.bridge("br0").unwrap();
        let addresses = getifaddrs().unwrap().filter(|found| found.interface_name == "br0");
        addresses.filter_map(|found| found.address?.as_link_addr()?.addr()).next().unwrap()
    }

    #[test]
    fn a_bridge_that_is_there_gets_the_address_that_stays() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: a network namespace needs root");
            return;
        }
        // A thread of its own: it does not come back to the host's network.
        let address = std::thread::spawn(bridge_made_twice).join().unwrap();
        assert_eq!(address, BRIDGE_ADDRESS);
    }
}
