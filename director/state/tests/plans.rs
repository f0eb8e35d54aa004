//! Plans: drafted, committed, refused.

mod common;

use common::*;
use expect_test::expect;
use model::dns::DnsSubject;
use model::plan::{Fate, OnFailure, Plan, Reservation, Stage, Wave};
use model::stemcell::AgentKind;
use model::step::{Action, StepOutcome};
use model::*;
use state::command::*;
use state::records::UnitState;

fn begin_update(id: &str) -> Action {
    Action::BeginUpdate { instance: id.into() }
}

/// A plan with `count` instances, an address each and a unit each in two waves.
fn big_plan(count: u32) -> Plan {
    let ids: Vec<String> = (0..count).map(|number| format!("i{number}")).collect();
    let ip = |number: u32| format!("10.{}.{}.{}", number / 65536, number / 256 % 256, number % 256);
    let targets = ids.iter().map(|id| target(id, None, Fate::New)).collect();
    let reservations = (0..count).map(|number| reservation(&ids[number as usize], &ip(number))).collect();
    let mut units: Vec<_> =
        (0..count).map(|number| unit(number, "u", vec![begin_update(&ids[number as usize])])).collect();
    let rest = units.split_off(1);
    let waves = vec![Wave { max_in_flight: 1, units }, Wave { max_in_flight: 5, units: rest }];
    plan(targets, reservations, vec![Stage { waves, ..stage(Some("Updating instance"), Vec::new()) }])
}

#[test]
fn a_committed_plan_is_taken_apart() {
    let mut world = World::new();
    let mut plan = plan_of(vec![begin_update("i1")]);
    plan.reservations.push(reservation("i1", "10.0.0.5"));
    plan.warnings.push("one \"instance\"".into());
    let task = world.planned(plan.clone());
    let state = world.state();
    assert!(state.task(task).unwrap().planned);
    assert_eq!(state.unit(task, UnitNo(1)).unwrap().unit, plan.phases[0].stages[0].waves[0].units[0]);
    assert_eq!(state.plan_phases(task).unwrap()[0].stages[0].waves[0].units[0].steps, []);
    assert_eq!(state.targets(task), plan.targets);
    assert_eq!(state.deployment(&"web".into()).unwrap().generation, 1);
    let address = state.address("10.0.0.5".parse().unwrap()).unwrap();
    assert_eq!((address.slug.as_str(), address.deployment.as_str()), ("api/i1", "web"));
    let instance = state.instance(&"i1".into()).unwrap();
    assert!(!instance.update_completed);
    assert_eq!(instance.variable_set, VariableSetId(1));
    assert_eq!(state.instances(&"web".into()), [instance]);
    expect![[r#"
        {"time":1700000005,"type":"warning","message":"one \"instance\""}
    "#]]
    .assert_eq(&world.events(task));
}

#[test]
fn a_large_plan_travels_in_parts_and_arrives_whole() {
    let mut world = World::new();
    let task = world.deploying();
    let plan = big_plan(3_000);
    let commands = state::draft::cut(task, EPOCH, 7, plan.clone());
    assert!(commands.len() > 3, "{}", commands.len());
    for command in commands {
        let bytes = entry(None, 0, command.clone()).encode().len();
        assert!(bytes < 1024 * 1024, "an entry of {bytes} bytes");
        world.must(command);
    }
    let state = world.state();
    let mut units: Vec<_> = plan.units().cloned().collect();
    units.sort_by_key(|unit| unit.no);
    assert_eq!(state.units(task).into_iter().map(|planned| planned.unit).collect::<Vec<_>>(), units);
    assert_eq!(state.addresses().len(), 3_000);
    let phases = state.plan_phases(task).unwrap();
    let waves: Vec<usize> = phases[0].stages[0].waves.iter().map(|wave| wave.units.len()).collect();
    assert_eq!(waves, [1, 2_999]);
    let order: Vec<u32> = phases[0].stages[0].waves[1].units.iter().map(|unit| unit.no.0).collect();
    assert!(order.is_sorted());
}

#[test]
fn a_plan_with_a_large_manifest_travels_in_parts_and_saves_the_whole_of_it() {
    let mut world = World::new();
    let task = world.deploying();
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    let record = plan.record.as_mut().unwrap();
    record.manifest_text = "x".repeat(1_500_000);
    record.manifest =
        serde_json::json!({ "name": record.manifest_text, "deep": vec![vec![vec!["\u{1f980}"; 3]; 3]; 3] });
    record.links = serde_json::json!([{ "instances": "y".repeat(900_000) }]);
    for command in state::draft::cut(task, EPOCH, 7, plan.clone()) {
        let bytes = entry(None, 0, command.clone()).encode().len();
        assert!(bytes < 1024 * 1024, "an entry of {bytes} bytes");
        world.must(command);
    }
    let done = vec![finished(1, 0, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records: done });
    assert_eq!(world.state().deployment(&"web".into()).unwrap().record, plan.record);
}

#[test]
fn pieces_that_are_no_record_refuse_the_plan() {
    let mut world = World::new();
    let task = world.deploying();
    let content = Box::new(DraftPart { record: vec![0xc1, 1, 2], ..DraftPart::default() });
    world.must(Command::PlanDraft { task, epoch: EPOCH, draft: 1, part: 0, content });
    let plan = Box::new(Plan { record: None, ..plan_of(Vec::new()) });
    let commit = Command::PlanCommit { task, epoch: EPOCH, draft: 1, parts: 1, plan };
    expect!["refused: the plan's record makes no sense here: failed to decode the record of a plan"]
        .assert_eq(&world.say(commit));
}

#[test]
fn what_an_older_member_would_read_otherwise_has_its_level() {
    let task = TaskId(1);
    let of_plan = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan_of(vec![begin_update("i1")]);
        change(&mut plan);
        commit(task, plan).feature_level()
    };
    assert_eq!(of_plan(&|_| {}), 1);
    assert_eq!(of_plan(&|plan| plan.phases[0].stages[0].waves[0].units[0].on_failure = OnFailure::GoOn), 2);
    assert_eq!(
        of_plan(&|plan| plan.phases[0].stages[0].waves[0].units[0].steps[0].on_failure = OnFailure::GoOn),
        2
    );
    let records = |outcome| {
        let records = vec![finished(1, 0, 1, outcome)];
        Command::StepRecords { task, epoch: EPOCH, records }.feature_level()
    };
    assert_eq!(records(failed("no")), 1);
    assert_eq!(records(StepOutcome::PassedOver { error: model::task::TaskError::plain("no") }), 2);
    let content = |record| {
        let content = Box::new(DraftPart { record, ..DraftPart::default() });
        Command::PlanDraft { task, epoch: EPOCH, draft: 1, part: 0, content }.feature_level()
    };
    assert_eq!((content(Vec::new()), content(vec![1])), (1, 2));
}

#[test]
fn a_stemcell_whose_agent_is_not_the_one_of_its_name_has_its_level() {
    let levels = |agent| {
        let (task, mut stemcell) = (TaskId(1), stemcell_record("1", "sha1"));
        stemcell.stemcell.agent = agent;
        let mut plan = plan_of(vec![begin_update("i1")]);
        plan.targets[0].spec.stemcell = stemcell.stemcell.clone();
        let content = Box::new(DraftPart { targets: plan.targets.clone(), ..DraftPart::default() });
        [
            Command::StemcellPut { task, epoch: EPOCH, stemcell },
            commit(task, plan),
            Command::PlanDraft { task, epoch: EPOCH, draft: 1, part: 0, content },
        ]
        .map(|command| command.feature_level())
    };
    assert_eq!((levels(None), levels(Some(AgentKind::Bosh))), ([1; 3], [3; 3]));
}

#[test]
fn a_small_plan_is_one_entry() {
    assert_eq!(state::draft::cut(TaskId(1), EPOCH, 1, plan_of(Vec::new())).len(), 1);
}

#[test]
fn a_draft_with_a_hole_does_not_count() {
    let mut world = World::new();
    let task = world.deploying();
    let commands = state::draft::cut(task, EPOCH, 7, big_plan(2_000));
    let last = commands.len() - 1;
    for (number, command) in commands.iter().enumerate().filter(|(number, _)| *number != 1) {
        let answer = world.say(command.clone());
        let expected =
            if number == last { "refused: the plan draft is incomplete: part 1 is missing" } else { "Done" };
        assert_eq!(answer, expected);
    }
    world.must(commands[1].clone());
    world.must(commands[last].clone());
}

#[test]
fn another_draft_replaces_the_one_before() {
    let mut world = World::new();
    let task = world.deploying();
    let draft = |draft, part| Command::PlanDraft { task, epoch: EPOCH, draft, part, content: Box::default() };
    world.must(draft(1, 0));
    world.must(draft(1, 1));
    world.must(draft(2, 0));
    let commit = |draft, parts| Command::PlanCommit {
        task,
        epoch: EPOCH,
        draft,
        parts,
        plan: Box::new(plan_of(vec![])),
    };
    expect!["refused: the plan draft is incomplete: part 0 is missing"].assert_eq(&world.say(commit(1, 2)));
    world.must(commit(2, 1));
}

#[test]
fn every_reason_to_refuse_a_plan() {
    let mut world = World::new();
    let task = world.deploying();
    let plain = || plan_of(vec![begin_update("i1")]);
    let mut elsewhere = plain();
    elsewhere.deployment = Some("db".into());
    let mut moved = plain();
    moved.generation = 4;
    let mut stranger = plain();
    stranger.targets[0].spec.deployment = "db".into();
    let mut unknown_holder = plain();
    unknown_holder.reservations.push(reservation("i9", "10.0.0.9"));
    let mut twice = plain();
    twice.reservations = vec![reservation("i1", "10.0.0.9"), reservation("i2", "10.0.0.9")];
    twice.targets.push(target("i2", None, Fate::New));
    let mut same_unit = plain();
    let unit = same_unit.phases[0].stages[0].waves[0].units[0].clone();
    same_unit.phases[0].stages[0].waves[0].units.push(unit);
    let no_target = plan_of(vec![begin_update("i2")]);
    let mut no_record = plan_of(vec![Action::SaveDeployment]);
    no_record.record = None;
    let mut nobody = plain();
    nobody.targets[0].fate = Fate::Updated;
    let plans = [
        elsewhere,
        moved,
        stranger,
        nobody,
        unknown_holder,
        twice,
        same_unit,
        no_target,
        no_record,
        plain(),
        plain(),
    ];
    let text: String = plans.into_iter().map(|plan| world.say(commit(task, plan)) + "\n").collect();
    expect![[r#"
        refused: the plan makes no sense here: it is for deployment db, the task is not
        refused: deployment web is at generation 0, the plan was made for 4
        refused: instance i1 makes no sense here: it is of another deployment than the plan
        refused: no such instance: i1
        refused: no such instance: i9
        refused: address 10.0.0.9 is held by api/i1
        refused: unit 1 makes no sense here: the plan has it twice
        refused: unit 1 makes no sense here: the plan has no target for instance i2
        refused: unit 1 makes no sense here: the plan has no record to save
        Done
        refused: task 1 is planned already
    "#]]
    .assert_eq(&text);
    let draft = Command::PlanDraft { task, epoch: EPOCH, draft: 1, part: 0, content: Box::default() };
    expect!["refused: task 1 is planned already"].assert_eq(&world.say(draft));
}

/// Found by the property tests: the address could never be freed.
#[test]
fn no_address_is_held_for_an_instance_that_does_not_exist() {
    let mut world = World::new();
    let task = world.deploying();
    let mut plan = plan_of(Vec::new());
    plan.targets[0].fate = Fate::Updated;
    plan.reservations = vec![reservation("i1", "10.0.0.5")];
    expect!["refused: no such instance: i1"].assert_eq(&world.say(commit(task, plan)));
    assert_eq!(world.state().addresses(), []);
}

#[test]
fn a_piece_without_a_place_is_refused() {
    let mut world = World::new();
    let task = world.deploying();
    let stray = DraftUnit { phase: 0, stage: 0, wave: 3, unit: unit(5, "u", Vec::new()) };
    let content = Box::new(DraftPart { units: vec![stray], ..DraftPart::default() });
    world.must(Command::PlanDraft { task, epoch: EPOCH, draft: 1, part: 0, content });
    let plan = Box::new(plan_of(Vec::new()));
    let commit = Command::PlanCommit { task, epoch: EPOCH, draft: 1, parts: 1, plan };
    expect!["refused: unit 5 makes no sense here: its place in the plan does not exist"]
        .assert_eq(&world.say(commit));
}

#[test]
fn a_cancelled_task_gets_no_plan() {
    let mut world = World::new();
    let queued = world.queue(deploy(), &[]);
    expect!["refused: task 1 is queued"].assert_eq(&world.say(commit(queued, plan_of(Vec::new()))));
    let task = world.deploying();
    world.must(Command::TaskCancel { task });
    expect!["refused: task 2 is cancelling"].assert_eq(&world.say(commit(task, plan_of(Vec::new()))));
}

#[test]
fn the_next_plan_may_keep_an_address_and_take_no_other_ones() {
    let mut world = World::new();
    let mut first = plan_of(Vec::new());
    first.reservations.push(reservation("i1", "10.0.0.5"));
    let task = world.planned(first);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let task = world.deploying();
    let mut second = plan_of(Vec::new());
    second.generation = 1;
    second.targets = vec![target("i2", None, Fate::New)];
    second.reservations = vec![reservation("i1", "10.0.0.5"), reservation("i2", "10.0.0.5")];
    expect!["refused: address 10.0.0.5 is held by api/i1"]
        .assert_eq(&world.say(commit(task, second.clone())));
    second.reservations[1] = reservation("i2", "10.0.0.6");
    world.must(commit(task, second));
    assert_eq!(world.state().addresses().len(), 2);
}

#[test]
fn blocks_of_addresses_do_not_overlap() {
    let block = |id: &str, ip: &str, prefix| Reservation { prefix, ..reservation(id, ip) };
    let mut world = World::new();
    let mut first = plan_of(Vec::new());
    first.reservations.push(block("i1", "10.0.0.16", Some(28)));
    first.reservations.push(reservation("i1", "10.0.0.40"));
    let task = world.planned(first);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let task = world.deploying();
    let mut say = |taken: Reservation| {
        let mut plan = plan_of(Vec::new());
        plan.generation = 1;
        plan.targets = vec![target("i2", None, Fate::New)];
        plan.reservations = vec![taken];
        world.say(commit(task, plan))
    };
    for (ip, prefix) in
        [("10.0.0.16", None), ("10.0.0.31", None), ("10.0.0.16", Some(29)), ("10.0.0.0", Some(27))]
    {
        assert_eq!(say(block("i2", ip, prefix)), format!("refused: address {ip} is held by api/i1"));
    }
    expect!["refused: address 10.0.0.32 is held by api/i1"].assert_eq(&say(block(
        "i2",
        "10.0.0.32",
        Some(28),
    )));
    assert_eq!(say(block("i2", "10.0.0.48", Some(28))), "Done");
    let held = world.state().address("10.0.0.48".parse().unwrap()).unwrap();
    assert_eq!((held.prefix, held.instance.as_str()), (Some(28), "i2"));
}

#[test]
fn a_unit_without_steps_is_done_at_once() {
    let mut world = World::new();
    let task = world.planned(plan_of(Vec::new()));
    assert_eq!(world.state().unit_progress(task, UnitNo(1)).state, UnitState::Done);
}

#[test]
fn plans_of_ended_tasks_are_kept_for_a_while() {
    let mut world = World::new();
    let mut tasks = Vec::new();
    for _ in 0..18 {
        let task = world.planned(plan_of(vec![begin_update("i1")]));
        world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
        tasks.push(task);
    }
    let state = world.state();
    let kept: Vec<bool> = tasks.iter().map(|task| state.plan_phases(*task).is_some()).collect();
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 16);
    assert!(!kept[0] && !kept[1] && kept[2]);
    assert_eq!((state.units(tasks[0]).len(), state.targets(tasks[0]).len()), (0, 0));
}

#[test]
fn what_dns_names_tell_by_number_gets_one_for_good() {
    let group = |deployment: &str, name: &str| DnsSubject::Group(deployment.into(), name.into());
    let link = |name: &str| DnsSubject::Link("web".into(), name.into());
    let (z1, z2, net) =
        (DnsSubject::Zone("z1".into()), DnsSubject::Zone("z2".into()), DnsSubject::Network("a".into()));
    let mut world = World::new();
    let mut first = plan_of(Vec::new());
    first.dns_subjects =
        vec![z1.clone(), net.clone(), group("web", "api"), link("db-sql"), group("web", "api")];
    let expected = world.state().dns_numbers_if_next(&first.dns_subjects[..4]);
    let task = world.planned(first);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let mut known = world.state().dns_numbers(&"web".into());
    known.sort();
    let mut wanted = vec![(z1.clone(), 1), (net, 1), (group("web", "api"), 1), (link("db-sql"), 2)];
    wanted.sort();
    assert_eq!(known, wanted);
    assert_eq!(expected, [wanted[0].clone(), wanted[1].clone(), wanted[2].clone(), wanted[3].clone()]);
    let task = world.deploying();
    let mut second =
        plan_of(vec![Action::DeleteInstance { instance: "i1".into() }, Action::DeleteDeployment]);
    second.generation = 1;
    second.dns_subjects = vec![z2.clone(), z1.clone(), group("web", "other")];
    assert_eq!(
        world.state().dns_numbers_if_next(&second.dns_subjects),
        [(z2.clone(), 2), (group("web", "other"), 3)]
    );
    world.must(commit(task, second));
    assert_eq!(world.state().dns_number(&z2), Some(2));
    world.step(task, 1, 0, StepOutcome::Done);
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(world.state().dns_number(&group("web", "api")), None, "the deployment is gone");
    assert_eq!(
        world.state().dns_numbers_if_next(&[group("web", "api")]),
        [(group("web", "api"), 4)],
        "never again 1"
    );
    assert_eq!(world.state().dns_number(&z1), Some(1));
}
