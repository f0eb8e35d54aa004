//! The replica `directord`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use directord::commands::{init, join, recover, repair, restore};
use directord::config::Config;
use directord::{logging, wire};

/// A replica of a Directorate fleet: a BOSH director with no single point of failure.
#[derive(Parser)]
#[command(name = "directord", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the first replica of a new fleet.
    Init {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
        /// The fleet's name, part of variable names and VM metadata.
        #[arg(long, default_value = init::DEFAULT_NAME)]
        fleet: String,
        /// Write the admin's login for `dctl` here instead of showing the password.
        #[arg(long)]
        profile: Option<PathBuf>,
    },
    /// Make one more replica of a fleet that runs.
    Join {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
        /// A token from `dctl cluster join-token`.
        #[arg(long, env = "DIRECTORD_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// HOST:PORT of a replica's API; may be given several times.
        #[arg(long = "endpoint", required = true, value_delimiter = ',')]
        endpoints: Vec<String>,
    },
    /// Make the first replica of a new fleet out of a backup (`dctl cluster snapshot save`).
    Restore {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
        /// The backup.
        #[arg(long)]
        snapshot: PathBuf,
    },
    /// Make a fleet of one out of the only replica that is left, when no majority can be brought back.
    Recover {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
        /// I know that what the others wrote without this replica will be lost. Without it, only tell what there is.
        #[arg(long)]
        unreplicated_writes_may_be_lost: bool,
    },
    /// Have a replica whose disk is damaged begin anew, with what the others have.
    Repair {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
    },
    /// Run the replica.
    Run {
        /// This replica's configuration.
        #[arg(long, default_value = "/etc/directord/directord.toml")]
        config: PathBuf,
    },
    /// Say which isolation VMs of the local cloud can have here, and why no better one.
    ProbeIsolation,
    /// Carry standard input and output to a port of a VM of the local cloud: a `ProxyCommand` for `ssh`. For root, or
    /// the user whose VMs they are.
    ReachVm {
        /// Where the cloud is: `root` in the replicas' configuration.
        #[arg(long, default_value = "/var/lib/directord/cloud")]
        cloud: PathBuf,
        /// The VM's address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
}

fn main() -> ExitCode {
    // The local cloud's VMs are made by helper processes, which are this program under another name. They must not
    // have threads, so they are told apart before anything else.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "local-vm") {
        return cpi_local::helper::main(&args[1..]);
    }
    // So are those that stand between us and CPIs: many, and gone in a moment.
    if args.first().is_some_and(|a| a == cpi_external::guard::NAME) {
        return cpi_external::guard::main(&args[1..]);
    }
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(perform(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn perform(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { config, fleet, profile } => {
            init::init(&Config::load(&config)?, &fleet, profile.as_deref()).await
        }
        Command::Join { config, token, endpoints } => {
            join::join(&Config::load(&config)?, &token, &endpoints).await
        }
        Command::Restore { config, snapshot } => restore::restore(&Config::load(&config)?, &snapshot).await,
        Command::Recover { config, unreplicated_writes_may_be_lost } => {
            let consent = match unreplicated_writes_may_be_lost {
                true => recover::Consent::Given,
                false => recover::Consent::NotGiven,
            };
            recover::recover(&Config::load(&config)?, consent).await
        }
        Command::Repair { config } => repair::repair(&Config::load(&config)?).await,
        Command::Run { config } => {
            let mut config = Config::load(&config)?;
            pass_for_an_older_version(&mut config);
            let _logging = logging::start(&config)?;
            wire::run(config).await
        }
        Command::ProbeIsolation => {
            let scratch = tempfile::tempdir()?;
            let agent = std::env::current_exe()?.with_file_name("dagent");
            let options = cpi_local::LocalOptions::new(scratch.path(), agent);
            for report in cpi_local::probe(&options) {
                println!(
                    "{:<16} {:<4} {}",
                    report.rung.to_string(),
                    if report.ok { "yes" } else { "no" },
                    report.why
                );
            }
            Ok(())
        }
        Command::ReachVm { cloud, address, port } => {
            // A thread of its own, which blocks; so does everything that this process is for.
            let carried =
                tokio::task::spawn_blocking(move || cpi_local::reach_vm(&cloud, (address, port).into()));
            Ok(carried.await??)
        }
    }
}

/// The build that the proofs under failure make of this program can pass for an older version, for upgrades of a fleet.
fn pass_for_an_older_version(config: &mut Config) {
    if env!("CARGO_PKG_NAME") == "chaos-tests"
        && let Ok(level) = std::env::var("CHAOS_FEATURE_LEVEL")
    {
        config.feature_level = level.parse().unwrap_or(config.feature_level);
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("directord: {}", chain.join(": "));
    ExitCode::FAILURE
}
