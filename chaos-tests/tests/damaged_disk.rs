//! Bytes flip on the disk of one replica, or all of them are gone. It says so, serves nothing of it, and is healed by the
//! others; they never notice more than that it is away.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;

/// Notes that fill a few pages of each database.
const NOTES: usize = 60;

async fn fleet_with_notes() -> Result<Cluster> {
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    for n in 0..NOTES {
        client.put_config(&format!("note-{n}"), &format!("text: {}", "x".repeat(500 + n))).await?;
    }
    // What a database has in its log of writes is in tables after the next start.
    let follower = cluster.follower().await?;
    cluster.terminate(follower).await?;
    cluster.run(follower)?;
    cluster.wait_for_voter(follower).await?;
    Ok(cluster)
}

fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect())
}

/// Flips a byte in the middle of each file with such an ending; returns their names.
fn flip(dir: &Path, ending: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in files(dir, ending)? {
        let mut bytes = fs::read(&path)?;
        if bytes.is_empty() {
            continue;
        }
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x20;
        // Another file of this name: a snapshot may share the old one.
        fs::remove_file(&path)?;
        fs::write(&path, bytes)?;
        names.push(path.file_name().context("it has a name")?.to_string_lossy().into_owned());
    }
    ensure!(!names.is_empty(), "nothing ends in {ending} in {}", dir.display());
    Ok(names)
}

/// Runs `directord run` on damaged data, to the end that it comes to by itself; returns what it said.
async fn run_to_its_end(cluster: &mut Cluster, number: usize) -> Result<String> {
    let before = cluster.log_of(number)?.len();
    cluster.run(number)?;
    wait::until_true("it has ended by itself", SETTLE, async || Ok(cluster.has_ended(number))).await?;
    Ok(cluster.log_of(number)?[before..].to_owned())
}

/// Repairs a replica, and sees that it has everything again, under another number.
async fn heal(cluster: &mut Cluster, number: usize) -> Result<()> {
    let name = format!("director-{number}");
    let client = cluster.client()?;
    let id = async || -> Result<u64> {
        let members = client.status().await?.members;
        Ok(members.into_iter().find(|member| member.name == name).context("it is a member")?.id)
    };
    let before = id().await?;
    let repaired = cluster.directord(number, &["repair"], &[])?;
    ensure!(repaired.status.success(), "repair: {}", String::from_utf8_lossy(&repaired.stderr));
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;
    let members = client.status().await?.members;
    ensure!(members.len() == 3, "the old place is gone: {members:?}");
    ensure!(id().await? > before, "it never votes under its old number again");
    let own = cluster.client_of(number)?;
    wait::until_true("it has everything", SETTLE, async || {
        let last = NOTES - 1;
        let text = own.config("note", &format!("note-{last}")).await?;
        Ok(text.len() == "text: ".len() + 500 + last)
    })
    .await?;
    let again = cluster.directord(number, &["repair"], &[])?;
    ensure!(!again.status.success(), "one that runs is left alone");
    Ok(())
}

#[tokio::test]
async fn damage_in_each_database_is_named_and_healed_from_the_others() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = fleet_with_notes().await?;
    let number = cluster.follower().await?;
    let client = cluster.client()?;
    for (database, ending) in [("log", ".sst"), ("log", ".log"), ("state/1", ".sst"), ("state", "current")] {
        cluster.terminate(number).await?;
        let sound = cluster.directord(number, &["repair"], &[])?;
        let told = String::from_utf8_lossy(&sound.stderr).into_owned();
        ensure!(!sound.status.success() && told.contains("is sound"), "nothing is changed: {told}");
        // So that there is something in tables and in logs of writes.
        cluster.run(number)?;
        cluster.wait_for_voter(number).await?;
        let late = format!("text: before {database}{ending}");
        client.put_config("late", &late).await?;
        // Asked itself, it answers once it has it.
        ensure!(cluster.client_of(number)?.config("note", "late").await? == late);
        // In the middle of whatever it does: a stop in order would leave nothing in its logs of writes.
        cluster.kill(number)?;
        let raft = cluster.folder_of(number).join("data/raft");
        // A snapshot of the leader may have made a next generation.
        let folder = match database {
            "state/1" => {
                files(&raft.join("state"), "")?.into_iter().find(|path| path.is_dir()).context("a state")?
            }
            other => raft.join(other),
        };
        let names = flip(&folder, ending)?;
        let said = run_to_its_end(&mut cluster, number).await?;
        let which = database.split('/').next().unwrap_or_default();
        ensure!(said.contains("directord repair"), "{database}{ending}: it says what to do: {said}");
        ensure!(
            said.contains(which) && names.iter().any(|name| said.contains(name.as_str()) || ending == ".log"),
            "{database}{ending}: it says where: {said}"
        );
        // The others go on meanwhile.
        client.put_config("meanwhile", &format!("text: {database}{ending}")).await?;
        heal(&mut cluster, number).await?;
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_replica_whose_data_is_gone_does_not_vote_under_its_old_number() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = fleet_with_notes().await?;
    let number = cluster.leader().await?;
    cluster.kill(number)?;
    fs::remove_dir_all(cluster.folder_of(number).join("data/raft"))?;
    cluster.client()?.put_config("meanwhile", "text: by the others").await?;
    let said = run_to_its_end(&mut cluster, number).await?;
    ensure!(said.contains("is gone") && said.contains("directord repair"), "{said}");
    heal(&mut cluster, number).await?;
    cluster.finish().await
}
