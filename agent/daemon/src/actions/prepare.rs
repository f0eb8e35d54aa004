//! `prepare`: downloads and unpacks what a spec names, while the old jobs still run.

use serde_json::{Value, json};

use super::install;
use crate::error::ActionError;
use crate::machine::Order;
use crate::real::RealMachine;
use crate::spec::ApplySpec;

pub(super) async fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let spec: ApplySpec = order.argument(0, "an apply spec")?;
    install::jobs(machine, &spec).await?;
    install::packages(machine, spec.packages.values()).await?;
    Ok(json!("prepared"))
}
