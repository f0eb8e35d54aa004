//! A fleet comes to be, grows, shrinks, and keeps strangers out.

use std::fs;

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use dctl::call;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{MemberStatus, RemoveMemberRequest, TransferLeaderRequest};

#[tokio::test]
async fn three_replicas_form_a_fleet_and_show_roles_and_lag() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    client.put_config("greeting", "text: hello").await?;
    wait::until_true("nobody lags", SETTLE, async || {
        let members = client.status().await?.members;
        let role = |name: &str| members.iter().filter(|m| m.role == name).count();
        Ok(role("leader") == 1 && role("follower") == 2 && members.iter().all(|m| m.lag == Some(0)))
    })
    .await?;
    for member in client.status().await?.members {
        let MemberStatus { name, term, applied_index, rss_bytes, version, .. } = member;
        assert!(
            term > Some(0) && applied_index > Some(0) && rss_bytes > Some(0) && !version.is_empty(),
            "{name} tells of itself"
        );
    }
    let table = cluster.operate(&["cluster", "status"]).await?;
    for word in ["director-1", "director-2", "director-3", "leader", "follower"] {
        assert!(table.contains(word), "{table}");
    }
    // Whatever replica is asked, it knows what was written through another one.
    for number in 1..=3 {
        assert_eq!(cluster.client_of(number)?.config("note", "greeting").await?, "text: hello");
    }
    cluster.finish().await
}

#[tokio::test]
async fn only_a_fresh_token_of_this_fleet_lets_a_replica_in() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let stranger = Cluster::start(1, CloudKind::Process).await?;
    let client = cluster.client()?;
    let number = cluster.prepare()?;

    let good = client.join_token(600).await?;
    let (secret, authority) = good.rsplit_once('.').expect("a token names the authority");
    let (rest, last) = secret.split_at(secret.len() - 1);
    let wrong = if last == "A" { "B" } else { "A" };
    let refused = [
        ("no token at all", "secret".to_owned(), "not a join token"),
        ("a wrong secret", format!("{rest}{wrong}.{authority}"), "refused the token"),
        (
            "another fleet's token",
            stranger.client()?.join_token(600).await?,
            "not the fleet that the token is for",
        ),
        ("an expired token", expired(&cluster).await?, "refused the token"),
    ];
    for (case, token, wanted) in refused {
        let output = cluster.join(number, &token)?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(wanted), "{case}: {stderr}");
        assert!(!stderr.contains(&token), "{case}: the token is a secret: {stderr}");
    }

    let joined = cluster.join(number, &good)?;
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;
    let third = cluster.prepare()?;
    let again = cluster.join(third, &good)?;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && stderr.contains("refused the token"), "a used token: {stderr}");

    assert_eq!(client.status().await?.members.len(), 2);
    stranger.finish().await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_replica_that_cannot_run_does_not_become_a_voter() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let number = cluster.prepare()?;
    let config = cluster.folder_of(number).join("directord.toml");
    let text = fs::read_to_string(&config)?;
    // A cloud that can't be opened: its folder is a file.
    let root = format!("root = \"{}\"", cluster.cloud_root().display());
    fs::write(&config, text.replace(&root, "root = \"directord.toml\""))?;
    let token = cluster.client()?.join_token(600).await?;
    let joined = cluster.join(number, &token)?;
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let ran = cluster.directord(number, &["run"], &[])?;
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && stderr.contains("open the local cloud"), "{stderr}");
    assert!(stderr.contains("stopped in order"), "{stderr}");
    // One voter of one: with a dead second one there would be no majority any more.
    let client = cluster.client()?;
    client.put_config("after", "text: all is well").await?;
    assert_eq!(client.status().await?.members.len(), 1);
    // Put right, it gets the place that its token was for.
    fs::write(&config, text)?;
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;
    cluster.finish().await
}

/// Returns a token whose time is over, on the fleet's own clock.
async fn expired(cluster: &Cluster) -> Result<String> {
    let token = cluster.client()?.join_token(1).await?;
    let made = std::time::Instant::now();
    // The condition is the time itself.
    wait::until_true("a second has passed", SETTLE, async || Ok(made.elapsed().as_millis() > 1_500)).await?;
    Ok(token)
}

#[tokio::test]
async fn a_removed_replica_has_no_say_any_more() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let removed = cluster.follower().await?;
    let name = format!("director-{removed}");
    let members = client.status().await?.members;
    let node_id = members.iter().find(|m| m.name == name).expect("it is a member").id;
    let request = RemoveMemberRequest { request_id: dctl::client::request_id(), node_id };
    call!(client.fleet, ClusterClient.remove_member(request)).await?;
    wait::until_true("the fleet has two members", SETTLE, async || {
        Ok(client.status().await?.members.len() == 2)
    })
    .await?;
    // It is gone for good: the fleet's majority is two of two now, and works without it.
    cluster.kill(removed)?;
    client.put_config("after", "text: removal").await?;
    // Its old folder does not bring it back.
    cluster.run(removed)?;
    client.put_config("after", "text: its return").await?;
    let members = client.status().await?.members;
    assert!(members.len() == 2 && members.iter().all(|m| m.id != node_id), "{members:?}");
    cluster.kill(removed)?;
    cluster.finish().await
}

#[tokio::test]
async fn a_leader_is_removed_also_when_it_is_asked_itself() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let leader = cluster.leader().await?;
    let name = format!("director-{leader}");
    let own = cluster.client_of(leader)?;
    let node_id = own.status().await?.members.iter().find(|m| m.name == name).expect("it is a member").id;
    let request = RemoveMemberRequest { request_id: dctl::client::request_id(), node_id };
    call!(own.fleet, ClusterClient.remove_member(request.clone())).await?;
    let rest: Vec<String> = (1..=3).filter(|n| *n != leader).map(|n| cluster.api(n)).collect();
    let client = chaos_tests::client::Client::new(&rest, cluster.credentials())?;
    // A client that lost the answer asks the others, and is told the same; nothing is filed twice.
    call!(client.fleet, ClusterClient.remove_member(request)).await?;
    let members = client.status().await?.members;
    assert!(members.len() == 2 && members.iter().all(|m| m.id != node_id), "{members:?}");
    let removals = client.events("delete", "member").await?;
    assert_eq!(removals.len(), 1, "{removals:?}");
    assert_eq!((removals[0].user.as_str(), removals[0].object_name.as_str()), ("admin", name.as_str()));
    // Two of two: they work without it, and its return changes nothing.
    cluster.kill(leader)?;
    client.put_config("after", "text: removal").await?;
    cluster.run(leader)?;
    wait::until_true("the removed one has noticed", SETTLE, async || {
        let log = cluster.log_of(leader)?;
        Ok(log.contains("was removed from the fleet") || log.contains("did not take this replica"))
    })
    .await?;
    client.put_config("after", "text: its return").await?;
    assert_eq!(client.status().await?.members.len(), 2);
    cluster.kill(leader)?;
    cluster.finish().await
}

#[tokio::test]
async fn leadership_moves_once_per_request() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let before = cluster.leader().await?;
    let request = TransferLeaderRequest { node_id: 0, request_id: dctl::client::request_id() };
    let first = call!(client.fleet, ClusterClient.transfer_leader(request.clone())).await?.leader;
    let after = cluster.leader().await?;
    assert_ne!(before, after);
    let again = call!(client.fleet, ClusterClient.transfer_leader(request)).await?.leader;
    assert_eq!((again, cluster.leader().await?), (first, after), "the repeat moved it on");
    let transfers = client.events("transfer", "leader").await?;
    assert!(transfers.len() == 1 && transfers[0].user == "admin", "{transfers:?}");
    assert!(!client.events("create", "join_token").await?.is_empty(), "tokens leave a trace, too");
    cluster.finish().await
}

#[tokio::test]
async fn data_of_another_fleet_is_refused() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    let mut other = Cluster::start(1, CloudKind::Process).await?;
    cluster.terminate(1).await?;
    other.terminate(1).await?;

    let again = cluster.directord(1, &["init"], &[])?;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && stderr.contains("belongs to a fleet already"), "{stderr}");

    // Somebody restores the wrong backup: our identity, their log and state.
    let (ours, theirs) = (cluster.folder_of(1).join("data/raft"), other.folder_of(1).join("data/raft"));
    fs::rename(&ours, cluster.folder_of(1).join("aside"))?;
    fs::rename(&theirs, &ours)?;
    let refused = cluster.directord(1, &["run"], &[])?;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("belongs to fleet"), "{stderr}");

    fs::rename(&ours, &theirs)?;
    fs::rename(cluster.folder_of(1).join("aside"), &ours)?;
    cluster.run(1)?;
    other.run(1)?;
    other.wait_for_voter(1).await?;
    cluster.wait_for_voter(1).await?;
    other.finish().await?;
    cluster.finish().await
}
