//! What the agent of a new VM finds in its settings file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cpi_api::{CreateVm, DiskHint};
use cpi_host::HostError;
use cpi_host::records::{self, Durability};
use model::agent_settings::{AgentDisks, AgentPlatform, AgentSettings, AgentVm};
use model::instance::{NetworkKind, NetworkSettings};
use model::{DiskCid, VmCid};
use serde_json::{Value, json};

use crate::network::has_own_network;
use crate::record::Link;
use crate::rung::Rung;
use crate::store::create_for_all;

/// Where the settings are below the VM's base directory.
const SETTINGS: &str = "bosh/settings.json";

/// Where the agent of a VM with a network of its own answers names; its `/etc/resolv.conf` says so.
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);

/// Returns where the agent of a VM answers names. None for one that was made before agents did.
pub(crate) fn resolver(base: &Path) -> Result<Option<SocketAddr>, HostError> {
    Ok(records::read::<AgentSettings>(&path(base))?.and_then(|settings| settings.resolver))
}

/// Writes the settings of a new VM below its base directory.
pub(crate) fn write(
    base: &Path,
    cid: &VmCid,
    rung: Rung,
    request: &CreateVm,
    (links, proxy): (&[Link], Option<SocketAddr>),
) -> Result<(), HostError> {
    let (has_root, is_machine) = (has_own_network(rung), rung == Rung::Qemu);
    // Links exist for all networks but vips, in the same order.
    let mut addresses = links.iter();
    let networks = request
        .networks
        .iter()
        .map(|network| {
            let link = if network.kind == NetworkKind::Vip { None } else { addresses.next() };
            (network.name.to_string(), network_settings(network, link, !is_machine))
        })
        .collect();
    let settings = AgentSettings {
        agent_id: request.agent_id.clone(),
        vm: AgentVm { name: cid.to_string() },
        endpoints: request.bootstrap.endpoints.clone(),
        authorities_pem: request.bootstrap.authorities_pem.clone(),
        token: request.bootstrap.token.clone(),
        networks,
        disks: AgentDisks::default(),
        env: request.env.clone(),
        platform: if has_root { AgentPlatform::Linux } else { AgentPlatform::Process },
        path_rewrite: !has_root,
        resolver: has_root.then_some(RESOLVER),
        keeps_ssh_server: has_root && !is_machine,
        director_proxy: proxy,
    };
    let path = path(base);
    let dir = path.parent().unwrap_or(base);
    create_for_all(dir).map_err(HostError::os("create", dir))?;
    records::write(&path, &settings, Durability::Synced)
}

/// Returns where the settings of a VM are.
pub(crate) fn path(base: &Path) -> PathBuf {
    base.join(SETTINGS)
}

/// Makes the settings name a disk, or no longer: an agent that starts again must know what is there.
pub(crate) fn set_disk(base: &Path, disk: &DiskCid, hint: Option<&DiskHint>) -> Result<(), HostError> {
    let path = path(base);
    let Some(mut settings) = records::read::<AgentSettings>(&path)? else { return Ok(()) };
    match hint {
        Some(hint) => settings.disks.persistent.insert(disk.clone(), hint.0.clone()),
        None => settings.disks.persistent.remove(disk),
    };
    records::write(&path, &settings, Durability::Synced)
}

fn network_settings(network: &NetworkSettings, link: Option<&Link>, is_there: bool) -> Value {
    let kind = match network.kind {
        NetworkKind::Manual => "manual",
        NetworkKind::Dynamic => "dynamic",
        NetworkKind::Vip => "vip",
    };
    json!({
        "type": kind,
        "ip": link.map(|l| l.ip).or(network.ip),
        "prefix": network.prefix,
        "netmask": network.netmask,
        "gateway": link.and_then(|l| l.gateway).or(network.gateway),
        "dns": network.dns,
        "default": network.defaults,
        "cloud_properties": network.cloud_properties,
        // Whether the address is there before the agent starts.
        "preconfigured": is_there,
    })
}
