use agent_api::fake::FakeAgents;
use agent_api::{Method, Mode, Reply, Request};
use cpi_api::{AgentBootstrap, CreateVm};
use cpi_sim::{Agents as _, Fleet};
use model::TaskId;
use model::plan::Plan;
use model::step::{Action, StepOutcome};
use model::task::TaskError;
use owned_tasks::OwnedTasks;
use serde_json::json;
use state::command::{Outcome, TaskEnd};
use state::records::AskedStage;

use super::*;
use crate::nats::BothAgents;
use crate::nats::tests::{Heard, LASTS, PATIENCE, Server, until as wait_until};
use crate::test_support::replica::Replica;
use crate::test_support::state::{
    EPOCH, commit, create_vm, delete_vm, deploy, finished, plan_of, queue, started, step_no, vm_created,
};

fn update_settings() -> Action {
    Action::UpdateSettings { instance: "i1".into(), agent: "a1".into() }
}

/// A task that has made the VM of agent `a1` from a stemcell of BOSH's, and is about to send it settings.
async fn with_agent(replica: &Replica, nats: &Nats) -> TaskId {
    let outcome = replica.must(queue(deploy(), vec!["lock:deployment:web".into()])).await;
    let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
    replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
    let generation = State::new(&*replica.log.view()).deployment(&"web".into()).unwrap().generation;
    let bind = Action::BindVm { instance: "i1".into(), agent: "a1".into() };
    let mut plan = Plan { generation, ..plan_of(vec![create_vm(), bind, update_settings(), delete_vm()]) };
    plan.targets[0].spec.stemcell.name = "bosh-aws-xen-hvm-ubuntu-jammy-go_agent".into();
    replica.must(commit(task, plan)).await;
    let say = async |records| replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
    say(vec![started(1, 0, 1)]).await;
    offer(replica, nats, task, 0).await;
    let records = vec![
        finished(1, 0, 1, vm_created("vm-1")),
        started(1, 1, 1),
        finished(1, 1, 1, StepOutcome::Done),
        started(1, 2, 1),
    ];
    say(records).await;
    task
}

/// Offers the agent what it is to be offered.
async fn offer(replica: &Replica, nats: &Nats, task: TaskId, index: u32) {
    let (agent, step) = (AgentId::new("a1"), step_no(1, index));
    let certificate = nats.due(&agent).expect("one is due");
    replica.must(Command::CertificateOffer { task, epoch: EPOCH, step, agent, certificate }).await;
}

fn look_at(replica: &Replica, nats: &Nats, after: Duration) -> Found {
    let now = Timestamp(replica.log.clock().0 + after.as_millis() as i64);
    found(&State::new(&*replica.log.view()), &nats.terms().unwrap(), now, REST)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_certificate_ends_is_given_another_by_one_task_whoever_leads() {
    let replica = Replica::start().await;
    let Some(server) = Server::start(&replica).await else {
        replica.stop().await;
        return println!("skipped: there is no nats-server here");
    };
    let nats = server.nats(&replica);
    with_agent(&replica, &nats).await;
    assert!(nats.due(&"a1".into()).is_none(), "it has one");
    let seen = |after: Duration| {
        let found = look_at(&replica, &nats, after);
        (found.rotations.len(), found.late)
    };
    let minute = Duration::from_secs(60);
    assert_eq!(seen(Duration::ZERO), (0, 0));
    assert_eq!(seen(LASTS * 2 / 3 - minute), (0, 0));
    assert_eq!(seen(LASTS * 2 / 3 + minute), (1, 0));
    assert_eq!(seen(LASTS * 5 / 6 + minute), (1, 1));

    // Two leaders see the same, and the log takes it once.
    let proposed = async || {
        let (deployment, proposal) = look_at(&replica, &nats, LASTS).rotations.pop().unwrap();
        assert_eq!(deployment.as_str(), "web");
        proposal
    };
    let (first, second) = (proposed().await, proposed().await);
    let filed = replica.log.propose(first).await.unwrap().outcome;
    assert_eq!(replica.log.propose(second).await.unwrap().outcome, filed);
    let Outcome::TaskQueued(rotation) = filed else { panic!("{filed:?}") };
    let task = State::new(&*replica.log.view()).task(rotation).unwrap();
    assert_eq!(task.kind, TaskKind::RotateCertificates { agents: vec!["a1".into()] });
    assert_eq!(task.state, TaskState::Queued, "it waits for the deploy");
    assert_eq!(seen(LASTS), (0, 1), "one is open");

    // After one that has failed, the deployment has its rest.
    replica.must(Command::TaskFinish { task: TaskId(1), epoch: EPOCH, end: TaskEnd::Done(None) }).await;
    replica.must(Command::TaskTake { task: rotation, epoch: EPOCH }).await;
    let end = TaskEnd::Error(TaskError::plain("no answer"));
    replica.must(Command::TaskFinish { task: rotation, epoch: EPOCH, end }).await;
    assert_eq!(seen(REST - minute).0, 0);
    assert_eq!(seen(REST + minute).0, 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_told_of_another_bus_and_of_the_same_one_in_another_order_they_are_not() {
    let replica = Replica::start().await;
    let Some(server) = Server::start(&replica).await else {
        replica.stop().await;
        return println!("skipped: there is no nats-server here");
    };
    let nats = server.nats(&replica);
    with_agent(&replica, &nats).await;
    let has = State::new(&*replica.log.view()).agent(&"a1".into()).unwrap().certificate.unwrap();
    let with = |urls: &[&str]| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let config = crate::config::NatsConfig { urls, ..nats.config.clone() };
        Terms::of(&config, ["servers", "own"]).certificate(7, Timestamp(0)).bus
    };
    assert_eq!(with(&["nats://a:1", "nats://b:1"]), with(&["nats://b:1", "nats://a:1"]));
    assert_ne!(with(&["nats://a:1", "nats://b:1"]), with(&["nats://a:1"]));
    let own = State::new(&*replica.log.view()).cluster().unwrap().secrets.authority_pem;
    let servers = std::fs::read_to_string(&nats.config.ca_file).unwrap();
    let config = crate::config::NatsConfig { urls: vec!["nats://other:1".into()], ..nats.config.clone() };
    let elsewhere = Terms::of(&config, [&servers, &own]);
    assert_ne!(elsewhere.certificate(7, Timestamp(0)).bus, has.bus);
    let found = found(&State::new(&*replica.log.view()), &elsewhere, replica.log.clock(), REST);
    assert_eq!((found.rotations.len(), found.late), (1, 0));
    replica.stop().await;
}

/// Returns the digest by which a server knows a certificate.
pub(crate) fn digest_of(pem: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    hex::encode(digest(&SHA256, &pem.contents))
}

/// Sends agent `a1` settings with the certificate that it is offered, as the step does; returns that certificate.
pub(crate) fn rotation_of(nats: &Nats) -> (Request, String) {
    let mbus = nats.mbus(&"a1".into()).unwrap();
    let settings = json!({ "trusted_certs": "", "disk_associations": [], "mbus": mbus.to_settings() });
    let method = Method::UpdateSettings { settings };
    let request = Request {
        id: "t1-1.2-1-settings".into(),
        epoch: EPOCH,
        mode: Mode::Submit,
        timeout: PATIENCE,
        method,
    };
    (request, digest_of(&mbus.certificate_pem))
}

async fn call(nats: &Arc<Nats>, request: Request) -> Result<Reply, agent_api::AgentError> {
    BothAgents::of(Arc::new(FakeAgents::new()), Some(nats.clone())).call(&"a1".into(), request).await
}

fn ping(id: &str) -> Request {
    Request { id: id.into(), epoch: EPOCH, mode: Mode::Submit, timeout: PATIENCE, method: Method::Ping }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_on_with_another_certificate_though_the_leader_is_lost_before_its_answer() {
    let replica = Replica::start().await;
    let Some(server) = Server::start(&replica).await else {
        replica.stop().await;
        return println!("skipped: there is no nats-server here");
    };
    let (lost, tasks) = (server.nats(&replica), OwnedTasks::new());
    let task = with_agent(&replica, &lost).await;
    lost.clone().run_in(&tasks, &replica, Arc::new(Heard::default()));
    let agent = AgentId::new("a1");
    let made_with = lost.mbus(&agent).unwrap();
    let (agents, sim) = (OwnedTasks::new(), "vm-1");
    let fleet = Fleet::new(agents.clone()).unwrap();
    let vm: CreateVm = serde_json::from_value(json!({
        "agent_id": "a1", "stemcell": "s", "cloud_properties": {}, "networks": [], "disks": [], "env": {},
        "bootstrap": AgentBootstrap { mbus: Some(made_with.clone()), ..AgentBootstrap::default() },
    }))
    .unwrap();
    fleet.start(sim.into(), &vm, Duration::ZERO, Duration::ZERO);
    wait_until("the connection", || lost.is_connected()).await;
    assert_eq!(call(&lost, ping("p1")).await, Ok(Reply(json!("pong"))));
    assert_eq!(server.certificates_of_a1(), [digest_of(&made_with.certificate_pem)]);

    // The leader is lost when the agent has the settings, and has said no more than that it is at it.
    let certificate = lost.new_certificate(&lost.terms().unwrap());
    let step = step_no(1, 2);
    let offer = Command::CertificateOffer { task, epoch: EPOCH, step, agent: agent.clone(), certificate };
    replica.must(offer).await;
    let (request, digest) = rotation_of(&lost);
    let (asking, leader) = (request.clone(), lost.clone());
    tasks.spawn("asking", owned_tasks::OnExit::Ignore, |stop| async move {
        tokio::select! { _ = call(&leader, asking) => {}, () = stop.cancelled() => {} }
    });
    let asked =
        || State::new(&*replica.log.view()).asked_of_agent(&agent, &request.id).map(|asked| asked.stage);
    wait_until("that the agent is at it", || matches!(asked(), Some(AskedStage::Running { .. }))).await;
    assert!(tasks.stop(PATIENCE).await);

    let (next, tasks) = (server.nats(&replica), OwnedTasks::new());
    next.clone().run_in(&tasks, &replica, Arc::new(Heard::default()));
    wait_until("the connection", || next.is_connected()).await;
    // It offers the same once more, with another key, and need not hand it over.
    let (again, other) = rotation_of(&next);
    assert_ne!(other, digest);
    assert_eq!(call(&next, again).await, Ok(Reply(json!("ok"))));
    assert_eq!(call(&next, ping("p2")).await, Ok(Reply(json!("pong"))));
    assert_eq!(server.certificates_of_a1(), [digest], "the old one is used no more");
    let done = vec![finished(1, 2, 1, StepOutcome::Done)];
    replica.must(Command::StepRecords { task, epoch: EPOCH, records: done }).await;
    let record = State::new(&*replica.log.view()).agent(&agent).unwrap();
    assert_eq!(record.offered, None);
    assert!(agents.stop(PATIENCE).await);
    assert!(tasks.stop(PATIENCE).await);
    replica.stop().await;
}
