//! Looking in a cloud for what a call may have made whose answer was lost: by our own id, since nobody was told the cloud's.

use cpi_api::{CallContext, Cpi, CpiError, Found};
use model::{DiskCid, SnapshotCid, VmCid};
use state::records::Sought;

/// Returns the cloud's ids of all that it has under this id of ours.
pub async fn find(cpi: &dyn Cpi, call: &CallContext, sought: &Sought) -> Result<Found<String>, CpiError> {
    match sought {
        Sought::Vm(agent) => Ok(cpi.find_vm(call, agent).await?.map(|cid| cid.to_string())),
        Sought::Disk(disk) => Ok(cpi.find_disk(call, disk).await?.map(|cid| cid.to_string())),
        Sought::Snapshot(id) => Ok(cpi.find_snapshot(call, id).await?.map(|cid| cid.to_string())),
    }
}

/// Deletes one of what was found.
pub async fn delete(cpi: &dyn Cpi, call: &CallContext, sought: &Sought, cid: &str) -> Result<(), CpiError> {
    match sought {
        Sought::Vm(_) => cpi.delete_vm(call, &VmCid::new(cid)).await,
        Sought::Disk(_) => cpi.delete_disk(call, &DiskCid::new(cid)).await,
        Sought::Snapshot(_) => cpi.delete_snapshot(call, &SnapshotCid::new(cid)).await,
    }
}
