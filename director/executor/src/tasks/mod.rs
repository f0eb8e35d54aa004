//! Tasks without a plan: what they do is safe to begin anew, so a new leader simply runs them again.

mod release;
mod stemcell;

pub use release::{delete_release, upload_release};
pub use stemcell::{delete_stemcell, upload_stemcell};

use model::ErrorCode;
use model::task::TaskError;
use state::command::Refusal;

/// Tells a refusal with the number that BOSH has for it.
fn told_refusal(refusal: &Refusal, not_found: ErrorCode, in_use: ErrorCode) -> TaskError {
    match refusal {
        Refusal::NotFound { .. } => TaskError::new(not_found, refusal.to_string()),
        Refusal::InUse { .. } => TaskError::new(in_use, refusal.to_string()),
        other => TaskError::plain(other.to_string()),
    }
}
