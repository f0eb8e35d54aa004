//! What happens to agents when directors come and go, certificates run out, and names are stolen.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use agent_api::{JobState, Method};
use serde_json::json;
use support::{Fleet, TestAgent, until};

fn errand(name: &str) -> Method {
    Method::RunErrand { errand: name.into() }
}

fn slow_errand(agent: &TestAgent) {
    let marks = agent.dir.path().display().to_string();
    let script =
        format!("echo x >> {marks}/begun; until [ -e {marks}/released ]; do sleep 0.02; done; echo done");
    agent.install_errand("slow", &script);
}

fn begun(agent: &TestAgent) -> usize {
    std::fs::read_to_string(agent.dir.path().join("begun")).unwrap_or_default().lines().count()
}

fn release(agent: &TestAgent) {
    std::fs::write(agent.dir.path().join("released"), "").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_loses_its_director_finds_another() {
    let mut fleet = Fleet::start(3);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    assert_eq!(fleet.shared.heard.certificates(&agent.id), 1, "it enrolled once");

    // Its home dies, and the others still believe that it is there.
    fleet.kill(0);
    until("another director", || fleet.replicas[1..].iter().any(|replica| replica.hub.holds(&agent.id)))
        .await;
    let before = fleet.shared.heard.heartbeats(&agent.id);
    until("more heartbeats", || fleet.shared.heard.heartbeats(&agent.id) > before).await;
    assert_eq!(fleet.call(2, &agent.id, "p", Method::Ping).await.unwrap().0, json!("pong"));
    assert_eq!(fleet.shared.heard.certificates(&agent.id), 1, "its certificate is good everywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_found_again_after_the_replica_that_held_the_stream_died() {
    let mut fleet = Fleet::start(3);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    slow_errand(&agent);
    fleet.until_at(&agent.id, 0).await;
    let caller = fleet.replicas[1].agents.clone();
    let call = {
        let request = agent_api::Request {
            id: "long".into(),
            epoch: model::Epoch(7),
            mode: agent_api::Mode::Submit,
            timeout: support::PATIENCE,
            method: errand("slow"),
        };
        let id = agent.id.clone();
        async move { agent_api::Agents::call(&caller, &id, request).await }
    };
    let meanwhile = async {
        until("the errand", || begun(&agent) == 1).await;
        fleet.kill(0);
        until("another director", || fleet.replicas[1..].iter().any(|replica| replica.hub.holds(&agent.id)))
            .await;
        release(&agent);
    };
    let (result, ()) = tokio::join!(call, meanwhile);
    assert_eq!(result.unwrap().0["stdout"], "done\n");
    assert_eq!(begun(&agent), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_switches_its_machine_off_answers_first() {
    let fleet = Fleet::start(2);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    // Through the other replica: the answer has a way to go.
    let answer = fleet.call(1, &agent.id, "off", Method::Shutdown).await;
    assert_eq!(answer.unwrap().0, json!(""));
    until("the agent's end", || agent.has_ended.load(std::sync::atomic::Ordering::SeqCst)).await;
    assert!(!fleet.replicas.iter().any(|replica| replica.hub.holds(&agent.id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_without_losing_work() {
    let fleet = Fleet::start(1);
    *fleet.shared.life.lock().unwrap() = std::time::Duration::from_secs(6);
    let agent = TestAgent::start(&fleet, "a-1");
    slow_errand(&agent);
    fleet.until_at(&agent.id, 0).await;
    let identity = || std::fs::read_to_string(agent.base().join("bosh/identity.json")).unwrap();
    let first = identity();
    let meanwhile = async {
        until("the errand", || begun(&agent) == 1).await;
        until("a new certificate", || fleet.shared.heard.certificates(&agent.id) >= 2).await;
        until("it is stored", || identity() != first).await;
        release(&agent);
    };
    let (result, ()) = tokio::join!(fleet.call(0, &agent.id, "long", errand("slow")), meanwhile);
    assert_eq!(result.unwrap().0["exit_code"], 0);
    assert_eq!(begun(&agent), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_attaches_under_another_agent_s_name() {
    let fleet = Fleet::start(1);
    let honest = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&honest.id, 0).await;

    // A thief has the key and certificate of a-1 and says that it is a-2.
    let thief = TestAgent::start(&fleet, "a-2");
    fleet.until_at(&thief.id, 0).await;
    let files = |agent: &TestAgent| agent.base().join("bosh/identity.json");
    std::fs::copy(files(&honest), files(&thief)).unwrap();
    thief.restart().await;
    until("its old stream has ended", || !fleet.replicas[0].hub.holds(&thief.id)).await;
    // The honest agent is served all the while, the thief never: its dials are refused one after the other.
    let before = fleet.shared.heard.heartbeats(&honest.id);
    until("time goes by", || fleet.shared.heard.heartbeats(&honest.id) > before + 5).await;
    assert!(!fleet.replicas[0].hub.holds(&thief.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_outlived_its_vm_opens_nothing() {
    let fleet = Fleet::start(2);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    let key =
        fleet.shared.keys.lock().unwrap().insert(agent.id.clone(), b"of the VM that came after it".into());
    agent.restart().await;
    until("its old stream has ended", || !fleet.replicas[0].hub.holds(&agent.id)).await;
    let refusals = || fleet.shared.heard.refusals(&agent.id);
    until("some dials", || refusals() >= 3).await;
    assert!(!fleet.replicas.iter().any(|replica| replica.hub.holds(&agent.id)));
    // The proof that nothing but the key kept it out.
    fleet.shared.keys.lock().unwrap().insert(agent.id.clone(), key.unwrap());
    until("the agent", || fleet.replicas.iter().any(|replica| replica.hub.holds(&agent.id))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_tell_state_and_vitals() {
    let fleet = Fleet::start(1);
    let agent = TestAgent::start(&fleet, "a-1");
    until("a heartbeat", || fleet.shared.heard.last(&agent.id).is_some()).await;
    let heartbeat = fleet.shared.heard.last(&agent.id).unwrap();
    assert_eq!((heartbeat.job_state, heartbeat.processes), (JobState::Running, 0));
    assert!(heartbeat.vitals["mem"]["kb"].is_string(), "{}", heartbeat.vitals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_can_tell_what_an_agent_said_last() {
    let fleet = Fleet::start(3);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    until("a heartbeat", || fleet.shared.heard.last(&agent.id).is_some()).await;
    let asked = [agent.id.clone(), "unknown".into()];
    for replica in &fleet.replicas {
        let reports = replica.agents.reports(&asked, support::PATIENCE).await;
        assert_eq!(reports.keys().collect::<Vec<_>>(), [&agent.id]);
        let report = &reports[&agent.id];
        assert_eq!((report.job_state.as_str(), report.processes), ("running", 0));
        let vitals: serde_json::Value = serde_json::from_slice(&report.vitals_json).unwrap();
        assert!(vitals["mem"]["kb"].is_string(), "{vitals}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_move_together_and_none_is_lost() {
    let mut fleet = Fleet::start(2);
    fleet.rehome(0).await;
    let agents: Vec<_> = (0..20).map(|number| TestAgent::start(&fleet, &format!("a-{number}"))).collect();
    until("all are attached", || fleet.replicas[0].hub.stream_count() == agents.len()).await;
    fleet.kill(0);
    until("all have moved", || fleet.replicas[1].hub.stream_count() == agents.len()).await;
}
