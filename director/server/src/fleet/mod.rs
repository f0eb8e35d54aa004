//! This replica within its fleet: the log, the peers, membership, and copies of blobs.

pub mod blobs;
pub mod fsm;
pub mod gate;
pub mod homes;
pub mod leaving;
pub mod log;
pub mod membership;
pub mod peers;
pub mod scrub;
pub mod settling;
