//! What our objects are called at the daemon, and how they are told from those of others. Pure.
//!
//! The name of a VM, disk or snapshot follows from our own id of it and is its cid: a repeat makes the same one, and a
//! search needs no list. The daemon gives a container's name once, so of two creations one fails.

use std::collections::HashMap;

use model::{AgentId, DiskCid, DiskId, SnapshotCid, SnapshotId, SubnetId, VmCid};

/// Carried by everything of ours: the fleet's name.
pub(crate) const FLEET: &str = "directorate.fleet";
/// What an object is.
pub(crate) const KIND: &str = "directorate.kind";
/// Our id of a VM's agent, a disk, a snapshot or a subnet.
pub(crate) const ID: &str = "directorate.id";
/// SHA-256 of the token that a VM's agent got.
pub(crate) const TOKEN: &str = "directorate.token";
/// The stemcell below a VM or an image.
pub(crate) const STEMCELL: &str = "directorate.stemcell";
/// The size that a disk was made with, in MiB: nothing holds it to that.
pub(crate) const SIZE: &str = "directorate.size-mib";

/// What an object is, as its label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vm,
    /// A container that does something for a moment.
    Errand,
    Disk,
    Snapshot,
    Stemcell,
    /// A network that was asked for.
    Network,
    /// A network that came with the first VM in it and goes with the last.
    ImplicitNetwork,
}

impl Kind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Errand => "errand",
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
            Self::Stemcell => "stemcell",
            Self::Network => "network",
            Self::ImplicitNetwork => "implicit-network",
        }
    }
}

/// What a fleet's name has to be.
pub const WANTED_NAME: &str = "a word of lower-case letters, digits and hyphens, 40 at most";

/// Returns whether a fleet may be called so at a daemon.
pub fn is_name(fleet: &str) -> bool {
    Names::new(fleet).is_some()
}

/// The names of one fleet.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    fleet: String,
}

impl Names {
    /// Takes the fleet's name, which must be one that images and containers can begin with.
    pub fn new(fleet: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (first, last) = (fleet.bytes().next()?, fleet.bytes().next_back()?);
        let is_word = fleet.len() <= 40 && fleet.bytes().all(|b| is_plain(b) || b == b'-');
        (is_word && is_plain(first) && is_plain(last)).then(|| Self { fleet: fleet.to_owned() })
    }

    /// Returns the labels that every object has.
    pub fn labels(&self, kind: Kind) -> HashMap<String, String> {
        [(FLEET, self.fleet.as_str()), (KIND, kind.label())]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// Returns the filter by which the daemon lists such objects of ours, with one more label if given.
    pub fn filter(&self, kind: Kind, more: Option<(&str, &str)>) -> HashMap<String, Vec<String>> {
        let labels = [(FLEET, self.fleet.as_str()), (KIND, kind.label())].into_iter().chain(more);
        [("label".to_owned(), labels.map(|(key, value)| format!("{key}={value}")).collect())].into()
    }

    /// Returns whether labels are those of such an object of ours.
    pub fn is_ours(&self, labels: Option<&HashMap<String, String>>, kind: Kind) -> bool {
        let has = |key, value: &str| labels.and_then(|l| l.get(key)).is_some_and(|found| found == value);
        has(FLEET, &self.fleet) && has(KIND, kind.label())
    }

    pub fn vm(&self, agent: &AgentId) -> VmCid {
        VmCid::new(self.named("vm", agent.as_str()))
    }

    pub fn disk(&self, disk: &DiskId) -> DiskCid {
        DiskCid::new(self.named("disk", disk.as_str()))
    }

    pub fn snapshot(&self, snapshot: &SnapshotId) -> SnapshotCid {
        SnapshotCid::new(self.named("snapshot", snapshot.as_str()))
    }

    pub fn subnet(&self, subnet: &SubnetId) -> String {
        self.named("net", subnet.as_str())
    }

    /// Returns the name of the network that a range has when nobody named it.
    pub fn range(&self, range: &str) -> String {
        self.named("net", &range.replace(['.', '/'], "-"))
    }

    /// Returns the name of the errand that is done for an object: one at a time.
    pub fn errand(&self, object: &str) -> String {
        self.named("errand", object)
    }

    /// Returns the name that a stemcell's images have before the colon.
    pub fn stemcells(&self) -> String {
        format!("{}-stemcell", self.fleet)
    }

    /// Returns whether a cid is that of a disk.
    pub fn is_disk(&self, cid: &str) -> bool {
        cid.strip_prefix(&self.fleet).is_some_and(|rest| rest.starts_with("-disk-"))
    }

    fn named(&self, kind: &str, id: &str) -> String {
        let mut name = format!("{}-{kind}-", self.fleet);
        for byte in id.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
                // The daemon's own alphabet for names has little more to offer.
                odd => name.push_str(&format!("_{odd:02x}")),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_ids_and_never_meet() {
        let names = Names::new("prod").unwrap();
        assert_eq!(names.vm(&"0f3c-11".into()).as_str(), "prod-vm-0f3c-11");
        assert_ne!(names.vm(&"a.b".into()), names.vm(&"a_2eb".into()));
        assert!(names.is_disk(names.disk(&"d".into()).as_str()) && !names.is_disk("prod-vm-d"));
    }

    #[test]
    fn only_a_lower_case_word_is_a_fleet_s_name() {
        for bad in ["", "Prod", "a b", "-a", "a-", "a_b", &"a".repeat(41)] {
            assert!(Names::new(bad).is_none(), "{bad}");
        }
        assert!(Names::new("a-1").is_some());
    }

    #[test]
    fn objects_of_another_fleet_or_kind_are_not_ours() {
        let (ours, theirs) = (Names::new("a").unwrap(), Names::new("b").unwrap());
        assert!(ours.is_ours(Some(&ours.labels(Kind::Vm)), Kind::Vm));
        assert!(!ours.is_ours(Some(&theirs.labels(Kind::Vm)), Kind::Vm));
        assert!(!ours.is_ours(Some(&ours.labels(Kind::Errand)), Kind::Vm));
        assert!(!ours.is_ours(None, Kind::Vm));
    }
}
