//! Disks: full, slow to sync, unable to sync.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};
use crate::machine::Wrong;

/// What a replica says whose disk is filling up, and when it has room again.
const NO_ROOM: [&str; 2] = ["little room on the disk", "no room on the disk"];
const ROOM_AGAIN: &str = "there is room on the disk again";

/// What a replica says before it ends because it can't keep its promises.
const LAST_WORD: &str = "fatal: ";

fn said_since(field: &Field, number: usize, before: usize) -> Result<String> {
    Ok(field.cluster.log_of(number)?.get(before..).unwrap_or_default().to_owned())
}

/// Fills the disk of the replica that has one of its own. The proof is that the replica says so; it goes on, and says when
/// it has room again.
pub async fn fill(field: &mut Field) -> Result<Injected> {
    let has_one = |number: &usize| field.cluster.small_disk(*number).is_some();
    let number = field.unharmed().into_iter().find(has_one).context("no replica has a small disk")?;
    let hits_leader = field.leader().await? == number;
    field.harm_this(number);
    let said_before = field.cluster.log_of(number)?.len();
    let filler = field.cluster.small_disk(number).context("it has a small disk")?.fill()?;
    let what = format!("disk of director-{number} full{}", if hits_leader { ", which leads" } else { "" });
    Ok(Injected { what, hits_leader, harm: Box::new(Full { number, filler, said_before }) })
}

struct Full {
    number: usize,
    filler: PathBuf,
    said_before: usize,
}

#[async_trait(?Send)]
impl Harm for Full {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let Self { number, filler, said_before } = *self;
        let said = |field: &Field| said_since(field, number, said_before);
        let was = async |field: &mut Field| {
            let said = said(field)?;
            Ok(NO_ROOM.iter().any(|text| said.contains(text)))
        };
        let felt = field.felt(&format!("director-{number} says that it has no room"), was).await;
        std::fs::remove_file(filler)?;
        felt?;
        let heals = async |field: &mut Field| {
            ensure!(
                !field.cluster.has_ended(number),
                "director-{number} ended for want of room:\n{}",
                said(field)?
            );
            Ok(said(field)?.contains(ROOM_AGAIN))
        };
        field.felt(&format!("director-{number} says that it has room again"), heals).await?;
        field.spare(number);
        Ok(format!("director-{number} said so, went on, and had room again"))
    }
}

/// Makes each sync of one replica slow; the proof is that there was one.
pub async fn slow_sync(field: &mut Field, whom: Whom, milliseconds: u32) -> Result<Injected> {
    let (number, _) = field.harm_one(whom).await?;
    field.cluster.machine(number).harm(Wrong::SlowSync, i64::from(milliseconds))?;
    let what = format!("fsync of director-{number} ({whom}) +{milliseconds} ms");
    Ok(Injected { what, hits_leader: false, harm: Box::new(SlowSync(number)) })
}

struct SlowSync(usize);

#[async_trait(?Send)]
impl Harm for SlowSync {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let number = self.0;
        let was = async |field: &mut Field| Ok(field.cluster.machine(number).was_felt(Wrong::SlowSync));
        let felt = field.felt(&format!("director-{number} syncs"), was).await;
        field.cluster.machine(number).heal(Wrong::SlowSync)?;
        field.spare(number);
        felt.map(|()| format!("director-{number} waited for its disk"))
    }
}

/// Makes the syncs of one replica fail; the proof is that it ends by itself and says why.
pub async fn fail_sync(field: &mut Field, whom: Whom) -> Result<Injected> {
    let (number, hits_leader) = field.harm_one(whom).await?;
    let said_before = field.cluster.log_of(number)?.len();
    field.cluster.machine(number).harm(Wrong::FailingSync, 1)?;
    let what = format!("fsync of director-{number} ({whom}) fails");
    Ok(Injected { what, hits_leader, harm: Box::new(FailingSync { number, said_before }) })
}

struct FailingSync {
    number: usize,
    said_before: usize,
}

#[async_trait(?Send)]
impl Harm for FailingSync {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let Self { number, said_before } = *self;
        let ended = async |field: &mut Field| Ok(field.cluster.has_ended(number));
        let felt = field.felt(&format!("director-{number} ends, for it can't sync"), ended).await;
        field.cluster.machine(number).heal(Wrong::FailingSync)?;
        field.spare(number);
        felt?;
        let said = said_since(field, number, said_before)?;
        anyhow::ensure!(said.contains(LAST_WORD), "director-{number} ended and did not say why:\n{said}");
        field.cluster.run(number)?;
        Ok(format!("director-{number} ended by itself and said why"))
    }
}
