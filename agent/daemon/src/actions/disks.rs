//! The disk actions; what they do is in [`crate::disks`].

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::Order;
use crate::real::RealMachine;

pub(super) fn list(machine: &RealMachine) -> Result<Value, ActionError> {
    Ok(json!(machine.disks.list()?))
}

pub(super) fn add(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.add(order.text(0)?, order.argument(1, "a hint")?)?;
    Ok(json!({}))
}

pub(super) fn remove(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.remove(order.text(0)?)?;
    Ok(json!({}))
}

pub(super) fn add_dynamic(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.link(order.text(0)?, &order.argument(1, "a hint")?)?;
    Ok(json!({}))
}

pub(super) fn remove_dynamic(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.unlink(order.text(0)?)?;
    Ok(json!({}))
}

pub(super) async fn mount(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.mount(order.text(0)?).await?;
    Ok(json!({}))
}

pub(super) async fn unmount(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    Ok(json!({ "message": machine.disks.unmount(order.text(0)?).await? }))
}

pub(super) async fn migrate(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    machine.disks.migrate(order.text(0)?, order.text(1)?).await?;
    Ok(json!({}))
}
