//! `dagent {--settings FILE | --config FILE} [--base-dir DIR] [--configure-networks]`: the agent of the machine that it runs on.
//! `dagent volume …`: what a cloud of containers has done beside one of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use dagent::{BASE_DIR, Layout, Sources, Volume, agent_of_this_machine, children, read_settings};
use model::agent_settings::SWITCHED_OFF;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// How long requests under way may take to stop; what is not recorded by then is taken up again by the next start.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// The agent inside a VM: dials a director, installs what it is told and keeps it running.
#[derive(Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    errand: Option<Errand>,
    /// The settings file that the CPI wrote.
    #[arg(long, required_unless_present = "config", conflicts_with = "config")]
    settings: Option<PathBuf>,
    /// BOSH's `agent.json`, which says where settings are: a file, a drive, a cloud's metadata.
    #[arg(long, short = 'C')]
    config: Option<PathBuf>,
    /// The directory below which everything is installed.
    #[arg(long, default_value = BASE_DIR)]
    base_dir: PathBuf,
    /// Give the machine the addresses of its settings: for images that leave this to the agent.
    #[arg(long)]
    configure_networks: bool,
    /// What to log, as `tracing` filters.
    #[arg(long, env = "DAGENT_LOG", default_value = "info")]
    log: String,
}

/// What is to be done instead, at once.
#[derive(clap::Subcommand)]
enum Errand {
    /// Brings a disk into the container beside this one, or takes it out. Clouds call this.
    #[command(subcommand)]
    Volume(Volume),
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match &options.errand {
        // Before there are threads.
        Some(Errand::Volume(volume)) => volume.run().map(|()| ExitCode::SUCCESS),
        None => tokio::runtime::Runtime::new()?.block_on(run(options)),
    }
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_new(&options.log).context("the log filter can't be read")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let base_dir =
        std::path::absolute(&options.base_dir).context("the base directory has no absolute path")?;

    let tasks = OwnedTasks::new();
    if let Err(error) = children::become_subreaper() {
        warn!(error = %error, "orphans of jobs will not come to the agent");
    }
    tasks.spawn("reaper", OnExit::Ignore, children::reap_orphans);
    let settings = match (&options.settings, &options.config) {
        (Some(file), _) => read_settings(file)?,
        (None, Some(config)) => Sources::open(config)?.settings(&Layout::new(&base_dir)).await?,
        // One of them is required.
        (None, None) => anyhow::bail!("neither --settings nor --config"),
    };
    if options.configure_networks {
        dagent::configure_networks(&settings).await.context("the machine's networks can't be configured")?;
    }
    let off = CancellationToken::new();
    let agent = agent_of_this_machine(settings, &base_dir, tasks.clone(), off.clone())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = tasks.stop_token();
    let ended = tokio::select! {
        ended = agent.run(stop) => ended.context("the agent has ended").map(|()| match off.is_cancelled() {
            true => ExitCode::from(SWITCHED_OFF),
            false => ExitCode::SUCCESS,
        }),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
    };
    // Jobs go on without the agent; its next life finds them by their pidfiles.
    tasks.stop(STOPPED_WITHIN).await;
    ended
}
