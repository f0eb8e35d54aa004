//! What the front doors work with: the service, and what of this replica they need beside it.

use std::io;
use std::sync::Arc;

use agent_api::Agents;
use agent_client_grpc::RemoteAgents;
use bytes::Bytes;
use executor::ports::Vault;
use futures::{Stream, StreamExt as _};
use model::Timestamp;
use owned_tasks::OwnedTasks;
use service::ops::Wanted;
use service::{Caller, Service, ServiceError};
use state::State;
use state::log::CommandLog as _;
use tonic_health::server::HealthReporter;

use crate::auth::Doorkeeper;
use crate::expiry;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::membership::Membership;
use crate::nats::until;
use crate::secrets::Kek;

/// What the doors work with. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    /// All operations.
    pub service: Service,
    /// Who is asking.
    pub doorkeeper: Doorkeeper,
    /// The fleet's blobs.
    pub blobs: Arc<FleetBlobs>,
    /// The largest blob that may be uploaded.
    pub upload_bytes_max: u64,
    /// Whether snapshots of disks are taken, for whoever asks what this director can do.
    pub takes_snapshots: bool,
    /// Agents, for vitals.
    pub agents: Arc<dyn Agents>,
    /// What agents said last.
    pub reports: RemoteAgents,
    /// For values of variables.
    pub vault: Arc<dyn Vault>,
    /// The fleet.
    pub membership: Membership,
    /// For joining replicas.
    pub kek: Kek,
    /// Whether this replica can serve, for load balancers.
    pub health: HealthReporter,
    /// Owner of streams.
    pub tasks: OwnedTasks,
}

impl Door {
    /// Returns when the fleet's own certificates end, by what they are of: this replica's, which is renewed in time, the
    /// authority's, and of those of BOSH's agents the first. Read locally: every replica knows.
    pub(crate) async fn certificates(
        &self,
        caller: &Caller,
    ) -> Result<Vec<(String, Timestamp)>, ServiceError> {
        self.service.may_see_fleet(caller)?;
        let own = Timestamp(self.membership.peers.identity().ends_at_unix().saturating_mul(1000));
        let authorities =
            self.service.info().map(|cluster| cluster.secrets.authority_pem).unwrap_or_default();
        let authorities = expiry::of_pem(&authorities).map(|ends_at| ("fleet.authority".to_owned(), ends_at));
        let replica = (format!("replica.{}.certificate", self.membership.id), own);
        let view = self.membership.log.view();
        // The tables of VMs and agents are large.
        let agents = owned_tasks::aside(move || first_of_agents(&State::new(&*view))).await;
        Ok(authorities.chain([replica]).chain(agents.ok().flatten()).collect())
    }

    /// Returns the wish for an archive that somebody else keeps.
    pub(crate) fn wanted(&self, location: String, digest: Option<String>) -> Wanted {
        let vault = self.vault.clone();
        Wanted { location, digest, seal: Box::new(move |name, value| vault.seal(name, value)) }
    }
}

/// Returns when the first certificate of an agent of BOSH's ends, and whose.
fn first_of_agents(state: &State<'_>) -> Option<(String, Timestamp)> {
    let theirs = state.all_vms().into_iter().filter(|vm| vm.is_current() && vm.stemcell.has_bosh_s_agent());
    // Where there is no bus, they are taken for ours, and have enrolled as those do.
    let on_bus = theirs.filter_map(|vm| {
        state.agent(&vm.agent).filter(|agent| agent.key_digest.is_none()).map(|agent| (vm, agent))
    });
    let ends = on_bus.map(|(vm, agent)| (until(&agent, &vm), vm.instance));
    let (until, instance) = ends.min_by_key(|(until, _)| *until)?;
    let slug = state.instance(&instance).map_or_else(|| instance.to_string(), |instance| instance.slug());
    Some((format!("agent.{slug}.certificate"), until))
}

/// Ends the content with an error once it is larger than allowed: nothing of it is kept then.
pub fn at_most(
    bytes_max: u64,
    content: impl Stream<Item = io::Result<Bytes>> + Send,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let mut seen = 0u64;
    content.map(move |part| {
        let part = part?;
        seen = seen.saturating_add(part.len() as u64);
        if seen > bytes_max {
            let text = format!("it is larger than {} MiB (blobs.upload_mib_max)", bytes_max >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(part)
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio_util::io::StreamReader;

    use super::*;

    #[tokio::test]
    async fn an_upload_that_is_too_large_ends_with_an_error() {
        for (sent, accepted) in [(4, true), (5, false), (9, false)] {
            let parts = futures::stream::iter((0..sent).map(|_| Ok(Bytes::from_static(b"x"))));
            let mut reader = StreamReader::new(Box::pin(at_most(4, parts)));
            let read = reader.read_to_end(&mut Vec::new()).await;
            assert_eq!(read.is_ok(), accepted, "{sent}: {read:?}");
        }
    }
}
