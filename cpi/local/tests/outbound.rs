//! VMs that reach what the host reaches. The host is a network namespace that the test makes, and so is the world outside. Needs
//! root; says so where it skips.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::thread;

use common::{Stage, options};
use cpi_local::{Isolation, LocalOptions, Rung};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::json;

/// The world outside: an address that documentation has, and nobody else.
const WORLD: &str = "198.51.100.2";

fn run(program: &str, arguments: &str) -> Output {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs `deed` on a host of its own, with a cable to a world that answers whoever comes from the host with what it is seen as.
fn on_a_host_of_its_own(deed: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                println!("skipped: no network namespace can be made here: {error}");
                return;
            }
            let (tell_world, world) = channel();
            let (cabled, is_cabled) = channel::<()>();
            // It serves for as long as the test runs, and ends with it.
            thread::spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                tell_world.send(gettid()).unwrap();
                is_cabled.recv().unwrap();
                run("ip", &format!("addr add {WORLD}/24 dev world"));
                run("ip", "link set world up");
                let listener = TcpListener::bind((WORLD, 7)).unwrap();
                tell_world.send(gettid()).unwrap();
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let _ = write!(stream, "you are {}", stream.peer_addr().unwrap().ip());
                }
            });
            let tid = world.recv().unwrap();
            run("ip", "link set lo up");
            run("ip", &format!("link add outside type veth peer name world netns {tid}"));
            run("ip", "addr add 198.51.100.1/24 dev outside");
            run("ip", "link set outside up");
            cabled.send(()).unwrap();
            world.recv().unwrap();
            deed();
        });
        host.join().unwrap();
    });
}

#[test]
fn a_vm_reaches_the_world_as_its_host_only_where_that_was_asked_for() {
    on_a_host_of_its_own(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for (subnet, outbound) in [([10, 94, 1], None), ([10, 94, 2], Some("172.31.255.252/30"))] {
                let agent = format!(
                    "cd /var/vcap; timeout 2 bash -c 'cat </dev/tcp/{WORLD}/7' > heard || echo nobody > heard\n\
                     mv heard said; exec sleep 1000000"
                );
                let outbound = outbound.map(|subnet| subnet.parse().unwrap());
                let set = |options: LocalOptions| LocalOptions { outbound, ..options };
                let Some(stage) = Stage::open_set(Rung::Namespaces, subnet, &agent, set).await else { return };
                // Twice the same: the second VM comes into a lab that has its way out already.
                for n in [2, 3] {
                    stage.create(n, json!({})).await;
                    let said = stage.wait_for(n, "said", |text| !text.is_empty()).await;
                    let expected = if outbound.is_some() { "you are 198.51.100.1" } else { "nobody\n" };
                    assert_eq!(said, expected);
                }
                stage.close(3).await;
                let left = String::from_utf8(run("ip", "-brief link").stdout).unwrap();
                assert!(!left.contains("dlab-"), "{left}");
                let tables = String::from_utf8(run("nft", "list tables").stdout).unwrap();
                assert_eq!(tables, "", "the host has its tables back");
            }
        });
    });
}

#[test]
fn a_process_has_the_network_of_its_host_anyway() {
    let dir = tempfile::tempdir().unwrap();
    let outbound = Some("172.31.255.252/30".parse().unwrap());
    let options = LocalOptions { outbound, ..options(dir.path(), Isolation::Exactly(Rung::Process)) };
    assert_eq!(cpi_local::LocalCpi::open(options).unwrap().rung(), Rung::Process);
}
