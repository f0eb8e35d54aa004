//! What clients followed and what they uploaded, beside what is stored, on every replica.

use anyhow::{Context as _, Result};
use checkers::output::Followed;
use checkers::{Findings, Report, output};
use dctl::error::Error;

use crate::cluster::Cluster;
use crate::workloads::Observed;

/// Judges every followed output by what each replica has stored of it.
pub(super) async fn check(cluster: &Cluster, observed: &Observed) -> Result<Report> {
    let mut outputs = Vec::new();
    for replica in cluster.members().await? {
        let client = cluster.client_of(replica)?;
        for (task, kind, followed) in &observed.followed {
            let stored = dctl::follow::read(&client.fleet, *task, *kind).await;
            let stored = stored.with_context(|| format!("read {} on director-{replica}", followed.name))?;
            let name = format!("{}, stored on director-{replica}", followed.name);
            outputs.push(Followed { name, stored, ..followed.clone() });
        }
    }
    Ok(output::check(&outputs).report("output"))
}

/// Reads every uploaded file back from each replica.
pub(super) async fn check_blobs(cluster: &Cluster, observed: &Observed) -> Result<Report> {
    let mut found = Findings::<String> { violations: observed.damaged.clone(), ..Findings::default() };
    let mut readings = 0;
    for replica in cluster.members().await? {
        let client = cluster.client_of(replica)?;
        for blob in &observed.blobs {
            let mut bytes = Vec::new();
            let read = client.fleet.download(&blob.digest, &mut bytes).await;
            readings += 1;
            let wrong = match read {
                Ok(_) if bytes == blob.bytes => continue,
                Ok(_) => "is something else".to_owned(),
                Err(Error::Refused { message, .. } | Error::Protocol(message)) => message,
                Err(error) => {
                    return Err(error).with_context(|| format!("read a blob on director-{replica}"));
                }
            };
            found.violations.push(format!("blob {} on director-{replica}: {wrong}", blob.digest));
        }
    }
    found.looked_at = vec![("files", observed.blobs.len()), ("readings", readings)];
    Ok(found.report("blobs"))
}
