//! One file per noun.

mod artifacts;
mod by_hand;
mod changeset;
mod clean_up;
mod cloud_check;
mod configs;
mod deployments;
mod diff;
mod exports;
mod fleet;
mod history;
mod instances;
mod links;
mod logs;
mod parts;
mod snapshots;
mod ssh;
mod tasks;
mod users;
mod variables;

pub use artifacts::{ListedLeak, ORPHANS_KEPT_MS, Wanted, orphaned_vms_to_delete, orphans_to_delete};
pub use by_hand::{Attachment, orphans_lock};
pub use clean_up::{CleanUp, LeftoverRows, dns_blobs_to_forget};
pub use cloud_check::Resolutions;
pub use configs::PutConfig;
pub use deployments::{ChangeWish, DeploymentSummary, ErrandRun, check_context_id};
pub use diff::{ConfigSide, DiffLine, Difference, LineChange};
pub use fleet::Shards;
pub use history::{Changes, Watch};
pub use instances::{InstanceRow, InstanceWish};
pub use links::{AddressWish, NewLink};
pub use logs::{LogWish, blobs_to_forget, bundles_to_forget};
pub use parts::JobQuestion;
pub use snapshots::{SnapshotsOf, snapshots_of_all};
pub use tasks::{Output, TaskQuery, TaskView, UnitView};
pub use users::{NewToken, TOKEN_LIFE_MAX_MS};
