//! What VMs on one bridge know each other by. Needs root; says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use common::{Stage, context};
use cpi_api::*;
use cpi_local::Rung;
use serde_json::json;

#[tokio::test]
async fn a_vm_that_takes_an_address_over_is_found_where_the_one_before_was() {
    let agent = "cat /sys/class/net/eth0/address > /var/vcap/hardware; exec sleep 1000000";
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 9], agent).await else { return };
    let first = stage.create(2, json!({})).await;
    assert_eq!(stage.wait_for(2, "hardware", |text| !text.is_empty()).await, "52:54:0a:5d:09:02\n");
    stage.cpi.delete_vm(&context(1), &first).await.unwrap();
    let networks = stage.request(2, json!({})).networks;
    let second = CreateVm { networks, ..stage.request(3, json!({})) };
    stage.cpi.create_vm(&context(1), second).await.unwrap();
    assert_eq!(stage.wait_for(3, "hardware", |text| !text.is_empty()).await, "52:54:0a:5d:09:02\n");
    stage.close(3).await;
}

#[tokio::test]
async fn a_gateway_stays_where_it_is_when_vms_come_and_go() {
    // Nobody listens there; but whoever tries finds out where it is.
    let agent = r#"until grep -q '^10.93.10.1 .*0x2' /proc/net/arp; do : < /dev/tcp/10.93.10.1/9; sleep 0.02; done 2>/dev/null
        sed -n 's/^10.93.10.1 .*0x2 *\([^ ]*\) .*/\1/p' /proc/net/arp > /var/vcap/gateway; exec sleep 1000000"#;
    let Some(stage) = Stage::open(Rung::Namespaces, [10, 93, 10], agent).await else { return };
    let mut before = None;
    for n in 2..8 {
        let vm = stage.create(n, json!({})).await;
        let gateway = stage.wait_for(n, "gateway", |text| text.ends_with('\n')).await;
        assert_eq!(gateway, "56:54:00:00:00:01\n", "as VM {n} sees it");
        // Whoever came before goes; one stays, so that the bridge does.
        if let Some(before) = before.replace(vm) {
            stage.cpi.delete_vm(&context(1), &before).await.unwrap();
        }
    }
    stage.close(7).await;
}
