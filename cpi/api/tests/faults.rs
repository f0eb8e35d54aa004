//! Each knob of the fake does what it says.

use std::time::{Duration, Instant};

use cpi_api::fake::{FakeCpi, Fault};
use cpi_api::*;
use model::*;
use serde_json::json;

fn context(timeout: Duration) -> CallContext {
    CallContext {
        director_uuid: "test".into(),
        request_id: "cpi-1".into(),
        epoch: Epoch(1),
        stemcell_api_version: None,
        timeout,
        log: Default::default(),
    }
}

fn disk() -> CreateDisk {
    CreateDisk { disk_id: "d".into(), size_mib: 1, cloud_properties: json!({}), vm: None }
}

#[tokio::test]
async fn a_failed_call_does_nothing_and_the_next_one_works() {
    let fake = FakeCpi::new();
    fake.inject("create_disk", Fault::FailRetryable(CpiErrorKind::NoDiskSpace));
    let error = fake.create_disk(&context(Duration::MAX), disk()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.ok_to_retry, error.request_id.as_str()),
        (CpiErrorKind::NoDiskSpace, true, "cpi-1")
    );
    assert!(fake.cloud().disks.is_empty());
    fake.create_disk(&context(Duration::MAX), disk()).await.unwrap();
    assert_eq!(fake.count("create_disk"), 2);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_deed_done() {
    let fake = FakeCpi::new();
    fake.inject("create_disk", Fault::LoseAnswer);
    let error = fake.create_disk(&context(Duration::MAX), disk()).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert_eq!(fake.find_disk(&context(Duration::MAX), &"d".into()).await, Ok(Found::one("disk-d".into())));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_with_the_callers_timeout() {
    let fake = FakeCpi::new();
    fake.inject("create_disk", Fault::Hang);
    let error = fake.create_disk(&context(Duration::from_secs(9)), disk()).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert!(fake.cloud().disks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_outlives_an_impatient_caller() {
    let fake = FakeCpi::new();
    fake.inject("create_disk", Fault::Delay(Duration::from_secs(5)));
    fake.inject("create_disk", Fault::Delay(Duration::from_secs(5)));
    let (begun, clock) = (Instant::now(), tokio::time::Instant::now());
    fake.create_disk(&context(Duration::from_secs(6)), disk()).await.unwrap();
    assert_eq!(clock.elapsed(), Duration::from_secs(5));
    let late = CreateDisk { disk_id: "late".into(), ..disk() };
    let error = fake.create_disk(&context(Duration::from_secs(1)), late).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert!(fake.cloud().disks.contains_key("disk-late"));
    assert!(begun.elapsed() < Duration::from_secs(4), "the clock is paused");
}

#[tokio::test]
async fn what_is_late_comes_beside_what_was_made_meanwhile() {
    let (fake, context) = (FakeCpi::new(), context(Duration::MAX));
    fake.inject("create_disk", Fault::Late);
    let error = fake.create_disk(&context, disk()).await.unwrap_err();
    assert_eq!(error.kind, CpiErrorKind::TimedOut);
    assert_eq!(fake.find_disk(&context, &"d".into()).await, Ok(Found::none()));
    fake.create_disk(&context, disk()).await.unwrap();
    assert_eq!(fake.carry_out_late_calls(), 1);
    let both = Found::These(vec!["disk-d".into(), "disk-d-late-1".into()]);
    assert_eq!(fake.find_disk(&context, &"d".into()).await, Ok(both));
    fake.delete_disk(&context, &"disk-d".into()).await.unwrap();
    assert_eq!(fake.find_disk(&context, &"d".into()).await, Ok(Found::one("disk-d-late-1".into())));
    assert_eq!(fake.carry_out_late_calls(), 0);
}

#[test]
fn a_late_vm_has_the_address_of_the_one_whose_double_it_is() {
    let mut cloud = memory::MemoryCloud::default();
    cloud.stemcells.insert("s".into(), Metadata::new());
    let vm = |agent: &str| {
        CreateVm {
        agent_id: agent.into(),
        stemcell: "s".into(),
        cloud_properties: json!({}),
        networks: vec![serde_json::from_value(json!({
            "name": "n", "kind": "manual", "ip": "10.0.0.5", "address": "automatic", "prefix": "24",
            "netmask": null, "gateway": null, "dns": [], "defaults": [], "cloud_properties": {}, "nic_group": null,
        }))
        .unwrap()],
        disks: vec![],
        env: json!({}),
        bootstrap: AgentBootstrap::default(),
    }
    };
    let create = |agent: &str| Call::CreateVm(Box::new(vm(agent)));
    let context = context(Duration::MAX);
    cloud.perform(Some(&context), create("a")).unwrap();
    cloud.perform_late(create("a")).unwrap();
    assert_eq!(cloud.vms.keys().map(VmCid::as_str).collect::<Vec<_>>(), ["vm-a", "vm-a-late-1"]);
    cloud.perform_late(create("b")).unwrap_err();
    cloud.perform(Some(&context), Call::DeleteVm("vm-a".into())).unwrap();
    cloud.perform(Some(&context), create("b")).unwrap_err();
    cloud.perform(Some(&context), Call::DeleteVm("vm-a-late-1".into())).unwrap();
    cloud.perform(Some(&context), create("b")).unwrap();
}
