//! Certificates of BOSH's agents: who is to be given one is given it by whatever step sends settings, and nobody else notices;
//! whatever becomes of leaders, what the state says of an agent's certificate is so.

use agent_api::Method;
use agent_api::fake::Behaviour;
use model::task::{TaskKind, TaskState};
use model::{AgentId, InstanceId};
use serde_json::{Value, json};

use crate::artifacts::Shape;
use crate::gate::{Point, Side};
use crate::world::{TestWorld, renderer};

/// A deployment of two instances with agents of BOSH's, whose bus is about to be another one.
async fn deployed(world: TestWorld) -> TestWorld {
    world.on_bus("old");
    world.run(Shape::default().deploy()).await.done();
    world.on_bus("new");
    world
}

impl TestWorld {
    fn on_bus(&self, bus: &str) {
        *self.outside.bus.lock().unwrap() = Some(bus.to_owned());
    }

    fn agent_of(&self, instance: &InstanceId) -> AgentId {
        self.read(|state| state.active_vm(instance)).unwrap().agent
    }

    fn rotation(&self) -> TaskKind {
        let vms = self.read(|state| state.deployment_vms(&"p".into()));
        TaskKind::RotateCertificates { agents: vms.into_iter().map(|vm| vm.agent).collect() }
    }

    /// Returns the settings that an agent was sent, in order.
    fn settings_of(&self, agent: &AgentId) -> Vec<Value> {
        let settings = |deed: agent_api::fake::Deed| match deed.method {
            Method::UpdateSettings { settings } => Some(settings),
            _ => None,
        };
        self.outside.agents.deeds(agent).into_iter().filter_map(settings).collect()
    }

    /// Fails unless an agent was told of its bus as the state says, and nothing else is under way.
    #[track_caller]
    fn assert_told(&self, agent: &AgentId, bus: &str, case: &str) {
        let record = self.read(|state| state.agent(agent)).unwrap();
        let has = record.certificate.unwrap();
        assert_eq!((has.bus.as_str(), record.offered), (bus, None), "{case}");
        let mut told = self
            .settings_of(agent)
            .into_iter()
            .filter_map(|mut settings| Some(settings.get_mut("mbus")?.take()));
        let last = told.next_back().unwrap_or_else(|| panic!("{case}: never told"));
        assert_eq!(
            (&last["urls"], &last["cert"]["certificate"]),
            (&json!([bus]), &json!(has.serial)),
            "{case}"
        );
    }
}

#[tokio::test]
async fn an_agent_is_made_with_a_certificate_and_given_another_when_that_ends() {
    let world = deployed(TestWorld::seed().await).await;
    let agent = world.agent_of(&world.first_web());
    let made_with = world.read(|state| state.agent(&agent)).unwrap().certificate.unwrap();
    let request =
        world.outside.cloud.cloud().vms.into_values().find(|vm| vm.request.agent_id == agent).unwrap();
    assert_eq!(request.request.bootstrap.mbus.unwrap().certificate_pem, made_with.serial);
    assert!(world.settings_of(&agent).iter().all(|settings| settings.get("mbus").is_none()));

    let ended = world.run(world.rotation()).await.done();
    assert!(ended.events.contains("Rotating certificates"), "{}", ended.events);
    world.assert_told(&agent, "new", "rotated");
    let settings = world.settings_of(&agent).pop().unwrap();
    // What is left out of settings, agents forget.
    assert_eq!((&settings["trusted_certs"], &settings["disk_associations"]), (&json!(""), &json!([])));
    let times = world.settings_of(&agent).len();
    let ended = world.run(world.rotation()).await.done();
    assert!(!ended.events.contains("Rotating"), "there is nothing to do: {}", ended.events);
    assert_eq!(world.settings_of(&agent).len(), times);
    world.assert_consistent();
}

#[tokio::test]
async fn a_deploy_that_sends_settings_rotates_on_its_way_and_jobs_are_as_they_were() {
    let world = deployed(TestWorld::seed().await).await;
    let agent = world.agent_of(&world.first_web());
    world.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    world.assert_told(&agent, "new", "deployed");
}

#[tokio::test]
async fn an_agent_that_can_not_be_told_fails_the_task_and_no_other_agent() {
    let world = deployed(TestWorld::seed().await).await;
    let (first, rotation) = (world.first_web(), world.rotation());
    let TaskKind::RotateCertificates { agents } = &rotation else { panic!() };
    let (dumb, other) = (world.agent_of(&first), agents.clone());
    let other = other.into_iter().find(|agent| *agent != dumb).unwrap();
    let is_settings = |method: &Method| matches!(method, Method::UpdateSettings { .. });
    let fails = move |method: &Method| is_settings(method).then(|| Behaviour::Fail("disk full".into()));
    world.outside.agents.decide(&dumb, Box::new(fails));
    let ended = world.run(rotation.clone()).await;
    assert!(ended.error().contains("disk full"));
    world.assert_told(&other, "new", "the other one");
    let record = world.read(|state| state.agent(&dumb)).unwrap();
    assert_eq!(record.certificate.unwrap().bus, "old", "what it has");
    world.outside.agents.decide(&dumb, Box::new(|_| None));
    world.run(rotation).await.done();
    world.assert_told(&dumb, "new", "once it can");
}

#[tokio::test]
async fn whenever_a_leader_is_lost_the_state_says_what_agents_have() {
    let renderer = renderer().await;
    let undisturbed = deployed(TestWorld::seed_with(renderer.clone()).await).await;
    undisturbed.gate.arm(None);
    undisturbed.run(undisturbed.rotation()).await.done();
    let seen = undisturbed.gate.seen();
    assert!(seen["log"] >= 6 && seen["agent:update_settings"] == 2, "{seen:?}");
    let points = ["log", "agent:update_settings"]
        .into_iter()
        .flat_map(|name| (1..=seen[name]).map(move |nth| (name, nth)));
    for (name, nth) in points.collect::<Vec<_>>() {
        for side in [Side::Before, Side::After] {
            let world = deployed(TestWorld::seed_with(renderer.clone()).await).await;
            world.gate.arm(Some(Point { name: name.into(), nth, side }));
            let id = world.queue(world.rotation());
            if world.stopped_before_end_of(id).await {
                world.depose().await;
                world.gate.arm(None);
                world.lead();
            }
            let case = format!("lost at {name} {nth}, {side:?}");
            assert_eq!(world.ended(id).await.task.state, TaskState::Done, "{case}");
            let TaskKind::RotateCertificates { agents } = world.rotation() else { panic!() };
            for agent in agents {
                world.assert_told(&agent, "new", &case);
                let told =
                    world.settings_of(&agent).into_iter().filter(|settings| settings.get("mbus").is_some());
                assert_eq!(told.count(), 1, "{case}: told once, as the agent remembers");
            }
        }
    }
}
