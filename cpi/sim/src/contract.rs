//! The contract that BOSH's director speaks with CPIs, answered: a request's document in, the answer's out. With it the
//! simulated cloud is also one behind an executable, `sim-cpi`.

use cpi_api::{
    AgentBootstrap, Call, CpiError, CreateDisk, CreateNetwork, CreateStemcell, CreateVm, SnapshotDisk,
    VmSizes,
};
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::{AgentId, DiskId, SnapshotId, SubnetId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What was asked.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// Which method.
    pub method: String,
    /// Its arguments.
    pub arguments: Vec<Value>,
    /// Who asks.
    pub context: Map<String, Value>,
    /// The contract that was agreed on.
    #[serde(default)]
    pub api_version: Option<u32>,
}

/// Why a request is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    /// There is no such method.
    #[error("Method is not known, got: '{0}'")]
    Unknown(String),
    /// There is, but not with these arguments.
    #[error("Arguments are not correct: {0}")]
    Arguments(String),
}

impl Request {
    /// Returns the call; a disk's own id is not in the contract, so the caller gives one.
    pub fn call(&self, fresh_disk: DiskId) -> Result<Call, NoCall> {
        Ok(match self.method.as_str() {
            "info" => Call::Info,
            "create_stemcell" => Call::CreateStemcell(CreateStemcell {
                image: self.argument(0)?,
                cloud_properties: self.argument(1)?,
                tags: self.argument::<Value>(2).map_or_else(|_| Ok(json!({})), Ok)?["tags"]
                    .as_object()
                    .map(|tags| tags.iter().map(|(key, tag)| (key.clone(), tag.to_string())).collect())
                    .unwrap_or_default(),
            }),
            "delete_stemcell" => Call::DeleteStemcell(self.argument(0)?),
            "create_vm" => Call::CreateVm(Box::new(self.vm()?)),
            "delete_vm" => Call::DeleteVm(self.argument(0)?),
            "has_vm" => Call::HasVm(self.argument(0)?),
            "reboot_vm" => Call::RebootVm(self.argument(0)?),
            "set_vm_metadata" => Call::SetVmMetadata(self.argument(0)?, self.argument(1)?),
            "calculate_vm_cloud_properties" => {
                let sizes: Value = self.argument(0)?;
                let size = |key: &str| sizes[key].as_u64().unwrap_or_default();
                Call::CalculateVmCloudProperties(VmSizes {
                    cpu: size("cpu") as u32,
                    ram_mib: size("ram"),
                    ephemeral_disk_mib: size("ephemeral_disk_size"),
                })
            }
            "create_disk" => Call::CreateDisk(CreateDisk {
                disk_id: fresh_disk,
                size_mib: self.argument(0)?,
                cloud_properties: self.argument(1)?,
                vm: self.argument(2)?,
            }),
            "delete_disk" => Call::DeleteDisk(self.argument(0)?),
            "has_disk" => Call::HasDisk(self.argument(0)?),
            "attach_disk" => Call::AttachDisk(self.argument(0)?, self.argument(1)?),
            "detach_disk" => Call::DetachDisk(self.argument(0)?, self.argument(1)?),
            "set_disk_metadata" => Call::SetDiskMetadata(self.argument(0)?, self.argument(1)?),
            "snapshot_disk" => Call::SnapshotDisk(SnapshotDisk {
                snapshot_id: SnapshotId::new(fresh_disk.to_string()),
                disk: self.argument(0)?,
                metadata: self.argument(1)?,
            }),
            "create_network" => Call::CreateNetwork(self.network(SubnetId::new(fresh_disk.to_string()))?),
            "delete_network" => Call::DeleteNetwork(self.argument(0)?),
            "delete_snapshot" => Call::DeleteSnapshot(self.argument(0)?),
            "resize_disk" => Call::ResizeDisk(self.argument(0)?, self.argument(1)?),
            other => return Err(NoCall::Unknown(other.to_owned())),
        })
    }

    fn argument<T: DeserializeOwned>(&self, at: usize) -> Result<T, NoCall> {
        let value = self.arguments.get(at).cloned().unwrap_or_default();
        let wrong = |error| NoCall::Arguments(format!("{} ({at}): {error}", self.method));
        serde_json::from_value(value).map_err(wrong)
    }

    fn network(&self, subnet_id: SubnetId) -> Result<CreateNetwork, NoCall> {
        let asked: Value = self.argument(0)?;
        let text = |key: &str| asked[key].as_str().map(str::to_owned);
        Ok(CreateNetwork {
            subnet_id,
            range: text("range"),
            gateway: text("gateway"),
            netmask_bits: asked["netmask_bits"].as_u64().and_then(|bits| u8::try_from(bits).ok()),
            cloud_properties: asked["cloud_properties"].clone(),
        })
    }

    fn vm(&self) -> Result<CreateVm, NoCall> {
        let (networks, env): (Map<String, Value>, Value) = (self.argument(3)?, self.argument(5)?);
        let networks =
            networks.iter().map(|(name, network)| settings(name, network)).collect::<Result<_, _>>()?;
        Ok(CreateVm {
            agent_id: AgentId::new(self.argument::<String>(0)?),
            stemcell: self.argument(1)?,
            cloud_properties: self.argument(2)?,
            networks,
            disks: self.argument(4)?,
            bootstrap: AgentBootstrap::in_env(&env).unwrap_or_default(),
            env,
        })
    }
}

fn settings(name: &str, network: &Value) -> Result<NetworkSettings, NoCall> {
    let read = |key: &str| network.get(key).cloned().unwrap_or_default();
    let wrong = |error: serde_json::Error| NoCall::Arguments(format!("network '{name}': {error}"));
    Ok(NetworkSettings {
        name: name.into(),
        kind: match network["type"].as_str() {
            Some("dynamic") => NetworkKind::Dynamic,
            Some("vip") => NetworkKind::Vip,
            _ => NetworkKind::Manual,
        },
        ip: serde_json::from_value(read("ip")).map_err(wrong)?,
        address: AddressKind::Automatic,
        prefix: network["prefix"].as_str().unwrap_or("32").to_owned(),
        netmask: serde_json::from_value(read("netmask")).map_err(wrong)?,
        gateway: serde_json::from_value(read("gateway")).map_err(wrong)?,
        dns: serde_json::from_value::<Option<_>>(read("dns")).map_err(wrong)?.unwrap_or_default(),
        defaults: serde_json::from_value::<Option<_>>(read("default")).map_err(wrong)?.unwrap_or_default(),
        cloud_properties: read("cloud_properties"),
        nic_group: serde_json::from_value(read("nic_group")).map_err(wrong)?,
    })
}

/// Returns the document that answers a call.
pub fn answer(method: &str, outcome: Result<Value, CpiError>) -> Value {
    match outcome {
        Ok(result) => {
            let result = match method {
                // A VM's id comes with its networks.
                "create_vm" => json!([result["cid"], {}]),
                "create_network" => {
                    let addresses = ["range", "gateway", "reserved"].map(|key| (key, result[key].clone()));
                    let addresses: Map<String, Value> =
                        addresses.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                    json!([result["cid"], addresses, result["cloud_properties"]])
                }
                _ => result,
            };
            json!({ "result": result, "error": null, "log": "" })
        }
        Err(error) => complaint(&error.type_name, &error.message, error.ok_to_retry),
    }
}

/// Returns the document that answers what is no call.
pub fn refusal(no_call: &NoCall) -> Value {
    match no_call {
        NoCall::Unknown(_) => complaint("Bosh::Clouds::NotImplemented", &no_call.to_string(), false),
        NoCall::Arguments(_) => complaint("InvalidCall", &no_call.to_string(), false),
    }
}

fn complaint(kind: &str, message: &str, ok_to_retry: bool) -> Value {
    let error = json!({ "type": kind, "message": message, "ok_to_retry": ok_to_retry });
    json!({ "result": null, "error": error, "log": "" })
}
