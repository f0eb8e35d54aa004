//! `sync_dns`: the records of all instances, where jobs and the resolver read them; and `sync_dns_health`, how they fare.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use agent_api::Fares;
use model::BlobDigest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest;
use crate::durable::{self, Readers};
use crate::error::{ActionError, blocking};
use crate::machine::Order;
use crate::real::RealMachine;

/// The largest document there is: some hundred bytes for each address of tens of thousands of instances.
const BYTES_MAX: u64 = 64 << 20;

/// What of the document is looked at here. The rest is for those who answer names.
#[derive(Deserialize)]
struct Document {
    version: u64,
    #[serde(default)]
    records: Vec<(String, String)>,
}

pub(super) async fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let blob = BlobDigest::new(order.text(0)?);
    let (digest, version) = (order.text(1)?.to_owned(), order.argument::<u64>(2, "a version")?);
    let path = machine.layout.dns_records();
    // What can't be read counts as nothing: it is fetched again.
    if read(&path).is_some_and(|there| there.version >= version) {
        return Ok(json!("synced"));
    }
    let fetched = machine.layout.tmp().join(format!("dns-{}", uuid::Uuid::new_v4()));
    machine.blobs.fetch(&blob, &fetched).await?;
    let (hosts, agent) = (machine.platform.hosts(), machine.settings.agent_id.to_string());
    let platform = machine.platform.clone();
    let installed = blocking({
        let fetched = fetched.clone();
        move || {
            let content = checked(&fetched, &digest, version)?;
            if let Some(hosts) = hosts {
                let text = hosts_of(&agent, &content.1.records);
                durable::write(hosts, text.as_bytes(), Readers::All)
                    .map_err(ActionError::file("write", hosts))?;
            }
            durable::write(&path, &content.0, Readers::Group).map_err(ActionError::file("write", &path))?;
            platform.give(&path).map_err(ActionError::file("give away", &path))
        }
    })
    .await;
    // It has been copied, or is of no use.
    let _ = tokio::fs::remove_file(&fetched).await;
    installed?;
    machine.names.read_records(&machine.layout.dns_records());
    Ok(json!("synced"))
}

/// `sync_dns_health`: how the instances in the records fare, for the resolver.
pub(super) async fn health(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let fares: Fares = order.argument(0, "how instances fare")?;
    let taken = machine.names.set_fares(&fares);
    if !taken.map_err(|error| ActionError::failed(error.to_string()))? {
        return Ok(json!("synced"));
    }
    // For the next life of the agent.
    let path = machine.layout.dns_health();
    blocking(move || {
        durable::write_json(&path, &fares, Readers::Group).map_err(ActionError::file("write", &path))
    })
    .await?;
    Ok(json!("synced"))
}

fn read(path: &Path) -> Option<Document> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Returns the bytes of what was fetched, if it is what was asked for.
fn checked(fetched: &Path, digest: &str, version: u64) -> Result<(Vec<u8>, Document), ActionError> {
    let file = std::fs::File::open(fetched).map_err(ActionError::file("open", fetched))?;
    let mut content = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut content).map_err(ActionError::file("read", fetched))?;
    if content.len() as u64 > BYTES_MAX {
        return Err(ActionError::failed(format!("DNS records are larger than {} MiB", BYTES_MAX >> 20)));
    }
    let matches = digest::content_matches(&content[..], digest);
    if !matches.map_err(|error| ActionError::failed(format!("DNS records: {error}")))? {
        return Err(ActionError::failed(format!("DNS records do not have digest `{digest}`")));
    }
    let document: Document = serde_json::from_slice(&content)
        .map_err(|error| ActionError::failed(format!("DNS records can't be read: {error}")))?;
    if document.version != version {
        return Err(ActionError::failed(format!(
            "DNS records are of version {}, not of version {version}",
            document.version
        )));
    }
    Ok((content, document))
}

/// Returns the text of a hosts file. What is not an address and a name is left out: it would make the file another one.
fn hosts_of(agent: &str, records: &[(String, String)]) -> String {
    let mut text = format!(
        "127.0.0.1 localhost {agent}\n\n::1 localhost ip6-localhost ip6-loopback {agent}\nfe00::0 ip6-localnet\n\
         ff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\nff02::3 ip6-allhosts\n"
    );
    for (ip, name) in records {
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if is_name && ip.parse::<std::net::IpAddr>().is_ok() {
            // Text can be written to always.
            let _ = writeln!(text, "{ip} {name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: u64) -> String {
        json!({ "version": version, "records": [["10.0.0.1", "i.g.n.d.bosh"]], "more": true }).to_string()
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let fetched = folder.path().join("blob");
        std::fs::write(&fetched, document(3)).unwrap();
        let digest = format!("sha256:{}", digest::sha256_hex(&document(3)));
        let (content, read) = checked(&fetched, &digest, 3).unwrap();
        assert_eq!((content, read.version), (document(3).into_bytes(), 3), "the bytes are kept as they are");
        let said = |digest: &str, version| match checked(&fetched, digest, version) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said(&digest, 4).contains("of version 3, not of version 4"));
        assert!(said(&format!("sha256:{}", "0".repeat(64)), 3).contains("do not have digest"));
        std::fs::write(&fetched, "{}").unwrap();
        assert!(said(&format!("sha256:{}", digest::sha256_hex("{}")), 3).contains("can't be read"));
    }

    #[test]
    fn hosts_name_the_agent_and_every_record() {
        let record = |ip: &str, name: &str| (ip.to_owned(), name.to_owned());
        let text = hosts_of("a-1", &[record("10.0.0.1", "i.g.n.d.bosh"), record("fd00::1", "j.g.n.d.bosh")]);
        assert!(text.starts_with("127.0.0.1 localhost a-1\n"));
        assert!(text.ends_with("\n10.0.0.1 i.g.n.d.bosh\nfd00::1 j.g.n.d.bosh\n"));
        let forged = hosts_of("a-1", &[record("10.0.0.1", "x\n6.6.6.6 bank"), record("nowhere", "y")]);
        assert_eq!(forged, hosts_of("a-1", &[]));
    }
}
