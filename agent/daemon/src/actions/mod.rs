//! What an agent can do, one file per action. Names, arguments and results are BOSH's.

mod apply;
mod compile_package;
mod disks;
mod drain;
mod fetch_logs;
mod get_state;
mod install;
mod prepare;
mod run_errand;
mod run_script;
mod shutdown;
mod ssh;
mod start;
mod stop;
mod sync_dns;
mod update_settings;
mod upload_blob;

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::{Order, Work};
use crate::method::Method;
use crate::real::RealMachine;

/// Does one action.
pub(crate) async fn perform(machine: &RealMachine, order: Order, work: &Work) -> Result<Value, ActionError> {
    match order.method {
        Method::Ping => Ok(json!("pong")),
        Method::Info => Ok(json!({ "api_version": 1 })),
        Method::GetState => get_state::run(machine, &order),
        Method::UpdateSettings => update_settings::run(machine, &order).await,
        Method::UploadBlob => upload_blob::run(machine, order).await,
        Method::Prepare => prepare::run(machine, &order).await,
        Method::Apply => apply::run(machine, &order).await,
        Method::Start => start::run(machine),
        Method::Stop => stop::run(machine).await,
        Method::Shutdown => shutdown::run(machine).await,
        Method::Drain => drain::run(machine, &order, work).await,
        Method::RunScript => run_script::run(machine, &order, work).await,
        Method::RunErrand => run_errand::run(machine, &order, work).await,
        Method::CompilePackage => compile_package::run(machine, &order, work).await,
        Method::ListDisk => disks::list(machine),
        Method::AddPersistentDisk => disks::add(machine, &order),
        Method::RemovePersistentDisk => disks::remove(machine, &order),
        Method::AddDynamicDisk => disks::add_dynamic(machine, &order),
        Method::RemoveDynamicDisk => disks::remove_dynamic(machine, &order),
        Method::MountDisk => disks::mount(machine, &order).await,
        Method::UnmountDisk => disks::unmount(machine, &order).await,
        Method::MigrateDisk => disks::migrate(machine, &order).await,
        Method::FetchLogs => fetch_logs::run(machine, &order, work).await,
        Method::Ssh => ssh::run(machine, &order).await,
        Method::SyncDns => sync_dns::run(machine, &order).await,
        Method::SyncDnsHealth => sync_dns::health(machine, &order).await,
    }
}
