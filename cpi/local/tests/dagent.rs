//! The real agent comes up in a VM and dials its directors. Needs it beside the test programs: a test of the whole workspace
//! builds it for `chaos-tests`, `cargo build -p dagent` for this one alone. Says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;

use common::{Stage, context, ordinary};
use cpi_api::*;
use cpi_local::Rung;
use serde_json::json;

/// The first byte of a TLS record that opens a conversation.
const TLS_HANDSHAKE: u8 = 0x16;

/// Returns the real agent, if it was built.
fn dagent() -> Option<PathBuf> {
    // target/debug/deps/this-test -> target/debug/dagent
    let test = std::env::current_exe().unwrap();
    let folder = test.parent()?.parent()?;
    ["chaos-dagent", "dagent"].map(|name| folder.join(name)).into_iter().find(|program| program.exists())
}

#[test]
fn an_ordinary_users_agents_dial_too() {
    ordinary::run_the_others("an_ordinary_users_agents_dial_too", &[common::helper()]);
}

#[tokio::test]
async fn the_real_agent_dials_its_director() {
    let Some(dagent) = dagent() else { return println!("skipped: dagent has not been built") };
    let rungs =
        [(Rung::Process, [127, 95, 1]), (Rung::Namespaces, [10, 95, 1]), (Rung::UserNamespaces, [10, 95, 2])];
    for (rung, subnet) in rungs {
        let Some(stage) = Stage::open_with(rung, subnet, &dagent).await else { continue };
        let director = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = director.local_addr().unwrap().to_string();
        let greeting = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = director.accept().unwrap();
            let mut greeting = [0; 1];
            stream.read_exact(&mut greeting).unwrap();
            greeting[0]
        });
        let bootstrap = AgentBootstrap {
            endpoints: vec![endpoint],
            authorities_pem: common::AUTHORITY.into(),
            token: "t".into(),
            ..AgentBootstrap::default()
        };
        let request = CreateVm { bootstrap, ..stage.request(2, json!({})) };
        stage.cpi.create_vm(&context(1), request).await.unwrap();
        let greeting = tokio::time::timeout(std::time::Duration::from_secs(30), greeting).await;
        match greeting {
            Ok(byte) => assert_eq!(byte.unwrap(), TLS_HANDSHAKE),
            Err(_) => panic!("{rung}: no greeting; the console has {}", stage.console(2)),
        }
        stage.close(2).await;
    }
}
