//! `cpi …`: the clouds, as the replicas see them.

use proto::v1::cluster_client::ClusterClient;
use proto::v1::{CloudProbe, ProbeCloudsRequest, ReplicaClouds};

use super::Context;
use crate::call;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const PROBES: &[Column] = &[
    column("Replica", "replica"),
    column("CPI", "cpi"),
    column("Kind", "kind"),
    column("VMs by", "way"),
    column("Works", "works"),
    column("Used", "is_used"),
    column("What was found", "why"),
];

/// Shows what each replica has found. One that can't reach a cloud is an error, since it may lead next.
pub(super) async fn probe(context: &mut Context<'_>) -> Result<(), Error> {
    let answer = call!(context.fleet, ClusterClient.probe_clouds(ProbeCloudsRequest {})).await?;
    let missing = missing(&answer.replicas);
    let rows = answer.replicas.into_iter().flat_map(|replica| {
        let ReplicaClouds { node_id, answered, probes, .. } = replica;
        let silent = CloudProbe { why: "the replica did not answer".into(), ..CloudProbe::default() };
        let probes = if answered { probes } else { vec![silent] };
        probes.into_iter().map(move |probe| (node_id, probe))
    });
    let listing = Listing::of("probes", PROBES, rows, |(node_id, probe)| {
        let CloudProbe { cpi, kind, way, works, is_used, why } = probe;
        let cells = [cpi, kind, way].map(|text| if text.is_empty() { Cell::None } else { text.into() });
        let [cpi, kind, way] = cells;
        [Cell::Number(node_id), cpi, kind, way, Cell::Flag(works), Cell::Flag(is_used), why.into()]
    });
    context.console.list(&listing)?;
    if missing.is_empty() { Ok(()) } else { Err(Error::CloudsMissing(missing)) }
}

/// Returns which replica lacks which cloud, in words.
fn missing(replicas: &[ReplicaClouds]) -> Vec<String> {
    let of = |replica: &ReplicaClouds| {
        if !replica.answered {
            return vec![format!("replica {} did not answer", replica.node_id)];
        }
        let lacking = replica.probes.iter().filter(|probe| probe.is_used && !probe.works);
        let told =
            |probe: &CloudProbe| format!("replica {} can't use {}", replica.node_id, called(&probe.cpi));
        lacking.map(told).collect()
    };
    replicas.iter().flat_map(of).collect()
}

fn called(cpi: &str) -> String {
    if cpi.is_empty() { "the default cloud".into() } else { format!("the cloud `{cpi}`") }
}
