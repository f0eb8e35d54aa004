//! Reports as BOSH's agent gave them, and as nobody should.

use std::sync::Mutex;

use serde_json::json;

use super::*;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl HeartbeatSink for Heard {
    fn heartbeat(&self, h: Heartbeat) {
        let said = format!("{} {:?} {} {}", h.agent, h.job_state, h.processes, h.vitals["mem"]["kb"]);
        self.0.lock().unwrap().push(said);
    }

    fn alert(&self, agent: &AgentId, alert: Alert) {
        self.0.lock().unwrap().push(format!("{agent} {alert:?}"));
    }

    fn connected(&self, agent: &AgentId) {
        self.0.lock().unwrap().push(format!("{agent} is here"));
    }

    fn disconnected(&self, agent: &AgentId) {
        self.0.lock().unwrap().push(format!("{agent} stops"));
    }
}

#[track_caller]
fn check(told: Told, payload: &[u8], expected: Option<&str>) {
    let heard = Heard::default();
    assert_eq!(take(&heard, told, &"a-1".into(), payload), expected.is_some());
    assert_eq!(heard.0.lock().unwrap().first().map(String::as_str), expected);
}

#[test]
fn reports_are_read_as_bosh_s_agent_sends_them() {
    let heartbeat = br#"{"deployment":"","job":null,"index":null,"job_state":"running","vitals":{"cpu":{"sys":"15.6",
        "user":"84.3","wait":"0.0"},"disk":{"system":{"inode_percent":"3","percent":"10"}},"load":["7.78","7.05","6.28"],
        "mem":{"kb":"1977944","percent":"8"},"swap":{"kb":"0","percent":"0"},"uptime":{"secs":3040}},"node_id":"",
        "number_of_processes":3}"#;
    check(Told::Heartbeat, heartbeat, Some(r#"a-1 Running 3 "1977944""#));
    let bare = br#"{"deployment":"","job":null,"index":null,"job_state":"starting","vitals":null,"number_of_processes":null}"#;
    check(Told::Heartbeat, bare, Some("a-1 Starting 0 null"));
    let alert = br#"{"id":"","severity":1,"title":"w (10.244.0.11) - Does not exist - restart",
        "summary":"process is not running","created_at":1795335029}"#;
    let read = "a-1 Alert { id: \"\", severity: 1, title: \"w (10.244.0.11) - Does not exist - restart\", \
                summary: \"process is not running\", created_at_unix: 1795335029 }";
    check(Told::Alert, alert, Some(read));
    check(Told::Shutdown, b"null", Some("a-1 stops"));
}

#[test]
fn what_is_no_report_is_nobody_s() {
    for garbage in [&b""[..], b"null", b"[]", b"{}", b"\xff", br#"{"job_state":7}"#] {
        check(Told::Heartbeat, garbage, None);
        check(Told::Alert, garbage, None);
    }
    let giant = json!({ "job_state": "running", "vitals": "x".repeat(REPORT_BYTES_MAX) }).to_string();
    check(Told::Heartbeat, giant.as_bytes(), None);
    // An agent may be alive and say too much.
    let large = json!({ "job_state": "running", "vitals": { "mem": { "kb": "1", "x": "x".repeat(VITALS_BYTES_MAX) } } });
    check(Told::Heartbeat, large.to_string().as_bytes(), Some("a-1 Running 0 null"));
    check(Told::Heartbeat, br#"{"job_state":"unheard of"}"#, Some("a-1 Unknown 0 null"));
}
