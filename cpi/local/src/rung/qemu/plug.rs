//! Disks of a machine that runs.

use std::path::Path;
use std::time::{Duration, Instant};

use cpi_host::{HostError, Scope};
use model::DiskCid;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::command::SLOTS;
use super::qmp::Qmp;
use crate::cloud::Cloud;
use crate::record::VmRecord;

/// How long a serial number of a disk may be.
const SERIAL_CHARACTERS: usize = 20;
/// How often a machine is asked again to let go of a disk: one that is still booting has not heard it.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Puts a disk into a running machine and returns where it finds it. Idempotent.
pub(crate) fn plug(cloud: &Cloud, vm: &VmRecord, cid: &DiskCid, content: &Path) -> Result<String, HostError> {
    let serial = serial(cid);
    let mut qmp = Qmp::connect(&cloud.store.vm_dir(&vm.cid))?;
    if !has(&mut qmp, &device(&serial))? {
        put_in(&mut qmp, &serial, content)?;
    }
    Ok(format!("/dev/disk/by-id/virtio-{serial}"))
}

/// Takes a disk out of a machine; nothing to do if it is off. Idempotent.
pub(crate) fn unplug(cloud: &Cloud, scope: &Scope, vm: &VmRecord, cid: &DiskCid) -> Result<(), HostError> {
    if !vm.processes.is_some_and(|processes| processes.init.is_alive()) {
        return Ok(());
    }
    let mut qmp = Qmp::connect(&cloud.store.vm_dir(&vm.cid))?;
    take_out(&mut qmp, scope, &serial(cid))
}

/// Returns the serial number of a disk: its cid is too long for one.
fn serial(cid: &DiskCid) -> String {
    let digest = Sha256::digest(cid.as_str());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..SERIAL_CHARACTERS].to_owned()
}

fn device(serial: &str) -> String {
    format!("disk-{serial}")
}

/// What is behind the device; a name must not start with a digit.
fn node(serial: &str) -> String {
    format!("file-{serial}")
}

fn put_in(qmp: &mut Qmp, serial: &str, content: &Path) -> Result<(), HostError> {
    let nodes = qmp.ask("query-named-block-nodes", &json!({ "flat": true }))?;
    if !names(&nodes, "node-name").any(|name| name == node(serial)) {
        let file = json!({ "driver": "file", "filename": content });
        let added = json!({ "driver": "raw", "node-name": node(serial), "discard": "unmap", "file": file });
        qmp.ask("blockdev-add", &added)?;
    }
    let mut refused = None;
    for slot in 0..SLOTS {
        let added = json!({ "driver": "virtio-blk-pci", "id": device(serial), "drive": node(serial),
            "serial": serial, "bus": format!("slot{slot}") });
        match qmp.ask("device_add", &added) {
            Ok(_) => return Ok(()),
            // Another disk is there, most likely.
            Err(error) => refused = Some(error),
        }
    }
    qmp.ask("blockdev-del", &json!({ "node-name": node(serial) }))?;
    refused.map_or(Ok(()), Err)
}

fn take_out(qmp: &mut Qmp, scope: &Scope, serial: &str) -> Result<(), HostError> {
    let mut asked: Option<Instant> = None;
    scope.wait_for("the machine to let go of the disk", || {
        if !has(qmp, &device(serial))? {
            return Ok(Some(()));
        }
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            // Refused while it is on its way out.
            let _ = qmp.ask("device_del", &json!({ "id": device(serial) }));
            asked = Some(Instant::now());
        }
        Ok(None)
    })?;
    // The device is gone a moment before it has let go of what is behind it.
    scope.wait_for("QEMU to close the disk", || {
        let nodes = qmp.ask("query-named-block-nodes", &json!({ "flat": true }))?;
        if !names(&nodes, "node-name").any(|name| name == node(serial)) {
            return Ok(Some(()));
        }
        let _ = qmp.ask("blockdev-del", &json!({ "node-name": node(serial) }));
        Ok(None)
    })
}

/// Returns whether a machine has a device.
fn has(qmp: &mut Qmp, id: &str) -> Result<bool, HostError> {
    let devices = qmp.ask("qom-list", &json!({ "path": "/machine/peripheral" }))?;
    Ok(names(&devices, "name").any(|name| name == id))
}

fn names<'a>(list: &'a Value, key: &'a str) -> impl Iterator<Item = &'a str> {
    list.as_array().into_iter().flatten().filter_map(move |entry| entry[key].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_fits_and_tells_disks_apart() {
        let (one, two) = (serial(&"disk-0f3c-a".into()), serial(&"disk-0f3c-b".into()));
        assert_eq!(one.len(), SERIAL_CHARACTERS);
        assert_ne!(one, two);
    }
}
