//! Whoever shows the wrong certificate at a replica's ports stays outside, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::machine::WrongClock;
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use directord::identity::{Authority, Names};
use directord::tls::{TlsIdentity, expected_name};
use model::NodeId;
use rcgen::KeyPair;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What a client of HTTP/2 begins with: the preface, and settings of which there are none.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A certificate with its key.
struct Shown {
    chain_pem: String,
    key_pem: String,
}

impl Shown {
    /// Reads what a replica has.
    fn of_replica(folder: &Path) -> Result<Self> {
        let identity = folder.join("data/identity");
        let read = |name: &str| fs::read_to_string(identity.join(name)).context("read a replica's identity");
        Ok(Self { chain_pem: read("chain.pem")?, key_pem: read("key.pem")? })
    }

    /// Makes one of an authority that nobody here knows, for a name that is known.
    fn foreign() -> Result<Self> {
        let (authority, _) = Authority::create("somewhere else")?;
        let key = KeyPair::generate()?;
        let issued = authority.issue_replica(NodeId(1), &Names::default(), &key)?;
        Ok(Self { chain_pem: issued.chain_pem, key_pem: key.serialize_pem() })
    }

    /// Finds an agent's among the files of a VM.
    fn of_agent(vms: &Path) -> Result<Self> {
        let mut folders = vec![vms.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path: PathBuf = entry.path();
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                } else if let Ok(Ok(Value::Object(found))) =
                    fs::read(&path).map(|b| serde_json::from_slice(&b))
                    && let (Some(chain), Some(key)) = (found.get("chain_pem"), found.get("key_pem"))
                {
                    let text = |value: &Value| value.as_str().map(str::to_owned).context("PEM");
                    return Ok(Self { chain_pem: text(chain)?, key_pem: text(key)? });
                }
            }
        }
        anyhow::bail!("no agent has kept an identity in {}", vms.display())
    }
}

/// Returns whether a port speaks to whoever shows this.
async fn is_let_in(port: &str, shown: &Shown, authority_pem: &str) -> Result<bool> {
    let identity = TlsIdentity::new(&shown.chain_pem, &shown.key_pem, authority_pem)?;
    let stream = TcpStream::connect(port).await?;
    let answered = async {
        let mut tls = TlsConnector::from(Arc::clone(&identity.client()))
            .connect(expected_name(NodeId(1)), stream)
            .await?;
        tls.write_all(HELLO).await?;
        // A refusal of our certificate comes only now: with TLS 1.3 our side of the handshake is done before.
        let mut head = [0; 9];
        tls.read_exact(&mut head).await
    };
    let answered = tokio::time::timeout(Duration::from_secs(10), answered).await;
    Ok(answered.context("the port says neither yes nor no")?.is_ok())
}

#[tokio::test]
async fn expired_foreign_and_agents_certificates_open_no_port_of_a_replica() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let authority = cluster.credentials().authority_pem().to_owned();
    // The fleet's own, given ten days ago: while its clock, and that of the replica that joined, was wrong.
    let clock = WrongClock::build(cluster.folder(), -10 * 24 * 3600)?;
    cluster.terminate(1).await?;
    cluster.run_with(1, &clock.environment())?;
    let token = wait::until("the replica of the past answers", SETTLE, async || {
        let asked = cluster.dctl().envs(clock.environment()).args(["cluster", "join-token"]).output().await?;
        Ok(asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned()))
    })
    .await?;
    let late = cluster.prepare()?;
    let joined = cluster.join_with(late, &token, &clock.environment())?;
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    cluster.terminate(1).await?;
    cluster.run(1)?;
    cluster.wait_for_voter(1).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let client = cluster.client()?;
    let task = client.deploy(&Hello::default().manifest(), "some agents").await?;
    client.done(task, DEPLOY_LIMIT).await?;

    let [peer, agent, _] = cluster.other_ports(1);
    let good = Shown::of_replica(cluster.folder_of(1))?;
    let expired = Shown::of_replica(cluster.folder_of(late))?;
    let (foreign, of_agent) = (Shown::foreign()?, Shown::of_agent(&cluster.cloud_root().join("vms"))?);
    let cases = [
        ("a replica's", &peer, &good, true),
        ("an expired one", &peer, &expired, false),
        ("a foreign one", &peer, &foreign, false),
        ("an agent's", &peer, &of_agent, false),
        ("an agent's", &agent, &of_agent, true),
        ("an expired one", &agent, &expired, false),
        ("a foreign one", &agent, &foreign, false),
    ];
    for (case, port, shown, wanted) in cases {
        assert_eq!(is_let_in(port, shown, &authority).await?, wanted, "{case} at {port}");
    }
    let log = cluster.log_of(1)?;
    assert!(log.contains("a certificate has ended or not begun"), "the operator is told:\n{log}");

    // Nobody was harmed.
    cluster.check_alive()?;
    client.put_config("after", "text: all of them").await?;
    assert!(client.instances("hello").await?.iter().all(|i| i.process_state == "running"));
    cluster.finish().await
}

/// Says something without TLS, or nothing; returns what comes back until the port hangs up.
async fn without_tls(port: &str, says: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(port).await?;
    let mut answer = Vec::new();
    let talk = async {
        // Whoever hangs up in the middle of it has hung up.
        if stream.write_all(says).await.is_ok() {
            let _ = stream.read_to_end(&mut answer).await;
        }
    };
    tokio::time::timeout(SETTLE, talk).await.context("the port does not hang up")?;
    Ok(answer)
}

#[tokio::test]
async fn plain_text_is_heard_at_no_port_but_that_of_the_probes() -> Result<()> {
    const GET: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let [peer, agent, probes] = cluster.other_ports(1);
    let answer = without_tls(&probes, GET).await?;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    let ports = [("API", cluster.api(1)), ("peer", peer), ("agent", agent)];
    let cases = [("HTTP/1", GET), ("HTTP/2", HELLO), ("a line", b"hello?\r\n"), ("silence", b"")];
    let asked = ports.iter().flat_map(|port| cases.iter().map(move |case| (port, case)));
    let asked = asked.map(async |((name, port), (case, says))| {
        let answer = without_tls(port, says).await.with_context(|| format!("{case} at the {name} port"))?;
        // TLS may say goodbye in its own words: an alert.
        anyhow::ensure!(
            answer.is_empty() || answer[0] == 21,
            "{case} at the {name} port is answered: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    });
    futures::future::try_join_all(asked).await?;
    cluster.check_alive()?;
    cluster.client()?.put_config("after", "text: all of them").await?;
    cluster.finish().await
}
