use model::step::StepOutcome;
use model::task::TaskError;
use state::command::{Outcome, TaskEnd};
use state::records::{AgentTransition, ShardMap};

use super::*;
use crate::test_support::state::*;

const DEPLOYMENT: &str = "web";

/// A deployment of one instance `i1` whose VM, with agent `a1`, is dead.
fn world_with_a_death() -> World {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.finish(task, None);
    world.must(Command::ShardMapPut {
        epoch: EPOCH,
        map: ShardMap { number: 1, watchers: [NodeId(1)].into() },
    });
    world.must(Command::AgentTransitions {
        shard_epoch: 1,
        transitions: vec![AgentTransition {
            agent: "a1".into(),
            health: AgentHealth::Dead,
            reason: "test".into(),
        }],
    });
    world
}

trait Finishes {
    fn finish(&mut self, task: model::TaskId, error: Option<TaskError>);
    fn fix(&mut self, delete_vm_first: bool, error: Option<TaskError>);
    fn rest(&self) -> Rest;
}

impl Finishes for World {
    fn finish(&mut self, task: model::TaskId, error: Option<TaskError>) {
        let end = match error {
            None => TaskEnd::Done(None),
            Some(error) => TaskEnd::Error(error),
        };
        self.must(Command::TaskFinish { task, epoch: EPOCH, end });
    }

    fn fix(&mut self, delete_vm_first: bool, error: Option<TaskError>) {
        assert_ne!(self.rest(), Rest::Open);
        let proposal = resurrection(&self.state(), &DEPLOYMENT.into(), vec!["i1".into()]);
        let Outcome::TaskQueued(task) = self.must(proposal.command) else { panic!("no task") };
        self.must(Command::TaskTake { task, epoch: EPOCH });
        if delete_vm_first {
            let generation = self.state().deployment(&DEPLOYMENT.into()).unwrap().generation;
            let mut plan = plan_of(vec![delete_vm()]);
            plan.generation = generation;
            plan.targets = Vec::new();
            plan.record = None;
            self.must(commit(task, plan));
            self.step(task, 1, 0, StepOutcome::Done);
        }
        self.finish(task, error);
    }

    fn rest(&self) -> Rest {
        rest(&self.state(), &DEPLOYMENT.into())
    }
}

fn full() -> Option<TaskError> {
    Some(TaskError { code: 1, message: "the cloud is full".into() })
}

#[test]
fn a_dead_vm_makes_its_deployment_unhealthy() {
    let mut world = world_with_a_death();
    let found = unhealthy(&world.state());
    assert_eq!(found.len(), 1);
    let i1 = BTreeSet::from(["i1".into()]);
    assert_eq!((&found[0].wanted, &found[0].dead, found[0].in_work), (&i1, &i1, false));
    world.must(Command::InstanceIgnore { instance: "i1".into(), ignore: true });
    assert_eq!(unhealthy(&world.state()), []);
    world.must(Command::InstanceIgnore { instance: "i1".into(), ignore: false });
    world.queue(deploy(), &["lock:deployment:web"]);
    assert!(unhealthy(&world.state())[0].in_work && watched(&world.state(), Bus::There)[0].in_work);
}

#[test]
fn an_open_resurrection_is_not_asked_for_again_even_by_a_leader_that_lags() {
    let mut world = world_with_a_death();
    let lagging = world.kv.clone();
    let ask = |state: &State<'_>| resurrection(state, &DEPLOYMENT.into(), Vec::new());
    let first = ask(&world.state());
    world.must(first.command);
    assert_eq!(world.rest(), Rest::Open);
    let again = ask(&State::new(&lagging));
    assert_eq!(again.request_id, first.request_id, "the log takes it once");
    assert!(first.request_id.is_some_and(|id| !id.as_str().contains('/')));
}

#[test]
fn a_failed_resurrection_is_repeated_with_longer_and_longer_rests() {
    let mut world = world_with_a_death();
    assert_eq!(world.rest(), Rest::None);
    let mut rests = Vec::new();
    for _ in 0..8 {
        world.fix(false, full());
        let Rest::After { rest, .. } = world.rest() else { panic!("{:?}", world.rest()) };
        rests.push(rest.as_secs());
    }
    assert_eq!(rests, [10, 20, 40, 80, 160, 320, 600, 600]);
    world.fix(false, None);
    assert!(matches!(world.rest(), Rest::After { rest: REST, .. }), "a success ends the row");
}

#[tokio::test(start_paused = true)]
async fn a_rest_begins_when_its_reason_is_first_seen_whatever_a_leader_s_clock_said() {
    let (mut world, mut rests, web) = (world_with_a_death(), Rests::default(), DEPLOYMENT.into());
    assert!(rests.is_over(&web, world.rest()));
    // Finished by a leader whose clock is a year ahead, and looked at by one whose clock is right.
    world.now += 365 * 86_400_000;
    world.fix(false, full());
    for over in [false, true] {
        assert_eq!(rests.is_over(&web, world.rest()), over);
        tokio::time::advance(REST).await;
    }
    world.fix(false, full());
    for over in [false, false, true] {
        assert_eq!(rests.is_over(&web, world.rest()), over, "the second rest is longer");
        tokio::time::advance(REST).await;
    }
}

#[test]
fn an_instance_without_vm_is_not_forgotten_whoever_left_it_so() {
    let mut world = world_with_a_death();
    world.fix(true, full());
    assert_eq!(world.state().agents(), [], "nobody is left to be found dead");
    assert_eq!(unhealthy(&world.state())[0].missing, BTreeSet::from(["i1".into()]));

    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm()]));
    world.step(task, 1, 0, failed("the cloud is full"));
    world.finish(task, full());
    let found = unhealthy(&world.state()).remove(0);
    assert_eq!((found.missing, found.in_work), (BTreeSet::from(["i1".into()]), false));
}

#[test]
fn a_new_leader_waits_before_it_says_that_it_is_alone() {
    let nodes = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<_>>();
    let check = |case: &str, voters: &[u64], heard: &[u64], settled, expected: &[u64]| {
        let others = Others { voters: nodes(voters), heard: nodes(heard), settled };
        assert_eq!(able_to_watch(NodeId(1), others), nodes(expected), "{case}");
    };
    check("a fleet of one", &[], &[], false, &[1]);
    check("just elected", &[2, 3], &[], false, &[]);
    check("just elected, one heard so far", &[2, 3], &[2], false, &[]);
    check("just elected, everybody heard", &[2, 3], &[2, 3], false, &[2, 3]);
    check("one is gone", &[2, 3], &[3], true, &[3]);
    check("nobody answers", &[2, 3], &[], true, &[1]);
}
