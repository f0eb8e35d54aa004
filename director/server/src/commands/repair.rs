//! `directord repair`: a replica whose disk is damaged begins anew, with what the others have.
//!
//! What it had is set aside, not deleted. It comes back under a new number: see docs/decisions/0019.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::NodeId;
use proto::peer::v1 as pb;
use proto::peer::v1::fleet_client::FleetClient;
use raft::disk::LocalDisk;
use retry::{Policy, Verdict};
use state::log::FLEET_USER;
use tonic::{Request, Status};

use super::join::join_locked;
use crate::config::Config;
use crate::error_map::unavailable;
use crate::fleet::log::now;
use crate::fleet::peers::PeerChannels;
use crate::identity::{IdentityFiles, NodeIdentity};
use crate::lock::DataLock;
use crate::tls::TlsIdentity;

/// How long the others are asked: they may be electing.
const ASK: Policy = Policy {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(2),
    total: Some(Duration::from_secs(60)),
};

/// How long one of them may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Sets the damaged data of this replica, which is stopped, aside, and gets it a new place.
pub async fn repair(config: &Config) -> anyhow::Result<()> {
    let files = IdentityFiles::new(&config.data_dir);
    anyhow::ensure!(
        files.exist(),
        "`{}` belongs to no fleet: there is nothing to repair here",
        config.data_dir.display()
    );
    let _lock = DataLock::take(&config.data_dir)?;
    let identity = files.node().context("read which replica this is")?;
    let raft = config.data_dir.join("raft");
    let damages = {
        let (raft, node) = (raft.clone(), identity.node.0);
        tokio::task::spawn_blocking(move || raft::examine(&LocalDisk, &raft, node)).await?
    };
    damages.iter().for_each(|damage| println!("{damage}"));
    anyhow::ensure!(!damages.is_empty(), "every record of replica {} was read, and is sound", identity.node);
    anyhow::ensure!(
        !identity.peers.is_empty(),
        "this replica knows no other one that could heal it: `directord restore` a backup, or `directord join` anew"
    );
    let tls = TlsIdentity::new(&files.chain_pem()?, &files.key_pem()?, &files.authorities_pem()?)?;
    let others = Others { peers: PeerChannels::new(Arc::new(tls)), known: identity.peers.clone() };
    // First: while the others can't be asked, everything stays as it is.
    let place = others.readmitted().await?;
    let aside = Aside::of(&config.data_dir);
    aside.set(&raft, files.folder())?;
    if let Err(error) = join_locked(config, &place.token, &place.endpoints).await {
        aside.put_back(&raft, files.folder())?;
        return Err(error);
    }
    println!(
        "What replica {} had is in {}: remove it once all is well.",
        identity.node,
        aside.folder.display()
    );
    give_up_old_place(&others, &identity).await;
    Ok(())
}

async fn give_up_old_place(others: &Others, identity: &NodeIdentity) {
    match others.removed(identity.node).await {
        Ok(()) => println!("Its old number, {}, was removed for good.", identity.node),
        Err(error) => println!(
            "Its old number could not be removed ({}): `dctl cluster remove-member {}` does it.",
            error.message(),
            identity.node
        ),
    }
}

/// Where the damaged data goes.
struct Aside {
    folder: PathBuf,
}

impl Aside {
    fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.join(format!("damaged-{}", now().0)) }
    }

    fn set(&self, raft: &Path, identity: &Path) -> anyhow::Result<()> {
        std::fs::create_dir(&self.folder).with_context(|| format!("create {}", self.folder.display()))?;
        // The identity last: until it has moved, the folder is this replica's and `repair` can be called again.
        for from in [raft, identity] {
            let to = self.place(from);
            if from.exists() {
                std::fs::rename(from, &to)
                    .with_context(|| format!("move {} to {}", from.display(), to.display()))?;
            }
        }
        Ok(())
    }

    fn put_back(&self, raft: &Path, identity: &Path) -> anyhow::Result<()> {
        for to in [identity, raft] {
            let from = self.place(to);
            if from.exists() {
                std::fs::rename(&from, to)
                    .with_context(|| format!("move {} back to {}", from.display(), to.display()))?;
            }
        }
        Ok(std::fs::remove_dir(&self.folder)?)
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.folder.join(path.file_name().unwrap_or_default())
    }
}

/// The other replicas, asked under this one's old name.
struct Others {
    peers: PeerChannels,
    known: Vec<(NodeId, String)>,
}

impl Others {
    /// Asks for a new place.
    async fn readmitted(&self) -> anyhow::Result<pb::ReadmitResponse> {
        let asked = self.ask(async |mut client: Client| client.readmit(bounded(pb::ReadmitRequest {})).await);
        asked
            .await
            .map_err(|status| anyhow::anyhow!("the other replicas give no new place: {}", status.message()))
    }

    /// Has the old place removed.
    async fn removed(&self, node: NodeId) -> Result<(), Status> {
        let request =
            pb::RemoveRequest { node_id: node.0, user: FLEET_USER.into(), ..pb::RemoveRequest::default() };
        let asked = self.ask(async |mut client: Client| client.remove(bounded(request.clone())).await).await;
        match asked {
            // An earlier attempt did it, and its answer was lost: nobody talks to us any more.
            Err(status) if status.code() == tonic::Code::PermissionDenied => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Asks one after the other until the leader has answered.
    async fn ask<T>(
        &self,
        attempt: impl AsyncFn(Client) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        retry::with_backoff(ASK, || async {
            let mut last = unavailable("no other replica is known");
            for (node, address) in &self.known {
                let channel = match self.peers.shared(*node, address) {
                    Ok(channel) => channel,
                    Err(error) => {
                        last = unavailable(error.to_string());
                        continue;
                    }
                };
                match tokio::time::timeout(ANSWER, attempt(FleetClient::new(channel))).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) if status.code() == tonic::Code::PermissionDenied => {
                        return Err(Verdict::Fatal(status));
                    }
                    Ok(Err(status)) => last = status,
                    Err(_) => last = unavailable(format!("replica {node} does not answer")),
                }
            }
            Err(Verdict::Again(last))
        })
        .await
    }
}

type Client = FleetClient<tonic::transport::Channel>;

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_can_be_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let (raft, identity) = (folder.path().join("raft"), folder.path().join("identity"));
        for dir in [&raft, &identity] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), dir.to_str().unwrap()).unwrap();
        }
        let aside = Aside::of(folder.path());
        aside.set(&raft, &identity).unwrap();
        assert!(!raft.exists() && !identity.exists() && aside.folder.join("raft/file").exists());
        aside.put_back(&raft, &identity).unwrap();
        assert_eq!(std::fs::read_to_string(identity.join("file")).unwrap(), identity.to_str().unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }
}
