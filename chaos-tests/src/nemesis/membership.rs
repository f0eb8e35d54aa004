//! Members that come and go: a replica that has lost everything, and one that is replaced.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use dctl::call;
use proto::v1::RemoveMemberRequest;
use proto::v1::cluster_client::ClusterClient;

use super::{Field, Harm, Injected, NotReached, Whom};

/// Kills a follower and takes all its data; healed, its place is given up and it joins as a new member, in the same
/// folder and at the same addresses.
pub async fn wipe(field: &mut Field) -> Result<Injected> {
    let (number, _) = field.harm_one(Whom::Follower).await?;
    let node = field.node_id(number).await?;
    field.cluster.kill(number)?;
    let folder = field.cluster.folder_of(number).to_owned();
    empty(&folder.join("data"))?;
    fs::remove_file(folder.join("kek"))?;
    let what = format!("director-{number} (node {node}) killed, its data gone");
    Ok(Injected { what, hits_leader: false, harm: Box::new(Wiped { number, node }) })
}

/// Empties a folder that may be a disk of its own.
fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

struct Wiped {
    number: usize,
    node: u64,
}

#[async_trait(?Send)]
impl Harm for Wiped {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let Self { number, node } = *self;
        remove(field, node).await?;
        let token = field.cluster.client()?.join_token(600).await?;
        let joined = field.cluster.join(number, &token)?;
        ensure!(
            joined.status.success(),
            "director-{number} can't join anew: {}",
            String::from_utf8_lossy(&joined.stderr)
        );
        field.cluster.run(number)?;
        field.cluster.wait_for_voter(number).await?;
        field.spare(number);
        let new = field.node_id(number).await?;
        match new == node {
            true => Err(NotReached(format!("director-{number} is still node {node}")).into()),
            false => Ok(format!("director-{number} is node {new} now")),
        }
    }
}

/// Removes a member for good; healed, another one joins.
pub async fn replace(field: &mut Field, whom: Whom) -> Result<Injected> {
    let (number, _) = field.harm_one(whom).await?;
    let node = field.node_id(number).await?;
    remove(field, node).await?;
    field.cluster.kill(number)?;
    field.forget(number);
    // There is one small disk; the next fault may be that it is full.
    field.cluster.hand_on_small_disk(number);
    let what = format!("director-{number} (node {node}, {whom}) removed");
    // A planned hand-over, for the leader.
    Ok(Injected { what, hits_leader: false, harm: Box::new(Removed { node }) })
}

struct Removed {
    node: u64,
}

#[async_trait(?Send)]
impl Harm for Removed {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let number = field.cluster.add().await?;
        field.cluster.wait_for_voter(number).await?;
        let members = field.cluster.client()?.status().await?.members;
        match members.iter().any(|m| m.id == self.node) {
            true => Err(NotReached(format!("node {} is still a member", self.node)).into()),
            false => Ok(format!("director-{number} votes in place of node {}", self.node)),
        }
    }
}

async fn remove(field: &Field, node_id: u64) -> Result<()> {
    let client = field.cluster.client()?;
    let request = RemoveMemberRequest { request_id: dctl::client::request_id(), node_id };
    call!(client.fleet, ClusterClient.remove_member(request)).await.context("remove a member")?;
    Ok(())
}
