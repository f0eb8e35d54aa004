//! What the planner makes of situations that the recordings do not have: each test is one story.

#![allow(clippy::unwrap_used, reason = "test support: a panic here is the report")]
#![allow(dead_code, reason = "the world is shared with the golden tests, which use all of it")]

mod addresses;
mod clouds;
mod compiling;
mod director;
mod exports;
mod hotswap;
mod ignored;
mod isolated;
mod links;
mod managed_networks;
mod named_disks;
mod refusals;
mod repairs;
mod sizes;
mod states;
mod statics;
mod surplus;
mod traps;
mod updates;

#[path = "../golden/fixture.rs"]
mod fixture;
#[path = "../golden/perform.rs"]
mod perform;
#[path = "../golden/render.rs"]
mod render;
#[path = "../golden/world.rs"]
mod world;
