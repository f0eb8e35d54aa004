//! Reads over REST, with TLS and a password, over connections that stay and as the `bosh` CLI sends them, a new one for each
//! request; beside a bare TLS server that answers with the very same bytes and asks nobody who they are. And a deploy that
//! changes nothing, as the CLI does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chaos_tests::cluster::Cluster;
use chaos_tests::rest::Client;
use chaos_tests::workload::{Hello, Net, upload_hello};
use owned_tasks::{OnExit, OwnedTasks};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::load::{self, Writer};
use crate::table::Table;
use crate::{Options, fleet};

const USER: &str = "operator";
const PASSWORD: &str = "a-password-of-the-bench";

/// What is read.
const PATHS: [&str; 3] = ["/info", "/deployments", "/tasks?limit=30"];

/// Clients at once.
const CLIENTS: [usize; 2] = [1, 10];

/// Instances of the deploy that changes nothing.
const INSTANCES: usize = 50;

/// The bound on one deploy.
const LIMIT: Duration = Duration::from_secs(600);

/// How connections are used.
#[derive(Clone, Copy)]
enum Connections {
    /// Each client keeps its own.
    Kept,
    /// A new one for each request.
    New,
}

/// A server, and how to trust it.
#[derive(Clone)]
struct Server {
    address: String,
    connector: TlsConnector,
}

impl Server {
    fn new(address: String, authority_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // A new process knows nothing of earlier connections.
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(self.connector.connect(ServerName::try_from("127.0.0.1")?, tcp).await?)
    }
}

/// A client that reads one path.
struct Reader {
    server: Server,
    path: &'static str,
    connections: Connections,
    kept: Option<TlsStream<TcpStream>>,
}

impl Writer for Reader {
    async fn write(&mut self, _: u64) -> Result<()> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.server.connect().await?,
        };
        ask(&mut stream, self.path).await?;
        if matches!(self.connections, Connections::Kept) {
            self.kept = Some(stream);
        }
        Ok(())
    }
}

/// Sends a request, and reads the answer to its end.
async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> Result<Vec<u8>> {
    let login = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {login}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::with_capacity(16 << 10);
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "{path}: the answer ends early");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{path}: {head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.context("a length")?.parse()?;
        if bytes.len() >= end + 4 + length {
            return Ok(bytes);
        }
    }
}

/// Measures all of them.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let cluster = fleet().await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let file = cluster.folder().join("password");
    std::fs::write(&file, PASSWORD)?;
    let file = file.to_str().context("UTF-8")?.to_owned();
    cluster.operate(&["user", "add", USER, "--new-password-file", &file, "--scope", "bosh.admin"]).await?;
    deploys(&cluster, table).await?;
    let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
    let tasks = OwnedTasks::new();
    for path in PATHS {
        let ours = |number| Server::new(cluster.api(number), cluster.credentials().authority_pem());
        let answer = ask(&mut ours(leader)?.connect().await?, path).await?;
        let bare = bare(answer, &tasks).await?;
        for clients in CLIENTS {
            for (connections, how) in [(Connections::Kept, "kept"), (Connections::New, "new each time")] {
                let read = async |server: &Server| {
                    let reader = |_| Reader { server: server.clone(), path, connections, kept: None };
                    load::run((0..clients).map(reader).collect(), options.seconds).await
                };
                let theirs = read(&bare).await?;
                for (number, role) in [(leader, "leader"), (follower, "follower")] {
                    let found = read(&ours(number)?).await?;
                    let ratio = found.rate / theirs.rate;
                    let name = format!("GET {path}, {clients} clients, connections {how}, {role}");
                    table.line(name, format!("{found}   {ratio:.2} of a bare TLS server"));
                }
                table.line("  a bare TLS server, the same bytes", theirs.to_string());
            }
        }
    }
    tasks.stop(Duration::from_secs(5)).await;
    cluster.finish().await
}

/// Starts a server that answers whatever it is asked with the same bytes.
async fn bare(answer: Vec<u8>, tasks: &OwnedTasks) -> Result<Server> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
    )?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let (answer, all) = (Arc::new(answer), tasks.clone());
    tasks.spawn("bare server", OnExit::Ignore, move |stop| async move {
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => match accepted { Ok(accepted) => accepted, Err(_) => return },
                () = stop.cancelled() => return,
            };
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            all.spawn("bare connection", OnExit::Ignore, move |stop| async move {
                tokio::select! {
                    _ = serve(stream, acceptor, &answer) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    Server::new(address, &certificate.pem())
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, answer: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut asked = Vec::new();
    while stream.read_buf(&mut asked).await? > 0 {
        if asked.ends_with(b"\r\n\r\n") {
            stream.write_all(answer).await?;
            stream.flush().await?;
            asked.clear();
        }
    }
    Ok(())
}

/// Deploys twice; the second time nothing has changed.
async fn deploys(cluster: &Cluster, table: &mut Table) -> Result<()> {
    let hello = Hello { instances: INSTANCES, max_in_flight: INSTANCES, ..Hello::default() };
    let client = Client::new(cluster.api(cluster.follower().await?), cluster.credentials().authority_pem())?;
    deploy(&client, &hello).await?;
    let time = deploy(&client, &hello).await?;
    table.time(format!("deploy of {INSTANCES} instances over REST that changes nothing"), time);
    Ok(())
}

/// Deploys, and looks at the task until it is done, with a new connection each time, as the CLI.
async fn deploy(client: &Client, hello: &Hello) -> Result<Duration> {
    let login = Some((USER, PASSWORD));
    let begun = Instant::now();
    let yaml = [("Content-Type", "text/yaml")];
    let filed = client.send("POST", "/deployments", login, &yaml, hello.manifest().as_bytes()).await?;
    let task = filed.header("location").with_context(|| format!("{filed:?}"))?.to_owned();
    loop {
        let row: serde_json::Value =
            serde_json::from_slice(&client.send("GET", &task, login, &[], &[]).await?.body)?;
        match row["state"].as_str() {
            Some("done") => return Ok(begun.elapsed()),
            Some("queued" | "processing") => ensure!(begun.elapsed() < LIMIT, "it takes too long: {row}"),
            _ => anyhow::bail!("{row}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
