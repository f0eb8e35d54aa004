//! Disks: full, slow to sync, unable to sync.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};
use crate::machine::Wrong;

/// What a replica says whose disk is full; in lower case.
const NO_ROOM: [&str; 3] = ["no space left", "enospc", "disk is full"];

/// What is written at once, until the full disk is felt: well below what a log entry may hold.
const BULK_BYTES: usize = 256 << 10;

/// What a replica says before it ends because it can't keep its promises.
const LAST_WORD: &str = "fatal: ";

fn said_since(field: &Field, number: usize, before: usize) -> Result<String> {
    Ok(field.cluster.log_of(number)?.get(before..).unwrap_or_default().to_owned())
}

fn has_ended(number: usize) -> impl AsyncFnMut(&mut Field) -> Result<bool> {
    async move |field| Ok(field.cluster.has_ended(number))
}

/// Fills the disk of the replica that has one of its own; the proof is that the replica says so.
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
        let (client, bulk) = (field.cluster.client()?, format!("text: {}", "x".repeat(BULK_BYTES)));
        let was = async |field: &mut Field| {
            // The databases have taken room in advance for some of what they will write.
            client.put_config("bulk", &bulk).await?;
            let said = said_since(field, number, said_before)?.to_lowercase();
            Ok(NO_ROOM.iter().any(|text| said.contains(text)))
        };
        let felt = field.felt(&format!("director-{number} says that it has no room"), was).await;
        let ends = felt.is_ok() && said_since(field, number, said_before)?.contains(LAST_WORD);
        if ends {
            field.felt(&format!("director-{number} ends as it said"), has_ended(number)).await?;
        }
        std::fs::remove_file(filler)?;
        if ends {
            field.cluster.run(number)?;
        }
        field.spare(number);
        felt.map(|()| format!("director-{number} said so and {}", if ends { "ended" } else { "went on" }))
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
        let felt = field.felt(&format!("director-{number} ends, for it can't sync"), has_ended(number)).await;
        field.cluster.machine(number).heal(Wrong::FailingSync)?;
        field.spare(number);
        felt?;
        let said = said_since(field, number, said_before)?;
        anyhow::ensure!(said.contains(LAST_WORD), "director-{number} ended and did not say why:\n{said}");
        field.cluster.run(number)?;
        Ok(format!("director-{number} ended by itself and said why"))
    }
}
