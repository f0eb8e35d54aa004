//! What the replicas of a fleet look like: their states, clouds and certificates.

use expect_test::expect;
use proto::v1::*;

use crate::binary::{check, run};
use crate::director::{Director, Script, answer};

fn member(id: u64, role: &str, applied: u64) -> MemberStatus {
    MemberStatus {
        id,
        name: format!("director-{id}"),
        api_address: format!("10.0.0.{id}:25555"),
        role: role.into(),
        term: Some(4),
        last_log_index: Some(applied + 1),
        applied_index: Some(applied),
        lag: Some(100 - applied),
        version: "0.1.0".into(),
        rss_bytes: Some(52 << 20),
        room: Some("ample".into()),
        ..MemberStatus::default()
    }
}

/// One that does not answer: nobody knows how far it is.
fn away(id: u64) -> MemberStatus {
    MemberStatus { id, name: format!("director-{id}"), role: "unreachable".into(), ..MemberStatus::default() }
}

#[tokio::test]
async fn the_clusters_status() {
    let director = Director::start(Script {
        status: answer(|_| {
            Ok(ClusterStatusResponse {
                members: vec![member(1, "follower", 98), member(2, "leader", 100), away(3)],
                answered_by: 1,
                leader: 2,
                cluster_id: "c-1".into(),
            })
        }),
        ..Script::default()
    })
    .await;
    check(
        &run(&["-e", &director.address(), "cluster", "status"]).await,
        0,
        expect![[r#"
             Cluster      c-1
             Leader       2
             Answered by  1

             ID  Name        Address         Role         Term  Index  Applied  Lag  Snapshot  RSS     Disk   Version
             1   director-1  10.0.0.1:25555  follower     4     99     98       2    -         52 MiB  ample  0.1.0
             2   director-2  10.0.0.2:25555  leader       4     101    100      0    -         52 MiB  ample  0.1.0
             3   director-3  -               unreachable  -     -      -        -    -         -       -      -

            3 replicas
        "#]],
        expect![[""]],
    );
    let output = run(&["-e", &director.address(), "cluster", "status", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["leader"], &value["members"][1]["role"]), (&2.into(), &"leader".into()));
    assert_eq!(
        (&value["members"][1]["lag"], &value["members"][2]["lag"]),
        (&0.into(), &serde_json::Value::Null)
    );
}

#[tokio::test]
async fn what_each_replica_has_found_of_its_clouds() {
    let probe = |cpi: &str, kind: &str, way: &str, works, is_used| CloudProbe {
        cpi: cpi.into(),
        kind: kind.into(),
        way: way.into(),
        works,
        is_used,
        why: if works { "tried".into() } else { "no such file".into() },
    };
    let replica = |node_id, probes| ReplicaClouds { node_id, answered: true, probes, ..Default::default() };
    let local = move || {
        vec![probe("", "local", "namespaces", true, true), probe("", "local", "process", false, false)]
    };
    let of_two = move || [local(), vec![probe("east", "external", "", false, true)]].concat();
    let all_well = move |_| Ok(ProbeCloudsResponse { replicas: vec![replica(1, local())] });
    let director = Director::start(Script { probe_clouds: answer(all_well), ..Script::default() }).await;
    check(
        &run(&["-e", &director.address(), "cpi", "probe"]).await,
        0,
        expect![[r#"
         Replica  CPI  Kind   VMs by      Works  Used  What was found
         1        -    local  namespaces  yes    yes   tried
         1        -    local  process     no     no    no such file

        2 probes
    "#]],
        expect![[""]],
    );
    let script = Script {
        probe_clouds: answer(move |_| {
            let away = ReplicaClouds { node_id: 2, ..ReplicaClouds::default() };
            Ok(ProbeCloudsResponse { replicas: vec![replica(1, of_two()), away] })
        }),
        ..Script::default()
    };
    let director = Director::start(script).await;
    check(
        &run(&["-e", &director.address(), "cpi", "probe"]).await,
        1,
        expect![[r#"
         Replica  CPI   Kind      VMs by      Works  Used  What was found
         1        -     local     namespaces  yes    yes   tried
         1        -     local     process     no     no    no such file
         1        east  external  -           no     yes   no such file
         2        -     -         -           no     no    the replica did not answer

        4 probes
    "#]],
        expect![[r#"
        Error: not every replica can use its clouds: replica 1 can't use the cloud `east`; replica 2 did not answer
    "#]],
    );
}

#[tokio::test]
async fn when_the_fleets_own_certificates_end() {
    let row = |name: &str, expires_at_unix_ms, days_left| FleetCertificate {
        name: name.into(),
        expires_at_unix_ms,
        days_left,
    };
    let certificates =
        vec![row("fleet.authority", 1_935_792_000_000, 1200), row("replica.1.certificate", 1_000, -3)];
    let list_certificates =
        answer(move |_| Ok(ListFleetCertificatesResponse { certificates: certificates.clone() }));
    let director = Director::start(Script { list_certificates, ..Script::default() }).await;
    let output = run(&["-e", &director.address(), "cluster", "certificates", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let days: Vec<_> = value["rows"].as_array().unwrap().iter().map(|row| &row["days_left"]).collect();
    assert_eq!(days, [1200, -3], "{value}");
}
