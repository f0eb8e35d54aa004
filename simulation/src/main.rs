//! `simulate`: plays seeds, one process each, and says which of them broke something.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use known_bugs::Bug;
use simulation::child::{self, Library};
use simulation::trace::Trace;
use simulation::{nemesis, run};

/// Plays fleets in worlds of chance. The same seed is the same world.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// No new seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seeds played at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Only say what would go wrong, and when.
    #[arg(long)]
    print: bool,
    /// Give the replicas a bug that this program does not have; see `docs/chaos.md` for the names.
    #[arg(long, value_parser = |name: &str| Bug::named(name).ok_or("no such bug"))]
    bug: Option<Bug>,
    /// Write down everything that happens. For one seed.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(seed) = child::seed() {
        return play_here(seed, &arguments);
    }
    if arguments.print {
        print!("{}", nemesis::Plan::draw(&mut simulation::chance::Chance::of(arguments.seed, "nemesis")));
        return Ok(ExitCode::SUCCESS);
    }
    play_all(&arguments)
}

/// This is the process of one seed.
fn play_here(seed: u64, arguments: &Arguments) -> Result<ExitCode> {
    // Replicas that die complain; whoever wants to read it says so.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let trace = match &arguments.trace {
        Some(file) => Trace::to(std::fs::File::create(file).context("create the trace")?),
        None => Trace::default(),
    };
    let report = run::play(seed, trace);
    println!("{report}");
    Ok(if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play_all(arguments: &Arguments) -> Result<ExitCode> {
    let (library, program) = (Library::build()?, std::env::current_exe()?);
    let until = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let end = arguments.seed + if arguments.minutes.is_some() { u64::MAX / 2 } else { arguments.seeds };
    let (next, failed, played) = (AtomicU64::new(arguments.seed), AtomicU64::new(0), AtomicU64::new(0));
    let trace = arguments.trace.as_ref().map(|file| file.to_string_lossy().into_owned());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || until.is_some_and(|until| Instant::now() >= until) {
                        return;
                    }
                    let mut options = Vec::new();
                    if let Some(trace) = &trace {
                        options.extend(["--trace", trace]);
                    }
                    let began = Instant::now();
                    let well = match library.play(&program, seed, arguments.bug, &options) {
                        Ok(output) => {
                            let said = String::from_utf8_lossy(&output.stdout);
                            print!("[{:.1} s] {said}", began.elapsed().as_secs_f32());
                            if !output.status.success() {
                                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                                println!("  replay: simulate --seed {seed} --trace /tmp/seed-{seed}.txt");
                            }
                            output.status.success()
                        }
                        Err(error) => {
                            eprintln!("seed {seed}: {error:#}");
                            false
                        }
                    };
                    played.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(!well), Ordering::Relaxed);
                }
            });
        }
    });
    let (played, failed) = (played.into_inner(), failed.into_inner());
    println!("{played} seeds played, {failed} broke something");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
