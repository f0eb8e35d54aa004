//! Ordered binary keys. The order of the bytes is the order of the values, and the bytes of a tuple's first parts are
//! a prefix of exactly the keys that begin with those parts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::step::PackageRefKey;
use model::task::OutputKind;
use model::*;

use crate::records::{LineState, Sought};

/// A key of a table, or a part of one.
pub trait Key: Sized {
    /// Appends the ordered bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes the bytes off the front of `input`; `None` if they are no such key.
    fn decode(input: &mut &[u8]) -> Option<Self>;
    /// Returns the key as operators write it.
    fn show(&self) -> String;
}

/// A key whose bytes begin those of some keys `K`.
pub trait PrefixOf<K>: Key {}

const TERMINATOR: [u8; 2] = [0x00, 0x00];
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];

fn encode_text(text: &str, out: &mut Vec<u8>) {
    // A zero byte inside the text becomes two bytes, so that the two zeros at the end can't be mistaken for text, and
    // sort before everything that could follow.
    for byte in text.bytes() {
        match byte {
            0 => out.extend(ESCAPED_ZERO),
            other => out.push(other),
        }
    }
    out.extend(TERMINATOR);
}

fn decode_text(input: &mut &[u8]) -> Option<String> {
    let mut text = Vec::new();
    let mut rest = *input;
    loop {
        match rest {
            [0x00, 0x00, tail @ ..] => {
                *input = tail;
                return String::from_utf8(text).ok();
            }
            [0x00, 0xff, tail @ ..] => {
                text.push(0);
                rest = tail;
            }
            [0x00, ..] | [] => return None,
            [byte, tail @ ..] => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = input.split_first_chunk::<N>()?;
    *input = tail;
    Some(*head)
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        decode_text(input)
    }
    fn show(&self) -> String {
        self.clone()
    }
}

macro_rules! text_keys {
    ($($name:ident),+ $(,)?) => {$(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_text(self.as_str(), out);
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                decode_text(input).map(Self::new)
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

text_keys!(
    AgentId,
    BlobDigest,
    CpiName,
    DeploymentName,
    DiskId,
    DynamicDiskName,
    Fingerprint,
    InstanceId,
    LockName,
    NetworkName,
    PackageName,
    ReleaseName,
    RequestId,
    SnapshotId,
    UserName,
    VariableName,
    Version,
);

macro_rules! plain_numbers {
    ($($name:ident),+) => {$(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend(self.to_be_bytes());
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                take(input).map(Self::from_be_bytes)
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

plain_numbers!(u8, u32, u64);

macro_rules! number_keys {
    ($($name:ident),+ $(,)?) => {$(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Key::decode(input).map(Self)
            }
            fn show(&self) -> String {
                self.0.to_string()
            }
        }
    )+};
}

number_keys!(
    ConfigId,
    EventId,
    LinkConsumerId,
    LinkId,
    LinkProviderId,
    NodeId,
    ProblemId,
    Revision,
    TaskId,
    UnitNo,
    VariableSetId,
);

impl Key for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
    fn decode(_input: &mut &[u8]) -> Option<Self> {
        Some(())
    }
    fn show(&self) -> String {
        String::new()
    }
}

impl Key for IpAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => {
                out.push(4);
                out.extend(ip.octets());
            }
            Self::V6(ip) => {
                out.push(6);
                out.extend(ip.octets());
            }
        }
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        match take::<1>(input)? {
            [4] => Some(Self::V4(Ipv4Addr::from(take::<4>(input)?))),
            [6] => Some(Self::V6(Ipv6Addr::from(take::<16>(input)?))),
            _ => None,
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! closed_sets {
    ($($name:ident { $($variant:ident = $byte:literal $text:literal),+ }),+ $(,)?) => {$(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.push(match self { $(Self::$variant => $byte),+ });
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                match take::<1>(input)? { $([$byte] => Some(Self::$variant),)+ _ => None }
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $text),+ }.into()
            }
        }
    )+};
}

closed_sets!(
    OutputKind { Event = 1 "event", Result = 2 "result", Debug = 3 "debug", Cpi = 4 "cpi" },
    LineState { Started = 1 "started", Finished = 2 "finished", Failed = 3 "failed" },
);

impl Key for Sought {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vm(agent) => {
                out.push(1);
                agent.encode(out);
            }
            Self::Disk(disk) => {
                out.push(2);
                disk.encode(out);
            }
            Self::Snapshot(snapshot) => {
                out.push(3);
                snapshot.encode(out);
            }
        }
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        match take::<1>(input)? {
            [1] => Key::decode(input).map(Self::Vm),
            [2] => Key::decode(input).map(Self::Disk),
            [3] => Key::decode(input).map(Self::Snapshot),
            _ => None,
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Vm(agent) => format!("vm/{agent}"),
            Self::Disk(disk) => format!("disk/{disk}"),
            Self::Snapshot(snapshot) => format!("snapshot/{snapshot}"),
        }
    }
}

impl Key for PackageRefKey {
    fn encode(&self, out: &mut Vec<u8>) {
        self.name.encode(out);
        self.fingerprint.encode(out);
        self.os.encode(out);
        self.stemcell_version.encode(out);
        self.dependency_key.encode(out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            name: Key::decode(input)?,
            fingerprint: Key::decode(input)?,
            os: Key::decode(input)?,
            stemcell_version: Key::decode(input)?,
            dependency_key: Key::decode(input)?,
        })
    }
    fn show(&self) -> String {
        format!("{}/{}/{}/{}", self.name, self.fingerprint, self.os, self.stemcell_version)
    }
}

macro_rules! tuple_keys {
    ($(($($part:ident $index:tt),+)),+ $(,)?) => {$(
        impl<$($part: Key),+> Key for ($($part,)+) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)+
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode(input)?,)+))
            }
            fn show(&self) -> String {
                [$(self.$index.show()),+].join("/")
            }
        }
    )+};
}

tuple_keys!((A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3));

impl<A: Key, B: Key> PrefixOf<(A, B)> for A {}
impl<A: Key, B: Key, C: Key> PrefixOf<(A, B, C)> for A {}
impl<A: Key, B: Key, C: Key> PrefixOf<(A, B, C)> for (A, B) {}
impl<A: Key, B: Key, C: Key, D: Key> PrefixOf<(A, B, C, D)> for A {}
impl PrefixOf<PackageRefKey> for PackageName {}
impl PrefixOf<PackageRefKey> for (PackageName, Fingerprint) {}
impl PrefixOf<PackageRefKey> for (PackageName, Fingerprint, String, Version) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(key: &impl Key) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    #[test]
    fn bytes_sort_as_values_do() {
        let texts = ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0b", "aa", "b", "ä", "\u{10ffff}"];
        for left in texts {
            for right in texts {
                let (a, b) = ((left.to_owned(), 7u64), (right.to_owned(), 3u64));
                assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)), "{a:?} {b:?}");
            }
        }
        for (left, right) in [(0u64, 1u64), (255, 256), (u64::MAX - 1, u64::MAX)] {
            assert!(bytes(&left) < bytes(&right));
        }
    }

    #[test]
    fn a_prefix_finds_no_longer_name() {
        let prefix = bytes(&DeploymentName::from("web"));
        assert!(bytes(&(DeploymentName::from("web"), 1u32)).starts_with(&prefix));
        assert!(!bytes(&(DeploymentName::from("web2"), 1u32)).starts_with(&prefix));
        assert!(!bytes(&(DeploymentName::from("web\0"), 1u32)).starts_with(&prefix));
    }

    #[test]
    fn what_was_encoded_decodes() {
        let key = (TaskId(7), "a\0b".to_owned(), OutputKind::Cpi);
        assert_eq!(Key::decode(&mut bytes(&key).as_slice()), Some(key));
        for sought in [Sought::Vm("a\0b".into()), Sought::Disk("d".into())] {
            assert_eq!(Sought::decode(&mut bytes(&sought).as_slice()), Some(sought));
        }
        for ip in ["10.0.0.1", "fd00::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(IpAddr::decode(&mut bytes(&ip).as_slice()), Some(ip));
        }
        assert_eq!(<(TaskId, String)>::decode(&mut [0u8; 3].as_slice()), None);
        assert_eq!(String::decode(&mut [b'a', 0].as_slice()), None);
        assert_eq!(IpAddr::decode(&mut [5u8, 0, 0, 0, 0].as_slice()), None);
    }
}
