//! The executor as a whole: stories of tasks, and every step failed, repeated, and cut off by the loss of its leader.

#![allow(clippy::unwrap_used, reason = "a panic is a test's report")]
#![allow(missing_docs, reason = "nobody but this test sees it")]

mod answers;
mod artifacts;
mod by_hand;
mod cancelling;
mod certificates;
mod clean_up;
mod cloud_check;
mod dns;
mod dry_run;
mod dynamic_disks;
mod ended;
mod errands;
mod exports;
mod failover;
mod faults;
mod fetching;
mod gate;
mod hotswap;
mod inspecting;
mod isolated;
mod latecomers;
mod leftovers;
mod limits;
mod log;
mod logs;
mod named_disks;
mod names;
mod networks;
mod ports;
mod queueing;
mod redis;
mod releases;
mod rendering;
mod repairs;
mod scenes;
mod secrets;
mod snapshots;
mod ssh;
mod stemcells;
mod stopping;
mod stories;
mod summary;
mod uploads;
mod web;
mod world;
