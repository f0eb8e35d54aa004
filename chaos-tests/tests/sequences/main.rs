//! What a director asks of clouds and agents, in which order, against recordings: for one command each, the calls that BOSH's
//! director made to its CPI and to its agents, and those of ours, over a CPI that is an executable.
//!
//! Per VM the calls must be the same ones in the same order with the same arguments; between instances, what was done one
//! after the other must be done so. What is different on purpose is in `different.toml`, each with its reason; an entry that
//! is not needed fails the test. `before.toml` says what leads up to each recording.
//!
//! Once with our agents, and once with BOSH's, over a real NATS server: then what is different must be less.
//!
//! Read next: [`calls`] (what a call is), [`units`] (whose it is), [`compare`].

mod before;
mod calls;
mod compare;
mod stage;
mod units;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::needs::{self, Need};
use chaos_tests::recorded::{Ledger, folder};

use self::before::Before;
use self::calls::Recording;
use self::stage::{Agents, Stage};

/// What is different whoever is in the VMs.
const DIFFERENT: &str = include_str!("different.toml");

#[tokio::test]
async fn clouds_and_agents_are_asked_what_bosh_s_director_asks_them() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    play_all(Agents::Ours, &format!("{DIFFERENT}{}", include_str!("different-ours.toml"))).await
}

#[tokio::test]
async fn bosh_s_own_agents_are_asked_what_its_director_asks_them() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Nats]) {
        return Ok(());
    }
    play_all(Agents::Bosh, &format!("{DIFFERENT}{}", include_str!("different-bosh.toml"))).await
}

async fn play_all(agents: Agents, different: &str) -> Result<()> {
    let recordings = calls::read(&folder().join("sequences"))?;
    let stories = before::read(include_str!("before.toml"))?;
    let mut ledger = Ledger::new(different, "entry = []")?;
    let mut stage = Stage::set_up(agents).await?;
    for Before { sequence, steps } in &stories {
        let named = |recording: &&Recording| recording.name == *sequence;
        let recording = recordings.iter().find(named).with_context(|| format!("no recording {sequence}"))?;
        let begun = std::time::Instant::now();
        let ours = stage.play(recording, steps, &recordings).await;
        compare::compare(recording, &ours.with_context(|| sequence.clone())?, &mut ledger);
        println!("{sequence}: {:?}", begun.elapsed());
    }
    let told = |recording: &&Recording| !stories.iter().any(|story| story.sequence == recording.name);
    let untold: Vec<&str> = recordings.iter().filter(told).map(|recording| recording.name.as_str()).collect();
    stage.finish().await?;
    println!("equal {}, different on purpose {}", ledger.equal, ledger.declared);
    let complaints = ledger.complaints();
    ensure!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    ensure!(untold.is_empty(), "before.toml says nothing of {untold:?}");
    Ok(())
}
