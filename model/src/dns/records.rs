//! The records of all instances, as agents and what runs beside them read them: the document is BOSH's, to the byte order
//! of its keys.
//!
//! Only gains optional fields. Readers find a record's fields by the names in `record_keys`, not by place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The fields of a record, in the order in which they are written.
const KEYS: [&str; 13] = [
    "id",
    "num_id",
    "instance_group",
    "group_ids",
    "az",
    "az_id",
    "network",
    "network_id",
    "deployment",
    "ip",
    "domain",
    "agent_id",
    "instance_index",
];

/// One address of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The instance's UUID.
    pub id: String,
    /// The instance's number.
    pub num_id: Option<String>,
    /// Its group, as names have it.
    pub group: String,
    /// The numbers of its group and of the links that its jobs provide.
    pub group_ids: Vec<String>,
    /// Its zone.
    pub az: Option<String>,
    /// The zone's number.
    pub az_id: Option<String>,
    /// The network, as names have it.
    pub network: String,
    /// The network's number.
    pub network_id: Option<String>,
    /// The deployment, as names have it.
    pub deployment: String,
    /// The address.
    pub ip: Option<IpAddr>,
    /// The root of its names.
    pub domain: String,
    /// The agent in its VM.
    pub agent_id: Option<String>,
    /// Its index in the group.
    pub index: u32,
}

impl Record {
    /// Returns the name that is this instance's alone in this network.
    pub fn long_name(&self) -> String {
        let Self { id, group, network, deployment, domain, .. } = self;
        format!("{id}.{group}.{network}.{deployment}.{domain}")
    }

    fn to_row(&self) -> Value {
        json!([
            self.id,
            self.num_id,
            self.group,
            self.group_ids,
            self.az,
            self.az_id,
            self.network,
            self.network_id,
            self.deployment,
            self.ip,
            self.domain,
            self.agent_id,
            self.index
        ])
    }

    fn from_row(at: &BTreeMap<&str, usize>, row: &[Value]) -> Option<Self> {
        let field = |key: &str| at.get(key).and_then(|at| row.get(*at));
        let text = |key: &str| field(key).and_then(Value::as_str).map(str::to_owned);
        let texts = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            id: text("id")?,
            num_id: text("num_id"),
            group: text("instance_group")?,
            group_ids: field("group_ids")?.as_array()?.iter().filter_map(texts).collect(),
            az: text("az"),
            az_id: text("az_id"),
            network: text("network")?,
            network_id: text("network_id"),
            deployment: text("deployment")?,
            ip: Some(text("ip")?.parse().ok()?),
            domain: text("domain")?,
            agent_id: text("agent_id"),
            index: field("instance_index")
                .and_then(Value::as_u64)
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0),
        })
    }
}

/// Another name for what a link leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alias {
    /// The root of the names that it stands for.
    pub root_domain: String,
    /// The number of the link's group.
    pub group_id: String,
    /// How those are to be that are answered with.
    #[serde(default)]
    pub health_filter: Option<String>,
    /// Whether the first question waits for the instances' health.
    #[serde(default)]
    pub initial_health_check: Option<String>,
    /// What stands for `_` in the alias: `uuid` gives every instance a name of its own.
    #[serde(default)]
    pub placeholder_type: Option<String>,
}

/// All records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Counts up with each change.
    pub version: u64,
    /// The records.
    pub records: Vec<Record>,
    /// Other names, with what each stands for.
    pub aliases: BTreeMap<String, Vec<Alias>>,
}

#[derive(Serialize)]
struct Written<'a> {
    records: Vec<[String; 2]>,
    version: u64,
    record_keys: [&'static str; 13],
    record_infos: Vec<Value>,
    aliases: &'a BTreeMap<String, Vec<Alias>>,
}

#[derive(Deserialize)]
struct Read {
    version: u64,
    #[serde(default)]
    record_keys: Vec<String>,
    #[serde(default)]
    record_infos: Vec<Vec<Value>>,
    #[serde(default)]
    aliases: BTreeMap<String, Vec<Alias>>,
}

/// The document of records can't be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read DNS records")]
pub struct UnreadableRecords(#[source] serde_json::Error);

impl Records {
    /// Returns the document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = |record: &Record| record.ip.map(|ip| [ip.to_string(), record.long_name()]);
        let written = Written {
            records: self.records.iter().filter_map(name).collect(),
            version: self.version,
            record_keys: KEYS,
            record_infos: self.records.iter().map(Record::to_row).collect(),
            aliases: &self.aliases,
        };
        // Maps with text for keys and plain values: there is nothing in it that JSON can't say.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads a document. Records that lack what every record has are passed over.
    pub fn read(bytes: &[u8]) -> Result<Self, UnreadableRecords> {
        let read: Read = serde_json::from_slice(bytes).map_err(UnreadableRecords)?;
        let at: BTreeMap<&str, usize> =
            read.record_keys.iter().enumerate().map(|(at, key)| (key.as_str(), at)).collect();
        let records = read.record_infos.iter().filter_map(|row| Record::from_row(&at, row)).collect();
        Ok(Self { version: read.version, records, aliases: read.aliases })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference sent, with other ids.
    const RECORDED: &str = r#"{"records":[["10.2.2.5","i-3.srv.b.p.bosh"]],"version":31,"record_keys":["id","num_id","instance_group","group_ids","az","az_id","network","network_id","deployment","ip","domain","agent_id","instance_index"],"record_infos":[["i-3","188","srv",["128","130"],"z2","2","b","2","p","10.2.2.5","bosh","agent-9",1]],"aliases":{"my.alias":[{"root_domain":"bosh","group_id":"134","health_filter":"healthy","initial_health_check":null,"placeholder_type":null}]}}"#;

    #[test]
    fn the_document_is_bosh_s_to_the_byte() {
        let records = Records::read(RECORDED.as_bytes()).unwrap();
        assert_eq!(records.version, 31);
        assert_eq!(records.records[0].group_ids, ["128", "130"]);
        assert_eq!(String::from_utf8(records.to_bytes()).unwrap(), RECORDED);
    }

    #[test]
    fn fields_are_found_by_name() {
        let moved = r#"{"version":1,"record_keys":["ip","domain","id","instance_group","group_ids","network","deployment","new"],
            "record_infos":[["10.0.0.1","bosh","i","g",[],"n","d",7],["10.0.0.2"],["nowhere","bosh","i","g",[],"n","d",7]]}"#;
        let records = Records::read(moved.as_bytes()).unwrap().records;
        assert_eq!(records.len(), 1, "what is no record is passed over");
        assert_eq!(records[0].long_name(), "i.g.n.d.bosh");
        assert!(Records::read(b"{}").is_err(), "without a version it is no such document");
    }
}
