//! BOSH's own agent as the judge of how it comes to another certificate, over a real NATS. Its path is given in `BOSH_AGENT`.

use std::path::PathBuf;

use agent_api::Method;
use serde_json::{Value, json};

use super::rotation::tests::{digest_of, rotation_of};
use super::tests::{PATIENCE, until};
use crate::agent_blobs::judge_tests::{RealAgent, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosh_s_own_agent_goes_on_with_another_certificate_and_uses_the_old_one_no_more() {
    let Some(program) = std::env::var_os("BOSH_AGENT").map(PathBuf::from) else {
        return println!("skipped: BOSH_AGENT names no agent of BOSH's");
    };
    let Some(world) = World::start(3).await else { return println!("skipped: there is no nats-server here") };
    let env = world.env();
    let made_with = digest_of(env["bosh"]["mbus"]["cert"]["certificate"].as_str().unwrap());
    let mut agent = RealAgent::start(&program, &env, None);
    until("its connection", || world.nats.is_connected()).await;
    assert_eq!(world.call("ping", Method::Ping).await, json!("pong"));
    assert_eq!(world.server.certificates_of_a1(), [made_with]);

    let (request, digest) = rotation_of(&world.nats);
    let told = world.call("settings", request.method.clone());
    let (told, ()) = tokio::join!(told, agent.supervise_once());
    assert_eq!(told, json!("ok"));
    assert_eq!(world.call("ping again", Method::Ping).await, json!("pong"));
    assert_eq!(world.server.certificates_of_a1(), std::slice::from_ref(&digest));
    let kept: Value = serde_json::from_str(&agent.read("bosh/update_settings.json")).unwrap();
    assert_eq!((&kept["trusted_certs"], &kept["disk_associations"]), (&json!(""), &json!([])), "{kept}");

    // The same once more is nothing new, and settings without a bus leave it as it is.
    assert_eq!(world.call("settings once more", request.method).await, json!("ok"));
    let settings = json!({ "trusted_certs": "", "disk_associations": [] });
    assert_eq!(world.call("plain settings", Method::UpdateSettings { settings }).await, json!("ok"));
    assert_eq!(world.server.certificates_of_a1(), [digest]);
    assert!(world.tasks.stop(PATIENCE).await);
    world.replica.stop().await;
}
