//! The planner: facts in, a complete plan out. Pure.
//!
//! A deploy is planned in two halves, because templates are Ruby and Ruby is not pure: [`draft`] validates, places
//! instances and reserves addresses; the caller renders [`Draft::to_render`]; [`plan`] then sees what changed and
//! orders the work. A change of state is a deploy of [`stored_manifest`]. Other tasks ([`plan_delete_deployment`],
//! [`plan_errand`], [`plan_resurrection`], [`plan_resolutions`], [`plan_orphaned_disks`], [`plan_orphaned_vms`],
//! [`plan_taking_snapshots`]) use stored specs and need no rendering, nor does [`plan_export`], which is about workers alone.
//!
//! Deliberately *not* here: reading state, rendering, secrets, clocks. Invariant: identical input gives an identical
//! plan, and a plan leaves no choice open.
//!
//! Read next: [`input`], then `draft`, then `order`.

mod address;
mod bind;
mod by_hand;
mod certificates;
pub mod chance;
mod cloud_check;
mod compile;
mod deletion;
mod deploy;
mod desired;
mod diff;
mod disk;
mod dns;
mod documents;
mod draft;
mod errand;
pub mod explain;
mod export;
mod facts;
mod hotswap;
mod ignored;
pub mod input;
mod isolated;
mod links;
mod managed;
mod migrate;
mod network;
mod order;
mod orphans;
mod placement;
mod references;
mod repairs;
mod resurrection;
mod sizes;
mod snapshots;
mod state_change;
mod statics;
mod steps;
mod stored;
mod update;
mod variables;
mod zones;

pub use by_hand::{
    AttachRequest, plan_attach_disk, plan_delete_foreign_vm, plan_delete_vm, plan_orphan_disk, plan_warning,
};
pub use certificates::plan_rotation;
pub use cloud_check::{DecidedBy, Decision, plan_resolutions};
pub use deletion::plan_delete_deployment;
pub use deploy::plan;
pub use draft::{Draft, DraftInstance, RenderedHashes, Renewal, VariableDefinition, draft};
pub use errand::plan_errand;
pub use explain::explain;
pub use export::{Exported, exported, plan_export, stemcell_of_export};
pub use isolated::{IsolatedChange, Silence, plan_isolated_change};
pub use links::address::{LinkQuery, LinkStatus, link_address};
pub use managed::{WantedNetwork, managed_networks};
pub use orphans::{OrphanOfDisk, OrphanOfVm, plan_orphaned_disks, plan_orphaned_vms, plan_orphans};
pub use references::References;
pub use resurrection::plan_resurrection;
pub use sizes::vm_sizes;
pub use snapshots::{CurrentDisks, plan_deleting_snapshots, plan_taking_snapshots, with_snapshots};
pub use state_change::stored_manifest;
