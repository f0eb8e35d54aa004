//! What must not be read in a log. CPIs repeat their requests in theirs, so hiding what we know to be secret has to be
//! done by value.

use std::collections::BTreeSet;

use cpi_api::Call;
use serde_json::Value;

use crate::Program;

/// Shorter values are too common to be told from other text, and too short to be secrets.
const SECRET_CHARS_MIN: usize = 6;

/// The secret values of one call.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Collects them: the CPI's properties, and what the call has of cloud properties and env.
    pub fn of(program: &Program, call: &Call) -> Self {
        let mut found = BTreeSet::new();
        program.properties.values().for_each(|value| collect(value, &mut found));
        match call {
            Call::CreateVm(request) => {
                collect(&request.cloud_properties, &mut found);
                request.networks.iter().for_each(|network| collect(&network.cloud_properties, &mut found));
                collect(&request.env, &mut found);
                found.insert(request.bootstrap.token.clone());
                found.extend(request.bootstrap.mbus.iter().map(|mbus| mbus.private_key_pem.clone()));
                found.retain(|value| !is_named(&request.env, value));
            }
            Call::CreateDisk(disk) => collect(&disk.cloud_properties, &mut found),
            _ => {}
        }
        // Longest first: one may be a part of another. In JSON's writing too, as a request is repeated.
        let mut all: Vec<String> = found
            .into_iter()
            .flat_map(|value| {
                let written = Value::String(value.clone()).to_string();
                [written.trim_matches('"').to_owned(), value]
            })
            .filter(|value| value.chars().count() >= SECRET_CHARS_MIN)
            .collect();
        all.sort_by_key(|value| std::cmp::Reverse(value.len()));
        all.dedup();
        Self(all)
    }

    /// Returns a text with every secret value hidden.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "<redacted>"))
    }
}

/// Groups and tags name the VM; they are in every log of the director.
fn is_named(env: &Value, value: &str) -> bool {
    let mut names = BTreeSet::new();
    ["group", "groups", "tags"].into_iter().for_each(|key| collect(&env["bosh"][key], &mut names));
    names.contains(value)
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(map) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
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
