//! The strongest test: the leader is lost at every single proposal to the log, before it is committed and after.

use model::NodeId;
use state::command::Command;
use state::log::Proposal;

use crate::gate::{Point, Side};
use crate::log::Ambush;
use crate::scenes::{Scene, Undisturbed};
use crate::world::renderer;

async fn lost_at_every_proposal(scene: Scene, side: Side) {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(scene, &renderer).await;
    let proposals = undisturbed.seen["log"];
    assert!(proposals >= 8, "{:?}", undisturbed.seen);
    for nth in 1..=proposals {
        let world = scene.prepare(&renderer).await;
        world.gate.arm(Some(Point { name: "log".into(), nth, side }));
        let id = world.queue(scene.task(&world));
        // How many proposals there are depends on which records happen to travel together. The last one ends the task:
        // whoever dies after it has ended the task.
        let stopped = world.stopped_before_end_of(id).await;
        let case = format!("{side:?} proposal {nth} of {proposals}: stopped={stopped}");
        if stopped {
            world.depose().await;
            world.gate.arm(None);
            world.lead();
        }
        let ended = world.ended(id).await;
        assert!(ended.task.state.is_final(), "{case}");
        if scene == Scene::Errand && world.outside.done("run_errand") == 0 {
            assert!(ended.error().contains("was not repeated"), "{case}");
            assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone: {case}");
            continue;
        }
        let ended = ended.done();
        undisturbed.assert_same(&world, &case);
        assert_eq!(ended.told(), undisturbed.ended.told(), "{case}");
        assert_eq!(world.outside.done("run_errand"), usize::from(scene == Scene::Errand), "{case}");
    }
}

#[tokio::test]
async fn a_fresh_deploy_survives_the_loss_of_its_leader_before_any_entry() {
    lost_at_every_proposal(Scene::FreshDeploy, Side::Before).await;
}

#[tokio::test]
async fn a_fresh_deploy_survives_the_loss_of_its_leader_after_any_entry() {
    lost_at_every_proposal(Scene::FreshDeploy, Side::After).await;
}

#[tokio::test]
async fn a_disk_migration_survives_the_loss_of_its_leader_at_any_entry() {
    lost_at_every_proposal(Scene::LargerDisk, Side::Before).await;
    lost_at_every_proposal(Scene::LargerDisk, Side::After).await;
}

#[tokio::test]
async fn disks_with_names_survive_the_loss_of_their_leader_before_any_entry() {
    lost_at_every_proposal(Scene::NamedDisks, Side::Before).await;
}

#[tokio::test]
async fn disks_with_names_survive_the_loss_of_their_leader_after_any_entry() {
    lost_at_every_proposal(Scene::NamedDisks, Side::After).await;
}

#[tokio::test]
async fn an_errand_survives_the_loss_of_its_leader_at_any_entry() {
    lost_at_every_proposal(Scene::Errand, Side::Before).await;
    lost_at_every_proposal(Scene::Errand, Side::After).await;
}

#[tokio::test]
async fn a_swap_survives_the_loss_of_its_leader_before_any_entry() {
    lost_at_every_proposal(Scene::HotSwap, Side::Before).await;
}

#[tokio::test]
async fn a_swap_survives_the_loss_of_its_leader_after_any_entry() {
    lost_at_every_proposal(Scene::HotSwap, Side::After).await;
}

#[tokio::test]
async fn a_deletion_survives_the_loss_of_its_leader_at_any_entry() {
    lost_at_every_proposal(Scene::DeleteDeployment, Side::Before).await;
    lost_at_every_proposal(Scene::DeleteDeployment, Side::After).await;
}

#[tokio::test]
async fn an_export_survives_the_loss_of_its_leader_at_any_entry() {
    lost_at_every_proposal(Scene::Export, Side::Before).await;
    lost_at_every_proposal(Scene::Export, Side::After).await;
}

/// The old leader's lease is wrong: it goes on, at every kind of record, while another one leads. State, agents and
/// cloud refuse it.
#[tokio::test]
async fn a_leader_that_does_not_know_of_its_end_does_no_harm() {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(Scene::FreshDeploy, &renderer).await;
    let names =
        undisturbed.seen.keys().filter(|name| name.starts_with("started:") || name.starts_with("finished:"));
    for name in names.cloned().collect::<Vec<_>>() {
        let world = Scene::FreshDeploy.prepare(&renderer).await;
        let epoch = world.read(|state| state.epoch()).next();
        let elected: Ambush = Box::new(move |log, _| {
            let begin = Command::LeaderBegin { node: NodeId(0), epoch };
            log.apply(Proposal::own(begin)).outcome.accepted().unwrap();
        });
        *world.log.ambush.lock().unwrap() = Some((name.clone(), elected));
        let task = world.queue(Scene::FreshDeploy.task(&world));
        world.until("another leads", |state| (state.epoch() == epoch).then_some(())).await;
        world.usurp();
        let ended = world.ended(task).await.done();
        undisturbed.assert_same(&world, &name);
        assert_eq!(ended.told(), undisturbed.ended.told(), "{name}");
    }
}
