//! Deployments, instances, errands, variables and disks.

use std::str::FromStr;

use camino::Utf8PathBuf;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Overlay, Wait, Way};

/// How a deploy goes about it; all of it is also in the manifest or off.
#[derive(Clone, Debug, Default, Args)]
pub struct DeployFlags {
    /// Give every instance a new VM
    #[arg(long)]
    pub recreate: bool,
    /// With --recreate: only VMs that were made before this time (RFC 3339)
    #[arg(long, value_name = "TIME", requires = "recreate", value_parser = unix_ms)]
    pub recreate_vms_created_before: Option<i64>,
    /// Give every instance a new persistent disk, too
    #[arg(long)]
    pub recreate_persistent_disks: bool,
    /// Recreate instances whose agent does not answer, instead of failing
    #[arg(long)]
    pub fix: bool,
    /// Skip pre-stop and drain, for one group (repeat it) or for all
    #[arg(long, value_name = "GROUP", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub skip_drain: Vec<String>,
    /// Canaries per group, instead of the manifest's: N or N%
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub canaries: String,
    /// Instances updated at the same time, instead of the manifest's: N or N%
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub max_in_flight: String,
}

/// `deploy`
#[derive(Debug, Args)]
pub struct Deploy {
    /// The manifest
    pub manifest: Utf8PathBuf,
    /// How.
    #[command(flatten)]
    pub flags: DeployFlags,
    /// Plan and render as a task, but change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// The manifest
    pub manifest: Utf8PathBuf,
    /// How.
    #[command(flatten)]
    pub flags: DeployFlags,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// `diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The manifest
    pub manifest: Utf8PathBuf,
    /// Show values, not only where they differ
    #[arg(long)]
    pub no_redact: bool,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// `interpolate`
#[derive(Debug, Args)]
pub struct Interpolate {
    /// The document
    pub file: Utf8PathBuf,
    /// Variables and ops files.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// `delete-deployment`
#[derive(Debug, Args)]
pub struct DeleteDeployment {
    /// Go on when something cannot be deleted
    #[arg(long)]
    pub force: bool,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `instances`
#[derive(Debug, Args)]
pub struct ListInstances {
    /// Show load, memory and disks
    #[arg(long)]
    pub vitals: bool,
    /// Show processes
    #[arg(long)]
    pub ps: bool,
    /// Show only instances that are not as they should be
    #[arg(long)]
    pub failing: bool,
}

/// `GROUP[/ID]`, the id being an index or a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSlug {
    /// The group.
    pub group: String,
    /// Index or UUID; empty for all of the group.
    pub id_or_index: String,
}

impl FromStr for InstanceSlug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (group, id) = match text.split_once('/') {
            Some((_, "")) => return Err("wanted: GROUP or GROUP/ID".into()),
            Some((group, id)) => (group, id),
            None => (text, ""),
        };
        if group.is_empty() || id.contains('/') {
            return Err("wanted: GROUP or GROUP/ID".into());
        }
        Ok(Self { group: group.into(), id_or_index: id.into() })
    }
}

/// `start`, `restart`, `recreate`
#[derive(Debug, Args)]
pub struct ChangeState {
    /// A group, or one instance of it; everything if absent
    #[arg(value_name = "GROUP[/ID]")]
    pub instances: Option<InstanceSlug>,
    /// Skip pre-stop and drain
    #[arg(long)]
    pub skip_drain: bool,
    /// Canaries: N or N%
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub canaries: String,
    /// Instances worked on at the same time: N or N%
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub max_in_flight: String,
    /// One instance alone, as it was deployed last; the rest of the deployment is not looked at
    #[arg(long, requires = "instances", conflicts_with_all = ["canaries", "max_in_flight", "dry_run"])]
    pub no_converge: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `recreate`
#[derive(Debug, Args)]
pub struct Recreate {
    /// Which.
    #[command(flatten)]
    pub change: ChangeState,
    /// Also if the agent in the old VM does not answer
    #[arg(long, requires = "no_converge")]
    pub fix: bool,
    /// Only VMs that were made before this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "no_converge", value_parser = unix_ms)]
    pub vms_created_before: Option<i64>,
}

fn unix_ms(text: &str) -> Result<i64, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("not RFC 3339: {error}"))?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|error| error.to_string())
}

/// `stop`
#[derive(Debug, Args)]
pub struct Stop {
    /// Which and how.
    #[command(flatten)]
    pub change: ChangeState,
    /// Delete the VMs too; persistent disks stay
    #[arg(long)]
    pub hard: bool,
}

/// `ignore`, `unignore`
#[derive(Debug, Args)]
pub struct OneInstance {
    /// The instance
    #[arg(value_name = "GROUP/ID")]
    pub instance: InstanceSlug,
}

/// `run-errand`
#[derive(Debug, Args)]
pub struct RunErrand {
    /// The errand's job, or its group
    pub name: String,
    /// Keep the errand's VM
    #[arg(long)]
    pub keep_alive: bool,
    /// Only if something has changed since it last ran well
    #[arg(long)]
    pub when_changed: bool,
    /// Only on these instances; repeat it for more
    #[arg(long = "instance", value_name = "GROUP[/ID]")]
    pub instances: Vec<InstanceSlug>,
    /// Fetch the logs of the errand's jobs
    #[arg(long, conflicts_with = "detach")]
    pub download_logs: bool,
    /// Where to put them
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub logs_dir: Utf8PathBuf,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `logs`
#[derive(Debug, Args)]
pub struct FetchLogs {
    /// A group, or one instance of it; everything if absent
    #[arg(value_name = "GROUP[/ID]")]
    pub instances: Option<InstanceSlug>,
    /// Logs of the agent instead of those of jobs
    #[arg(long, conflicts_with_all = ["system", "all_logs"])]
    pub agent: bool,
    /// Logs of the operating system instead of those of jobs
    #[arg(long, conflicts_with = "all_logs")]
    pub system: bool,
    /// Logs of agent, jobs and system
    #[arg(long)]
    pub all_logs: bool,
    /// Only files that match this glob; repeat it for more
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Where to put the archive
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: Utf8PathBuf,
    /// Show logs as they grow, through ssh
    #[arg(long, short = 'f', conflicts_with_all = ["detach", "dir"])]
    pub follow: bool,
    /// With --follow: begin with so many lines of each file
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub num: u32,
    /// How to get there, with --follow.
    #[command(flatten)]
    pub way: Way,
    /// Follow the task or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `deployed-variable`
#[derive(Debug, Args)]
pub struct NamedVariable {
    /// Its name; a relative one belongs to the deployment
    pub name: String,
}

/// `variable`
#[derive(Debug, Args)]
pub struct ShowVariable {
    /// Its name; a relative one belongs to the deployment
    pub name: String,
    /// Print its value; every use of this is recorded
    #[arg(long)]
    pub reveal: bool,
}

/// `disks`
#[derive(Debug, Args)]
pub struct ListDisks {
    /// Disks that belong to no instance any more (the only ones listed here; others are in `instances`)
    #[arg(long, required = true)]
    pub orphaned: bool,
}

/// `networks`
#[derive(Debug, Args)]
pub struct ListNetworks {
    /// Only those that nobody uses any more
    #[arg(long)]
    pub orphaned: bool,
}

/// `delete-network`
#[derive(Debug, Args)]
pub struct DeleteNetwork {
    /// The network's name, as `networks --orphaned` shows it
    pub name: String,
}

/// `cloud-check`
#[derive(Debug, Args)]
pub struct CloudCheck {
    /// Only show the problems; so it is if nothing is said
    #[arg(long, conflicts_with_all = ["auto", "resolutions"])]
    pub report: bool,
    /// Do about each problem what can be done without a choice
    #[arg(long, conflicts_with = "resolutions")]
    pub auto: bool,
    /// Do this about every problem that it goes with; of several, the first one that does
    #[arg(long = "resolution", value_name = "NAME")]
    pub resolutions: Vec<String>,
    /// Instances of each group worked on at the same time, instead of the manifest's: N or N%
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub max_in_flight: String,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `resurrect`
#[derive(Debug, Args)]
pub struct Resurrect {
    /// Groups, or instances of them
    #[arg(value_name = "GROUP[/ID]", required = true)]
    pub instances: Vec<InstanceSlug>,
    /// Follow or not.
    #[command(flatten)]
    pub wait: Wait,
}

/// `clean-up`
#[derive(Debug, Args)]
pub struct CleanUp {
    /// Also the two newest unused versions of each release and stemcell, and orphaned disks
    #[arg(long)]
    pub all: bool,
    /// Keep orphaned disks
    #[arg(long)]
    pub keep_orphaned_disks: bool,
    /// Only show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

/// `orphan-disk`
#[derive(Debug, Args)]
pub struct OrphanDisk {
    /// The disk's CID, as `instances --details` shows it
    pub cid: String,
}

/// `attach-disk`
#[derive(Debug, Args)]
pub struct AttachDisk {
    /// The instance; it must be stopped
    #[arg(value_name = "GROUP/ID")]
    pub instance: InstanceSlug,
    /// The disk's CID
    pub cid: String,
    /// Take a disk that was not made here to be as the instance's own one: size, type, cloud properties
    #[arg(long)]
    pub copy_properties: bool,
}

/// `snapshots`, `take-snapshot`
#[derive(Debug, Args)]
pub struct SnapshotsOf {
    /// Only of this instance's disks
    #[arg(value_name = "GROUP/ID")]
    pub instance: Option<InstanceSlug>,
}

/// `delete-snapshot`
#[derive(Debug, Args)]
pub struct DeleteSnapshot {
    /// The snapshot's CID, as `snapshots` shows it
    pub cid: String,
}

/// `delete-vm`
#[derive(Debug, Args)]
pub struct DeleteVm {
    /// The VM's CID
    pub cid: String,
}

/// `delete-disk`
#[derive(Debug, Args)]
pub struct DeleteDisk {
    /// The disk's CID, as `disks --orphaned` shows it
    pub cid: String,
}
