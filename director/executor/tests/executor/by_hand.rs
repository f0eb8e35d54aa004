//! What operators do to single disks and VMs: whoever leads, the right thing moves, and nothing is lost.

use std::sync::Arc;

use cpi_api::fake::{FakeCpi, Fault};
use cpi_api::{Cpi, CpiErrorKind};
use executor::clouds::NoCloud;
use executor::ports::Cpis;
use model::instance::InstanceState;
use model::task::{InstanceFilter, StateChange, TaskKind};
use model::{CpiName, DiskCid, VmCid};

use crate::artifacts::{Shape, become_state};
use crate::gate::{Point, Side};
use crate::world::TestWorld;

fn at(name: &str, side: Side) -> Point {
    Point { name: name.into(), nth: 1, side }
}

/// The active disk of the first instance.
fn disk(world: &TestWorld) -> (InstanceFilter, DiskCid) {
    world.read(|state| {
        let instance = first(state);
        let disk = state.disks(&instance.spec.id).into_iter().find(|disk| disk.active).unwrap();
        let (group, id) = (instance.spec.group.clone(), instance.spec.id.to_string());
        (InstanceFilter { group: Some(group), id_or_index: Some(id) }, disk.cid.unwrap())
    })
}

fn first(state: &state::State<'_>) -> model::instance::Instance {
    let instances = state.instances(&"p".into()).into_iter();
    instances
        .filter(|instance| instance.spec.group.as_str() == "web")
        .min_by_key(|instance| instance.spec.index)
        .unwrap()
}

fn orphans(world: &TestWorld) -> Vec<DiskCid> {
    world.read(|state| state.orphaned_disks().into_iter().filter_map(|orphan| orphan.disk.cid).collect())
}

fn stop_all_hard() -> TaskKind {
    TaskKind::ChangeState {
        change: StateChange::Become(InstanceState::Detached),
        filter: InstanceFilter { group: Some("web".into()), id_or_index: None },
        skip_drain: false,
        max_in_flight: None,
        canaries: None,
        dry_run: false,
        created_before: None,
    }
}

fn attach(instance: &InstanceFilter, cid: &DiskCid) -> TaskKind {
    TaskKind::AttachDisk { instance: instance.clone(), cid: cid.clone(), copy_properties: false }
}

/// A world with a deployment in a state, whose first instance has had two disks: the first one is an orphan.
async fn with_an_orphan(state: InstanceState) -> (TestWorld, InstanceFilter, DiskCid, DiskCid) {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let (instance, old) = disk(&world);
    world.run(Shape { disk_mib: 2048, ..Shape::default() }.deploy()).await.done();
    let (_, new) = disk(&world);
    assert!(orphans(&world).contains(&old) && new != old);
    if state != InstanceState::Started {
        world.run(become_state(state)).await.done();
    }
    (world, instance, old, new)
}

#[tokio::test]
async fn a_stopped_instance_gets_its_old_disk_back_whoever_leads() {
    for state in [InstanceState::Stopped, InstanceState::Detached] {
        let mut points = [Side::Before, Side::After].map(|side| at("finished:adopt_disk", side)).to_vec();
        if state == InstanceState::Stopped {
            points.push(at("cpi:detach_disk", Side::After));
            points.push(at("cpi:attach_disk", Side::After));
        }
        for point in points {
            let (world, instance, old, new) = with_an_orphan(state).await;
            let told = world.run_through(attach(&instance, &old), point).await.done();
            let result = told.task.result.unwrap();
            assert!(result.starts_with(&format!("attached disk '{old}' to '")), "{result}");
            assert_eq!(disk(&world).1, old);
            let left = orphans(&world);
            assert!(left.contains(&new) && !left.contains(&old), "{left:?}");
            world.run(become_state(InstanceState::Started)).await.done();
            world.assert_consistent();
        }
    }
}

#[tokio::test]
async fn what_can_not_be_attached_is_refused_and_nothing_moves() {
    let (world, instance, old, new) = with_an_orphan(InstanceState::Started).await;
    let error = world.run(attach(&instance, &old)).await.error();
    assert!(error.contains("must be in 'bosh stopped' state"), "{error}");
    let nobody = InstanceFilter { id_or_index: Some("9".into()), ..instance.clone() };
    let error = world.run(attach(&nobody, &old)).await.error();
    assert!(error.ends_with("in deployment 'p' was not found"), "{error}");
    world.run(stop_all_hard()).await.done();
    let error = world.run(attach(&instance, &"made-up".into())).await.error();
    assert_eq!(error, "Disk 'made-up' does not exist");
    let second = InstanceFilter { id_or_index: Some("1".into()), ..instance.clone() };
    let error = world.run(attach(&second, &new)).await.error();
    assert!(error.starts_with(&format!("Disk '{new}' is used by instance '")), "{error}");
    // What it has already is no mistake.
    world.run(attach(&instance, &new)).await.done();
    assert_eq!(disk(&world).1, new);
    assert!(orphans(&world).contains(&old));
    world.assert_consistent();
}

#[tokio::test]
async fn a_disk_is_given_up_but_not_from_under_running_jobs() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let (_, cid) = disk(&world);
    let orphan = TaskKind::OrphanDisk { cid: cid.clone() };
    let error = world.run(orphan.clone()).await.error();
    assert!(error.contains("stop it first"), "{error}");
    assert_eq!(orphans(&world), []);
    world.run(become_state(InstanceState::Stopped)).await.done();
    let told = world.run_through(orphan.clone(), at("cpi:detach_disk", Side::After)).await.done();
    assert_eq!(told.task.result, Some(format!("disk {cid} orphaned")));
    assert_eq!(orphans(&world), std::slice::from_ref(&cid));
    // Once more, as the CLI may: nobody has it.
    let again = world.run(orphan).await.done();
    assert_eq!(again.task.result, Some(format!("disk {cid} orphaned")));
    let warning =
        format!("\"type\":\"warning\",\"message\":\"Disk {cid} does not exist. Orphaning is skipped\"");
    assert!(again.events.contains(&warning), "{}", again.events);
    world.run(become_state(InstanceState::Started)).await.done();
    assert_ne!(disk(&world).1, cid, "a start makes a new one");
    world.assert_consistent();
}

#[tokio::test]
async fn a_vm_is_deleted_whosever_it_is() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let vm = || world.read(|state| state.active_vm(&first(state).spec.id));
    let cid = vm().unwrap().cid.unwrap();
    let there = || world.outside.cloud.cloud().vms.len();
    let before = there();
    let delete = TaskKind::DeleteVm { cid: cid.clone() };
    let told = world.run_through(delete.clone(), at("cpi:delete_vm", Side::After)).await.done();
    assert_eq!(told.task.result, Some(format!("vm {cid} deleted")));
    assert_eq!((vm(), there()), (None, before - 1));
    // Nobody's any more, and gone in the cloud, too.
    world.run(delete).await.done();
    let ended = world.run(TaskKind::DeleteVm { cid: VmCid::new("a-stranger") }).await.done();
    assert!(ended.lines().iter().any(|line| line.contains("is not known here")), "{:?}", ended.lines());
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(there(), before);
    world.assert_consistent();
}

/// The usual cloud, and another one.
struct TwoClouds {
    near: Arc<dyn Cpis>,
    far: FakeCpi,
}

impl Cpis for TwoClouds {
    fn get(&self, name: &CpiName) -> Result<Arc<dyn Cpi>, NoCloud> {
        if name.as_str() == "far" { Ok(Arc::new(self.far.clone())) } else { self.near.get(name) }
    }

    fn names(&self) -> Vec<CpiName> {
        vec![CpiName::default(), CpiName::new("far")]
    }
}

#[tokio::test]
async fn a_vm_that_nobody_knows_is_deleted_in_the_cloud_that_has_it() {
    let mut world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let (far, stranger) = (FakeCpi::new(), VmCid::new("a-stranger"));
    let like = world.outside.cloud.cloud().vms.into_values().next().unwrap();
    far.tamper(|cloud| drop(cloud.vms.insert(stranger.clone(), like)));
    world.depose().await;
    world.ports.cpis = Arc::new(TwoClouds { near: world.ports.cpis.clone(), far: far.clone() });
    world.lead();
    let there = || world.outside.cloud.cloud().vms.len();
    let (before, delete) = (there(), || TaskKind::DeleteVm { cid: stranger.clone() });

    far.inject("has_vm", Fault::Fail(CpiErrorKind::Other));
    let told = world.run(delete()).await.error();
    assert!(told.contains("'a-stranger' is in none") && told.contains("CPI 'far'"), "{told}");
    assert_eq!((far.cloud().vms.len(), far.count("delete_vm")), (1, 0));

    world.run(delete()).await.done();
    assert_eq!((far.cloud().vms.len(), there()), (0, before));
    // Nobody's: there is nothing to do.
    world.run(delete()).await.done();
    assert_eq!(there(), before);
}
