//! The machine's own addresses, where the image leaves them to the agent (`--configure-networks`).
//!
//! Only static ones: an image whose cloud hands out addresses asks for them itself. Doing it twice changes nothing.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use model::agent_settings::AgentSettings;
use serde_json::Value;

use crate::children;
use crate::error::ActionError;

/// Where the kernel lists network cards.
const CARDS: &str = "/sys/class/net";

/// One call of `ip`.
type Words = Vec<String>;

/// A network card.
struct Card {
    name: String,
    mac: String,
}

/// Gives the machine the addresses, the default route and the resolver that its settings name.
///
/// # Errors
/// If a network names a card that is not there, or `ip` fails.
pub async fn configure(settings: &AgentSettings) -> Result<(), ActionError> {
    let cards = cards(CARDS.as_ref());
    for words in calls(settings, &cards)? {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        children::run("ip", &words, OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin")).await?;
    }
    let Some(content) = resolver(settings) else { return Ok(()) };
    let path = Path::new("/etc/resolv.conf");
    match std::fs::remove_file(path) {
        // An image may have a link there, to where nobody has written yet.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ActionError::file("replace", path)(error))
        }
        _ => std::fs::write(path, content).map_err(ActionError::file("write", path)),
    }
}

/// Returns the cards that are hardware, in the order of their names.
fn cards(folder: &Path) -> Vec<Card> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut cards: Vec<Card> = entries
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| {
            let mac = std::fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            Card { name: entry.file_name().to_string_lossy().into_owned(), mac: mac.trim().to_owned() }
        })
        .collect();
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards
}

/// Returns the calls that are due: networks without a card of their own share the first.
fn calls(settings: &AgentSettings, cards: &[Card]) -> Result<Vec<Words>, ActionError> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Words>();
    let (mut links, mut addresses, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, network) in &settings.networks {
        let is_ours = network["type"] != "vip" && network["preconfigured"] != true;
        let Some(ip) = network["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|_| is_ours)
        else {
            continue;
        };
        let mac = network["mac"].as_str().unwrap_or_default();
        let card = cards.iter().find(|card| mac.is_empty() || card.mac.eq_ignore_ascii_case(mac));
        let card =
            &card.ok_or_else(|| ActionError::failed(format!("network `{name}` has no card here")))?.name;
        links.push(words(&format!("link set dev {card} up")));
        addresses.push(words(&format!("address replace {ip}/{} dev {card}", prefix_bits(network, ip))));
        let is_default = network["default"].as_array().is_some_and(|all| all.iter().any(|d| d == "gateway"));
        if let Some(gateway) = network["gateway"].as_str().filter(|_| is_default) {
            routes.push(words(&format!("route replace default via {gateway} dev {card}")));
        }
    }
    links.dedup();
    // A route is refused until there is an address that its gateway is near to.
    Ok([links, addresses, routes].concat())
}

/// Returns how long the subnet's mask is; without one, the address stands alone.
fn prefix_bits(network: &Value, ip: IpAddr) -> u32 {
    let mask = network["netmask"].as_str().and_then(|mask| mask.parse::<Ipv4Addr>().ok());
    mask.map_or(if ip.is_ipv4() { 32 } else { 128 }, |mask| u32::from(mask).leading_ones())
}

/// Returns what `/etc/resolv.conf` is to say: the agent itself where it answers names, else the servers of the networks.
fn resolver(settings: &AgentSettings) -> Option<String> {
    let servers: Vec<String> = match settings.resolver {
        Some(own) => vec![own.ip().to_string()],
        None => {
            let all = settings.networks.values().filter_map(|network| network["dns"].as_array()).flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        }
    };
    let text = servers.iter().fold(String::new(), |mut text, server| {
        let _ = writeln!(text, "nameserver {server}");
        text
    });
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card(name: &str, mac: &str) -> Card {
        Card { name: name.into(), mac: mac.into() }
    }

    fn settings(networks: Value) -> AgentSettings {
        AgentSettings { networks: serde_json::from_value(networks).unwrap(), ..AgentSettings::default() }
    }

    #[test]
    fn every_network_gets_its_address_and_the_default_one_the_route() {
        let settings = settings(json!({
            "a": {"type": "manual", "ip": "10.0.0.5", "netmask": "255.255.255.0", "gateway": "10.0.0.1", "default": ["dns", "gateway"]},
            "b": {"type": "manual", "ip": "10.1.0.5", "netmask": "255.255.0.0", "gateway": "10.1.0.1", "mac": "52:54:00:AA:00:01"},
            "c": {"type": "vip", "ip": "1.2.3.4"},
            "d": {"type": "manual", "ip": "10.9.0.1", "preconfigured": true},
            "e": {"type": "manual", "ip": "10.2.0.5"},
        }));
        let cards = [card("eth0", "52:54:00:aa:00:00"), card("eth1", "52:54:00:aa:00:01")];
        let said: Vec<String> =
            calls(&settings, &cards).unwrap().iter().map(|words| words.join(" ")).collect();
        let wanted = [
            "link set dev eth0 up",
            "link set dev eth1 up",
            "link set dev eth0 up",
            "address replace 10.0.0.5/24 dev eth0",
            "address replace 10.1.0.5/16 dev eth1",
            "address replace 10.2.0.5/32 dev eth0",
            "route replace default via 10.0.0.1 dev eth0",
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_card_that_is_not_there_is_missed() {
        let settings =
            settings(json!({ "a": {"type": "manual", "ip": "10.0.0.5", "mac": "52:54:00:aa:00:09"} }));
        let error = calls(&settings, &[card("eth0", "52:54:00:aa:00:00")]).unwrap_err().to_string();
        assert_eq!(error, "network `a` has no card here");
    }

    #[test]
    fn names_are_asked_of_the_agent_where_it_answers() {
        let mut settings = settings(json!({ "a": {"dns": ["10.0.0.2", "10.0.0.3"]} }));
        assert_eq!(resolver(&settings).unwrap(), "nameserver 10.0.0.2\nnameserver 10.0.0.3\n");
        settings.resolver = Some("127.0.0.53:53".parse().unwrap());
        assert_eq!(resolver(&settings).unwrap(), "nameserver 127.0.0.53\n");
        assert_eq!(resolver(&AgentSettings::default()), None);
    }
}
