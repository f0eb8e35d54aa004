//! Networks that directors have made: one row each, with the subnets that their clouds gave for it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::*;
use crate::instance::NetworkKind;

/// A network that was made because a deployment uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManagedNetwork {
    /// Its name in cloud configs.
    pub name: NetworkName,
    /// How addresses come about in it.
    pub kind: NetworkKind,
    /// When it was first asked for.
    pub created_at: Timestamp,
    /// The deployments that use it: from the deploy on that needs it, until one succeeds that does not.
    pub deployments: BTreeSet<DeploymentName>,
    /// Since when nobody uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned_at: Option<Timestamp>,
    /// The task that has begun to delete it: whatever became of that, its subnets are not to be relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_by: Option<TaskId>,
    /// Its subnets, in the order in which they were asked for.
    pub subnets: Vec<ManagedSubnet>,
}

impl ManagedNetwork {
    /// Returns the subnet of this name.
    pub fn subnet(&self, name: &str) -> Option<&ManagedSubnet> {
        self.subnets.iter().find(|subnet| subnet.name == name)
    }
}

/// A subnet of such a network. Its row comes before it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManagedSubnet {
    /// Its name in cloud configs.
    pub name: String,
    /// Our id of it, by which clouds that can search find it again.
    pub id: SubnetId,
    /// The CPI that makes it.
    pub cpi: CpiName,
    /// The task that makes it.
    pub task: TaskId,
    /// What came of it; none while nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<MadeSubnet>,
}

/// What a cloud made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeSubnet {
    /// The cloud's id.
    pub cid: SubnetCid,
    /// Its addresses, as CIDR.
    pub range: String,
    /// Its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses that the cloud keeps for itself: single ones and ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<String>,
    /// What the CPI is told of it when it makes VMs.
    pub cloud_properties: Value,
}

/// What a cloud is asked to make.
#[derive(Clone, Debug, PartialEq)]
pub struct SubnetWish {
    /// The subnet's name.
    pub name: String,
    /// The CPI of its zones.
    pub cpi: CpiName,
    /// Its addresses, unless the cloud is to choose them.
    pub range: Option<String>,
    /// Its gateway, unless the cloud is to choose it.
    pub gateway: Option<String>,
    /// How large it is to be, if the cloud chooses the addresses.
    pub netmask_bits: Option<u8>,
    /// Those of its zones, and its own over them; placeholders unresolved.
    pub cloud_properties: Value,
}

/// Puts placeholders back where a cloud gave back what they stood for: what it was told is not to be stored in the clear.
pub fn unresolved(given: Value, told: &Value, written: &Value) -> Value {
    match (given, told, written) {
        (given, told, written) if given == *told => written.clone(),
        (Value::Object(given), Value::Object(told), Value::Object(written)) => {
            let one = |(key, given): (String, Value)| match (told.get(&key), written.get(&key)) {
                (Some(told), Some(written)) => {
                    let value = unresolved(given, told, written);
                    (key, value)
                }
                _ => (key, given),
            };
            Value::Object(given.into_iter().map(one).collect::<Map<String, Value>>())
        }
        (given, ..) => given,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_cloud_gives_back_is_stored_as_it_was_written() {
        let written = json!({"vlan": 7, "key": "((/key))", "in": {"token": "a-((/token))", "zone": "z"}});
        let told = json!({"vlan": 7, "key": "secret", "in": {"token": "a-hush", "zone": "z"}});
        let given = json!({"key": "secret", "in": {"token": "a-hush", "zone": "other"}, "id": "net-1"});
        let stored = unresolved(given, &told, &written);
        let wanted =
            json!({"key": "((/key))", "in": {"token": "a-((/token))", "zone": "other"}, "id": "net-1"});
        assert_eq!(stored, wanted);
        assert_eq!(unresolved(told.clone(), &told, &written), written);
    }
}
