//! What happens to requests when leaders, answers, servers and agents get lost.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use agent_api::{AgentError, Agents as _, Method, Mode, Reply, Request};
use agent_client_nats::{Deed, Stage};
use model::step::Script;
use model::{AgentId, BlobDigest, Epoch};
use serde_json::json;
use support::{Book, GoAgent, NatsServer, PATIENCE, Replica, missing, until};

struct World {
    server: Arc<NatsServer>,
    book: Arc<Book>,
    agent: GoAgent,
    replica: Replica,
}

impl World {
    async fn new() -> Self {
        let server = Arc::new(NatsServer::start(&["a-1"]).await);
        let book = Arc::new(Book::default());
        let agent = GoAgent::start(&server, "a-1").await;
        let replica = Replica::start(&server, &book).await;
        Self { server, book, agent, replica }
    }

    fn deed(&self, id: &str) -> Deed {
        Deed { agent: self.agent.id.clone(), request: id.into() }
    }

    async fn call(&self, request: Request) -> Result<Reply, AgentError> {
        self.replica.agents.call(&self.agent.id, request).await
    }
}

fn request(id: &str, method: Method) -> Request {
    Request { id: id.into(), epoch: Epoch(7), mode: Mode::Submit, timeout: PATIENCE, method }
}

fn errand(id: &str, name: &str) -> Request {
    request(id, Method::RunErrand { errand: name.into() })
}

fn done() -> Result<Reply, AgentError> {
    Ok(Reply(json!({ "exit_code": 0, "stdout": "done\n", "stderr": "" })))
}

macro_rules! story {
    ($(#[$doc:meta])* async fn $name:ident($world:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(why) = missing() {
                return println!("skipped: {why}");
            }
            #[allow(unused_mut, reason = "some stories change it")]
            let mut $world = World::new().await;
            $body
        }
    };
}

story! {
    async fn the_next_leader_goes_on_polling_what_the_last_one_submitted(world) {
        let asking = world.replica.agents.clone();
        let agent = world.agent.id.clone();
        let lost = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                ended = asking.call(&agent, errand("long", "slow")) => panic!("ended: {ended:?}"),
                () = until("the number", || {
                    matches!(world.book.stage(&world.deed("long")), Some(Stage::Running { .. }))
                }) => {}
            }
        });
        lost.await.unwrap();
        world.replica = Replica::start(&world.server, &world.book).await;
        let again = Request { epoch: Epoch(8), ..errand("long", "slow") };
        let meanwhile = async { world.agent.machine.release() };
        let (ended, ()) = tokio::join!(world.call(again), meanwhile);
        assert_eq!(ended, done());
        assert_eq!(world.agent.machine.begun("slow"), 1);
        // What is written is enough, also when the agent has forgotten it.
        world.agent.restart().await;
        let attach = Request { mode: Mode::Attach, epoch: Epoch(9), ..errand("long", "slow") };
        assert_eq!(world.call(attach).await, done());
    }
}

story! {
    async fn what_may_have_begun_and_can_not_be_repeated_is_not(world) {
        world.agent.machine.lose_answer("run_errand");
        let first = world.call(errand("once", "quick")).await;
        let second = world.call(Request { epoch: Epoch(8), ..errand("once", "quick") }).await;
        for told in [first, second] {
            let failed = matches!(&told, Err(AgentError::Failed { message, .. }) if message.contains("may have begun"));
            assert!(failed, "{told:?}");
        }
        assert_eq!(world.book.stage(&world.deed("once")), Some(Stage::Asked));
        assert_eq!(world.agent.machine.begun("quick"), 1);
    }
}

story! {
    async fn what_can_be_repeated_is_when_its_answer_was_lost(world) {
        world.agent.machine.lose_answer("prepare");
        let prepared = world.call(request("p", Method::Prepare { spec: json!({}) })).await;
        assert_eq!(prepared, Ok(Reply(json!({}))));
        assert_eq!(world.agent.machine.begun("prepare"), 2);
        world.agent.machine.lose_answer("get_task");
        assert_eq!(world.call(errand("e", "quick")).await, done());
        assert_eq!(world.agent.machine.begun("quick"), 1);
    }
}

story! {
    async fn a_user_whose_answer_was_lost_is_made_anew(world) {
        world.agent.machine.lose_answer("ssh");
        let setup = || Method::SshSetup { user: "bosh_x1".into(), public_key: "ssh-ed25519 AAAA".into() };
        let made = world.call(request("s", setup())).await.unwrap();
        assert_eq!(made.0["status"], "success");
        assert_eq!(world.agent.machine.begun("setup"), 2);
        assert_eq!(world.call(request("s", setup())).await, Ok(made));
        assert_eq!(world.agent.machine.begun("setup"), 2);
    }
}

story! {
    async fn what_an_agent_that_is_not_there_was_never_asked_is_struck_out(world) {
        world.agent.stop().await;
        // Long enough for a busy server to say that nobody listens.
        let short = Request { timeout: Duration::from_secs(3), ..errand("later", "quick") };
        let away = Err(AgentError::Unreachable { agent: world.agent.id.clone() });
        assert_eq!(world.call(short.clone()).await, away);
        assert_eq!(world.book.stage(&world.deed("later")), None);
        world.server.kill();
        // What is sent before the end of the connection is noticed may have arrived, and is not struck out.
        let look = Request { timeout: Duration::from_millis(200), ..request("look", Method::Ping) };
        let noticed = async { while world.call(look.clone()).await != away {} };
        tokio::time::timeout(PATIENCE, noticed).await.expect("the end of the connection is noticed");
        assert_eq!(world.call(short).await, away);
        assert_eq!(world.book.stage(&world.deed("later")), None);
        // The same request, once both are there again.
        world.server.revive();
        let asking = world.call(errand("later", "quick"));
        let (ended, ()) = tokio::join!(asking, world.agent.restart());
        assert_eq!(ended, done());
        assert_eq!(world.agent.machine.begun("quick"), 1);
    }
}

story! {
    async fn nothing_is_asked_that_could_not_be_written_down(world) {
        world.book.set_away(true);
        let away = Err(AgentError::Unreachable { agent: world.agent.id.clone() });
        assert_eq!(world.call(errand("e", "quick")).await, away);
        assert_eq!(world.call(request("p", Method::Ping)).await, away);
        world.book.set_away(false);
        assert_eq!(world.agent.machine.asked.lock().unwrap().len(), 0);
        assert_eq!(world.call(errand("e", "quick")).await, done());
    }
}

story! {
    async fn a_copy_that_an_agent_has_lost_is_not_begun_again_and_an_install_is(world) {
        let running = |id: &'static str| {
            let (book, deed) = (world.book.clone(), world.deed(id));
            async move { until("its number", || matches!(book.stage(&deed), Some(Stage::Running { .. }))).await }
        };
        // Both wait behind an errand in the agent's one line.
        let hold = Request { timeout: Duration::from_secs(1), ..errand("hold", "slow") };
        assert!(world.call(hold).await.is_err());
        let copy = Method::MigrateDisk { from: "d-1".into(), to: "d-2".into() };
        let (copied, prepared, ()) = tokio::join!(
            world.call(request("copy", copy)),
            world.call(request("install", Method::Prepare { spec: json!({}) })),
            async {
                running("copy").await;
                running("install").await;
                world.agent.restart().await;
            },
        );
        assert!(matches!(copied, Err(AgentError::Failed { method: "migrate_disk", .. })), "{copied:?}");
        assert_eq!(prepared, Ok(Reply(json!({}))));
        assert_eq!(world.agent.machine.begun("migrate_disk"), 0);
        assert_eq!(world.agent.machine.begun("prepare"), 1);
    }
}

story! {
    async fn a_blob_travels_as_one_line_of_base64_and_not_if_it_is_too_long(world) {
        let upload = |id: &str, content: Vec<u8>| {
            request(id, Method::UploadBlob { id: "b".into(), digest: "sha256:00".into(), content })
        };
        let kept = world.call(upload("u", vec![0xff; 100])).await.unwrap();
        assert_eq!(kept.0, json!(["b", format!("{}/w==", "////".repeat(33))]));
        let refused = world.call(upload("v", vec![0; 900_000])).await;
        assert!(matches!(&refused, Err(AgentError::Failed { message, .. }) if message.contains("longer")), "{refused:?}");
        assert_eq!(world.book.stage(&world.deed("v")), None);
    }
}

story! {
    async fn mounted_disks_are_a_task_too_and_what_is_not_bosh_s_is_not_asked(world) {
        assert_eq!(world.call(request("l", Method::ListDisk)).await, Ok(Reply(json!(["disk-1"]))));
        let health = Method::SyncDnsHealth { health: Default::default() };
        let unknown = |method: &str| Err(AgentError::UnknownMethod { method: method.into() });
        assert_eq!(world.call(request("h", health)).await, unknown("sync_dns_health"));
        let script = Method::RunScript { script: Script::PreStart, env: Default::default() };
        assert_eq!(world.call(request("r", script)).await, unknown("run_script"));
        let blob = Method::SyncDns { blob: BlobDigest::from("00"), digest: "sha256:00".into(), version: 1 };
        assert_eq!(world.call(request("d", blob)).await, unknown("sync_dns"));
        assert_eq!(*world.agent.machine.asked.lock().unwrap(), ["list_disk", "get_task", "run_script", "sync_dns"]);
    }
}

story! {
    async fn an_id_that_is_a_pattern_is_nobody_s(world) {
        for id in ["*", ">", "a-1.x", "a-1\r\nPUB agent.a-1 2\r\n{}"] {
            let request = Request { timeout: Duration::from_millis(300), ..request("p", Method::Ping) };
            let asked = world.replica.agents.call(&AgentId::from(id), request).await;
            assert!(matches!(asked, Err(AgentError::Unreachable { .. })), "{asked:?}");
        }
        assert_eq!(world.agent.machine.asked.lock().unwrap().len(), 0);
    }
}

story! {
    async fn a_start_that_takes_long_is_waited_for_and_one_whose_answer_is_lost_is_asked_again(world) {
        // Longer than an agent may be silent, and nothing else is answered meanwhile.
        world.agent.machine.start_takes(support::ANSWER_WITHIN * 3);
        let started = Ok(Reply(json!("started")));
        assert_eq!(world.call(request("s", Method::Start)).await, started);
        assert_eq!(world.agent.machine.begun("start"), 1);
        world.agent.machine.start_takes(Duration::ZERO);
        world.agent.machine.lose_answer("start");
        assert_eq!(world.call(request("t", Method::Start)).await, started);
        assert_eq!(world.agent.machine.begun("start"), 3);
    }
}
