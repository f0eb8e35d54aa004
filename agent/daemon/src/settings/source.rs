//! One place where settings may be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{drive, http};
use crate::error::ActionError;

/// A source, as `agent.json` has it.
#[derive(Debug, Deserialize)]
#[serde(tag = "Type")]
pub(super) enum Source {
    /// A file.
    File {
        #[serde(rename = "SettingsPath")]
        settings_path: PathBuf,
    },
    /// A file on a CD.
    #[serde(rename = "CDROM")]
    Cdrom {
        #[serde(rename = "FileName")]
        file_name: PathBuf,
    },
    /// A file on the first of some disks that has it.
    ConfigDrive {
        #[serde(rename = "DiskPaths")]
        disk_paths: Vec<PathBuf>,
        #[serde(rename = "UserDataPath")]
        user_data_path: PathBuf,
    },
    /// The metadata of a cloud, whose user data are the settings.
    #[serde(rename = "HTTP")]
    Http {
        #[serde(rename = "URI")]
        uri: String,
        #[serde(rename = "Headers", default)]
        headers: BTreeMap<String, String>,
        #[serde(rename = "UserDataPath")]
        user_data_path: String,
        #[serde(rename = "TokenPath", default)]
        token_path: String,
    },
    /// The metadata of a cloud, with a path for the settings.
    InstanceMetadata {
        #[serde(rename = "URI")]
        uri: String,
        #[serde(rename = "Headers", default)]
        headers: BTreeMap<String, String>,
        #[serde(rename = "SettingsPath")]
        settings_path: String,
    },
}

/// Where Linux has its CD.
const CDROM: &str = "/dev/sr0";

impl Source {
    pub fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "File",
            Self::Cdrom { .. } => "CDROM",
            Self::ConfigDrive { .. } => "ConfigDrive",
            Self::Http { .. } => "HTTP",
            Self::InstanceMetadata { .. } => "InstanceMetadata",
        }
    }

    /// Returns the document that is there.
    pub async fn document(&self) -> Result<Vec<u8>, ActionError> {
        match self {
            Self::File { settings_path } => {
                tokio::fs::read(settings_path).await.map_err(ActionError::file("read", settings_path))
            }
            Self::Cdrom { file_name } => drive::file_on(CDROM.as_ref(), file_name).await,
            Self::ConfigDrive { disk_paths, user_data_path } => {
                let mut last = ActionError::failed("no disk is named");
                for disk in disk_paths {
                    match drive::file_on(disk, user_data_path).await {
                        Ok(content) => return decoded(&content),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Self::Http { uri, headers, user_data_path, token_path } => {
                let token = match token_path.as_str() {
                    "" => None,
                    path => Some(http::token(uri, path).await?),
                };
                let token = token.map(|token| (http::TOKEN.to_owned(), token));
                let headers: Vec<_> = headers.clone().into_iter().chain(token).collect();
                decoded(&http::get(uri, user_data_path, &headers).await?)
            }
            Self::InstanceMetadata { uri, headers, settings_path } => {
                let headers: Vec<_> = headers.clone().into_iter().collect();
                http::get(uri, settings_path, &headers).await
            }
        }
    }
}

/// Returns user data, which some clouds hand on in base64 only, or between quotes.
fn decoded(user_data: &[u8]) -> Result<Vec<u8>, ActionError> {
    let trimmed = user_data.trim_ascii();
    if trimmed.starts_with(b"{") {
        return Ok(trimmed.to_vec());
    }
    let text = trimmed.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(trimmed);
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'=').collect();
    URL_SAFE_NO_PAD
        .decode(&text)
        .or_else(|_| STANDARD_NO_PAD.decode(&text))
        .map_err(|_| ActionError::failed("the user data are neither JSON nor base64"))
}
