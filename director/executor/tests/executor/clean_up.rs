//! Cleaning up: what nothing uses goes, once, whoever leads; what somebody uses stays.

use model::ReleaseName;
use model::instance::ReleaseRef;
use model::task::{Leftovers, TaskKind};

use crate::artifacts::{self, Shape};
use crate::gate::{Point, Side};
use crate::world::TestWorld;

/// What is deleted of all that: not what is gone, nor what somebody uses.
const DELETED: &str = "Deleted 1 release(s), 1 stemcell(s), 0 extra compiled package(s), 2 orphaned disk(s), \
                       1 orphaned vm(s), 0 exported release(s), 0 dns blob(s)";

/// What goes with the release, also where another one has the same.
const SPARE_PARTS: [&str; 8] = [
    "Deleting packages: lib/fp-lib 1/2 started",
    "Deleting packages: lib/fp-lib 1/2 finished",
    "Deleting packages: app/fp-app 2/2 started",
    "Deleting packages: app/fp-app 2/2 finished",
    "Deleting jobs: server/fp-server 1/2 started",
    "Deleting jobs: server/fp-server 1/2 finished",
    "Deleting jobs: check/fp-check 2/2 started",
    "Deleting jobs: check/fp-check 2/2 finished",
];

/// A world with a deployment, and beside it a release, a stemcell, two disks and a worker's VM that nothing uses.
async fn littered() -> (TestWorld, TaskKind) {
    let world = TestWorld::seed().await;
    let blob = world.put(artifacts::release("spare")).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
    let blob = world.put(artifacts::stemcell_with("2", "not a disk either")).await;
    world.run(TaskKind::UploadStemcell { blob, fix: false }).await.done();
    world.leave_workers();
    world.run(Shape::default().deploy()).await.done();
    world.run(Shape { disk_mib: 0, ..Shape::default() }.deploy()).await.done();
    let release = |name: &str| ReleaseRef { name: ReleaseName::new(name), version: "1".into() };
    let leftovers = world.read(|state| Leftovers {
        // Whoever asked may have looked a while ago: one is used by now, one is gone.
        releases: vec![release("gone"), release("spare"), release("tiny")],
        stemcells: ["1", "2"].map(|version| ("small-stemcell".to_owned(), version.into())).to_vec(),
        disks: state.orphaned_disks().into_iter().map(|orphan| orphan.disk.id).collect(),
        vms: state.orphaned_vms().into_iter().map(|orphan| orphan.vm.agent).collect(),
        exports: Vec::new(),
        dns_blobs: Vec::new(),
    });
    assert_eq!((leftovers.disks.len(), leftovers.vms.len()), (2, 1));
    (world, TaskKind::CleanUp { all: true, leftovers: Box::new(leftovers) })
}

fn assert_tidy(world: &TestWorld) {
    let (releases, stemcells, orphans) = world.read(|state| {
        let releases: Vec<String> = state.releases().iter().map(|r| r.release.name.to_string()).collect();
        let stemcells: Vec<String> =
            state.stemcells().iter().map(|s| s.stemcell.version.to_string()).collect();
        (releases, stemcells, state.orphaned_disks().len() + state.orphaned_vms().len())
    });
    assert_eq!((releases, stemcells, orphans), (vec!["tiny".to_owned()], vec!["1".to_owned()], 0));
    let cloud = world.outside.cloud.cloud();
    assert_eq!((cloud.disks.len(), cloud.vms.len(), cloud.stemcells.len()), (0, 2, 1));
    world.assert_consistent();
}

#[tokio::test]
async fn what_nothing_uses_goes_and_what_somebody_uses_stays() {
    let (world, clean_up) = littered().await;
    let ended = world.run(clean_up).await.done();
    assert_eq!(ended.task.result.as_deref(), Some(DELETED));
    let failed: Vec<String> = ended.lines().into_iter().filter(|line| line.ends_with("failed")).collect();
    assert_eq!(failed.len(), 3, "one is gone, two are in use: {failed:?}");
    let parts: Vec<String> = ended.lines().into_iter().filter(|line| line.contains("fp-")).collect();
    assert_eq!(parts, SPARE_PARTS);
    assert_tidy(&world);
}

#[tokio::test]
async fn another_leader_goes_on_with_a_clean_up() {
    let at = |name: &str, side| Point { name: name.into(), nth: 1, side };
    for point in [
        at("cpi:delete_stemcell", Side::Before),
        at("cpi:delete_stemcell", Side::After),
        at("cpi:delete_vm", Side::After),
        at("finished:delete_orphaned_disk", Side::Before),
    ] {
        let (world, clean_up) = littered().await;
        let ended = world.run_through(clean_up, point).await.done();
        assert_eq!(ended.task.result.as_deref(), Some(DELETED));
        let parts: Vec<String> = ended.lines().into_iter().filter(|line| line.contains("fp-")).collect();
        assert_eq!(parts, SPARE_PARTS);
        assert_tidy(&world);
    }
}
