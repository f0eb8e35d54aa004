//! A job of a release directory, and the release's licence.

use std::path::Path;

use serde_json::Value;

use super::files::{Links, ModeCounts, Source, archive, fingerprint};
use super::manifest::Built;
use super::{CreateError, read_yaml, text, text_list};
use crate::archive::pack::Packing;

/// Builds the job in `folder`.
pub(super) fn build(_root: &Path, folder: &Path, scratch: &Path) -> Result<Built, CreateError> {
    let spec_path = folder.join("spec");
    let spec = read_yaml(&spec_path)?;
    let name = text(&spec_path, &spec, "name")?;
    if folder.file_name().is_none_or(|folder_name| folder_name != name.as_str()) {
        return Err(CreateError::invalid(
            &spec_path,
            format!("gives the name '{name}', which is not its folder's"),
        ));
    }
    let mut sources = vec![source("job.MF", &spec_path)];
    for optional in ["monit", "properties_schema.json"] {
        let path = folder.join(optional);
        if path.exists() {
            sources.push(source(optional, &path));
        }
    }
    let templates = match spec.get("templates") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(templates)) => templates.keys().cloned().collect(),
        Some(_) => return Err(CreateError::invalid(&spec_path, "has templates that are not a hash")),
    };
    for template in &templates {
        let path = folder.join("templates").join(template);
        if !path.is_file() {
            return Err(CreateError::invalid(
                &path,
                format!("is missing: job '{name}' lists it as a template"),
            ));
        }
        sources.push(source(&format!("templates/{template}"), &path));
    }
    let fingerprint = fingerprint(&sources, &[])?;
    let to = scratch.join(format!("{name}.tgz"));
    archive(&sources, Packing::Compressed, &to)?;
    let packages = text_list(&spec_path, &spec, "packages")?;
    Built::new(name, fingerprint, to, sources).map(|built| Built { dependencies: packages, ..built })
}

/// Builds the licence from the `LICENSE*` and `NOTICE*` files of the release's root; none if there are none.
pub(super) fn build_license(root: &Path, scratch: &Path) -> Result<Option<Built>, CreateError> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(root).map_err(CreateError::file("list", root))? {
        let entry = entry.map_err(CreateError::file("list", root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (name.starts_with("LICENSE") || name.starts_with("NOTICE")) && !entry.path().is_dir() {
            let (label, path) = (name, entry.path());
            sources.push(Source { label, path, mode: ModeCounts::No, links: Links::Kept });
        }
    }
    if sources.is_empty() {
        return Ok(None);
    }
    sources.sort_by(|a, b| a.label.cmp(&b.label));
    let fingerprint = fingerprint(&sources, &[])?;
    let to = scratch.join("license.tgz");
    archive(&sources, Packing::Compressed, &to)?;
    Built::new("license".to_owned(), fingerprint, to, sources).map(Some)
}

fn source(label: &str, path: &Path) -> Source {
    Source { label: label.to_owned(), path: path.to_owned(), mode: ModeCounts::Yes, links: Links::Followed }
}
