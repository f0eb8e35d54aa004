//! dagent: the agent inside a VM.
//!
//! It dials out to any director over mTLS and keeps one stream: heartbeats up, requests down. Requests are fenced by the
//! leader's epoch and done once per id. What it acts on is a [`Machine`]: a real one, or one in memory, so that the
//! simulated cloud runs thousands of agents in one process.
//!
//! Deliberately *not* here: any decision about deployments. The agent does what it is asked, reports, and keeps its jobs
//! running.
//!
//! Invariants: nothing is done for an epoch older than the highest one heard of, which is on disk first; a request's
//! result is on disk before anybody hears of it; what is installed is whole or absent.
//!
//! Read next: [`Agent`] (the conversation), `dispatch` (requests), [`Machine`], then `actions/`, one file per action.

mod actions;
mod addresses;
mod agent;
mod archive;
mod blobs;
pub mod children;
mod dial;
mod digest;
mod disks;
mod dispatch;
mod durable;
mod error;
mod globs;
mod identity;
mod journal;
mod layout;
mod locks;
mod machine;
mod method;
mod names;
mod platform;
mod proc;
mod real;
mod scripts;
mod session;
mod settings;
mod simulated;
mod spec;
mod ssh_server;
mod storage;
mod supervisor;
mod vitals;
mod volume;
mod way;

pub use addresses::configure as configure_networks;
pub use agent::{Agent, AgentParts, DIAL_AGAIN, Link, StartError};
pub use blobs::{Blobs, DirectorBlobs, DirectoryBlobs, Stored};
pub use dial::{Directory, Learned, moment_after_loss};
pub use error::ActionError;
pub use layout::{BASE_DIR, Layout};
pub use machine::{Machine, Notice, Notices, Order, Progress, Report, Work};
pub use method::Method;
pub use model::agent_settings::AgentSettings as Settings;
pub use real::{RealMachine, RealMachineParts};
pub use session::{acknowledged_within, leaves_within};
pub use settings::{SettingsError, Sources, read as read_settings};
pub use simulated::{Behaviour, SimulatedMachine};
pub use storage::{Kept, Storage};
pub use supervisor::Timing;
pub use volume::Volume;

use std::path::Path;
use std::sync::Arc;

use owned_tasks::OwnedTasks;
use tokio_util::sync::CancellationToken;

/// Returns the agent of a real machine: what the binary runs.
pub fn agent_of_this_machine(
    settings: Settings,
    base_dir: &Path,
    tasks: OwnedTasks,
    off: CancellationToken,
) -> Result<Agent, StartError> {
    let (layout, link, notices) = (Layout::new(base_dir), Link::default(), Arc::new(Notices::default()));
    let machine = RealMachine::new(
        RealMachineParts {
            settings: settings.clone(),
            layout: layout.clone(),
            blobs: Arc::new(DirectorBlobs::new(link.clone())),
            notices: notices.clone(),
            timing: Timing::default(),
            off: off.clone(),
        },
        tasks.clone(),
    );
    let parts =
        AgentParts { settings, machine: Arc::new(machine), storage: Storage::Disk(layout), link, notices };
    Ok(Agent::new(parts, tasks)?.until(off))
}
