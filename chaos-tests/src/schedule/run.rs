//! Plays a schedule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cpi_sim::{Chances, Knobs, Span};
use tokio_util::sync::CancellationToken;

use super::demand::Demands;
use super::outcome::{Outcome, Verdict};
use super::{Act, Schedule};
use crate::cluster::{CloudKind, Cluster, Ground};
use crate::deploying::DEPLOY_LIMIT;
use crate::lab;
use crate::nemesis::{Fault, Field, Harm, Needs, NotReached};
use crate::workload::{Hello, Net, upload_hello};
use crate::workloads::{Observed, Workloads};

/// A schedule that takes longer hangs somewhere.
const WHOLE_MAX: Duration = Duration::from_secs(400);

/// MiB of a replica's small disk: room for what the databases take in advance and for some starts, soon full all the same.
const SMALL_DISK_MIB: u32 = 288;

/// A cloud that takes its time, so that there is a middle in everything.
fn calm() -> Knobs {
    let span = |min_ms, max_ms| Span { min_ms, max_ms };
    Knobs {
        calls: Chances { latency: span(5, 60), ..Chances::default() },
        boot: span(10, 60),
        action: span(5, 40),
        ..Knobs::default()
    }
}

/// On what a schedule is played.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Whether the machine has so much else to do that replicas must be as patient with each other as on slow disks.
    pub is_busy: bool,
    /// Ends it half-way.
    pub stop: CancellationToken,
}

/// Plays a schedule, to whatever end.
pub fn run(schedule: &Schedule, conditions: &Conditions) -> Outcome {
    let mut schedule = schedule.clone();
    let left_out = schedule.leave_out_impossible();
    let mut outcome = Outcome {
        seed: schedule.seed,
        fleet: schedule.fleet,
        cloud: if schedule.simulated { "sim" } else { "local" },
        network: if schedule.in_lab { "lab" } else { "loopback" },
        timing: if conditions.is_busy { "slow-disk" } else { "default" },
        verdict: Verdict::Held,
        faults: BTreeMap::new(),
        left_out,
        writes: 0,
        writes_per_second: 0.0,
        p99: Duration::ZERO,
        deploys: 0,
        looked_at: BTreeMap::new(),
        failovers: Vec::new(),
        resumed: Vec::new(),
        took: Duration::ZERO,
    };
    let begun = Instant::now();
    let stop = &conditions.stop;
    let ground = |lab| Ground { is_patient: conditions.is_busy, lab, ..ground(&schedule) };
    let ended = match schedule.in_lab {
        true => lab::inside(|lab| unless_stopped(stop, bounded(&schedule, ground(Some(lab)), &mut outcome))),
        false => on_loopback(unless_stopped(stop, bounded(&schedule, ground(None), &mut outcome))),
    };
    outcome.took = begun.elapsed();
    if let Err(error) = ended {
        let text = format!("{error:#}");
        outcome.verdict = match error.downcast_ref::<NotReached>() {
            Some(_) => Verdict::NotReached(text),
            None => Verdict::Broken(text),
        };
    }
    outcome
}

fn on_loopback(story: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(story)
}

/// What is dropped half-way cleans up after itself, as at its end.
async fn unless_stopped(stop: &CancellationToken, story: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        ended = story => ended,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped")),
    }
}

async fn bounded(schedule: &Schedule, ground: Ground, outcome: &mut Outcome) -> Result<()> {
    let cluster = Cluster::start_on(ground).await.context("start the fleet")?;
    let mut field = Field::new(cluster, calm());
    let played = tokio::time::timeout(WHOLE_MAX, play(schedule, &mut field, outcome)).await;
    let played = played.unwrap_or_else(|_| Err(anyhow::anyhow!("not over after {WHOLE_MAX:?}")));
    match played {
        Ok(()) => field.cluster.finish().await,
        Err(error) => {
            let folder = field.cluster.keep().to_owned();
            eprintln!("{schedule}{error:#}\nfolder: {}", folder.display());
            Err(error)
        }
    }
}

fn ground(schedule: &Schedule) -> Ground {
    let cloud = match schedule.simulated {
        true => CloudKind::Sim { seed: schedule.seed, knobs: calm() },
        false => CloudKind::Process,
    };
    // Any of them; which role it has by then is chance.
    let small = 1 + (schedule.seed as usize) % schedule.fleet;
    Ground {
        extra: "[blobs]\nkeep_free_mib = 64\n".into(),
        can_go_wrong: schedule.needs(Needs::Preload),
        small_disk: schedule.needs(Needs::SmallDisk).then_some((small, SMALL_DISK_MIB)),
        ..Ground::new(schedule.fleet, cloud)
    }
}

async fn play(schedule: &Schedule, field: &mut Field, outcome: &mut Outcome) -> Result<()> {
    let net = match schedule.simulated {
        true => Net::Simulated,
        false => Net::Loopback(field.cluster.loopback_net()),
    };
    upload_hello(&field.cluster, net).await.context("give the fleet what it needs")?;
    if schedule.acts.iter().any(|act| act.fault == Fault::KillAgent) {
        deploy_bystander(field).await?;
    }
    let load = Workloads::start(&field.cluster, schedule.seed, schedule.mix)?;
    let begun = Instant::now();
    let nemesis = Nemesis { begun, load: &load, open: Vec::new(), hits: Vec::new() };
    let played = nemesis.play(schedule, field, outcome).await;
    let took = begun.elapsed();
    let observed = load.stop().await?;
    let hits = played?;
    measure(&observed, &hits, took, outcome);
    let demands = Demands { schedule, observed: &observed };
    demands.check(field, outcome).await
}

async fn deploy_bystander(field: &mut Field) -> Result<()> {
    let bystander = Hello { name: "bystander".into(), instances: 1, ..Hello::default() };
    let client = field.cluster.client()?;
    let task = client.deploy(&bystander.manifest(), "the bystander").await?;
    client.done(task, DEPLOY_LIMIT).await?;
    field.bystander = Some(bystander.name);
    Ok(())
}

fn measure(observed: &Observed, hits: &[(&'static str, Instant)], took: Duration, outcome: &mut Outcome) {
    let mut times: Vec<Duration> = observed.writes.iter().map(|write| write.done - write.asked).collect();
    times.sort();
    outcome.writes = times.len() as u64;
    outcome.writes_per_second = times.len() as f64 / took.as_secs_f64();
    outcome.p99 =
        times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    outcome.deploys = observed.tasks.len() as u64;
    for (kind, hit) in hits {
        let after = observed.writes.iter().filter(|write| write.asked >= *hit).map(|write| write.done - *hit);
        outcome.failovers.extend(after.min().map(|time| (*kind, time)));
    }
}

/// Whoever injects and heals.
struct Nemesis<'a> {
    /// When the schedule's time began, or would have if nothing had taken longer than was drawn.
    begun: Instant,
    load: &'a Workloads,
    open: Vec<(Act, Box<dyn Harm>)>,
    /// When the leader was taken away.
    hits: Vec<(&'static str, Instant)>,
}

impl Nemesis<'_> {
    async fn play(
        mut self,
        schedule: &Schedule,
        field: &mut Field,
        outcome: &mut Outcome,
    ) -> Result<Vec<(&'static str, Instant)>> {
        for act in &schedule.acts {
            self.heal_until(act.at, field, outcome).await?;
            self.wait_for(act.at).await;
            field.check_alive()?;
            let at = Instant::now();
            let injected = act.fault.inject(field).await.with_context(|| act.fault.to_string())?;
            tell(self.begun, &injected.what);
            if injected.hits_leader {
                self.hits.push((act.fault.kind(), at));
            }
            self.open.push((*act, injected.harm));
        }
        self.heal_until(Duration::MAX, field, outcome).await?;
        field.check_alive()?;
        // The load goes on until everybody was answered after the last fault.
        let healed = Instant::now();
        let load = self.load;
        crate::wait::until_true(
            "a write is accepted after the last fault",
            crate::cluster::SETTLE,
            async || Ok(load.first_write_after(healed).is_some()),
        )
        .await?;
        Ok(self.hits)
    }

    /// Heals what is to be healed before a moment, in its order.
    async fn heal_until(&mut self, until: Duration, field: &mut Field, outcome: &mut Outcome) -> Result<()> {
        self.open.sort_by_key(|(act, _)| std::cmp::Reverse(act.until));
        while self.open.last().is_some_and(|(act, _)| act.until <= until) {
            let Some((act, harm)) = self.open.pop() else { break };
            self.wait_for(act.until).await;
            let proof = harm.heal(field).await.with_context(|| format!("heal: {}", act.fault))?;
            tell(self.begun, &format!("healed: {proof}"));
            *outcome.faults.entry(act.fault.kind()).or_default() += 1;
        }
        Ok(())
    }

    /// Waits for a moment of the schedule. If it is past, because something before it took longer than was drawn, all
    /// that follows comes as much later: each fault keeps its length.
    async fn wait_for(&mut self, moment: Duration) {
        self.begun = self.begun.max(Instant::now() - moment);
        tokio::time::sleep_until((self.begun + moment).into()).await;
    }
}

fn tell(begun: Instant, what: &str) {
    tracing::info!(at = format!("{:.2} s", begun.elapsed().as_secs_f64()), "{what}");
}
