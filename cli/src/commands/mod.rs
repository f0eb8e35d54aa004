//! What each command does: one function per command, one file per noun.
//!
//! A command turns arguments into a request, calls, and shows the answer. Whatever several share (pages, uploads with a
//! progress bar, following a started task) is here.

mod by_hand;
mod cloud_check;
mod clouds;
mod cluster;
mod configs;
mod deployments;
mod dynamic_disks;
mod exports;
mod health;
mod instances;
mod leftovers;
mod links;
mod logs;
mod networks;
mod releases;
mod sessions;
mod snapshot;
mod snapshots;
mod staged;
mod stemcells;
mod tasks;
mod users;
mod variables;
mod watch;

use std::io::Write as _;

use clap::CommandFactory as _;
use proto::v1::{Page, TaskStarted};

use crate::args::{Cli, ClusterCommand, Command, CpiCommand, SnapshotCommand, Wait};
use crate::client::Fleet;
use crate::console::Console;
use crate::error::Error;
use crate::follow;
use crate::settings::Environment;

/// Entries that we ask for at once; the most that the API gives.
const PAGE_SIZE: u32 = 1000;

/// What every command works with.
pub struct Context<'a> {
    /// The directors.
    pub fleet: Fleet,
    /// Where answers go.
    pub console: &'a mut Console,
    deployment: Option<String>,
}

/// Runs one command line.
pub async fn run(cli: Cli, environment: &Environment, console: &mut Console) -> Result<(), Error> {
    // These talk to nobody: they must work before there is a fleet.
    match &cli.command {
        Command::Completions(args) => return completions(args.shell, console),
        Command::Interpolate(args) => return deployments::interpolate(args, console),
        Command::CreateRelease(args) => return releases::create(args, console),
        Command::BuildStemcell(args) => return stemcells::build(args, console),
        Command::Cluster(ClusterCommand::Snapshot(SnapshotCommand::Verify { file })) => {
            return snapshot::verify(file, console);
        }
        _ => {}
    }
    let fleet = cli.connection.fleet(environment)?;
    let mut context = Context { fleet, console, deployment: cli.deployment };
    dispatch(cli.command, &mut context).await
}

async fn dispatch(command: Command, context: &mut Context<'_>) -> Result<(), Error> {
    match command {
        Command::Info => cluster::info(context).await,
        Command::Cluster(command) => cluster::cluster(context, command).await,
        Command::User(command) => users::user(context, command).await,
        Command::UploadRelease(args) => releases::upload(context, args).await,
        Command::Releases => releases::list(context).await,
        Command::InspectRelease(args) => releases::inspect(context, args.slug).await,
        Command::DeleteRelease(args) => releases::delete(context, args.slug).await,
        Command::ExportRelease(args) => exports::export(context, args).await,
        Command::UploadStemcell(args) => stemcells::upload(context, args).await,
        Command::Stemcells => stemcells::list(context).await,
        Command::DeleteStemcell(args) => stemcells::delete(context, args).await,
        Command::Blob(command) => releases::blob(context, command).await,
        Command::UpdateConfig(args) => configs::update(context, args).await,
        Command::UpdateCloudConfig(args) => configs::update_typed(context, "cloud", args).await,
        Command::UpdateRuntimeConfig(args) => configs::update_typed(context, "runtime", args).await,
        Command::UpdateCpiConfig(args) => configs::update_typed(context, "cpi", args).await,
        Command::Configs(args) => configs::list(context, args).await,
        Command::Config(args) => configs::show(context, args).await,
        Command::DeleteConfig(args) => configs::delete(context, args).await,
        Command::Deploy(args) => deployments::deploy(context, args).await,
        Command::Plan(args) => deployments::plan(context, args).await,
        Command::Diff(args) => deployments::diff(context, args).await,
        Command::Deployments => deployments::list(context).await,
        Command::Deployment => deployments::show(context).await,
        Command::Manifest => deployments::manifest(context).await,
        Command::DeleteDeployment(args) => deployments::delete(context, args).await,
        Command::Errands => deployments::errands(context).await,
        Command::RunErrand(args) => deployments::run_errand(context, args).await,
        Command::Logs(args) if args.follow => sessions::follow(context, args).await,
        Command::Logs(args) => logs::fetch(context, args).await,
        Command::Ssh(args) => sessions::ssh(context, args).await,
        Command::Scp(args) => sessions::scp(context, args).await,
        Command::Variables => variables::variables(context).await,
        Command::Variable(args) => variables::variable(context, args).await,
        Command::DeployedVariable(args) => variables::deployments_with(context, args).await,
        Command::Certificates => variables::certificates(context).await,
        Command::Instances(args) => instances::list(context, args).await,
        Command::Start(args) => instances::change(context, args, instances::Change::Start).await,
        Command::Stop(args) => instances::stop(context, args).await,
        Command::Restart(args) => instances::change(context, args, instances::Change::Restart).await,
        Command::Recreate(args) => instances::recreate(context, args).await,
        Command::Ignore(args) => {
            instances::ignore(context, args.instance, instances::Attention::Ignore).await
        }
        Command::Unignore(args) => {
            instances::ignore(context, args.instance, instances::Attention::Heed).await
        }
        Command::LinkProviders => links::providers(context).await,
        Command::LinkConsumers => links::consumers(context).await,
        Command::Links => links::list(context).await,
        Command::CreateLink(args) => links::create(context, args).await,
        Command::DeleteLink(args) => links::delete(context, args).await,
        Command::LinkAddress(args) => links::address(context, args).await,
        Command::OrphanedVms => instances::orphaned_vms(context).await,
        Command::Disks(_) => instances::orphaned_disks(context).await,
        Command::OrphanDisk(args) => by_hand::orphan_disk(context, args.cid).await,
        Command::AttachDisk(args) => by_hand::attach_disk(context, args).await,
        Command::DeleteVm(args) => by_hand::delete_vm(context, args.cid).await,
        Command::DeleteDisk(args) => instances::delete_disk(context, args.cid).await,
        Command::DynamicDisks => dynamic_disks::list(context).await,
        Command::CreateDynamicDisk(args) => dynamic_disks::create(context, args).await,
        Command::AttachDynamicDisk(args) => dynamic_disks::attach(context, args).await,
        Command::ProvideDynamicDisk(args) => dynamic_disks::provide(context, args).await,
        Command::DetachDynamicDisk(args) => dynamic_disks::detach(context, args.name).await,
        Command::DeleteDynamicDisk(args) => dynamic_disks::delete(context, args.name).await,
        Command::Networks(args) => networks::list(context, args.orphaned).await,
        Command::DeleteNetwork(args) => networks::delete(context, args.name).await,
        Command::ManagedNetworks { state } => networks::switch(context, state).await,
        Command::Snapshots(args) => snapshots::list(context, args.instance).await,
        Command::TakeSnapshot(args) => snapshots::take(context, args.instance).await,
        Command::DeleteSnapshot(args) => snapshots::delete(context, args.cid).await,
        Command::DeleteSnapshots => snapshots::delete_all(context).await,
        Command::CloudCheck(args) => cloud_check::check(context, args).await,
        Command::Resurrect(args) => cloud_check::resurrect(context, args).await,
        Command::CleanUp(arguments) => leftovers::clean_up(context, arguments).await,
        Command::Tasks(args) => tasks::list(context, args).await,
        Command::Task(args) => tasks::show(context, args).await,
        Command::CancelTask(args) => tasks::cancel(context, args.id).await,
        Command::Events(args) => tasks::events(context, args).await,
        Command::Locks => tasks::locks(context).await,
        Command::Health(command) => health::health(context, command).await,
        Command::Cpi(CpiCommand::Probe) => clouds::probe(context).await,
        Command::Leaks(args) => health::leaks(context, args).await,
        Command::Watch(args) => watch::watch(context, args).await,
        Command::Completions(_)
        | Command::Interpolate(_)
        | Command::CreateRelease(_)
        | Command::BuildStemcell(_) => unreachable!("run without a fleet"),
    }
}

fn completions(shell: clap_complete::Shell, console: &mut Console) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dctl", &mut script);
    Ok(console.out.write_all(&script)?)
}

impl Context<'_> {
    /// Returns the deployment to work on.
    fn deployment(&self) -> Result<String, Error> {
        let name = self.deployment.clone().filter(|name| !name.is_empty());
        name.ok_or_else(|| Error::Usage("which deployment? Give --deployment NAME or DCTL_DEPLOYMENT".into()))
    }

    /// Returns the deployment to look at, or the empty name that stands for all of them.
    fn deployment_or_all(&self) -> String {
        self.deployment.clone().unwrap_or_default()
    }

    /// Follows a task that was just started, or says how to; for programs, its end is the answer.
    async fn attend(&mut self, started: TaskStarted, wait: Wait) -> Result<(), Error> {
        if wait.detach {
            return follow::started(self.console, started.task_id);
        }
        let task = follow::to_the_end(&self.fleet, self.console, started.task_id).await?;
        if self.console.format == crate::console::Format::Programs {
            self.console.record(&tasks::record(task))?;
        }
        Ok(())
    }
}

/// What a list holds.
struct Found<T> {
    rows: Vec<T>,
    /// Everything up to this revision is in it. Of the first page: what later pages have seen is then watched twice rather
    /// than never.
    revision: u64,
}

/// Fetches page after page until there are no more, or `max` entries are there. A page is its entries, the next one's
/// token, and its revision.
async fn pages<T>(
    max: usize,
    mut fetch: impl AsyncFnMut(Page) -> Result<(Vec<T>, String, u64), Error>,
) -> Result<Found<T>, Error> {
    let mut rows = Vec::new();
    let mut token = String::new();
    let mut first = None;
    loop {
        let size = PAGE_SIZE.min(u32::try_from(max - rows.len()).unwrap_or(PAGE_SIZE));
        let (entries, next, revision) = fetch(Page { size, token: token.clone() }).await?;
        let revision = *first.get_or_insert(revision);
        let stands_still = entries.is_empty() && next == token;
        rows.extend(entries);
        if next.is_empty() || rows.len() >= max {
            rows.truncate(max);
            return Ok(Found { rows, revision });
        }
        if stands_still {
            return Err(Error::Protocol(format!("page `{next}` follows itself")));
        }
        token = next;
    }
}

/// As many as there are.
const ALL: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_end_with_the_last_token_or_enough_entries() {
        let fetch = async |page: Page| {
            let at: u32 = page.token.parse().unwrap_or(0);
            let next = if at == 4 { String::new() } else { (at + 2).to_string() };
            Ok((vec![at, at + 1], next, u64::from(7 + at)))
        };
        let found = pages(ALL, fetch).await.unwrap();
        assert_eq!((found.rows, found.revision), (vec![0, 1, 2, 3, 4, 5], 7));
        assert_eq!(pages(3, fetch).await.unwrap().rows, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_page_that_follows_itself_is_an_error() {
        let fetch = async |_: Page| Ok((Vec::<u8>::new(), "x".to_owned(), 0));
        assert!(matches!(pages(ALL, fetch).await, Err(Error::Protocol(_))));
    }
}
