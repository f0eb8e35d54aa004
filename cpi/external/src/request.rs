//! What an executable is sent: one line, by BOSH's contract.

use cpi_api::{Call, CallContext, CreateNetwork, CreateVm};
use model::agent_settings;
use serde_json::{Map, Value, json};

use crate::{Program, VERSION_MAX};

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// As the executable and its logs know it.
    pub request_id: String,
    document: Value,
    shown: Value,
}

impl Envelope {
    /// Makes the request of a call; `version` is the contract that was agreed on, none while it is asked for.
    pub fn new(program: &Program, context: Option<&CallContext>, call: &Call, version: Option<u32>) -> Self {
        let id = context.map_or("info", |context| context.request_id.as_str());
        let request_id = if id.starts_with("cpi-") { id.to_owned() } else { format!("cpi-{id}") };
        let mut own = Map::new();
        own.insert("director_uuid".into(), json!(program.director_uuid));
        own.insert("request_id".into(), json!(request_id));
        // A stemcell that says nothing is of the first version, and a CPI is told as little.
        let stemcell =
            context.and_then(|context| context.stemcell_api_version).filter(|version| *version > 1);
        if let Some(stemcell) = stemcell
            && knows_its_stemcell(call)
        {
            own.insert("vm".into(), json!({ "stemcell": { "api_version": stemcell } }));
        }
        let mut shown = own.clone();
        shown.extend(program.properties.keys().map(|key| (key.clone(), json!("<redacted>"))));
        own.extend(program.properties.clone());
        let arguments = arguments(call, version.unwrap_or(VERSION_MAX));
        let document = |arguments: Value, context: Map<String, Value>| {
            let mut document = json!({ "method": call.method(), "arguments": arguments, "context": context });
            if let Some(version) = version {
                document["api_version"] = json!(version);
            }
            document
        };
        let shown = document(shown_arguments(call, arguments.clone()), shown);
        Self { request_id, document: document(arguments, own), shown }
    }

    /// Returns the line that is sent. Some wrappers read just one.
    pub fn line(&self) -> String {
        format!("{}\n", self.document)
    }

    /// Returns the line that is logged.
    pub fn shown(&self) -> String {
        self.shown.to_string()
    }
}

/// Only these are about a VM whose stemcell the caller knows.
fn knows_its_stemcell(call: &Call) -> bool {
    matches!(call, Call::CreateVm(_) | Call::DeleteVm(_) | Call::AttachDisk(..) | Call::DetachDisk(..))
}

fn arguments(call: &Call, version: u32) -> Value {
    match call {
        Call::Info | Call::FindVm(_) | Call::FindDisk(_) | Call::FindSnapshot(_) | Call::FindNetwork(_) => {
            json!([])
        }
        Call::CreateStemcell(stemcell) if version < 3 => {
            json!([stemcell.image, stemcell.cloud_properties])
        }
        Call::CreateStemcell(stemcell) => {
            json!([stemcell.image, stemcell.cloud_properties, { "tags": stemcell.tags }])
        }
        Call::DeleteStemcell(cid) => json!([cid]),
        Call::CreateVm(request) => create_vm(request),
        Call::DeleteVm(cid) | Call::HasVm(cid) | Call::RebootVm(cid) => json!([cid]),
        Call::SetVmMetadata(cid, metadata) => json!([cid, metadata]),
        Call::CalculateVmCloudProperties(sizes) => json!([{
            "cpu": sizes.cpu,
            "ram": sizes.ram_mib,
            "ephemeral_disk_size": sizes.ephemeral_disk_mib,
        }]),
        Call::CreateDisk(disk) => json!([disk.size_mib, disk.cloud_properties, disk.vm]),
        Call::DeleteDisk(cid) | Call::HasDisk(cid) => json!([cid]),
        Call::AttachDisk(vm, disk) | Call::DetachDisk(vm, disk) => json!([vm, disk]),
        Call::SnapshotDisk(snapshot) => json!([snapshot.disk, snapshot.metadata]),
        Call::DeleteSnapshot(cid) => json!([cid]),
        Call::CreateNetwork(network) => create_network(network),
        Call::DeleteNetwork(cid) => json!([cid]),
        Call::SetDiskMetadata(cid, metadata) => json!([cid, metadata]),
        Call::ResizeDisk(cid, size) => json!([cid, size]),
    }
}

fn create_vm(request: &CreateVm) -> Value {
    let networks: Map<String, Value> = request
        .networks
        .iter()
        .map(|network| (network.name.to_string(), agent_settings::network(network).into()))
        .collect();
    let env = request.bootstrap.into_env(&request.env);
    json!([request.agent_id, request.stemcell, request.cloud_properties, networks, request.disks, env])
}

/// What the cloud is to choose is left out.
fn create_network(request: &CreateNetwork) -> Value {
    let mut network = json!({ "type": "manual", "cloud_properties": request.cloud_properties });
    if let Some(range) = &request.range {
        network["range"] = json!(range);
    }
    if let Some(gateway) = &request.gateway {
        network["gateway"] = json!(gateway);
    }
    if let Some(bits) = request.netmask_bits {
        network["netmask_bits"] = json!(bits);
    }
    json!([network])
}

/// The arguments without what may be secret: cloud properties, and env but for the groups that name the VM.
fn shown_arguments(call: &Call, mut arguments: Value) -> Value {
    const HIDDEN: &str = "<redacted>";
    match call {
        Call::CreateVm(_) => {
            arguments[2] = json!(HIDDEN);
            if let Value::Object(networks) = &mut arguments[3] {
                networks.values_mut().for_each(|network| network["cloud_properties"] = json!(HIDDEN));
            }
            let bosh = &arguments[5]["bosh"];
            let kept: Map<String, Value> = ["group", "groups", "tags"]
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), bosh.get(key)?.clone())))
                .collect();
            arguments[5] = json!({ "bosh": kept });
        }
        Call::CreateNetwork(_) => arguments[0]["cloud_properties"] = json!(HIDDEN),
        Call::CreateDisk(_) | Call::CreateStemcell(_) => arguments[1] = json!(HIDDEN),
        _ => {}
    }
    arguments
}
