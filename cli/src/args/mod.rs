//! The command line: words, flags and help texts. Only that: what a command does is in [`crate::commands`].
//!
//! Words are the `bosh` CLI's where it has one. A flag means the same in every command.

mod artifacts;
mod cluster;
mod deployments;
mod dynamic_disks;
mod links;
mod sessions;
mod tasks;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

pub use artifacts::*;
pub use cluster::*;
pub use deployments::*;
pub use dynamic_disks::*;
pub use links::*;
pub use sessions::*;
pub use tasks::*;

use crate::settings::Connection;

/// Exit codes, as `--help` shows them; see [`crate::error::Exit`].
const EXIT_CODES: &str = "Exit codes:\n  0  all went well\n  1  the operation was refused, or its task failed\n  \
    2  the command line, a file or the configuration is wrong\n  3  no director answered\n  \
    4  not logged in, or not allowed\n  130  interrupted: we stopped watching, the task goes on";

/// dctl: the operator's command line of Directorate
#[derive(Debug, Parser)]
#[command(name = "dctl", version, about = "Operates a fleet of Directorate directors", after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// Where the fleet is and who we are.
    #[command(flatten)]
    pub connection: Connection,
    /// How to print.
    #[command(flatten)]
    pub style: StyleArgs,
    /// Deployment to work on
    #[arg(long, short = 'd', env = "DCTL_DEPLOYMENT", value_name = "NAME", global = true)]
    pub deployment: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct StyleArgs {
    /// Print JSON for programs instead of tables for people
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// No colours (also NO_COLOR, and always when the output is no terminal)
    #[arg(long, global = true, help_heading = "Output")]
    pub no_color: bool,
    /// No progress display, even on a terminal
    #[arg(long, global = true, help_heading = "Output")]
    pub no_progress: bool,
    /// Never ask: go ahead
    #[arg(long, short = 'y', global = true, help_heading = "Output")]
    pub yes: bool,
}

/// Every command.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help texts are in the arguments' own types")]
pub enum Command {
    /// Show name, version and identity of the fleet
    Info,
    /// Look at the replicas, add and remove them
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Manage who may log in
    #[command(subcommand)]
    User(UserCommand),

    /// Create a dev release from a release folder
    CreateRelease(CreateRelease),
    /// Upload a release archive
    UploadRelease(UploadRelease),
    /// List releases
    Releases,
    /// Show a release's jobs and packages
    InspectRelease(ReleaseSlug),
    /// Delete a release, or one version of it
    DeleteRelease(ReleaseSlug),
    /// Compile a release for a stemcell, and download it as one archive
    ExportRelease(ExportRelease),
    /// Build a stemcell: of this machine's own files for the local cloud, in a blink; or a real Debian
    BuildStemcell(BuildStemcell),
    /// Upload a stemcell archive
    UploadStemcell(UploadStemcell),
    /// List stemcells
    Stemcells,
    /// Delete a stemcell
    DeleteStemcell(DeleteStemcell),
    /// Fetch blobs
    #[command(subcommand)]
    Blob(BlobCommand),

    /// Store a config of any type
    UpdateConfig(UpdateConfig),
    /// Store the cloud config
    UpdateCloudConfig(UpdateTypedConfig),
    /// Store a runtime config
    UpdateRuntimeConfig(UpdateTypedConfig),
    /// Store a CPI config: which clouds there are
    UpdateCpiConfig(UpdateTypedConfig),
    /// List configs
    Configs(ListConfigs),
    /// Show a config
    Config(ShowConfig),
    /// Delete a config
    DeleteConfig(DeleteConfig),

    /// Bring a deployment to what its manifest says
    Deploy(Deploy),
    /// Show what a deploy would do, writing nothing
    Plan(Plan),
    /// Show how a manifest differs from the deployed one
    Diff(Diff),
    /// Fill in a manifest's variables and apply ops files, and print it
    #[command(visible_alias = "int")]
    Interpolate(Interpolate),
    /// List deployments
    Deployments,
    /// Show one deployment
    Deployment,
    /// Print the deployed manifest
    Manifest,
    /// Delete a deployment and its instances
    DeleteDeployment(DeleteDeployment),
    /// List instances
    Instances(ListInstances),
    /// Start instances
    Start(ChangeState),
    /// Stop instances' processes
    Stop(Stop),
    /// Stop and start instances' processes
    Restart(ChangeState),
    /// Give instances new VMs
    Recreate(Recreate),
    /// Leave an instance alone in deploys
    Ignore(OneInstance),
    /// Stop ignoring an instance
    Unignore(OneInstance),
    /// List a deployment's errands
    Errands,
    /// Run an errand
    RunErrand(RunErrand),
    /// Fetch instances' logs, or follow them
    Logs(FetchLogs),
    /// Log in to an instance, or run a command on several
    Ssh(Ssh),
    /// Copy files to and from instances
    Scp(Scp),
    /// List a deployment's variables
    Variables,
    /// Show a variable
    Variable(ShowVariable),
    /// List the deployments that were last deployed with a variable
    DeployedVariable(NamedVariable),
    /// List when the certificates among a deployment's variables end
    Certificates,
    /// List links that a deployment offers
    LinkProviders,
    /// List who wants a link of a deployment
    LinkConsumers,
    /// List links that are connected
    Links,
    /// Connect somebody outside to a shared link
    CreateLink(CreateLink),
    /// Take away a link that was created by hand
    DeleteLink(DeleteLink),
    /// Show where a link leads
    LinkAddress(LinkAddress),
    /// List VMs that no instance uses any more and that are to be deleted
    OrphanedVms,
    /// List disks
    Disks(ListDisks),
    /// Have an instance give up a disk
    OrphanDisk(OrphanDisk),
    /// Give a stopped instance another disk
    AttachDisk(AttachDisk),
    /// Delete a VM: an instance's, an orphan, or one that nobody here knows
    DeleteVm(DeleteVm),
    /// Delete an orphaned disk
    DeleteDisk(DeleteDisk),
    /// List disks that were made by themselves
    DynamicDisks,
    /// Make a dynamic disk for a deployment's VMs in a zone
    CreateDynamicDisk(CreateDynamicDisk),
    /// Attach a dynamic disk to an instance's VM
    AttachDynamicDisk(AttachDynamicDisk),
    /// Attach a dynamic disk to an instance's VM, and make it before if there is none of its name
    ProvideDynamicDisk(ProvideDynamicDisk),
    /// Detach a dynamic disk from the VM that has it
    DetachDynamicDisk(NamedDynamicDisk),
    /// Delete a dynamic disk
    DeleteDynamicDisk(NamedDynamicDisk),
    /// List networks that directors have made
    Networks(ListNetworks),
    /// Delete a network that directors have made and nobody uses any more
    DeleteNetwork(DeleteNetwork),
    /// Have directors make the networks that cloud configs call managed, or not
    ManagedNetworks {
        /// on or off
        state: Switch,
    },
    /// List snapshots of disks
    Snapshots(SnapshotsOf),
    /// Take snapshots of a deployment's disks, or of one instance's, while jobs run on
    TakeSnapshot(SnapshotsOf),
    /// Delete a snapshot
    DeleteSnapshot(DeleteSnapshot),
    /// Delete all snapshots of a deployment's disks
    DeleteSnapshots,
    /// Look for problems with VMs and disks, and do something about them
    #[command(visible_alias = "cck")]
    CloudCheck(CloudCheck),
    /// Give instances new VMs that are found dead
    Resurrect(Resurrect),
    /// Delete what nothing uses: old releases and stemcells, orphaned VMs, and disks
    CleanUp(CleanUp),

    /// List tasks
    Tasks(ListTasks),
    /// Follow a task, or show one of its outputs
    Task(ShowTask),
    /// Cancel a task at its next checkpoint
    CancelTask(TaskId),
    /// List audit events
    Events(ListEvents),
    /// List locks, who holds them and who waits
    Locks,
    /// Look after instances' health
    #[command(subcommand)]
    Health(HealthCommand),
    /// Look at the clouds
    #[command(subcommand)]
    Cpi(CpiCommand),
    /// List what may have been left behind in the cloud
    Leaks(Leaks),
    /// Print changes as they happen
    Watch(Watch),

    /// Print a shell's completions
    Completions(Completions),
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Values for `((placeholders))` and changes to a document, in `bosh`'s order: ops files first, then variables.
#[derive(Clone, Debug, Default, Args)]
pub struct Overlay {
    /// Set a variable: NAME=VALUE, the value being YAML
    #[arg(long = "var", short = 'v', value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// Set a variable to a file's content: NAME=FILE
    #[arg(long = "var-file", value_name = "NAME=FILE")]
    pub var_files: Vec<String>,
    /// Load variables from a YAML file; later files win
    #[arg(long = "vars-file", short = 'l', value_name = "FILE")]
    pub vars_files: Vec<Utf8PathBuf>,
    /// Apply an ops file
    #[arg(long = "ops-file", short = 'o', value_name = "FILE")]
    pub ops_files: Vec<Utf8PathBuf>,
}

/// Follow a task or only start it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Wait {
    /// Start the task, print its number and end
    #[arg(long)]
    pub detach: bool,
}

#[cfg(test)]
mod doors_tests;
#[cfg(test)]
mod tests;
