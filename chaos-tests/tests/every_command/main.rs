//! Every command of the `bosh` CLI that changes something, given at a follower while the leader is killed in the middle of
//! it: it ends as if nothing had happened, once, and the cloud has nothing that the fleet does not know of.
//!
//! One story per noun; each goes through its commands one after the other, and every one costs a leader.

mod artifacts;
mod configs;
mod deploys;
mod dynamic_disks;
mod instances;
mod leftovers;
mod networks;
mod shelf;
mod story;
