//! This replica within its fleet: the log, the peers, membership, and copies of blobs.
//!
//! Deliberately *not* here: consensus itself (`raft`) and what entries mean (`state`). Invariant: a replica that was removed
//! is let in nowhere, from the moment that the state says so.
//!
//! Read next: [`log`], then a replica's life: [`settling`], [`membership`], [`leaving`], [`readmitting`]; then [`blobs`] and [`scrub`].

pub mod backup;
pub mod blobs;
pub mod forgetting;
pub mod fsm;
pub mod gate;
pub mod homes;
pub mod leaving;
pub mod log;
pub mod membership;
pub mod peers;
pub mod probing;
pub mod readmitting;
pub mod room;
pub mod scrub;
pub mod settling;
