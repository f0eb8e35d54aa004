//! What a replica shows to people, programs and machines that look after machines.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use futures::StreamExt as _;
use proto::v1::watch_client::WatchClient;
use proto::v1::{Change, WatchRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// Asks a replica's probes; returns status and body.
async fn probe(cluster: &Cluster, number: usize, path: &str) -> Result<(u16, String)> {
    let [.., probes] = cluster.other_ports(number);
    let mut stream = TcpStream::connect(&probes).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// Connects as any client of gRPC does that knows nothing of us.
async fn channel(cluster: &Cluster, number: usize) -> Result<Channel> {
    let authority = Certificate::from_pem(cluster.credentials().authority_pem());
    let endpoint = Channel::from_shared(format!("https://{}", cluster.api(number)))?;
    Ok(endpoint.tls_config(ClientTlsConfig::new().ca_certificate(authority))?.connect().await?)
}

async fn serving(cluster: &Cluster, number: usize) -> Result<ServingStatus> {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel(cluster, number).await?).check(request).await?;
    Ok(answer.into_inner().status())
}

#[tokio::test]
async fn a_replica_says_whether_it_lives_and_whether_it_can_serve() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    cluster.client()?.put_config("note", "text: x").await?;
    for number in 1..=3 {
        wait::until_true("it is ready", SETTLE, async || {
            Ok(probe(&cluster, number, "/readyz").await?.0 == 200
                && serving(&cluster, number).await? == ServingStatus::Serving)
        })
        .await?;
        assert_eq!(probe(&cluster, number, "/livez").await?.0, 200);
        let (status, metrics) = probe(&cluster, number, "/metrics").await?;
        assert_eq!(status, 200);
        for name in ["raft_term", "apply_seconds_bucket", "fsync_seconds_bucket", "leader_changes_total"] {
            assert!(metrics.contains(&format!("directorate_{name}")), "{name} of {number} in {metrics}");
        }
    }
    let all: Vec<String> = {
        let each = (1..=3).map(|number| probe(&cluster, number, "/metrics"));
        futures::future::try_join_all(each).await?.into_iter().map(|(_, text)| text).collect()
    };
    for call in
        ["propose_seconds_count", "rpc_seconds_count{method=\"directorate.v1.Configs/Put\",code=\"Ok\"}"]
    {
        assert!(all.iter().any(|text| text.contains(call)), "{call} in {all:#?}");
    }

    // Alone, it lives and can serve nobody, whoever it believes to lead.
    let lonely = cluster.follower().await?;
    for number in (1..=3).filter(|number| *number != lonely) {
        cluster.kill(number)?;
    }
    wait::until_true("it is not ready any more", SETTLE, async || {
        Ok(probe(&cluster, lonely, "/readyz").await?.0 == 503
            && serving(&cluster, lonely).await? == ServingStatus::NotServing)
    })
    .await?;
    assert_eq!(probe(&cluster, lonely, "/livez").await?.0, 200);
    let told = async || Ok(cluster.log_of(lonely)?.contains("there is no leader"));
    wait::until_true("its log says so", SETTLE, told).await?;
    for number in (1..=3).filter(|number| *number != lonely) {
        cluster.run(number)?;
    }
    wait::until_true("it is ready again", SETTLE, async || {
        Ok(probe(&cluster, lonely, "/readyz").await?.0 == 200)
    })
    .await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_client_that_knows_nothing_finds_out_what_there_is() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(1, CloudKind::Process).await?;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("directorate.v1.Cluster".into())),
    ];
    let mut client = ServerReflectionClient::new(channel(&cluster, 1).await?);
    let answers = client.server_reflection_info(tokio_stream::iter(requests)).await?.into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.map(|a| a.message_response)).collect().await;
    let [
        Ok(Some(MessageResponse::ListServicesResponse(services))),
        Ok(Some(MessageResponse::FileDescriptorResponse(files))),
    ] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["directorate.v1.Deployments", "directorate.v1.Watch", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!files.file_descriptor_proto.is_empty());
    cluster.finish().await
}

/// Watches on one replica until some change has come; returns all that came, and the revision reached.
async fn watched(
    cluster: &Cluster,
    number: usize,
    after: Option<u64>,
    key: &str,
) -> Result<(Vec<Change>, u64)> {
    let client = cluster.client_of(number)?;
    let request = WatchRequest { after_revision: after, tables: vec!["configs".into()] };
    let open = client
        .fleet
        .open("WatchClient.watch", async |link| WatchClient::new(link).watch(request.clone()).await);
    let mut stream = open.await?;
    let mut seen = Vec::new();
    let following = async {
        while let Some(message) = stream.message().await? {
            seen.extend(message.changes);
            if seen.iter().any(|change| change.key == key) {
                return Ok(message.revision);
            }
        }
        anyhow::bail!("the watch has ended")
    };
    let reached = tokio::time::timeout(SETTLE, following).await.context("nothing came")??;
    Ok((seen, reached))
}

#[tokio::test]
async fn a_watch_goes_on_at_another_replica_without_gap_or_repeat() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let first = client.put_config("a", "text: 1").await?.to_string();
    let listed: serde_json::Value = serde_json::from_str(&cluster.operate(&["--json", "configs"]).await?)?;
    let revision = listed["revision"].as_u64().context("a list tells its revision")?;
    assert_eq!(listed["rows"].as_array().map(Vec::len), Some(1));

    let second = client.put_config("a", "text: 2").await?.to_string();
    let (seen, reached) = watched(&cluster, 1, Some(revision), &second).await?;
    assert!(seen.iter().all(|change| change.key != first), "what the list had is not told again: {seen:?}");
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    let third = client.put_config("a", "text: 3").await?.to_string();
    let other = if leader == 2 { 3 } else { 2 };
    let (seen, _) = watched(&cluster, other, Some(reached), &third).await?;
    assert_eq!(seen.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), [third.as_str()]);

    // From now on: the first message says where that is, though nothing has happened.
    let own = cluster.client_of(other)?;
    let request = WatchRequest { tables: vec!["configs".into()], ..WatchRequest::default() };
    let open =
        own.fleet.open("WatchClient.watch", async |link| WatchClient::new(link).watch(request.clone()).await);
    let bookmark =
        tokio::time::timeout(Duration::from_secs(10), open.await?.message()).await??.context("one")?;
    assert!(bookmark.revision >= reached && bookmark.changes.is_empty(), "{bookmark:?}");
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_program_logs_in_with_a_token_until_it_is_revoked() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    let token = cluster.operate(&["user", "create-token", "--scope", "bosh.admin", "--note", "ci"]).await?;
    let (token, file) = (token.trim().to_owned(), cluster.folder().join("token"));
    std::fs::write(&file, &token)?;
    let file = file.to_str().context("UTF-8")?.to_owned();
    // Any replica knows it, and its user's name stands at what it does.
    for number in 1..=3 {
        let api = cluster.api(number);
        let status = ["--token-file", &file, "-e", &api, "user", "tokens"];
        assert!(cluster.operate(&status).await?.contains("ci"));
    }
    let reading = cluster.operate(&["user", "create-token", "--scope", "bosh.read"]).await;
    ensure!(reading.is_err(), "admin has the one scope, and can't give another");
    let id = token.split('.').nth(1).context("a token has an id")?;
    cluster.operate(&["user", "revoke-token", id]).await?;
    let refused = cluster.dctl().args(["--token-file", &file, "cluster", "status"]).output().await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(4) && !said.contains(&token), "{said}");
    let events = cluster.client()?.events("delete", "user_token").await?;
    assert!(events.len() == 1 && events[0].object_name == format!("admin/{id}"), "{events:?}");
    cluster.finish().await
}
