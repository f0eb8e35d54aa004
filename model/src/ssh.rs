//! Users for operators on machines: which, and on whose.

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// What is done about an operator's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SshCommand {
    /// One is made.
    Setup {
        /// Its name.
        user: String,
        /// By which it may log in, as a line of `authorized_keys`.
        public_key: String,
    },
    /// Those that match are removed.
    Cleanup {
        /// An expression for their names.
        user_regex: String,
    },
}

/// Whose machines, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshTarget {
    /// The group; all groups if absent.
    pub group: Option<GroupName>,
    /// Indexes, or UUIDs; all instances if there are none.
    pub ids: Vec<String>,
    /// The same once more.
    pub indexes: Vec<String>,
}

impl SshTarget {
    /// Returns whether an instance is meant. An all-digits id is an index, as everywhere in BOSH.
    pub fn is_for(&self, group: &GroupName, index: u32, id: &InstanceId) -> bool {
        let is_it = |named: &String| match named.parse::<u32>() {
            Ok(number) => number == index,
            Err(_) => named == id.as_str(),
        };
        let mut named = self.ids.iter().chain(&self.indexes).peekable();
        self.group.as_ref().is_none_or(|wanted| wanted == group)
            && (named.peek().is_none() || named.any(is_it))
    }

    /// Returns what was asked for, for errors.
    pub fn shown(&self, deployment: &DeploymentName) -> String {
        let group =
            self.group.as_ref().map(|group| format!("job: {:?}, ", group.as_str())).unwrap_or_default();
        let ids: Vec<&str> = self.ids.iter().map(String::as_str).collect();
        let ids = if ids.is_empty() { String::new() } else { format!("index: [{}], ", ids.join(", ")) };
        format!("{{{group}{ids}deployment: {:?}}}", deployment.as_str())
    }

    /// As BOSH describes its tasks.
    pub(crate) fn described(&self) -> String {
        let list = |all: &[String]| {
            let all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
            format!("[{}]", all.join(", "))
        };
        let group = self.group.as_ref().map_or("nil".to_owned(), |group| format!("{:?}", group.as_str()));
        format!(r#"{{"ids" => {}, "indexes" => {}, "job" => {group}}}"#, list(&self.ids), list(&self.indexes))
    }
}
