//! What must not be read. CPIs repeat their requests in their logs and, some, in errors, so hiding what we know has to be
//! done by value.
//!
//! A log is for whoever looks after the CPI, and shows none of its configuration. An error is for everybody, and says
//! which region or which instance type is wrong: only what is secret by its name or its looks is hidden there.

use std::collections::BTreeSet;

use cpi_api::Call;
use serde_json::Value;

use crate::Program;

/// Shorter values are too common to be told from other text, and too short to be secrets.
const SECRET_CHARS_MIN: usize = 6;

/// Parts of the names of keys whose values are secret: what CPIs call passwords, keys and the files that hold them.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "private",
    "token",
    "credential",
    "access_key",
    "api_key",
    "apikey",
    "json_key",
];

/// The secret values of one call.
pub struct Secrets {
    /// Everything of the configuration and the request.
    all: Vec<String>,
    /// What is secret by its name or its looks.
    named: Vec<String>,
}

impl Secrets {
    /// Collects them: the CPI's properties, and what the call has of cloud properties and env.
    pub fn of(program: &Program, call: &Call) -> Self {
        let mut found = Found::default();
        program.properties.iter().for_each(|(key, value)| found.take(key, value));
        match call {
            Call::CreateVm(request) => {
                found.take("", &request.cloud_properties);
                request.networks.iter().for_each(|network| found.take("", &network.cloud_properties));
                found.take("", &request.env);
                found.take_secret(&request.bootstrap.token);
                let mbus = request.bootstrap.mbus.iter();
                mbus.for_each(|mbus| found.take_secret(&mbus.private_key_pem));
                found.all.retain(|value| !is_named(&request.env, value));
            }
            Call::CreateDisk(disk) => found.take("", &disk.cloud_properties),
            _ => {}
        }
        Self { all: as_written(found.all), named: as_written(found.named) }
    }

    /// Returns a text of a log with everything hidden that the CPI was told.
    pub fn hide(&self, text: &str) -> String {
        hide(&self.all, text)
    }

    /// Returns a text for everybody with what is secret hidden.
    pub fn hide_named(&self, text: &str) -> String {
        hide(&self.named, text)
    }
}

fn hide(values: &[String], text: &str) -> String {
    values.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), "<redacted>"))
}

/// Values while they are collected.
#[derive(Default)]
struct Found {
    all: BTreeSet<String>,
    named: BTreeSet<String>,
}

impl Found {
    /// Adds every text of a value that stands under `key`.
    fn take(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(text) if is_secret(key, text) => self.take_secret(text),
            Value::String(text) => {
                if let Some(password) = password_in_url(text) {
                    self.take_secret(password);
                }
                self.all.insert(text.clone());
            }
            Value::Array(items) => items.iter().for_each(|item| self.take(key, item)),
            Value::Object(map) => map.iter().for_each(|(inner, item)| {
                // What is below a secret is one, whatever it is called.
                self.take(if is_secret_name(key) { key } else { inner }, item);
            }),
            _ => {}
        }
    }

    fn take_secret(&mut self, text: &str) {
        self.all.insert(text.to_owned());
        self.named.insert(text.to_owned());
    }
}

fn is_secret(key: &str, text: &str) -> bool {
    is_secret_name(key) || text.contains("PRIVATE KEY-----")
}

/// Returns the password of `scheme://user:password@host`.
fn password_in_url(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (login, _host) = authority.rsplit_once('@')?;
    login.split_once(':').map(|(_user, password)| password)
}

fn is_secret_name(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_NAMES.iter().any(|part| key.contains(part))
}

/// Returns values as texts repeat them, also in JSON. Longest first: one may be a part of another.
fn as_written(values: BTreeSet<String>) -> Vec<String> {
    let mut all: Vec<String> = values
        .into_iter()
        .flat_map(|value| {
            let written = Value::String(value.clone()).to_string();
            [written.trim_matches('"').to_owned(), value]
        })
        .filter(|value| value.chars().count() >= SECRET_CHARS_MIN)
        .collect();
    all.sort_by_key(|value| std::cmp::Reverse(value.len()));
    all.dedup();
    all
}

/// Groups and tags name the VM; they are in every log of the director.
fn is_named(env: &Value, value: &str) -> bool {
    let mut names = Found::default();
    ["group", "groups", "tags"].into_iter().for_each(|key| names.take("", &env["bosh"][key]));
    names.all.contains(value)
}

#[cfg(test)]
mod tests {
    use cpi_api::{AgentBootstrap, CreateVm, Mbus};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_hidden_wherever_it_is_repeated_and_in_json_too() {
        let properties = json!({ "key": "s3cr3t-\"quoted\"", "nested": [{ "pem": "BEGIN\nEND" }], "n": 5 });
        let program = Program {
            path: "/cpi".into(),
            guard: Vec::new(),
            director_uuid: "d".into(),
            properties: properties.as_object().cloned().unwrap_or_default(),
        };
        let secrets = Secrets::of(&program, &Call::Info);
        let told = secrets.hide(&format!("got {properties} and s3cr3t-\"quoted\", region z1"));
        assert!(!told.contains("s3cr3t") && !told.contains("BEGIN"), "{told}");
        assert!(told.ends_with(", region z1"), "{told}");
    }

    #[test]
    fn an_error_hides_what_is_secret_and_says_what_is_wrong() {
        let properties = json!({
            "region": "eu-central-9", "default_key_name": "operators", "secret_access_key": "AKIA5555",
            "users": [{ "name": "deployer", "api_password": ["correct-horse"] }],
            "openstack": { "api_key": "8f3a9c77", "auth_url": "https://10.0.0.9:5000/v3" },
            "agent": { "mbus": "nats://nats:nats-word@10.0.0.6:4222" },
            "certificate": "-----BEGIN PRIVATE KEY-----\nabcdef\n-----END PRIVATE KEY-----",
        });
        let program = Program {
            path: "/cpi".into(),
            guard: Vec::new(),
            director_uuid: "d".into(),
            properties: properties.as_object().cloned().unwrap_or_default(),
        };
        let told = Secrets::of(&program, &Call::Info).hide_named(&format!("bad region in {properties}"));
        assert!(
            told.contains("eu-central-9") && told.contains("operators") && told.contains("deployer"),
            "{told}"
        );
        assert!(told.contains("https://10.0.0.9:5000/v3") && told.contains("@10.0.0.6:4222"), "{told}");
        let secrets = ["AKIA5555", "correct-horse", "abcdef", "8f3a9c77", "nats-word"];
        assert!(secrets.iter().all(|secret| !told.contains(secret)), "{told}");
    }

    #[test]
    fn the_key_of_an_agent_of_bosh_s_is_hidden() {
        let program = Program {
            path: "/cpi".into(),
            guard: Vec::new(),
            director_uuid: "d".into(),
            properties: Default::default(),
        };
        let mbus = Mbus {
            urls: vec!["nats://10.0.0.6:4222".into()],
            authorities_pem: "CA".into(),
            certificate_pem: "CERT".into(),
            private_key_pem: "BEGIN\nEND".into(),
        };
        let request = CreateVm {
            agent_id: "a1".into(),
            stemcell: "sc-1".into(),
            cloud_properties: json!({}),
            networks: vec![],
            disks: vec![],
            env: json!({}),
            bootstrap: AgentBootstrap { mbus: Some(mbus), ..AgentBootstrap::default() },
        };
        let env = request.bootstrap.into_env(&request.env);
        let told = Secrets::of(&program, &Call::CreateVm(Box::new(request))).hide(&format!("got {env}"));
        assert!(told.contains("nats://10.0.0.6:4222") && !told.contains("BEGIN"), "{told}");
    }
}
