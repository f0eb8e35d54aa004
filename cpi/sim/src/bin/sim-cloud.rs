//! `sim-cloud`: a simulated cloud with its agents, shared by all replicas on the machine.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use cpi_sim::{AgentCalls, Fleet, Knobs, SimCloud, serve};
use owned_tasks::OwnedTasks;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// How long running calls may take to notice the end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Serves a simulated cloud until it is told to stop.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where replicas find it.
    #[arg(long)]
    socket: PathBuf,
    /// The source of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A JSON file with the knobs to begin with.
    #[arg(long)]
    knobs: Option<PathBuf>,
    /// A file that gets every call to an agent, a line of JSON each.
    #[arg(long)]
    agent_calls: Option<PathBuf>,
    /// End when standard input, a pipe, is closed: then a cloud never outlives the test that started it.
    #[arg(long)]
    until_stdin_closes: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse();
    let knobs = match &options.knobs {
        Some(path) => read_knobs(path)?,
        None => Knobs::default(),
    };
    let tasks = OwnedTasks::new();
    let mut fleet = Fleet::new(tasks.child()).context("can't make a scratch directory")?;
    if let Some(path) = &options.agent_calls {
        let calls = AgentCalls::open(path).with_context(|| format!("can't open {}", path.display()))?;
        fleet = fleet.recording(calls);
    }
    let cloud = SimCloud::new(options.seed, knobs, Arc::new(fleet));
    // A socket that an earlier process left: nobody answers there, or binding would be the lesser trouble.
    let _ = std::fs::remove_file(&options.socket);
    let listener = UnixListener::bind(&options.socket)
        .with_context(|| format!("can't listen at {}", options.socket.display()))?;
    println!("ready");
    std::io::stdout().flush().context("can't say that it is ready")?;
    let starter = match options.until_stdin_closes {
        true => Some(stdin().context("standard input is no pipe")?),
        false => None,
    };
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    tokio::select! {
        () = serve(listener, cloud, tasks.clone(), tasks.stop_token()) => {}
        _ = terminate.recv() => {}
        () = closed(starter) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tasks.stop(STOP_WITHIN).await;
    let _ = std::fs::remove_file(&options.socket);
    Ok(())
}

fn stdin() -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)
}

/// Returns once the pipe is closed; never, if there is none.
async fn closed(pipe: Option<pipe::Receiver>) {
    let Some(mut pipe) = pipe else { return std::future::pending().await };
    let mut ignored = [0; 64];
    while pipe.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

fn read_knobs(path: &PathBuf) -> anyhow::Result<Knobs> {
    let text = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} holds no knobs", path.display()))
}
