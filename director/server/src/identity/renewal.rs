//! Renewing this replica's certificate before it ends, without a restart.

use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Authority, IdentityFiles, Names};
use crate::tls::TlsIdentity;

/// How often to look whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Renewed when less than this is left: two thirds of the life.
pub(super) const LEFT_MIN: i64 = super::authority::REPLICA_VALID.whole_seconds() * 2 / 3;

/// Renews for the life of the process. `authority` opens the authority, once this replica's state has it.
pub async fn keep_fresh(
    files: IdentityFiles,
    identity: Arc<TlsIdentity>,
    node: NodeId,
    names: Names,
    authority: impl Fn() -> Option<Authority>,
    stop: CancellationToken,
) {
    loop {
        if identity.seconds_left() < LEFT_MIN {
            match authority() {
                Some(authority) => renew(&files, &identity, node, &names, &authority),
                None => {
                    warn!(node = %node, "the certificate should be renewed, but the state has no authority yet")
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn renew(files: &IdentityFiles, identity: &TlsIdentity, node: NodeId, names: &Names, authority: &Authority) {
    let renewed = || -> anyhow::Result<()> {
        let key = KeyPair::from_pem(&files.key_pem()?)?;
        let issued = authority.issue_replica(node, names, &key)?;
        files.store_chain(&issued.chain_pem)?;
        identity.replace(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem())?;
        Ok(())
    };
    match renewed() {
        Ok(()) => info!(node = %node, "certificate renewed"),
        Err(error) => error!(node = %node, error = %error, "the certificate could not be renewed"),
    }
}
