//! `directord recover`: a fleet of one out of the only replica that is left.

use std::sync::Arc;

use anyhow::Context as _;
use raft::disk::LocalDisk;
use raft::{Founder, Remains};

use super::alone::{Alone, Fleet, member_of, tell_what_is_next};
use crate::config::Config;
use crate::fleet::log::now;
use crate::identity::IdentityFiles;
use crate::lock::DataLock;
use crate::tls::TlsIdentity;

/// Whether whoever calls has said that entries may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// They have.
    Given,
    /// They only look.
    NotGiven,
}

/// Makes this replica, which is stopped, a fleet of one with everything it has.
pub async fn recover(config: &Config, consent: Consent) -> anyhow::Result<()> {
    let files = IdentityFiles::new(&config.data_dir);
    anyhow::ensure!(
        files.exist(),
        "`{}` belongs to no fleet: there is nothing to recover here (from a backup: `directord restore`)",
        config.data_dir.display()
    );
    let _lock = DataLock::take(&config.data_dir)?;
    let identity = files.node().context("read which replica this is")?;
    let raft = config.data_dir.join("raft");
    let Remains { last, term } =
        raft::remains(&LocalDisk, &raft, identity.node.0).context("read this replica's log")?;
    println!(
        "Replica {} '{}' has everything up to entry {} of term {}, and has heard of term {term}.",
        identity.node, config.name, last.index, last.term
    );
    anyhow::ensure!(
        consent == Consent::Given,
        "what the others wrote without this replica would be lost, and none of them can ever come back with what it has. \
         Only where no majority can be brought back: stop all of them, then say so with \
         --unreplicated-writes-may-be-lost"
    );
    let founder = Founder {
        node_id: identity.node.0,
        address: config.peer.advertise.clone(),
        term_min: u64::try_from(now().0).unwrap_or_default(),
    };
    raft::take_over(&LocalDisk, &raft, &founder).context("make this replica a fleet of one")?;
    let tls = TlsIdentity::new(&files.chain_pem()?, &files.key_pem()?, &files.authorities_pem()?)?;
    let alone = Alone::start(config, &identity, Arc::new(tls), Fleet::InTheData).await?;
    let removed = alone.become_the_only_member(member_of(config, identity.node), "recover").await;
    alone.stop().await;
    let removed = removed?;
    println!("It is a fleet of one now.");
    tell_what_is_next(&removed);
    Ok(())
}
