//! The names that messages are sent to.

use model::AgentId;
use uuid::Uuid;

/// Returns whether an id may stand in a subject: one word, that names one agent.
pub(crate) fn is_word(id: &str) -> bool {
    !id.is_empty()
        && !id.contains(|c: char| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control())
}

/// Where an agent listens.
pub(crate) fn of_agent(agent: &AgentId) -> String {
    format!("agent.{agent}")
}

/// Where one process of a director is answered. Never two the same: an answer is for whoever has asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbox(Uuid);

impl Inbox {
    /// Returns one that nobody has.
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns what to subscribe to.
    pub(crate) fn all(self) -> String {
        format!("director.{}.>", self.0)
    }

    /// Returns where the answer to one request is expected. Four words, the third one the agent's id: that is what agents are
    /// allowed to answer to.
    pub(crate) fn of_request(self, agent: &AgentId, request: Uuid) -> String {
        format!("director.{}.{agent}.{request}", self.0)
    }

    /// Reads where an answer came in.
    pub(crate) fn read(self, subject: &str) -> Option<(AgentId, Uuid)> {
        let mut words = subject.split('.');
        let read = (words.next()?, words.next()?, words.next()?, words.next()?);
        let ("director", inbox, agent, request) = read else { return None };
        if words.next().is_some() || inbox != self.0.to_string() {
            return None;
        }
        Some((AgentId::from(agent), Uuid::parse_str(request).ok()?))
    }
}

/// What agents tell of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Heartbeat,
    Alert,
    Shutdown,
}

/// What to subscribe to, to hear all agents.
pub(crate) const REPORTS: [&str; 3] = ["hm.agent.heartbeat.*", "hm.agent.alert.*", "hm.agent.shutdown.*"];

/// Reads who tells what. The servers let an agent publish under its own id only.
pub(crate) fn told(subject: &str) -> Option<(Told, AgentId)> {
    let rest = subject.strip_prefix("hm.agent.")?;
    let (what, agent) = rest.split_once('.')?;
    let told = match what {
        "heartbeat" => Told::Heartbeat,
        "alert" => Told::Alert,
        "shutdown" => Told::Shutdown,
        _ => return None,
    };
    is_word(agent).then(|| (told, AgentId::from(agent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_expected_under_four_words_and_read_back() {
        let (inbox, agent, request) = (Inbox::new(), AgentId::from("a-1"), Uuid::new_v4());
        let subject = inbox.of_request(&agent, request);
        assert_eq!(subject.split('.').count(), 4);
        assert_eq!(inbox.read(&subject), Some((agent, request)));
        assert_eq!(Inbox::new().read(&subject), None);
        assert_eq!(inbox.read(&format!("{subject}.more")), None);
        assert_eq!(inbox.read(&subject.replace(&request.to_string(), "7")), None);
    }

    #[test]
    fn an_id_that_names_more_than_one_agent_is_none() {
        assert!(is_word("0c3a9f3e-5d0f-4a52-8f5e-0f9b7f5a2f11"));
        for id in ["", "*", ">", "a.b", "a b", "a\r\nPUB x 1", "a*"] {
            assert!(!is_word(id), "{id:?}");
        }
    }

    #[test]
    fn who_tells_what_stands_in_the_subject() {
        assert_eq!(told("hm.agent.alert.a-1"), Some((Told::Alert, "a-1".into())));
        assert_eq!(told("hm.agent.shutdown.a-1"), Some((Told::Shutdown, "a-1".into())));
        for subject in
            ["hm.agent.alert", "hm.agent.alert.", "hm.agent.alert.a.b", "hm.director.alert", "hm.agent.x.a"]
        {
            assert_eq!(told(subject), None, "{subject}");
        }
    }
}
