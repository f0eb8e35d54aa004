//! What must hold for every deploy, whatever the manifest: on deployments made up by chance.

#![allow(clippy::unwrap_used, reason = "test support: a panic here is the report")]
#![allow(dead_code, reason = "the world is shared with the golden tests, which use all of it")]

#[path = "golden/fixture.rs"]
mod fixture;
#[path = "properties/made_up.rs"]
mod made_up;
#[path = "golden/perform.rs"]
mod perform;
#[path = "properties/refusals.rs"]
mod refusals;
#[path = "golden/render.rs"]
mod render;
#[path = "golden/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use made_up::{Group, group, manifest, new_world};
use model::instance::{Instance, InstanceState};
use model::plan::Plan;
use model::task::{DeployOptions, TaskError};
use model::{AgentId, DeploymentName, InstanceId, step::Action};
use perform::{Faults, perform};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use world::World;

fn plan(world: &mut World, manifest: &str) -> Result<Plan, TaskError> {
    let view = world.view(&DeploymentName::from("p"), &[]);
    let options = DeployOptions::default();
    let input = view.input(world, manifest, &options);
    let draft = scheduler::draft(&input)?;
    let rendered = draft.to_render().map(|spec| (spec.id.clone(), render::render(spec, world))).collect();
    scheduler::plan(&input, &draft, &rendered)
}

/// A plan that does nothing but write down that all is well.
fn is_empty(plan: &Plan) -> bool {
    plan.units().flat_map(|u| &u.steps).all(|s| matches!(s.action, Action::SaveDeployment))
        && plan.reservations.is_empty()
}

/// What must not change about ignored instances. (Only who leads the group may.)
fn ignored(world: &World) -> BTreeMap<InstanceId, (Instance, Vec<AgentId>)> {
    let ignored = world.instances.iter().filter(|i| i.ignore).map(|i| {
        let vms = world.vms.iter().filter(|vm| vm.instance == i.spec.id).map(|vm| vm.agent.clone());
        let mut instance = i.clone();
        instance.spec.bootstrap = false;
        (i.spec.id.clone(), (instance, vms.collect()))
    });
    ignored.collect()
}

/// After a deploy there is what was asked for: no more and no less.
fn check_world(world: &World, groups: &[Group]) -> TestCaseResult {
    let wanted: usize = groups.iter().map(|g| g.instances).sum();
    prop_assert_eq!(world.instances.len(), wanted);
    let up = |id: &InstanceId| world.vms.iter().filter(|vm| vm.instance == *id).count();
    for instance in &world.instances {
        let vms = usize::from(instance.state != InstanceState::Detached);
        prop_assert_eq!(up(&instance.spec.id), vms, "{}", instance.slug());
    }
    let held: BTreeSet<_> = world.addresses.iter().map(|a| a.ip).collect();
    prop_assert_eq!(held.len(), world.addresses.len(), "each address has one holder");
    for (at, group) in groups.iter().enumerate() {
        let name = group.name(at);
        let members: Vec<&Instance> =
            world.instances.iter().filter(|i| i.spec.group.as_str() == name).collect();
        prop_assert_eq!(members.len(), group.instances);
        let bootstraps = members.iter().filter(|i| i.spec.bootstrap).count();
        prop_assert_eq!(bootstraps, usize::from(group.instances > 0));
        let indexes: BTreeSet<u32> = members.iter().map(|i| i.spec.index).collect();
        prop_assert_eq!(indexes.len(), group.instances);
        for member in members {
            let az = member.spec.az.as_ref().map(|az| az.to_string());
            prop_assert!(group.zones().contains(&az.unwrap_or_default()), "{}", member.slug());
            let own = world.addresses.iter().filter(|a| a.instance.as_ref() == Some(&member.spec.id)).count();
            let asleep = member.state != InstanceState::Started;
            // Whoever is down may still hold what it had, beside what it will have.
            prop_assert!(
                own == group.addresses() || (asleep && own >= group.addresses()),
                "{}",
                member.slug()
            );
        }
    }
    Ok(())
}

/// A step of a made-up history.
#[derive(Clone, Debug)]
enum Event {
    Deploy(Vec<Group>),
    /// An operator changes her mind about the instance at this place.
    Ignore(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop::collection::vec(group(), 0..4).prop_map(Event::Deploy),
        1 => (0..20_usize).prop_map(Event::Ignore),
    ]
}

fn deploy(world: &mut World, groups: &[Group]) -> TestCaseResult {
    let text = manifest(groups);
    refusals::forget_marks_of_renamed(world, groups);
    let (had_disks, alone) = (!world.disks.is_empty(), ignored(world));
    let allowed = refusals::expected(world, groups);
    let first = match plan(world, &text) {
        Ok(first) => first,
        Err(error) => {
            prop_assert!(allowed.contains(&error.code), "expected {allowed:?}, told {error:?}");
            return Ok(());
        }
    };
    prop_assert!(allowed.is_empty(), "expected a refusal: {allowed:?}\n{}", scheduler::explain(&first));
    world.seed -= 1;
    prop_assert_eq!(&plan(world, &text).unwrap(), &first, "identical input, identical plan");
    perform(world, &first, &Faults::default());
    check_world(world, groups)?;
    prop_assert_eq!(ignored(world), alone, "ignored instances are left alone");
    // An instance that has just lost its disk stayed for the disk's sake; only now may it be moved for balance. The
    // reference needs a second deploy for that too (recording `disk-mixed`). And new instances start, whatever the
    // state of their group; so the next deploy stops them.
    let mut more = usize::from(had_disks) + usize::from(groups.iter().any(|g| g.state.is_some()));
    let mut again = plan(world, &text).unwrap();
    while !is_empty(&again) && more > 0 {
        perform(world, &again, &Faults::default());
        again = plan(world, &text).unwrap();
        more -= 1;
    }
    prop_assert!(is_empty(&again), "{}", scheduler::explain(&again));
    check_world(world, groups)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Deploys one manifest over another, several times, with instances ignored in between. (That no address is given
    /// out twice is asserted by the world itself, whenever it accepts a plan.)
    #[test]
    fn every_deploy_settles(history in prop::collection::vec(event(), 1..6)) {
        let mut world = new_world();
        for event in history {
            match event {
                Event::Deploy(groups) => deploy(&mut world, &groups)?,
                Event::Ignore(_) if world.instances.is_empty() => {}
                Event::Ignore(at) => {
                    let at = at % world.instances.len();
                    world.instances[at].ignore ^= true;
                }
            }
        }
    }
}

/// A deploy that changes nothing is the most frequent one: it must stay cheap for large deployments.
#[test]
fn a_thousand_instances_are_compared_quickly() {
    let mut world = new_world();
    let text = manifest(&[Group::plain(1000)]);
    let first = plan(&mut world, &text).unwrap();
    perform(&mut world, &first, &Faults::default());
    let view = world.view(&DeploymentName::from("p"), &[]);
    assert_eq!(view.instances.len(), 1000);
    #[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
    let started = Instant::now();
    let again = plan(&mut world, &text).unwrap();
    let took = started.elapsed();
    assert!(is_empty(&again));
    println!("a plan without changes for 1,000 instances took {took:?}");
    // Unoptimised, on a machine that others use: a square algorithm would need minutes here, not seconds.
    assert!(took.as_secs() < 10, "{took:?}");
}
