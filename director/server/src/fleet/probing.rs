//! What replicas tell each other of the clouds that they can reach: whoever leads next needs them as much as who leads now.

use std::time::Duration;

use proto::peer::v1 as pb;
use proto::v1::CloudProbe;
use state::State;
use state::log::CommandLog as _;
use state::records::Member;
use tonic::Response;

use super::membership::Membership;
use crate::clouds::probe::Probe;

/// How long a replica may take to try all its clouds: more than each of them has.
const WITHIN: Duration = Duration::from_secs(25);

impl Membership {
    /// Has every member try its clouds, side by side; one that does not answer in time is none.
    pub async fn probe_clouds(&self) -> Vec<(Member, Option<Vec<CloudProbe>>)> {
        let members = {
            let view = self.log.view();
            State::new(&*view).members()
        };
        let ask = |member: Member| async move {
            if member.node == self.id {
                return (member, Some(self.probe_own_clouds().await));
            }
            let Some(mut client) = self.client(member.node) else { return (member, None) };
            let asked = client.probe_clouds(pb::ProbeOwnCloudsRequest {});
            let answer = tokio::time::timeout(WITHIN, asked).await;
            (member, answer.ok().and_then(Result::ok).map(Response::into_inner).map(|answer| answer.probes))
        };
        futures::future::join_all(members.into_iter().map(ask)).await
    }

    /// Tries this replica's clouds.
    pub async fn probe_own_clouds(&self) -> Vec<CloudProbe> {
        self.prober.probe().await.into_iter().map(message).collect()
    }
}

fn message(probe: Probe) -> CloudProbe {
    let Probe { cpi, kind, way, works, is_used, why } = probe;
    CloudProbe { cpi: cpi.to_string(), kind: kind.into(), way, works, is_used, why }
}
