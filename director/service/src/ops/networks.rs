//! Networks that directors make: whether they do, which there are, and having those deleted that nobody uses any more.

use model::managed_network::ManagedNetwork;
use model::task::TaskKind;
use model::{ErrorCode, LockName, NetworkName, RequestId, TaskId, Timestamp};
use state::State;
use state::command::Command;
use state::records::Setting;

use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

/// How long an orphaned network is kept for whoever wants it back, as in BOSH: a day.
pub const NETWORKS_KEPT_MS: i64 = 24 * 3600 * 1000;

/// Which networks are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichNetworks {
    /// All that directors have made.
    All,
    /// Those that nobody uses any more.
    Orphaned,
}

/// Networks, and whether directors make any.
#[derive(Clone, Debug)]
pub struct Networks {
    /// The networks.
    pub list: List<ManagedNetwork>,
    /// Whether directors make networks.
    pub are_made: bool,
}

/// Returns the lock of whoever deletes networks.
pub fn networks_lock() -> LockName {
    LockName::new("lock:networks")
}

/// Returns the networks that have been orphaned for longer than they are kept, and in which nobody lives.
pub fn networks_to_delete(state: &State<'_>, now: Timestamp) -> Vec<NetworkName> {
    let is_old = |network: &ManagedNetwork| {
        network.orphaned_at.is_some_and(|since| now.0.saturating_sub(since.0) > NETWORKS_KEPT_MS)
    };
    let old = state.networks().into_iter().filter(is_old).map(|network| network.name);
    old.filter(|name| !state.is_lived_in(name)).collect()
}

impl Service {
    /// Lists networks that directors have made, by name.
    pub async fn networks(
        &self,
        caller: &Caller,
        which: WhichNetworks,
        page: &Page,
    ) -> Result<Networks, ServiceError> {
        caller.needs(Right::Admin, "list networks")?;
        let list = self.list(Read::Linearizable, page, move |state, page| {
            let wanted =
                |network: &ManagedNetwork| which == WhichNetworks::All || network.orphaned_at.is_some();
            page.cut(state.networks().into_iter().filter(wanted), |network| network.name.clone())
        });
        let list = list.await?;
        let view = self.log().view();
        Ok(Networks { list, are_made: State::new(&*view).makes_networks() })
    }

    /// Deletes networks that nobody uses any more. The task fails for those that there are none of, or that are used.
    pub async fn delete_orphaned_networks(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        networks: Vec<NetworkName>,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete networks")?;
        if networks.is_empty() || networks.iter().any(|name| name.as_str().is_empty()) {
            return Err(ServiceError::told(ErrorCode::BadRequest, "which network? Give its name"));
        }
        let kind = TaskKind::DeleteOrphanedNetworks { networks };
        self.queue(caller, request_id, kind, None, "", vec![networks_lock()]).await
    }

    /// Has directors make networks, or not. They can't stop to while deployments use some.
    pub async fn set_managed_networks(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        are_made: bool,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "switch managed networks")?;
        let setting = Setting::ManagedNetworks(are_made);
        self.propose(caller, request_id, Command::SettingPut { setting }).await.map(|_| ())
    }
}
