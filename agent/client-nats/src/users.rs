//! Who may say what on the bus: the part of a NATS server's configuration that changes with the VMs. With `verify_and_map`, a
//! server knows users by the subjects of their certificates.

use std::fmt::Write as _;

use model::AgentId;

use crate::subjects;

/// The common name of a director's certificate.
pub const DIRECTOR: &str = "default.director.bosh-internal";

/// The common name of the certificate of whoever hears heartbeats.
pub const HEALTH: &str = "default.hm.bosh-internal";

/// Returns the common name of an agent's certificate.
pub fn common_name(agent: &AgentId) -> String {
    format!("{agent}.agent.bosh-internal")
}

/// Returns the common name of the certificate that an agent is created with, where it gets another one later: until that is
/// known to be in use, both must open the door.
pub fn bootstrap_common_name(agent: &AgentId) -> String {
    format!("{agent}.bootstrap.agent.bosh-internal")
}

/// Returns the `authorization` section: the director, whoever hears heartbeats, and just these agents. An id that is no single
/// word gets no user: it would be allowed what is others'.
pub fn authorization<'a>(agents: impl IntoIterator<Item = &'a AgentId>) -> String {
    let mut text = String::from("authorization {\n  users = [\n");
    user(&mut text, DIRECTOR, &["agent.*", "hm.director.alert"], &["director.>"]);
    let reports = [&subjects::REPORTS[..], &["hm.director.alert"]].concat();
    user(&mut text, HEALTH, &[], &reports);
    for agent in agents.into_iter().filter(|agent| subjects::is_word(agent.as_str())) {
        let publish = [
            format!("hm.agent.heartbeat.{agent}"),
            format!("hm.agent.alert.{agent}"),
            format!("hm.agent.shutdown.{agent}"),
            format!("director.*.{agent}.*"),
        ];
        let publish: Vec<&str> = publish.iter().map(String::as_str).collect();
        let listen = subjects::of_agent(agent);
        for name in [common_name(agent), bootstrap_common_name(agent)] {
            user(&mut text, &name, &publish, &[&listen]);
        }
    }
    text.push_str("  ]\n}\n");
    text
}

fn user(text: &mut String, common_name: &str, publish: &[&str], subscribe: &[&str]) {
    // Names and subjects are words that need no escapes in JSON; NATS reads the same quotes.
    let _ = writeln!(
        text,
        "    {{ user: {:?}, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }}",
        format!("C=USA, O=Cloud Foundry, CN={common_name}"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_speak_for_itself_alone_under_both_its_names() {
        let text = authorization([&AgentId::from("a-1"), &AgentId::from("*"), &AgentId::from("a\", b")]);
        let of_agents: Vec<&str> =
            text.lines().filter(|line| line.contains(".agent.bosh-internal")).collect();
        assert_eq!(of_agents.len(), 2, "{text}");
        for (line, name) in of_agents.iter().zip(["a-1.agent", "a-1.bootstrap.agent"]) {
            assert!(line.contains(&format!("CN={name}.bosh-internal\"")), "{line}");
            assert!(line.contains(r#"publish: ["hm.agent.heartbeat.a-1", "hm.agent.alert.a-1", "#), "{line}");
            assert!(line.contains(r#""director.*.a-1.*"], subscribe: ["agent.a-1"]"#), "{line}");
        }
    }
}
