//! The port of blobs as agents and strangers meet it.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use model::plan::Plan;
use release::digest::{Algorithm, Hashed};
use state::command::{Command, Outcome};
use tower::ServiceExt as _;

use super::*;
use crate::config::Port;
use crate::test_support::replica::Replica;
use crate::test_support::state::{
    EPOCH, commit, create_vm, delete_vm, deploy, finished, plan_of, queue, started, vm_created,
};

/// The largest blob that agents may bring here.
const BYTES_MAX: u64 = 400_000;

/// Has the VM of agent `a1` made from one of BOSH's stemcells.
pub(super) async fn begin_vm(replica: &Replica, api_version: u32) -> model::TaskId {
    let outcome = replica.must(queue(deploy(), vec!["lock:deployment:web".into()])).await;
    let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
    replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
    let generation = State::new(&*replica.log.view()).deployment(&"web".into()).unwrap().generation;
    let mut plan = Plan { generation, ..plan_of(vec![create_vm(), delete_vm()]) };
    plan.targets[0].spec.stemcell.name = "bosh-aws-xen-hvm-ubuntu-jammy-go_agent".into();
    plan.targets[0].spec.stemcell.api_version = api_version;
    replica.must(commit(task, plan)).await;
    let records = vec![started(1, 0, 1), finished(1, 0, 1, vm_created("vm-1"))];
    replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
    task
}

/// An agent's view of a replica.
struct Served {
    replica: Replica,
    task: model::TaskId,
    desk: Arc<BlobDesk>,
}

impl Served {
    /// Has the VM of agent `a1` run, from one of BOSH's stemcells.
    async fn start(api_version: u32) -> Self {
        let replica = Replica::start().await;
        let task = begin_vm(&replica, api_version).await;
        let port = Port { listen: "127.0.0.1:0".parse().unwrap(), advertise: "d1.example:25250".into() };
        let desk = BlobDesk::new(
            Some(BlobPort { port, dav_advertise: None }),
            BYTES_MAX,
            replica.door.blobs.clone(),
            &replica.kek,
        );
        Self { replica, task, desk }
    }

    async fn delete_vm(&self) {
        let records = vec![started(1, 1, 1), finished(1, 1, 1, model::step::StepOutcome::Done)];
        self.replica.must(Command::StepRecords { task: self.task, epoch: EPOCH, records }).await;
    }

    async fn store(&self, content: &[u8]) -> BlobDigest {
        use release::Blobstore as _;
        self.replica.door.blobs.put(&mut &content[..]).await.unwrap().digest
    }

    /// Sends with a user and a password.
    async fn dav(&self, method: &str, path: &str, login: &str, body: &str) -> (StatusCode, Vec<u8>) {
        use base64::Engine as _;
        let login = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        let request = Request::builder().method(method).uri(path).header("authorization", login);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = self.desk.routes().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    async fn send(&self, method: &str, path: &str) -> (StatusCode, Vec<u8>) {
        self.send_body(method, path, Body::empty()).await
    }

    async fn send_body(&self, method: &str, path: &str, body: Body) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let answer = self.desk.routes().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        self.send("GET", path).await
    }

    async fn put(&self, path: &str, body: impl Into<Body>) -> StatusCode {
        self.send_body("PUT", path, body.into()).await.0
    }

    fn url_to_put(&self, name: &str) -> String {
        let url = self.desk.url_to_put(&"a1".into(), name).expect("it takes URLs");
        url.strip_prefix("https://d1.example:25250").expect("it names this replica").to_owned()
    }

    /// Returns what agent `a1` has brought under a name, by its SHA-1.
    async fn brought(&self, name: &str, content: &[u8]) -> Result<Brought, NotBrought> {
        let sha1 = Hashed::of(content).hex(Algorithm::Sha1).to_owned();
        self.desk.brought(&"a1".into(), name, &sha1).await
    }

    async fn blobs(&self) -> usize {
        self.replica.door.blobs.local().list().await.unwrap().len()
    }

    fn url(&self, blob: &BlobDigest) -> String {
        let url = self.desk.url_to_get(&"a1".into(), blob).expect("it takes URLs");
        url.strip_prefix("https://d1.example:25250").expect("it names this replica").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_the_blob_of_its_url_as_long_as_its_vm_is_there() {
    let port = Served::start(3).await;
    let content: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    let blob = port.store(&content).await;
    let url = port.url(&blob);
    assert_eq!(port.get(&url).await, (StatusCode::OK, content));
    let gone = port.url(&BlobDigest::new("0".repeat(64)));
    assert_eq!(port.get(&gone).await.0, StatusCode::NOT_FOUND);
    port.delete_vm().await;
    assert_eq!(port.get(&url).await.0, StatusCode::FORBIDDEN);
    assert_eq!(port.desk.url_to_get(&"a1".into(), &blob), None);
    port.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_was_changed_opens_nothing() {
    let port = Served::start(3).await;
    let (blob, secret) = (port.store(b"for a1").await, port.store(b"for others").await);
    let url = port.url(&blob);
    for way in ["PUT", "POST", "DELETE"] {
        assert_eq!(port.send(way, &url).await.0, StatusCode::METHOD_NOT_ALLOWED, "{way}");
    }
    let (path, query) = url.split_once('?').unwrap();
    let (until, signature) = query.strip_prefix("until=").unwrap().split_once("&signature=").unwrap();
    let later = until.parse::<i64>().unwrap() + 1;
    let (agent, old) = (AgentId::new("a1"), now_unix());
    let over = port.desk.urls.path(Opens { way: Way::Get, agent: &agent, blob: blob.as_str() }, old);
    for (changed, status) in [
        (url.replace(blob.as_str(), secret.as_str()), StatusCode::FORBIDDEN),
        (url.replace("/a1/", "/a2/"), StatusCode::FORBIDDEN),
        (format!("{path}?until={later}&signature={signature}"), StatusCode::FORBIDDEN),
        (format!("{path}?until={until}&signature={}", "A".repeat(43)), StatusCode::FORBIDDEN),
        (format!("{path}?until={until}&signature="), StatusCode::FORBIDDEN),
        (over, StatusCode::FORBIDDEN),
        (path.to_owned(), StatusCode::BAD_REQUEST),
        (format!("{path}?until=never&signature={signature}"), StatusCode::BAD_REQUEST),
        (format!("/agents/a1/blobs/..%2F..%2Fkek?{query}"), StatusCode::FORBIDDEN),
        (format!("/agents/a1/blobs/../../kek?{query}"), StatusCode::NOT_FOUND),
    ] {
        let (found, body) = port.get(&changed).await;
        assert_eq!(found, status, "{changed}");
        assert!(!String::from_utf8_lossy(&body).contains(signature), "{changed}");
    }
    // Even a director's own signature leads to no file.
    let wild = port.url(&BlobDigest::new("../../kek"));
    assert_eq!(port.get(&wild).await.0, StatusCode::NOT_FOUND);
    port.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_brings_is_found_under_its_name_with_its_digests() {
    let port = Served::start(3).await;
    let content = b"compiled".repeat(40_000);
    let url = port.url_to_put("t1-1-1-compile");
    assert_eq!(port.put(&url, content.clone()).await, StatusCode::CREATED);
    let hashed = Hashed::of(&content);
    let blob = BlobDigest::new(hashed.hex(Algorithm::Sha256));
    let expected = Brought { blob: blob.clone(), size_bytes: content.len() as u64 };
    let [sha1, sha512] = [Algorithm::Sha1, Algorithm::Sha512].map(|algorithm| hashed.hex(algorithm));
    let found = |told: String| {
        let desk = port.desk.clone();
        async move { desk.brought(&"a1".into(), "t1-1-1-compile", &told).await }
    };
    for told in [sha1.to_owned(), format!("{sha1};sha512:{sha512}"), format!("sha512:{sha512}")] {
        assert_eq!(found(told).await, Ok(expected.clone()));
    }
    for told in ["0".repeat(40), format!("{};sha512:{sha512}", "0".repeat(40)), "nonsense".into()] {
        let different = found(told.clone()).await;
        assert!(matches!(different, Err(NotBrought::Different { .. })), "{told}: {different:?}");
    }
    assert_eq!(port.brought("t1-1-1-logs", &content).await, Err(NotBrought::Nowhere));
    assert_eq!(port.get(&port.url(&blob)).await, (StatusCode::OK, content));
    // Asked once more, it brings another result: that one counts.
    assert_eq!(port.put(&port.url_to_put("t1-1-1-compile"), "again").await, StatusCode::CREATED);
    assert_eq!(port.brought("t1-1-1-compile", b"again").await.unwrap().size_bytes, 5);
    port.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_of_what_is_too_large_breaks_off_or_is_not_wanted() {
    let port = Served::start(3).await;
    let url = port.url_to_put("n");
    let giant = vec![0; BYTES_MAX as usize + 1];
    assert_eq!(port.put(&url, giant.clone()).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Without a length, nobody knows before it is there.
    let pieces = giant.chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
    let endless = Body::from_stream(futures::stream::iter::<Vec<std::io::Result<Bytes>>>(pieces));
    assert_eq!(port.put(&url, endless).await, StatusCode::PAYLOAD_TOO_LARGE);
    let broken = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let cut = Body::from_stream(futures::stream::iter(broken));
    assert_eq!(port.put(&url, cut).await, StatusCode::BAD_REQUEST);
    for changed in [
        url.replace("/brought/n?", "/brought/m?"),
        url.replace("/a1/", "/a2/"),
        port.url(&"n".into()).replace("/blobs/", "/brought/"),
        url.replace("/brought/n?", "/brought/..%2F..%2Fn?"),
    ] {
        assert_eq!(port.put(&changed, "x").await, StatusCode::FORBIDDEN, "{changed}");
    }
    assert_eq!(port.get(&url).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(port.get(&url.replace("/brought/", "/blobs/")).await.0, StatusCode::FORBIDDEN);
    port.delete_vm().await;
    assert_eq!(port.put(&url, "late").await, StatusCode::FORBIDDEN);
    assert_eq!(port.brought("n", b"late").await, Err(NotBrought::Nowhere));
    assert_eq!(port.blobs().await, 0);
    port.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_urls_has_no_credentials_and_older_agents_get_no_url() {
    let port = Served::start(3).await;
    let blobstore = port.desk.blobstore(&"a1".into(), "CA".into()).unwrap();
    let (endpoint, authorities_pem) = ("https://d1.example:25250".to_owned(), "CA".to_owned());
    assert_eq!(blobstore, Blobstore { endpoint, authorities_pem, credentials: None });
    let closed = BlobDesk::new(None, 0, port.replica.door.blobs.clone(), &port.replica.kek);
    assert_eq!(closed.url_to_get(&"a1".into(), &"b".into()), None, "there is no port");
    assert_eq!(closed.blobstore(&"a1".into(), "CA".into()), None);
    port.replica.stop().await;
    let older = Served::start(2).await;
    assert_eq!(older.desk.url_to_get(&"a1".into(), &"b".into()), None);
    older.replica.stop().await;
}

const ID: &str = "0b2f9c1e-7a55-4c0e-9f53-0d3d0a8f2b11";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_agent_comes_with_a_password_that_goes_with_its_vm() {
    let port = Served::start(2).await;
    let blobstore = port.desk.blobstore(&"a1".into(), "CA".into()).unwrap();
    assert_eq!(blobstore.endpoint, "https://d1.example:25250/dav");
    let password = blobstore.credentials.unwrap().password;
    let login = format!("a1:{password}");
    let blob = port.store(b"a package").await;
    let path = format!("/dav/7c/{blob}");
    assert_eq!(port.dav("GET", &path, &login, "").await, (StatusCode::OK, b"a package".to_vec()));
    let own = format!("/dav/1f/{ID}");
    assert_eq!(port.dav("GET", &own, &login, "").await.0, StatusCode::NOT_FOUND);
    for _ in ["its answer is lost", "it is sent again"] {
        assert_eq!(port.dav("PUT", &own, &login, "compiled").await.0, StatusCode::CREATED);
    }
    assert_eq!(port.dav("GET", &own, &login, "").await, (StatusCode::OK, b"compiled".to_vec()));
    assert_eq!(port.brought(ID, b"compiled").await.unwrap().size_bytes, 8);
    assert_eq!(port.desk.take(&"a1".into(), ID).await.as_deref(), Some("compiled"));
    assert_eq!(port.desk.take(&"a2".into(), ID).await, None, "another agent's");
    port.delete_vm().await;
    assert_eq!(port.dav("GET", &path, &login, "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(port.desk.blobstore(&"a1".into(), "CA".into()), None);
    port.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_password_opens_and_no_blob_is_replaced() {
    let port = Served::start(2).await;
    let blob = port.store(b"a package").await;
    let kek = &port.replica.kek;
    let good = AgentTokens::for_blobs(kek).token(&"a1".into(), 0);
    let (path, own) = (format!("/dav/7c/{blob}"), format!("/dav/1f/{ID}"));
    for login in [
        format!("a2:{good}"),
        format!("a2:{}", AgentTokens::for_blobs(kek).token(&"a2".into(), 0)),
        format!("a1:{}", AgentTokens::for_blobs(kek).token(&"a1".into(), 1)),
        format!("a1:{}", AgentTokens::new(kek).token(&"a1".into(), 0)),
        format!("a1:{}", &good[..good.len() - 1]),
        "a1:".into(),
        good.clone(),
    ] {
        for method in ["GET", "PUT"] {
            assert_eq!(port.dav(method, &path, &login, "x").await.0, StatusCode::UNAUTHORIZED, "{login}");
        }
    }
    assert_eq!(port.get(&path).await.0, StatusCode::UNAUTHORIZED);
    let login = format!("a1:{good}");
    assert_eq!(port.dav("PUT", &own, &login, "first").await.0, StatusCode::CREATED);
    assert_eq!(port.dav("PUT", &own, &login, "second").await.0, StatusCode::CONFLICT);
    assert_eq!(port.dav("GET", &own, &login, "").await.1, b"first");
    for id in [blob.as_str(), "rendered-1", "..%2F..%2Fkek", "0b2f9c1e7a554c0e9f530d3d0a8f2b11"] {
        let (status, _) = port.dav("PUT", &format!("/dav/7c/{id}"), &login, "x").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{id}");
    }
    assert_eq!(port.dav("GET", "/dav/7c/..%2F..%2Fkek", &login, "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(port.dav("DELETE", &own, &login, "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let giant = "0".repeat(BYTES_MAX as usize + 1);
    let other = own.replace("0b2f", "0b2e");
    assert_eq!(port.dav("PUT", &other, &login, &giant).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    port.replica.stop().await;
}
