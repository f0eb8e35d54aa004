//! Tasks without a plan, and what is done without one before or after it: safe to begin anew, so a new leader simply runs it
//! again.

mod asking;
mod bundle;
mod clean_up;
mod dynamic_disks;
mod export;
mod fetch_logs;
mod inspect;
mod release;
mod remote;
mod ssh;
mod stemcell;

pub use clean_up::{clean_up, cleaned_up};
pub use dynamic_disks::dynamic_disk;
pub use export::export_release;
pub use fetch_logs::{LogWish, fetch_logs};
pub use inspect::inspect;
pub use release::{delete_release, upload_release};
pub use remote::Archive;
pub use ssh::ssh;
pub use stemcell::{delete_stemcell, upload_stemcell};
