//! VMs that an ordinary user makes: the cloud's promises, and what is inside. Started by root, it does all of it as an ordinary
//! user; says so where that can't be.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;
#[path = "common/ordinary.rs"]
mod ordinary;

use std::path::Path;

use common::{Stage, context};
use cpi_api::conformance::{Subject, run_together};
use cpi_api::*;
use cpi_local::{Isolation, LocalCpi, OpenError, Rung};
use serde_json::json;

const REST: &str = "exec sleep 1000000";

/// How many promises are looked at side by side.
const WIDTH: usize = 2;

#[test]
fn all_of_it_is_done_by_an_ordinary_user() {
    ordinary::run_the_others("all_of_it_is_done_by_an_ordinary_user");
}

fn cloud(dir: &Path) -> Result<Subject, String> {
    common::subject(dir, Isolation::Exactly(Rung::UserNamespaces), [10, 97, 1, 10])
}

#[test]
fn the_clouds_promises_are_kept() {
    run_together(&cpi_api::conformance!(list cloud), WIDTH);
}

#[tokio::test]
async fn a_vm_has_an_inside_of_its_own() {
    let agent = format!(
        r#"cd /var/vcap
           hostname > name; id -u vcap > user; readlink /proc/1/exe > first; ls -A /root /home /tmp > hidden
           id -G > groups; setpriv --reuid vcap --regid vcap --init-groups id -u > as-vcap
           test -r /proc/self/environ && ls -d /proc/[0-9]* | wc -l > processes
           echo 'int main(void) {{ return 0; }}' > a.c; gcc -o a a.c && ./a && echo yes > compiled
           touch /etc/written-inside /var/lib/written-inside && echo x > /etc/passwd.new && mv /etc/passwd.new /etc/passwd &&
           test -s bosh/settings.json && test -c /dev/null && echo > /dev/null && test -w /dev/shm &&
           ! echo 1 2>/dev/null > /proc/sys/vm/drop_caches && ! touch /usr/bin/written-inside 2>/dev/null &&
           ! echo x 2>/dev/null >> bosh/bin/dagent && echo yes > usable
           cat "$2" > arguments; cat /etc/resolv.conf > resolver; echo done > done; {REST}"#
    );
    let Some(stage) = Stage::open(Rung::UserNamespaces, [10, 97, 2], &agent).await else { return };
    stage.create(2, json!({})).await;
    stage.wait_for(2, "done", |text| text == "done\n").await;
    let read = |file| std::fs::read_to_string(stage.vcap(2, file)).unwrap();
    assert_eq!(read("name"), "agent-2\n");
    assert_eq!((read("user"), read("as-vcap"), read("groups")), ("1000\n".into(), "1000\n".into(), "0\n".into()));
    assert_eq!(read("usable"), "yes\n", "{}", stage.console(2));
    assert_eq!(read("hidden"), "/home:\nvcap\n\n/root:\n\n/tmp:\n");
    assert!(read("processes").trim().parse::<u32>().unwrap() < 10, "it sees processes of the host");
    assert!(!Path::new("/etc/written-inside").exists(), "it wrote on the host");
    assert_eq!(read("resolver"), "nameserver 127.0.0.53\n", "the agent answers names");
    assert!(read("arguments").contains("\"agent_id\": \"agent-2\""));
    if Path::new("/usr/bin/gcc").exists() {
        assert_eq!(read("compiled"), "yes\n");
    }
    stage.close(2).await;
}
