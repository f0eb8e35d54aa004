//! `update_settings`: trusted certificates and disk associations. Both are replaced; what is not sent is cleared.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::archive;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::machine::Order;
use crate::platform::DiskSource;
use crate::real::RealMachine;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    trusted_certs: Option<String>,
    disk_associations: Option<Vec<Association>>,
}

#[derive(Serialize, Deserialize)]
struct Association {
    name: String,
    cid: String,
}

pub(super) async fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let settings: Settings = order.argument(0, "settings")?;
    let associations = settings.disk_associations.as_deref().unwrap_or_default();
    let links = associations
        .iter()
        .map(|association| Ok((association.name.clone(), machine.disks.source(&association.cid)?)))
        .collect::<Result<Vec<_>, ActionError>>()?;
    associate(&machine.layout.instance().join("disks"), &links)?;
    let certificates = split(settings.trusted_certs.as_deref().unwrap_or_default());
    machine.platform.trust(&certificates, &machine.layout.bosh()).await?;
    let path = machine.layout.update_settings();
    durable::write_json(&path, &settings, Readers::Owner).map_err(ActionError::file("write", &path))?;
    Ok(json!("ok"))
}

/// Makes the links in `directory` exactly these.
fn associate(directory: &Path, links: &[(String, DiskSource)]) -> Result<(), ActionError> {
    std::fs::create_dir_all(directory).map_err(ActionError::file("create", directory))?;
    let entries = std::fs::read_dir(directory).map_err(ActionError::file("read", directory))?;
    for entry in entries.flatten() {
        if !links.iter().any(|(name, _)| *name == entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path()).map_err(ActionError::file("unlink", &entry.path()))?;
        }
    }
    for (name, source) in links {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(ActionError::failed(format!("`{name}` is no name for a disk")));
        }
        archive::link(source.path(), &directory.join(name))?;
    }
    Ok(())
}

/// Splits a PEM bundle into certificates.
fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = Vec::new();
    let mut rest = bundle;
    while let Some(at) = rest.find(END) {
        let (certificate, after) = rest.split_at(at + END.len());
        certificates.push(format!("{}\n", certificate.trim()));
        rest = after;
    }
    certificates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_by_their_names_and_by_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let (links, old, new) = (dir.path().join("disks"), dir.path().join("old"), dir.path().join("new"));
        let disk = |path: &Path| {
            std::fs::create_dir_all(path).unwrap();
            DiskSource::of(&json!({ "path": path, "kind": "directory" })).unwrap()
        };
        let named = |name: &str, path: &Path| (name.to_owned(), disk(path));
        associate(&links, &[named("data", &old), named("wal", &old)]).unwrap();
        for _ in 0..2 {
            associate(&links, &[named("data", &new)]).unwrap();
            assert_eq!(std::fs::read_link(links.join("data")).unwrap(), new);
            assert!(!links.join("wal").is_symlink());
        }
        for name in ["a/b", "..", ""] {
            assert!(associate(&links, &[named(name, &new)]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_bundle_is_split_into_certificates() {
        let one = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----";
        assert_eq!(split(&format!("{one}\n\n{one}\n")), [format!("{one}\n"), format!("{one}\n")]);
        assert!(split("").is_empty());
    }
}
