//! `upload_blob`: bytes that only this VM may have, until `prepare` or `apply` installs them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest;
use crate::durable::{self, Readers};
use crate::error::{ActionError, blocking};
use crate::machine::Order;
use crate::real::RealMachine;

#[derive(Deserialize)]
struct Upload {
    blob_id: String,
    checksum: String,
}

pub(super) async fn run(machine: &RealMachine, order: Order) -> Result<Value, ActionError> {
    let upload: Upload = order.argument(0, "`{blob_id, checksum}`")?;
    let path = path(&machine.layout.sensitive_blobs(), &upload.blob_id)
        .ok_or_else(|| ActionError::failed(format!("`{}` is no id for a blob", upload.blob_id)))?;
    let (blob_id, content) = (upload.blob_id, order.content);
    blocking(move || {
        let matches = digest::content_matches(&content[..], &upload.checksum);
        if !matches.map_err(|error| ActionError::failed(format!("the uploaded content: {error}")))? {
            let digest = upload.checksum;
            return Err(ActionError::failed(format!("uploaded content does not have digest `{digest}`")));
        }
        durable::write(&path, &content, Readers::Owner).map_err(ActionError::file("write", &path))
    })
    .await?;
    Ok(json!(blob_id))
}

/// Returns where an uploaded blob is; `None` for an id that would lead elsewhere.
pub(super) fn path(directory: &Path, blob_id: &str) -> Option<PathBuf> {
    let plain = blob_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (plain && !blob_id.is_empty()).then(|| directory.join(blob_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_not_lead_out_of_the_directory() {
        for bad in ["", "..", "a/b", "/etc/passwd", "a.b"] {
            assert_eq!(path(Path::new("/d"), bad), None, "{bad}");
        }
        assert_eq!(path(Path::new("/d"), "3f-a_1"), Some(PathBuf::from("/d/3f-a_1")));
    }
}
