//! Networks that directors make: listed, kept for a day when nobody uses them, and switched on and off.

use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::{LockName, NetworkName, Timestamp};
use service::Page;
use service::ops::{NETWORKS_KEPT_MS, WhichNetworks, networks_to_delete};
use state::command::{Command, TaskEnd};
use state::records::Setting;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{EPOCH, World, network_take, plan_of, subnet_put};

/// A deploy that uses these networks.
fn deploy(world: &mut World, networks: &[&str]) {
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    (plan.targets, plan.reservations) = Default::default();
    plan.record.as_mut().unwrap().managed_networks = networks.iter().map(|name| (*name).into()).collect();
    let task = world.planned(plan);
    for network in networks {
        world.must(network_take(task, network, &["s"]));
        world.must(subnet_put(task, network, "s", Some("net-1")));
    }
    world.step(task, 1, 0, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

fn names(rows: &[model::managed_network::ManagedNetwork]) -> Vec<&str> {
    rows.iter().map(|network| network.name.as_str()).collect()
}

#[tokio::test]
async fn networks_are_listed_and_deleted_after_a_day_without_use() {
    let fleet = Fleet::new();
    let service = fleet.service();
    service.set_managed_networks(&admin(), None, true).await.unwrap();
    let orphaned_at = {
        let mut world = fleet.world();
        deploy(&mut world, &["a", "b"]);
        deploy(&mut world, &["a"]);
        let rows = world.state().networks();
        rows.iter().find_map(|network| network.orphaned_at).unwrap()
    };
    let all = service.networks(&admin(), WhichNetworks::All, &Page::default()).await.unwrap();
    assert_eq!((names(&all.list.rows), all.are_made), (vec!["a", "b"], true));
    let orphaned = service.networks(&admin(), WhichNetworks::Orphaned, &Page::default()).await.unwrap();
    assert_eq!(names(&orphaned.list.rows), ["b"]);
    let due = |later| networks_to_delete(&fleet.world().state(), Timestamp(orphaned_at.0 + later));
    assert_eq!(due(NETWORKS_KEPT_MS), []);
    assert_eq!(due(NETWORKS_KEPT_MS + 1), [NetworkName::new("b")]);
    assert_eq!(NETWORKS_KEPT_MS, 24 * 3600 * 1000);
}

#[tokio::test]
async fn a_deletion_is_a_task_under_the_lock_of_networks() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let id = || Some("once".into());
    let wish = || vec![NetworkName::new("a")];
    let task = service.delete_orphaned_networks(&admin(), id(), wish()).await.unwrap();
    assert_eq!(service.delete_orphaned_networks(&admin(), id(), wish()).await, Ok(task));
    let row = fleet.world().state().task(task).unwrap();
    assert_eq!(row.kind, TaskKind::DeleteOrphanedNetworks { networks: wish() });
    assert_eq!(row.locks, [LockName::new("lock:networks")]);
    for nothing in [Vec::new(), vec![NetworkName::default()]] {
        let refused = service.delete_orphaned_networks(&admin(), None, nothing).await;
        assert!(refused.unwrap_err().to_string().contains("which network"));
    }
}

#[tokio::test]
async fn only_admins_have_directors_make_networks_and_not_the_other_way_while_some_are_used() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let reader = caller("bosh.read");
    assert!(service.set_managed_networks(&reader, None, true).await.is_err());
    assert!(service.networks(&reader, WhichNetworks::All, &Page::default()).await.is_err());
    assert!(service.delete_orphaned_networks(&reader, None, vec!["a".into()]).await.is_err());
    service.set_managed_networks(&admin(), None, true).await.unwrap();
    deploy(&mut fleet.world(), &["a"]);
    let refused = service.set_managed_networks(&admin(), None, false).await.unwrap_err();
    assert!(refused.to_string().contains("managed network a is in use by deployment web"), "{refused}");
    deploy(&mut fleet.world(), &[]);
    service.set_managed_networks(&admin(), None, false).await.unwrap();
    let setting = Command::SettingPut { setting: Setting::ManagedNetworks(false) };
    assert_eq!(fleet.world().log.last().unwrap().command, setting);
}
