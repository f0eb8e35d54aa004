//! The search for an order.
//!
//! It goes from end to end. At each one the ending operation must be in the order; if it is not, it is put there now,
//! alone or after others that are open. What makes no difference is left out, each for a reason that a test compares
//! with trying everything:
//!
//! * A read (and a refused compare-and-set) goes into the order as soon as the register fits: it changes nothing.
//! * The register is not changed while somebody needs what it holds, if nobody else makes that value again.
//! * An operation of unknown outcome is put into the order only before one that is open and needs it: it can wait.
//! * A write whose value nobody needs goes right before another write, where nobody sees it. Not where somebody still has
//!   to find the register different from something: for that, any value will do.

use std::collections::HashSet;

use super::problem::{Effect, Item, Problem};
use super::register::Value;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is an order.
    Explained,
    /// There is none.
    Unexplained,
    /// It was cut off.
    Undecided,
}

/// Where a search is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// The next end.
    end: usize,
    /// Which of the open operations are in the order, by slot.
    done: Box<[u64]>,
    /// What the register holds after them.
    state: Value,
}

impl Node {
    fn has(&self, item: &Item) -> bool {
        // A slot speaks of one operation at a time: not of one that has yet to begin.
        item.open_from <= self.end && self.done[item.slot / 64] & (1 << (item.slot % 64)) != 0
    }

    fn add(&mut self, item: &Item) {
        self.done[item.slot / 64] |= 1 << (item.slot % 64);
    }

    fn forget(&mut self, item: &Item) {
        self.done[item.slot / 64] &= !(1 << (item.slot % 64));
    }
}

/// Looks for an order that explains the whole problem.
pub(super) fn run(problem: &Problem, configurations_max: usize) -> Outcome {
    let start = Node { end: 0, done: vec![0; problem.slot_count / 64 + 1].into_boxed_slice(), state: None };
    let mut seen = HashSet::new();
    let mut stack = vec![settled(problem, start)];
    while let Some(node) = stack.pop() {
        if node.end == problem.ends.len() {
            return Outcome::Explained;
        }
        if seen.contains(&node) {
            continue;
        }
        if seen.len() >= configurations_max {
            return Outcome::Undecided;
        }
        push_successors(problem, &node, &mut stack);
        seen.insert(node);
    }
    Outcome::Unexplained
}

/// Puts into the order what changes nothing, and goes on to the first end whose operation is not in it.
fn settled(problem: &Problem, mut node: Node) -> Node {
    while let Some(ending) = problem.ends.get(node.end) {
        for number in &problem.open[node.end] {
            let item = &problem.items[*number];
            if item.effect.makes().is_none() && item.effect.fits(node.state) {
                node.add(item);
            }
        }
        let ending = &problem.items[*ending];
        if !node.has(ending) {
            break;
        }
        node.forget(ending);
        node.end += 1;
    }
    node
}

/// Adds the configurations that one more change leads to; the most promising one last, so that it is looked at first.
fn push_successors(problem: &Problem, node: &Node, stack: &mut Vec<Node>) {
    let ending = problem.ends[node.end];
    let is_waiting = |number: &&usize| !node.has(&problem.items[**number]);
    let open: Vec<usize> = problem.open[node.end].iter().filter(is_waiting).copied().collect();
    let mut idle_unknown = false;
    for number in open.iter().filter(|number| **number != ending) {
        let item = &problem.items[*number];
        let Some(made) = item.effect.makes().filter(|_| item.effect.fits(node.state)) else { continue };
        let is_wanted = is_wanted(problem, node, Some(made));
        if item.end.is_none() {
            // Those that nobody needs are all the same; one stands for them.
            let stands_for_others = !is_wanted && matches!(item.effect, Effect::Set(_));
            if (stands_for_others && idle_unknown) || !helps_somebody(problem, node, &open, *number, made) {
                continue;
            }
            idle_unknown |= stands_for_others;
        } else if !is_wanted && matches!(item.effect, Effect::Set(_)) && !problem.mismatch_ahead(node.end) {
            continue;
        }
        push_change(problem, node, &open, *number, stack);
    }
    if problem.items[ending].effect.makes().is_some() && problem.items[ending].effect.fits(node.state) {
        push_change(problem, node, &open, ending, stack);
    }
}

/// Returns whether an operation that is not in the order needs this value, now or later.
fn is_wanted(problem: &Problem, node: &Node, value: Value) -> bool {
    problem.wanters(value, node.end).any(|item| !node.has(item))
}

/// Returns whether the change to `made` lets an open operation go on.
fn helps_somebody(problem: &Problem, node: &Node, open: &[usize], changer: usize, made: u64) -> bool {
    open.iter().filter(|number| **number != changer).any(|number| {
        let effect = problem.items[*number].effect;
        match effect {
            Effect::Holds(_) | Effect::Swap { .. } => effect.fits(Some(made)),
            Effect::Differs(_) => !effect.fits(node.state) && effect.fits(Some(made)),
            Effect::Set(_) => false,
        }
    })
}

fn push_change(problem: &Problem, node: &Node, open: &[usize], number: usize, stack: &mut Vec<Node>) {
    let item = &problem.items[number];
    let Some(made) = item.effect.makes() else { return };
    let mut next = node.clone();
    next.add(item);
    if node.state != Some(made) && is_needed_once(problem, &next) {
        return;
    }
    next.state = Some(made);
    let mut tidied = next.clone();
    if matches!(item.effect, Effect::Set(_)) {
        for other in open.iter().map(|number| &problem.items[*number]) {
            let unseen = matches!(other.effect, Effect::Set(value) if !is_wanted(problem, node, Some(value)));
            if other.end.is_some() && unseen {
                tidied.add(other);
            }
        }
    }
    if tidied.done != next.done && problem.mismatch_ahead(node.end) {
        stack.push(settled(problem, next));
    }
    stack.push(settled(problem, tidied));
}

/// Returns whether somebody must still find what the register holds, which nobody makes once more.
fn is_needed_once(problem: &Problem, node: &Node) -> bool {
    let must = problem.wanters(node.state, node.end).any(|item| item.end.is_some() && !node.has(item));
    must && !problem.makers(node.state, node.end).any(|item| !node.has(item))
}
