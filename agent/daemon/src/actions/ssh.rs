//! `ssh`: a user for one session of an operator, and its end.

use regex::RegexBuilder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ActionError;
use crate::machine::Order;
use crate::platform::users::is_operators;
use crate::real::RealMachine;

/// Kinds of keys that may log in.
const KEY_KINDS: [&str; 7] = [
    "ssh-rsa",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The longest key: RSA of 16,384 bits has 2.8 kB.
const KEY_BYTES_MAX: usize = 8 << 10;

/// How much memory an expression may take: one for names needs little.
const REGEX_BYTES_MAX: usize = 256 << 10;

#[derive(Deserialize)]
struct Setup {
    user: String,
    public_key: String,
}

#[derive(Deserialize)]
struct Cleanup {
    user_regex: String,
}

pub(super) async fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    match order.text(0)? {
        "setup" => setup(machine, order.argument(1, "`{user, public_key}`")?).await,
        "cleanup" => cleanup(machine, order.argument(1, "`{user_regex}`")?).await,
        _ => Err(ActionError::failed("Unknown command for SSH method")),
    }
}

async fn setup(machine: &RealMachine, Setup { user, public_key }: Setup) -> Result<Value, ActionError> {
    if !is_operators(&user) {
        return Err(ActionError::failed(format!("{user:?} is no name for an operator's user")));
    }
    let key = checked_key(&public_key)?;
    let networks = &machine.settings.networks;
    let ip =
        default_ip(networks.values()).ok_or_else(|| ActionError::failed("No default ip could be found"))?;
    if let Some(server) = &machine.ssh_server {
        server.ready().await?;
    }
    let host_key = machine.platform.add_operator(&user, key, &machine.layout.operators()).await?;
    Ok(json!({ "command": "setup", "status": "success", "ip": ip, "host_public_key": host_key }))
}

async fn cleanup(machine: &RealMachine, Cleanup { user_regex }: Cleanup) -> Result<Value, ActionError> {
    let names = RegexBuilder::new(&user_regex).size_limit(REGEX_BYTES_MAX).build();
    let names = names.map_err(|error| ActionError::failed(format!("bad `user_regex`: {error}")))?;
    machine.platform.remove_operators(&names).await?;
    Ok(json!({ "command": "cleanup", "status": "success" }))
}

/// Returns a key as a line of `authorized_keys`, if it is nothing but that: no options before it, and no second line.
fn checked_key(text: &str) -> Result<&str, ActionError> {
    let key = text.trim();
    let bad = |why: &str| Err(ActionError::failed(format!("the public key {why}")));
    if key.len() > KEY_BYTES_MAX {
        return bad("is too long");
    }
    if key.chars().any(char::is_control) {
        return bad("has more than one line");
    }
    let mut words = key.split(' ');
    if !words.next().is_some_and(|kind| KEY_KINDS.contains(&kind)) {
        return bad("is of no known kind");
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    match words.next() {
        Some(body) if !body.is_empty() && body.bytes().all(is_base64) => Ok(key),
        _ => bad("is not one"),
    }
}

/// Returns the address of the network that is somebody's default, or else any.
fn default_ip<'a>(networks: impl Iterator<Item = &'a Value> + Clone) -> Option<&'a str> {
    let is_default = |network: &&Value| network["default"].as_array().is_some_and(|of| !of.is_empty());
    let ip =
        |network: &'a Value| network.as_object().and_then(|all: &Map<String, Value>| all.get("ip")?.as_str());
    networks.clone().filter(is_default).find_map(ip).or_else(|| networks.clone().find_map(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_without_options() {
        assert_eq!(checked_key("ssh-rsa AAAA+/= a comment\n").unwrap(), "ssh-rsa AAAA+/= a comment");
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa ",
            "ssh-rsa AA\nssh-rsa BB",
            "command=\"x\" ssh-rsa AAAA",
            "ssh-dss AAAA",
            "ssh-rsa A\"A",
            &format!("ssh-rsa {}", "A".repeat(KEY_BYTES_MAX)),
        ] {
            assert!(checked_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_network_is_where_the_machine_is_found() {
        let networks = [
            json!({ "ip": "10.0.0.1" }),
            json!({ "default": ["gateway"] }),
            json!({ "default": ["dns"], "ip": "10.0.0.2" }),
        ];
        assert_eq!(default_ip(networks.iter()), Some("10.0.0.2"));
        assert_eq!(default_ip(networks[..2].iter()), Some("10.0.0.1"));
        assert_eq!(default_ip(networks[1..2].iter()), None);
    }
}
