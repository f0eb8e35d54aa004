//! Links: numbers that stay over deploys, and those that are made by request.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use model::link::{LinkOwnerKind, LinkPlace, Links};
use model::step::{Action, StepOutcome};
use model::*;
use state::command::*;

/// A deploy of `web` that goes well.
fn deploy_with(world: &mut World, links: Links) {
    deploy_of(world, Some(links));
}

fn deploy_of(world: &mut World, links: Option<Links>) {
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    plan.record.as_mut().unwrap().planned_links = links.map(Box::new);
    let task = world.planned(plan);
    world.step(task, 1, 0, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

fn external(provider: u64, network: Option<&str>) -> Command {
    let network = network.map(NetworkName::from);
    Command::LinkPut { provider: LinkProviderId(provider), consumer: "ext".into(), network }
}

/// All that can be asked for, a line each.
fn told(world: &World) -> Vec<String> {
    let (state, web) = (world.state(), "web".into());
    let group = |group: &Option<GroupName>| group.as_ref().map(|g| format!(" in {g}")).unwrap_or_default();
    let place = |place: &LinkPlace| match place {
        LinkPlace::ByHand { address } => format!("{address:?}"),
        LinkPlace::Group { group, network, .. } => format!("{group}.{network}"),
    };
    let providers = state.link_providers(&web).map(|row| {
        let offer = row.offer;
        format!("provider {} {}{} as {}", row.id, offer.owner.name, group(&offer.owner.group), offer.alias)
    });
    let consumers = state.link_consumers(&web).map(|row| {
        let kind = row.owner.kind.name();
        format!("consumer {} {kind} {}{} of {}", row.id, row.owner.name, group(&row.owner.group), row.alias)
    });
    let links = state.links(&web).map(|row| {
        let provider = row.provider.map(|id| id.to_string()).unwrap_or_default();
        format!("link {} {}: {} <- {provider} at {}", row.id, row.name, row.consumer, place(&row.place))
    });
    providers.chain(consumers).chain(links).collect()
}

#[test]
fn a_link_keeps_its_numbers_over_deploys() {
    let mut world = World::new();
    deploy_with(&mut world, links("srv", true));
    let first = [
        "provider 1 server in srv as front",
        "consumer 1 job client in cli of front",
        "consumer 2 job client in cli of db",
        "link 1 endpoint: 1 <- 1 at srv.a",
    ];
    assert_eq!(told(&world), first);
    let made = world.state().link(LinkId(1)).unwrap().created_at;
    assert_eq!(world.state().deployment(&"web".into()).unwrap().record.unwrap().planned_links, None);

    // Another alias, another network: the same link.
    let mut again = links("srv", true);
    again.offers[0].alias = "api".into();
    let source = again.wants[0].source.as_mut().unwrap();
    source.place = source.place.clone().in_network(Some(&"b".into()));
    deploy_with(&mut world, again);
    assert_eq!(told(&world)[0], "provider 1 server in srv as api");
    assert_eq!(told(&world)[3], "link 1 endpoint: 1 <- 1 at srv.b");
    assert_eq!(world.state().link(LinkId(1)).unwrap().created_at, made);

    // The group is renamed, and says so.
    let mut moved = links("new", true);
    moved.offers[0].former_groups = vec!["srv".into()];
    deploy_with(&mut world, moved);
    assert_eq!(told(&world)[0], "provider 1 server in new as front");
    assert_eq!(told(&world)[3], "link 1 endpoint: 1 <- 1 at new.a");

    // It is renamed without a word: that is another one.
    deploy_with(&mut world, links("other", true));
    assert_eq!(told(&world)[0], "provider 2 server in other as front");
    assert_eq!(told(&world)[3], "link 2 endpoint: 1 <- 2 at other.a");

    // A plan of an earlier version says nothing about links.
    let before = told(&world);
    deploy_of(&mut world, None);
    assert_eq!(told(&world), before);
    deploy_with(&mut world, Links::default());
    assert_eq!(told(&world), [""; 0]);
}

#[test]
fn somebody_outside_is_connected_to_what_is_shared_until_the_last_link_is_taken_away() {
    let mut world = World::new();
    deploy_with(&mut world, links("srv", true));
    let asked = [
        (external(9, None), "refused: no such link provider: 9"),
        (
            external(1, Some("n")),
            "refused: a link of 'ext' to provider 1 makes no sense here: the provider is not in that network",
        ),
        (external(1, None), "LinkStored(LinkId(2))"),
        (external(1, None), "LinkStored(LinkId(2))"),
        (external(1, Some("b")), "LinkStored(LinkId(3))"),
    ];
    for (command, answer) in asked {
        assert_eq!(world.say(command), answer);
    }
    assert_eq!(told(&world)[3], "consumer 3 external ext of front");
    assert_eq!(told(&world)[5..], ["link 2 endpoint: 3 <- 1 at srv.a", "link 3 endpoint: 3 <- 1 at srv.b"]);

    // Deploys leave them alone, even one that takes away what they are connected to.
    deploy_with(&mut world, links("srv", true));
    assert_eq!(told(&world)[5], "link 2 endpoint: 3 <- 1 at srv.a");
    deploy_with(&mut world, Links::default());
    assert_eq!(
        told(&world),
        [
            "consumer 3 external ext of front",
            "link 2 endpoint: 3 <- 1 at srv.a",
            "link 3 endpoint: 3 <- 1 at srv.b"
        ]
    );
    assert!(world.state().link_provider(LinkProviderId(1)).is_none());

    deploy_with(&mut world, links("srv", false));
    assert_eq!(
        world.say(external(2, None)),
        "refused: a link of 'ext' to provider 2 makes no sense here: the provider is not shared"
    );
    let remove = |id| Command::LinkRemove { id: LinkId(id) };
    assert_eq!(world.say(remove(4)), "refused: removing link 4 makes no sense here: it was made by a deploy");
    assert_eq!(world.say(remove(2)), "Done");
    assert_eq!(world.say(remove(2)), "refused: no such link: 2");
    assert!(told(&world).contains(&"consumer 3 external ext of front".to_owned()));
    assert_eq!(world.say(remove(3)), "Done");
    assert!(world.state().link_consumers(&"web".into()).all(|row| row.owner.kind == LinkOwnerKind::Job));
    let audit = world.audit();
    let told: Vec<&str> = audit.lines().filter(|line| line.contains(" link ")).collect();
    assert_eq!(told.len(), 4, "{audit}");
}

#[test]
fn a_deployment_takes_only_so_many_links_by_request() {
    let mut world = World::new();
    deploy_with(&mut world, links("srv", true));
    let named = |number: usize| Command::LinkPut {
        provider: LinkProviderId(1),
        consumer: format!("ext-{number}"),
        network: None,
    };
    for number in 0..1000 {
        world.must(named(number));
    }
    assert!(world.say(named(1000)).contains("1000 links by request already"));
    assert_eq!(world.say(named(999)), "LinkStored(LinkId(1001))", "that one is there");
}

#[test]
fn links_go_with_their_deployment() {
    let mut world = World::new();
    deploy_with(&mut world, links("srv", true));
    world.must(external(1, None));
    let delete = vec![Action::DeleteInstance { instance: "i1".into() }, Action::DeleteDeployment];
    let task = world.planned(plan_of(delete));
    world.step(task, 1, 0, StepOutcome::Done);
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(told(&world), [""; 0]);
    let state = world.state();
    assert!(state.link(LinkId(1)).is_none() && state.link_consumer(LinkConsumerId(3)).is_none());
    assert!(state.link_provider(LinkProviderId(1)).is_none());
}
