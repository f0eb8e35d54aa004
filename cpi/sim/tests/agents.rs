//! Simulated agents enroll, attach, beat and answer over real TLS; a director here is just enough of one.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpi_api::*;
use cpi_sim::{Fleet, Knobs, SimCloud};
use model::agent_settings::DIRECTOR_TLS_NAME;
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::*;
use owned_tasks::{OnExit, OwnedTasks};
use proto::agent::v1::agent_gateway_server::{AgentGateway, AgentGatewayServer};
use proto::agent::v1::agent_identity_server::{AgentIdentity, AgentIdentityServer};
use proto::agent::v1::{
    AgentMessage, AgentRequest, Certificate, DirectorMessage, Endpoints, EnrollRequest, RenewRequest,
    Welcome, agent_message, director_message, response,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
};
use serde_json::json;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const TOKEN: &str = "a-token";

/// A director that knows no deployment: it asks each agent for its state once and writes down what it hears.
struct Director {
    issuer: Issuer<'static, KeyPair>,
    authority_pem: String,
    endpoint: String,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    enrolled: BTreeSet<String>,
    attached: BTreeSet<String>,
    answered: BTreeSet<String>,
    /// Streams that have begun and not ended.
    open: BTreeSet<String>,
    heartbeats: u64,
}

/// An agent's stream, for as long as this is there.
struct Open(Arc<Director>, String);

impl Open {
    fn new(director: Arc<Director>, agent: &str) -> Self {
        let mut heard = director.heard.lock().unwrap();
        heard.attached.insert(agent.to_owned());
        assert!(heard.open.insert(agent.to_owned()), "{agent} is attached twice");
        drop(heard);
        Self(director, agent.to_owned())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.heard.lock().unwrap().open.remove(&self.1);
    }
}

struct Door(Arc<Director>);

#[tonic::async_trait]
impl AgentIdentity for Door {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<Certificate>, Status> {
        let request = request.into_inner();
        assert_eq!(request.token, TOKEN);
        let csr = CertificateSigningRequestParams::from_der(&request.csr_der.to_vec().into()).unwrap();
        let is_first = self.0.heard.lock().unwrap().enrolled.insert(request.agent_id);
        assert!(is_first, "a token is good for one identity");
        Ok(Response::new(Certificate {
            chain_pem: csr.signed_by(&self.0.issuer).unwrap().pem(),
            authorities_pem: self.0.authority_pem.clone(),
            not_after_unix: 4_000_000_000,
        }))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        Err(Status::unimplemented("nothing gets that old here"))
    }
}

#[tonic::async_trait]
impl AgentGateway for Door {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<DirectorMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (mut up, director) = (request.into_inner(), self.0.clone());
        let Some(agent_message::Body::Hello(hello)) = up.message().await?.and_then(|m| m.body) else {
            return Err(Status::invalid_argument("a stream begins with Hello"));
        };
        let open = Open::new(director.clone(), &hello.agent_id);
        let (down, messages) = tokio::sync::mpsc::channel(4);
        let endpoints = Some(Endpoints { endpoints: vec![director.endpoint.clone()] });
        let welcome = Welcome { heartbeat_interval_ms: 1000, endpoints, epoch: 1 };
        let ask = AgentRequest {
            request_id: "one".into(),
            epoch: 1,
            method: "get_state".into(),
            arguments_json: b"[]".to_vec().into(),
            ..AgentRequest::default()
        };
        for body in [director_message::Body::Welcome(welcome), director_message::Body::Request(ask)] {
            down.send(Ok(DirectorMessage { body: Some(body) })).await.unwrap();
        }
        // Reading goes on as the answer's stream is polled: its end is the end of the agent's.
        let listen = async_listen(open, up, down);
        let messages = ReceiverStream::new(messages);
        Ok(Response::new(Box::pin(messages.merge(listen))))
    }
}

fn async_listen(
    open: Open,
    up: Streaming<AgentMessage>,
    down: tokio::sync::mpsc::Sender<Result<DirectorMessage, Status>>,
) -> impl Stream<Item = Result<DirectorMessage, Status>> + Send {
    up.filter_map(move |message| {
        // Held as long as the agent speaks: without it, the merged stream would never end.
        let (_down, Open(director, agent)) = (&down, &open);
        let mut heard = director.heard.lock().unwrap();
        match message.ok()?.body? {
            agent_message::Body::Heartbeat(_) => heard.heartbeats += 1,
            agent_message::Body::Response(answer) => match answer.result {
                Some(response::Result::Value(state)) => {
                    assert!(String::from_utf8_lossy(&state).contains("\"job_state\":\"running\""));
                    heard.answered.insert(agent.clone());
                }
                other => panic!("{agent} answered {other:?}"),
            },
            _ => {}
        }
        None
    })
}

async fn direct(tasks: &OwnedTasks) -> Arc<Director> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let authority_pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec![DIRECTOR_TLS_NAME.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(leaf.pem(), own.serialize_pem()))
        .client_ca_root(tonic::transport::Certificate::from_pem(&authority_pem))
        .client_auth_optional(true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let director = Arc::new(Director { issuer, authority_pem, endpoint, heard: Mutex::default() });
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(AgentIdentityServer::new(Door(director.clone())))
        .add_service(AgentGatewayServer::new(Door(director.clone())));
    tasks.spawn("director", OnExit::Ignore, |stop| async move {
        server
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
            .await
            .unwrap();
    });
    director
}

fn request(director: &Director, stemcell: &StemcellCid, n: u16) -> CreateVm {
    let [high, low] = n.to_be_bytes();
    CreateVm {
        agent_id: AgentId::new(format!("agent-{n}")),
        stemcell: stemcell.clone(),
        cloud_properties: json!({}),
        networks: vec![NetworkSettings {
            name: "default".into(),
            kind: NetworkKind::Manual,
            ip: Some(IpAddr::from([10, 20, high, low])),
            address: AddressKind::Automatic,
            prefix: "32".into(),
            netmask: None,
            gateway: None,
            dns: vec![],
            defaults: vec![],
            cloud_properties: json!({}),
            nic_group: None,
        }],
        disks: vec![],
        env: json!({}),
        bootstrap: AgentBootstrap {
            endpoints: vec![director.endpoint.clone()],
            authorities_pem: director.authority_pem.clone(),
            token: TOKEN.into(),
            mbus: None,
            blobstore: None,
        },
    }
}

fn context() -> CallContext {
    CallContext {
        director_uuid: "test".into(),
        request_id: "cpi-1".into(),
        epoch: Epoch(1),
        stemcell_api_version: None,
        timeout: Duration::from_secs(60),
        log: Default::default(),
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_enroll_attach_beat_and_answer_until_their_vm_goes() {
    const COUNT: u16 = 500;
    let tasks = OwnedTasks::new();
    let director = direct(&tasks).await;
    let cloud = SimCloud::new(1, Knobs::default(), Arc::new(Fleet::new(tasks.child()).unwrap()));
    let image = CreateStemcell { image: "".into(), cloud_properties: json!({}), tags: Metadata::new() };
    let stemcell = cloud.create_stemcell(&context(), image).await.unwrap();
    let (before_kib, begun) = (resident_kib(), std::time::Instant::now());
    for n in 0..COUNT {
        cloud.create_vm(&context(), request(&director, &stemcell, n)).await.unwrap();
    }
    let all = usize::from(COUNT);
    until("all answers", || director.heard.lock().unwrap().answered.len() == all).await;
    println!(
        "{COUNT} agents enrolled, attached and answered in {:?}; {} KiB each, both ends of the connection together",
        begun.elapsed(),
        (resident_kib() - before_kib) / u64::from(COUNT)
    );
    assert_eq!(director.heard.lock().unwrap().enrolled.len(), all);
    let beats = director.heard.lock().unwrap().heartbeats;
    until("more heartbeats", || director.heard.lock().unwrap().heartbeats > beats + u64::from(COUNT)).await;

    for n in 0..COUNT {
        cloud.delete_vm(&context(), &VmCid::new(format!("vm-agent-{n}"))).await.unwrap();
    }
    assert_eq!(cloud.statistics().agents, 0);
    // Whose stream has ended beats no more, and nobody comes back.
    until("the end of every deleted VM's agent", || director.heard.lock().unwrap().open.is_empty()).await;

    // A crashed VM is silent and exists; a reboot brings its agent back, with the identity it has.
    let vm = cloud.create_vm(&context(), request(&director, &stemcell, COUNT)).await.unwrap().cid;
    let name = format!("agent-{COUNT}");
    until("the agent", || director.heard.lock().unwrap().answered.contains(&name)).await;
    cloud.crash_vm(&vm);
    until("its silence", || director.heard.lock().unwrap().open.is_empty()).await;
    assert!(cloud.has_vm(&context(), &vm).await.unwrap());
    director.heard.lock().unwrap().answered.remove(&name);
    cloud.reboot_vm(&context(), &vm).await.unwrap();
    until("the agent's return", || director.heard.lock().unwrap().answered.contains(&name)).await;
    tasks.stop(Duration::from_secs(10)).await;
}
