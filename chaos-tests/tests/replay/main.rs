//! The REST door against recordings: what the unmodified `bosh` CLI sent to the director that it was made for is sent to a
//! fleet of ours, in the same order, and what comes back is compared: status, the headers that matter, and bodies field by
//! field, but for what varies from run to run.
//!
//! What is different on purpose is in `different.toml`, each with its reason; what can't be compared, or is not built yet, in
//! `not_yet.toml`.
//! What nobody recorded, and what shows, is in `meanwhile.toml`. An entry that is not needed fails the test. Recordings are in `recorded/`, or where `RECORDED` says.
//!
//! Read next: [`player`] (what is sent), [`compare`] (what counts as equal), [`chaos_tests::recorded`].

mod compare;
mod meanwhile;
mod names;
mod player;
mod recording;
mod text;
mod translate;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::recorded::{Archives, Ledger, folder};
use chaos_tests::rest as client;
use cpi_sim::{Knobs, Span};

use self::client::Client;
use self::meanwhile::Meanwhile;
use self::player::{Backstage, PASSWORD, Player, USER};
use self::recording::Scenario;

/// Recordings from here on were made with a director that had been emptied in between.
const SECOND_PART: u32 = 100;

/// What the second part begins with, out of the first: everything that `web` needs, and `web`.
const SET_UP: [(&str, &str); 4] = [
    ("003-upload-stemcell", "bosh upload-stemcell stemcell.tgz"),
    ("004-upload-release", "bosh upload-release golden-1.tgz"),
    ("007-cloud-config", "bosh update-cloud-config cloud.yml"),
    ("013-deploy-property-change", "bosh -d web deploy web.yml"),
];

fn calm() -> Knobs {
    Knobs { action: Span { min_ms: 1, max_ms: 1 }, ..Knobs::default() }
}

async fn fleet() -> Result<(Cluster, Client)> {
    let cloud = CloudKind::Sim { seed: 7, knobs: calm() };
    // As their director was.
    let cluster = Cluster::start_with(1, cloud, "[disks]\nenable_snapshots = true\n").await?;
    let file = cluster.folder().join("password");
    std::fs::write(&file, PASSWORD)?;
    let file = file.to_str().context("UTF-8")?;
    cluster.operate(&["user", "add", USER, "--new-password-file", file, "--scope", "bosh.admin"]).await?;
    let authority = cluster.credentials().authority_pem();
    let client = Client::new(cluster.api(1), authority)?;
    Ok((cluster, client))
}

/// Plays what the second part begins with; what comes back was compared before.
async fn set_up(player: &mut Player<'_>, scenarios: &[Scenario]) -> Result<()> {
    let mut nowhere = Ledger::new("entry = []", "entry = []")?;
    for (scenario, title) in SET_UP {
        let whole = scenarios.iter().find(|found| found.name == scenario).context(scenario)?;
        let command = whole.commands.iter().find(|command| command.title == title).context(title)?;
        player.repeat(scenario, command, &mut nowhere).await?;
    }
    player.forget();
    Ok(())
}

#[tokio::test]
async fn the_bosh_cli_is_answered_as_it_was_by_its_own_director() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let scenarios = recording::read(&folder().join("http"))?;
    ensure!(!scenarios.is_empty(), "no recordings in {}", folder().display());
    let archives = Archives::new(folder().join("release"))?;
    let mut ledger = Ledger::new(include_str!("different.toml"), include_str!("not_yet.toml"))?;
    let mut meanwhile = Meanwhile::new(include_str!("meanwhile.toml"))?;
    let (first, second) = scenarios.split_at(scenarios.partition_point(|found| found.number() < SECOND_PART));
    for (part, needs_web) in [(first, false), (second, true)] {
        if part.is_empty() {
            continue;
        }
        let (cluster, client) = fleet().await?;
        let mut player = Player::new(&client, &archives);
        if needs_web {
            set_up(&mut player, first).await?;
        }
        for scenario in part {
            let begun = std::time::Instant::now();
            let (meanwhile, sim, calm) = (&mut meanwhile, cluster.sim(), &calm());
            player.play(scenario, &mut Backstage { meanwhile, sim, calm }, &mut ledger).await?;
            println!("{}: {:?}", scenario.name, begun.elapsed());
        }
        cluster.finish().await?;
    }
    println!("equal {}, different on purpose {}, not yet {}", ledger.equal, ledger.declared, ledger.unbuilt);
    let complaints = [meanwhile.complaints(), ledger.complaints()].concat();
    ensure!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    Ok(())
}
