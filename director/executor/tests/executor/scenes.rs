//! The tasks that between them have every kind of step: the table of the fault tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::release::render::Renderer;
use model::instance::InstanceState;
use model::step::Action;
use model::task::{DeployOptions, InstanceFilter, TaskKind};
use serde_json::json;

use crate::artifacts::{Shape, become_state, errand};
use crate::ended::Ended;
use crate::summary::{summary, without_detours};
use crate::world::TestWorld;
use crate::{cloud_check, exports};

/// A task in a world that is ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    FreshDeploy,
    ChangedProperty,
    ChangedTags,
    LargerDisk,
    NoDisk,
    Recreation,
    ScaleDown,
    HardStop,
    Errand,
    Revival,
    DeleteDeployment,
    DeleteOrphans,
    HalfCopiedDisk,
    LeftoverVm,
    LeaveWorkers,
    DeleteWorkers,
    AttachDisk,
    DeleteStranger,
    Reboot,
    ForgetVm,
    ActivateDisk,
    HotSwap,
    Export,
    UpdateWithSnapshots,
    DeleteSnapshots,
    NamedDisks,
    NamedDisksSwapped,
}

pub const ALL: [Scene; 27] = [
    Scene::FreshDeploy,
    Scene::ChangedProperty,
    Scene::ChangedTags,
    Scene::LargerDisk,
    Scene::NoDisk,
    Scene::Recreation,
    Scene::ScaleDown,
    Scene::HardStop,
    Scene::Errand,
    Scene::Revival,
    Scene::DeleteDeployment,
    Scene::DeleteOrphans,
    Scene::HalfCopiedDisk,
    Scene::LeftoverVm,
    Scene::LeaveWorkers,
    Scene::DeleteWorkers,
    Scene::AttachDisk,
    Scene::DeleteStranger,
    Scene::Reboot,
    Scene::ForgetVm,
    Scene::ActivateDisk,
    Scene::HotSwap,
    Scene::Export,
    Scene::UpdateWithSnapshots,
    Scene::DeleteSnapshots,
    Scene::NamedDisks,
    Scene::NamedDisksSwapped,
];

/// Disks of which one changes, one goes, and another one comes.
const BEFORE: &[(&str, &str)] = &[("data", "small"), ("old", "small")];
const AFTER: &[(&str, &str)] = &[("data", "large"), ("new", "small")];

impl Scene {
    /// Returns a world in which the task can be asked for.
    pub async fn prepare(self, renderer: &Arc<Renderer>) -> TestWorld {
        let world = TestWorld::seed_with(renderer.clone()).await;
        if matches!(self, Self::LeaveWorkers | Self::DeleteWorkers) {
            world.leave_workers();
        }
        if matches!(self, Self::FreshDeploy | Self::LeaveWorkers) {
            return world;
        }
        if self == Self::Export {
            exports::with_compiled_archives(&world).await;
            exports::with_other_stemcell(&world).await;
        }
        if matches!(self, Self::UpdateWithSnapshots | Self::DeleteSnapshots) {
            world.take_snapshots().await;
        }
        world.run(self.shape().deploy()).await.done();
        match self {
            Self::Revival => {
                world.kill_a_vm();
            }
            Self::DeleteOrphans => {
                world.run(Shape { instances: 0, ..Shape::default() }.deploy()).await.done();
            }
            Self::HalfCopiedDisk => {
                world.fail_at("migrate_disk", Self::LargerDisk.task(&world)).await;
            }
            Self::AttachDisk => {
                world.run(Self::LargerDisk.task(&world)).await.done();
                world.run(Self::HardStop.task(&world)).await.done();
            }
            Self::DeleteSnapshots => {
                world.run(TaskKind::TakeSnapshots { instance: None }).await.done();
            }
            Self::Reboot => cloud_check::hushed(&world).await,
            Self::ForgetVm => cloud_check::killed(&world).await,
            Self::ActivateDisk => cloud_check::with_disk_of_lost_answer(&world).await,
            Self::LeftoverVm => {
                world.fail_at("bind_vm", Self::Recreation.task(&world)).await;
            }
            _ => {}
        }
        world
    }

    /// Returns what is there when the task is asked for.
    fn shape(self) -> Shape {
        match self {
            Self::HotSwap => Shape::swapped(),
            Self::NamedDisks => Shape::with_disks(BEFORE),
            Self::NamedDisksSwapped => {
                Shape { vm_strategy: "create-swap-delete", ..Shape::with_disks(BEFORE) }
            }
            _ => Shape::default(),
        }
    }

    /// Returns whether this kind of step is done here to something that another task has left behind, or to a VM that waits
    /// beside another one.
    fn is_odd(self, kind: &str) -> bool {
        match self {
            Self::HalfCopiedDisk => matches!(kind, "unmount_disk" | "detach_disk"),
            Self::LeftoverVm => matches!(kind, "delete_vm" | "create_vm"),
            Self::HotSwap => matches!(
                kind,
                "create_vm"
                    | "set_vm_metadata"
                    | "await_agent"
                    | "bind_vm"
                    | "prepare"
                    | "stop"
                    | "unmount_disk"
                    | "detach_disk"
                    | "attach_disk"
                    | "mount_disk"
                    | "apply"
            ),
            Self::NamedDisks | Self::NamedDisksSwapped => {
                matches!(
                    kind,
                    "create_disk" | "attach_disk" | "detach_disk" | "orphan_disk" | "update_settings"
                )
            }
            _ => false,
        }
    }

    /// Returns the task.
    pub fn task(self, world: &TestWorld) -> TaskKind {
        match self {
            Self::FreshDeploy | Self::LeaveWorkers => Shape::default().deploy(),
            Self::ChangedProperty | Self::UpdateWithSnapshots => {
                Shape { port: json!(9090), ..Shape::default() }.deploy()
            }
            Self::ChangedTags => Shape { tags: json!({"team": "blue"}), ..Shape::default() }.deploy(),
            Self::LargerDisk => Shape { disk_mib: 2048, ..Shape::default() }.deploy(),
            Self::NoDisk => Shape { disk_mib: 0, ..Shape::default() }.deploy(),
            Self::Recreation => {
                Shape::default().deploy_with(DeployOptions { recreate: true, ..DeployOptions::default() })
            }
            Self::HotSwap => {
                Shape::swapped().deploy_with(DeployOptions { recreate: true, ..DeployOptions::default() })
            }
            Self::ScaleDown => Shape { instances: 1, ..Shape::default() }.deploy(),
            Self::HardStop => become_state(InstanceState::Detached),
            Self::Errand => errand(),
            Self::Revival => TaskKind::ScanAndFix { instances: vec![world.first_web()], unknown: Vec::new() },
            Self::DeleteDeployment => TaskKind::DeleteDeployment { force: false },
            Self::HalfCopiedDisk | Self::LeftoverVm => Shape::default().deploy(),
            Self::DeleteOrphans => {
                let disks =
                    world.read(|state| state.orphaned_disks().into_iter().map(|d| d.disk.id).collect());
                TaskKind::DeleteOrphanedDisks { disks }
            }
            Self::DeleteWorkers => world.deletion_of_workers(),
            Self::AttachDisk => {
                let web = world.first_web();
                let slug = format!("web/{web}");
                let orphans = world.read(|state| state.orphaned_disks()).into_iter();
                let cid = orphans.filter(|orphan| orphan.slug == slug).find_map(|orphan| orphan.disk.cid);
                let instance =
                    InstanceFilter { group: Some("web".into()), id_or_index: Some(web.to_string()) };
                TaskKind::AttachDisk { instance, cid: cid.unwrap(), copy_properties: false }
            }
            Self::DeleteStranger => TaskKind::DeleteVm { cid: "a-stranger".into() },
            Self::Reboot => cloud_check::resolve_all(world, "reboot_vm"),
            Self::ForgetVm => cloud_check::resolve_all(world, "delete_vm_reference"),
            Self::ActivateDisk => cloud_check::resolve_all(world, "activate_disk"),
            Self::Export => exports::export_for(exports::OTHER),
            Self::DeleteSnapshots => TaskKind::DeleteSnapshots { cid: None },
            Self::NamedDisks => Shape::with_disks(AFTER).deploy(),
            Self::NamedDisksSwapped => Shape { named_disks: AFTER, ..self.shape() }
                .deploy_with(DeployOptions { recreate: true, ..DeployOptions::default() }),
        }
    }

    /// Returns what an operator asks for after the task has failed.
    pub fn repair(self, world: &TestWorld) -> TaskKind {
        match self {
            // A failed revival leaves an instance without a VM, or with one that never got its jobs; so does a deploy
            // that is broken off. Any deploy mends that.
            Self::Revival | Self::Reboot => {
                Shape::default().deploy_with(DeployOptions { fix: true, ..DeployOptions::default() })
            }
            // It would give new VMs to those that have got one, too.
            Self::Recreation => Shape::default().deploy(),
            Self::HotSwap => Shape::swapped().deploy(),
            Self::NamedDisksSwapped => Shape { named_disks: AFTER, ..self.shape() }.deploy(),
            _ => self.task(world),
        }
    }
}

/// What the log is told of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// That it is begun, which nobody says of steps that are nothing but a record.
    Started,
    /// How it ended.
    Finished,
}

impl Noted {
    fn prefix(self) -> &'static str {
        match self {
            Self::Started => "started:",
            Self::Finished => "finished:",
        }
    }

    /// Returns the kinds of steps of which it is told.
    fn all(self) -> BTreeSet<&'static str> {
        let is_told = |name: &&str| self == Self::Finished || !Action::RECORD_NAMES.contains(name);
        Action::NAMES.iter().copied().filter(is_told).collect()
    }
}

/// How a scene ends when nothing disturbs it.
pub struct Undisturbed {
    pub scene: Scene,
    /// How often each call was made.
    pub seen: BTreeMap<String, usize>,
    pub summary: String,
    pub vms_ever: usize,
    pub disks_ever: usize,
    pub ended: Ended,
}

impl Undisturbed {
    /// Plays the scene.
    pub async fn play(scene: Scene, renderer: &Arc<Renderer>) -> Self {
        let world = scene.prepare(renderer).await;
        world.gate.arm(None);
        let ended = world.run(scene.task(&world)).await.done();
        world.assert_consistent();
        Self {
            scene,
            seen: world.gate.seen(),
            summary: summary(&world),
            vms_ever: world.outside.vms_ever(),
            disks_ever: world.outside.disks_ever(),
            ended,
        }
    }

    /// Returns how the instances ended.
    pub fn instances(&self) -> Vec<String> {
        without_detours(&self.summary)
    }

    /// Plays all scenes and returns each kind of step that is `noted` like this with the first scene in which it is, and
    /// with those in which it is done to something odd. (In every scene would be ten times as much, of which most is the
    /// same.) Fails unless the scenes have every kind between them.
    pub async fn kinds(renderer: &Arc<Renderer>, noted: Noted) -> Vec<(String, Arc<Self>)> {
        let mut found: Vec<(String, Arc<Self>)> = Vec::new();
        for scene in ALL {
            let played = Arc::new(Self::play(scene, renderer).await);
            let kinds =
                played.seen.keys().filter_map(|name| name.strip_prefix(noted.prefix())).map(str::to_owned);
            for kind in kinds.collect::<Vec<_>>() {
                if scene.is_odd(&kind) || found.iter().all(|(known, _)| *known != kind) {
                    found.push((kind, played.clone()));
                }
            }
        }
        let distinct: BTreeSet<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(distinct, noted.all(), "the scenes and the kinds of steps that there are");
        found
    }

    /// Fails unless a disturbed run of the scene came to the same end without making anything twice.
    #[track_caller]
    pub fn assert_same(&self, world: &TestWorld, case: &str) {
        assert_eq!(summary(world), self.summary, "{:?}: {case}", self.scene);
        assert_eq!(world.outside.doubles(), Vec::<String>::new(), "{:?}: {case}", self.scene);
        assert_eq!(world.outside.vms_ever(), self.vms_ever, "{:?}: VMs were made twice: {case}", self.scene);
        assert_eq!(
            world.outside.disks_ever(),
            self.disks_ever,
            "{:?}: disks were made twice: {case}",
            self.scene
        );
        world.assert_consistent();
    }
}
