//! Stemcells as their upload filed them: one record per CPI.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::*;
use crate::instance::StemcellRef;
use crate::version;

/// A stemcell whatever cloud it is in: what a compiled package is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StemcellVersion {
    /// Its operating system.
    pub os: String,
    /// Its exact version.
    pub version: Version,
}

impl StemcellVersion {
    /// Returns whether the two are of one line: what is compiled for one runs on the other.
    pub fn is_in_line_with(&self, other: &Self) -> bool {
        self.os == other.os && version::line(self.version.as_str()) == version::line(other.version.as_str())
    }
}

/// How the names of all of BOSH's stemcells begin, and with them those of what takes their place.
const BOSH: &str = "bosh-";

/// How the names of ours begin.
const OURS: &str = "bosh-directorate-";

/// Whose agent a stemcell carries: `agent` of stemcell.MF, in which BOSH's stemcells say nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// BOSH's own, which speaks over NATS.
    Bosh,
    /// Ours.
    Directorate,
}

impl AgentKind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Bosh, Self::Directorate];

    /// Returns what it is called in stemcell.MF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bosh => "bosh",
            Self::Directorate => "directorate",
        }
    }

    /// Returns what the name of a stemcell says: BOSH's own agent is in what BOSH's makers publish.
    pub fn of_stemcell_named(name: &str) -> Self {
        if name.starts_with(BOSH) && !name.starts_with(OURS) { Self::Bosh } else { Self::Directorate }
    }
}

impl StemcellRef {
    /// Returns whether the agent inside is BOSH's own.
    pub fn has_bosh_s_agent(&self) -> bool {
        let agent = self.agent.unwrap_or_else(|| AgentKind::of_stemcell_named(&self.name));
        agent == AgentKind::Bosh
    }
}

/// A stemcell in one CPI's cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StemcellRecord {
    /// Name, version, CPI and cloud id.
    pub stemcell: StemcellRef,
    /// The image's digest as stemcell.MF gives it.
    pub digest: String,
    /// What stemcell.MF tells the CPI.
    pub cloud_properties: Value,
    /// Formats of the image (`stemcell_formats`).
    pub formats: Vec<String>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// Whether it is being deleted: its image may be gone, so nothing new is made from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retired: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, agent: Option<AgentKind>) -> StemcellRef {
        StemcellRef {
            name: name.into(),
            os: "o".into(),
            version: "1".into(),
            cpi: "".into(),
            cid: "c".into(),
            api_version: 3,
            agent,
        }
    }

    #[test]
    fn the_name_tells_the_agent_only_where_nothing_else_does() {
        let names = [
            ("bosh-aws-xen-hvm-ubuntu-jammy-go_agent", true),
            ("bosh-directorate-debian-bookworm-go_agent", false),
            ("directorate-host", false),
            ("small", false),
        ];
        for (name, is_bosh_s) in names {
            assert_eq!(named(name, None).has_bosh_s_agent(), is_bosh_s, "{name}");
            assert!(named(name, Some(AgentKind::Bosh)).has_bosh_s_agent(), "{name}");
            assert!(!named(name, Some(AgentKind::Directorate)).has_bosh_s_agent(), "{name}");
        }
    }

    #[test]
    fn what_was_filed_without_the_agent_is_read_and_stays_as_it_was() {
        let old = serde_json::json!({
            "name": "bosh-x", "os": "o", "version": "1", "cpi": "", "cid": "c", "api_version": 3,
        });
        let read: StemcellRef = serde_json::from_value(old.clone()).expect("it is a stemcell");
        assert_eq!(read, named("bosh-x", None));
        assert_eq!(serde_json::to_value(&read).expect("it is plain"), old);
        for kind in AgentKind::ALL {
            let stored = serde_json::to_value(named("x", Some(kind))).expect("it is plain");
            assert_eq!(stored["agent"], kind.name());
        }
    }
}
