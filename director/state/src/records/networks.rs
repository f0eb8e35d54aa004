//! What is told of networks that are about to be made.

use model::*;
use serde::{Deserialize, Serialize};

/// A subnet that is about to be made, unless it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetIntent {
    /// Its name in cloud configs.
    pub name: String,
    /// Our id of it, unless there is one already.
    pub id: SubnetId,
    /// The CPI that makes it.
    pub cpi: CpiName,
}
