//! `apply`: makes exactly what a spec names be installed. Without a configuration it only tells the VM who it is.

use std::fs;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::install;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::machine::Order;
use crate::real::RealMachine;
use crate::spec::ApplySpec;

pub(super) async fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let mut spec: ApplySpec = order.argument(0, "an apply spec")?;
    fill_networks(machine, &mut spec)?;
    if !spec.configuration_hash.is_empty() {
        install::jobs(machine, &spec).await?;
        install::packages(machine, spec.packages.values()).await?;
        remove_control_files(machine)?;
        install::link_jobs(machine, &spec)?;
        install::link_packages(&machine.layout, spec.packages.values())?;
    }
    write_instance(machine, &spec)?;
    let path = machine.layout.spec();
    durable::write_json(&path, &spec, Readers::Owner).map_err(ActionError::file("write", &path))?;
    Ok(json!("applied"))
}

/// Takes the control files away, so that nothing of the old jobs is started again; `start` writes the new ones.
fn remove_control_files(machine: &RealMachine) -> Result<(), ActionError> {
    let directory = machine.layout.monit_jobs();
    for entry in fs::read_dir(&directory).map_err(ActionError::file("list", &directory))?.flatten() {
        fs::remove_file(entry.path()).map_err(ActionError::file("remove", &entry.path()))?;
    }
    Ok(())
}

/// Fills in addresses that the cloud chose, which the director reads back.
fn fill_networks(machine: &RealMachine, spec: &mut ApplySpec) -> Result<(), ActionError> {
    let known = &machine.settings.networks;
    for (name, network) in &mut spec.networks {
        let Some(settings) = known.get(name) else {
            // A CPI that tells nothing of networks can't be held to them.
            match known.is_empty() {
                true => continue,
                false => {
                    return Err(ActionError::failed(format!("Network '{name}' is not found in settings")));
                }
            }
        };
        if network["type"] != json!("dynamic") || network["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
            continue;
        }
        for field in ["ip", "netmask", "gateway"] {
            if settings[field].is_string() {
                network[field] = settings[field].clone();
            }
        }
        if network["ip"].as_str().is_none_or(str::is_empty)
            && let Some((ip, netmask)) = own_address()
        {
            network["ip"] = json!(ip);
            network["netmask"] = json!(netmask);
        }
    }
    Ok(())
}

/// Returns the first address of this machine that others can reach.
fn own_address() -> Option<(IpAddr, Option<IpAddr>)> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces.into_iter().find_map(|interface| {
        let ip = interface.address?.as_sockaddr_in()?.ip();
        let netmask = interface.netmask.and_then(|mask| Some(IpAddr::V4(mask.as_sockaddr_in()?.ip())));
        (!ip.is_loopback()).then_some((IpAddr::V4(ip), netmask))
    })
}

fn write_instance(machine: &RealMachine, spec: &ApplySpec) -> Result<(), ActionError> {
    let directory = machine.layout.instance();
    for (file, content) in
        [("id", &spec.id), ("az", &spec.az), ("name", &spec.name), ("deployment", &spec.deployment)]
    {
        let path = directory.join(file);
        durable::write(&path, content.as_bytes(), Readers::All).map_err(ActionError::file("write", &path))?;
    }
    Ok(())
}
