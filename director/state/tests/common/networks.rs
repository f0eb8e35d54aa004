//! Commands about networks that directors make.

use model::managed_network::MadeSubnet;
use model::*;
use serde_json::json;
use state::command::Command;
use state::records::SubnetIntent;

use super::EPOCH;

/// A task takes subnets of a network; their ids are made of their names.
pub fn network_take(task: TaskId, network: &str, subnets: &[&str]) -> Command {
    let intent = |name: &&str| SubnetIntent {
        name: (*name).to_owned(),
        id: format!("id-{name}").into(),
        cpi: CpiName::default(),
    };
    let subnets = subnets.iter().map(intent).collect();
    Command::NetworkTake { task, epoch: EPOCH, network: network.into(), subnets }
}

/// A task tells what came of a subnet.
pub fn subnet_put(task: TaskId, network: &str, subnet: &str, cid: Option<&str>) -> Command {
    let made = cid.map(|cid| MadeSubnet {
        cid: cid.into(),
        range: "10.0.0.0/24".into(),
        gateway: Some("10.0.0.1".into()),
        reserved: vec!["10.0.0.2 - 10.0.0.4".into()],
        cloud_properties: json!({"name": cid}),
    });
    let (network, subnet) = (network.into(), format!("id-{subnet}").into());
    Command::SubnetPut { task, epoch: EPOCH, network, subnet, made }
}
