//! `chaos`: plays schedules of faults on fleets of real processes, as many and as long as one likes.
//!
//! Each schedule comes from a number; `chaos --seed N` plays it again. One line of JSON for each that was played, a table
//! at the end; whoever fails leaves its folder with all logs.

mod summary;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chaos_tests::needs::{self, Need};
use chaos_tests::programs;
use chaos_tests::schedule::{Conditions, Outcome, Schedule, Verdict, run};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use summary::Summary;

/// Plays schedules of faults on fleets of real processes.
#[derive(Parser)]
struct Options {
    /// The schedule of one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Schedules of many seeds, both ends included.
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "1..20")]
    seeds: RangeInclusive<u64>,
    /// Begin no schedule after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Schedules at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// This machine has other things to do: replicas are as patient with each other as on slow disks.
    #[arg(long)]
    busy: bool,
    /// Only show the schedules.
    #[arg(long)]
    print: bool,
    /// Append the lines of JSON to this file.
    #[arg(long)]
    results: Option<PathBuf>,
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("two numbers with `..` between them")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    Ok(number(from)?..=number(to.trim_start_matches('='))?)
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let seeds = options.seed.map_or(options.seeds.clone(), |seed| seed..=seed);
    if options.print {
        seeds.for_each(|seed| print!("{}", Schedule::draw(seed)));
        return Ok(ExitCode::SUCCESS);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "warn,chaos_tests=info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if !needs::met(&[Need::Ruby]) {
        return Ok(ExitCode::SUCCESS);
    }
    programs::build()?;
    let conditions = Conditions { is_busy: options.busy, ..Conditions::default() };
    stop_when_asked(conditions.stop.clone())?;
    let outcomes = play(&options, seeds, &conditions)?;
    let all_held = outcomes.iter().all(|outcome| outcome.verdict == Verdict::Held);
    println!("\n{}", Summary(&outcomes));
    Ok(if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asked to end (Ctrl-C, SIGTERM), what runs is dropped: then no process, network or disk of ours stays.
fn stop_when_asked(stop: CancellationToken) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wait = move || {
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                asked = tokio::signal::ctrl_c() => asked?,
                _ = terminate.recv() => {}
            }
            stop.cancel();
            std::io::Result::Ok(())
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("start a thread")?;
    Ok(())
}

fn play(options: &Options, seeds: RangeInclusive<u64>, conditions: &Conditions) -> Result<Vec<Outcome>> {
    let (next, outcomes) = (AtomicU64::new(*seeds.start()), Mutex::new(Vec::new()));
    let deadline = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let worker = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !seeds.contains(&seed) || is_late || conditions.stop.is_cancelled() {
                return Ok(());
            }
            let outcome = run(&Schedule::draw(seed), conditions);
            if conditions.stop.is_cancelled() {
                return Ok(());
            }
            tell(options, &outcome)?;
            outcomes.lock().expect("nobody panics with it").push(outcome);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut outcomes = outcomes.into_inner().expect("nobody panics with it");
    outcomes.sort_by_key(|outcome| outcome.seed);
    Ok(outcomes)
}

fn tell(options: &Options, outcome: &Outcome) -> Result<()> {
    let line = outcome.line();
    println!("{line}");
    if outcome.verdict != Verdict::Held {
        println!("play it again: make chaos ARGS='--seed {}'", outcome.seed);
    }
    if let Some(path) = &options.results {
        let mut file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        writeln!(file, "{line}").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
