use std::sync::atomic::{AtomicUsize, Ordering};

use model::Timestamp;
use model::instance::{Instance, InstanceState, Vm};
use state::records::AgentRecord;

use super::*;
use crate::test_support::state::{network, spec};

fn row(id: usize, health: AgentHealth) -> InstanceRow {
    let (name, agent) = (format!("i{id}"), format!("a{id}"));
    let spec = spec(&name, None);
    InstanceRow {
        vm: Some(Vm {
            agent: agent.as_str().into(),
            cid: None,
            instance: name.as_str().into(),
            cpi: "".into(),
            stemcell: spec.stemcell.clone(),
            cloud_properties: serde_json::Value::Null,
            env: serde_json::Value::Null,
            networks: vec![network(None)],
            created_at: Timestamp(0),
            active: true,
            variable_set: Default::default(),
            bound: true,
        }),
        disks: Vec::new(),
        agent: Some(AgentRecord {
            jobs_run: None,
            agent: agent.as_str().into(),
            instance: name.as_str().into(),
            deployment: "web".into(),
            authorised_at: Timestamp(0),
            key_digest: None,
            health,
            health_since: Timestamp(0),
            token_generation: 0,
            bound: true,
            certificate: None,
            offered: None,
        }),
        instance: Instance {
            spec,
            state: InstanceState::Started,
            ignore: false,
            update_completed: true,
            compilation: false,
            variable_set: Default::default(),
        },
    }
}

fn running() -> AgentState {
    serde_json::from_value(serde_json::json!({ "job_state": "running", "processes": [] })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_page_of_silent_agents_takes_no_longer_than_one_limit() {
    // A thousand, of whom every tenth answers; one after the other they would take more than a minute.
    let rows: Vec<InstanceRow> = (0..1000).map(|id| row(id, AgentHealth::Alive)).collect();
    let begun = Instant::now();
    let ask = |row: &InstanceRow, _| {
        let answers = row.instance.spec.id.as_str().ends_with('0');
        async move { if answers { Some(running()) } else { std::future::pending().await } }
    };
    let states = states(&rows, PAGE_TIMEOUT, ask).await;
    assert_eq!((states.len(), begun.elapsed()), (1000, PAGE_TIMEOUT));
    assert!(matches!(states[0], Heard::State(_)), "{:?}", states[0]);
    assert_eq!(states[1], Heard::Silence, "it had its time");
    // Those whose turn never came are not accused of anything.
    assert_eq!(states[999], Heard::NotAsked);
    let shown: Vec<String> =
        rows.into_iter().zip(states).map(|(row, heard)| instance(row, heard).process_state).collect();
    assert_eq!([&shown[0], &shown[1], &shown[999]], ["running", "unresponsive agent", "alive"]);
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_not_asked() {
    let rows = [row(0, AgentHealth::Dead), row(1, AgentHealth::Suspect), row(2, AgentHealth::Alive)];
    let asked = AtomicUsize::new(0);
    let ask = |_: &InstanceRow, _| {
        asked.fetch_add(1, Ordering::Relaxed);
        async { Some(running()) }
    };
    let states = states(&rows, PAGE_TIMEOUT, ask).await;
    assert_eq!(states[0], Heard::Silence);
    assert!(states[1..].iter().all(|heard| matches!(heard, Heard::State(_))), "{states:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
