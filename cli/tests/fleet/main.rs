//! `dctl` against scripted directors on loopback: what it does when they fail, and what it says.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod binary;
mod calls;
mod director;
mod following;
mod replicas;
mod sessions;
mod showing;
mod tls;
mod transfers;
