//! One key's operations, made ready for the search: what each does to the register, which are open at which end, who
//! wants which value and who makes it.

use std::collections::HashMap;

use super::register::{Answer, Call, Value, What};
use crate::history::{End, Operation};

/// What an operation demands of the register and does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It must hold this.
    Holds(Value),
    /// It must hold anything else.
    Differs(Value),
    /// Holds this from then on.
    Set(u64),
    /// Must hold `from`, holds `to` from then on.
    Swap { from: Value, to: u64 },
}

impl Effect {
    /// Returns the value that the register must hold for this.
    pub(super) fn wants(self) -> Option<Value> {
        match self {
            Self::Holds(value) | Self::Swap { from: value, .. } => Some(value),
            Self::Differs(_) | Self::Set(_) => None,
        }
    }

    /// Returns what the register holds after this, if this changes it.
    pub(super) fn makes(self) -> Option<u64> {
        match self {
            Self::Set(value) | Self::Swap { to: value, .. } => Some(value),
            Self::Holds(_) | Self::Differs(_) => None,
        }
    }

    /// Returns whether this can be the next one.
    pub(super) fn fits(self, state: Value) -> bool {
        match self {
            Self::Holds(value) | Self::Swap { from: value, .. } => state == value,
            Self::Differs(value) => state != value,
            Self::Set(_) => true,
        }
    }
}

/// An operation that may be in the order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// What it does.
    pub effect: Effect,
    /// Its place in the bit set of those that are in the order. Reused after its end.
    pub slot: usize,
    /// The number of the first end that comes after its beginning.
    pub open_from: usize,
    /// The number of its own end; none if its outcome is unknown: it may be left out.
    pub end: Option<usize>,
}

impl Item {
    /// Returns whether it is not over before this end.
    fn is_current(&self, end: usize) -> bool {
        self.end.is_none_or(|own| own >= end)
    }
}

/// What the search needs to know of one key.
#[derive(Debug, Default)]
pub(super) struct Problem {
    pub items: Vec<Item>,
    /// The items in the order in which they end.
    pub ends: Vec<usize>,
    /// For each end, the items that have begun and are not over, the ending one too.
    pub open: Vec<Vec<usize>>,
    pub slot_count: usize,
    /// The last end of an operation that found the register to differ from something.
    last_mismatch: Option<usize>,
    wanters: HashMap<Value, Vec<usize>>,
    makers: HashMap<Value, Vec<usize>>,
}

/// Returns the ends of a key's operations in their order: the number of the event, and the operation.
pub(super) fn ends(operations: &[Operation<Call>]) -> Vec<(usize, usize)> {
    let end = |(number, operation): (usize, &Operation<Call>)| match operation.end {
        End::Ok { event, .. } => Some((event, number)),
        End::Failed | End::Unknown => None,
    };
    let mut ends: Vec<(usize, usize)> = operations.iter().enumerate().filter_map(end).collect();
    ends.sort_unstable();
    ends
}

impl Problem {
    /// Prepares the prefix of a key's history that has this many ends; what ends later is still open in it.
    pub(super) fn new(operations: &[Operation<Call>], ends_kept: usize) -> Self {
        let mut kept = ends(operations);
        kept.truncate(ends_kept);
        let whole = ends_kept == usize::MAX;
        let last_event = kept.last().map_or(0, |(event, _)| *event);
        let end_of: HashMap<usize, usize> =
            kept.iter().enumerate().map(|(end, (_, operation))| (*operation, end)).collect();
        let mut problem = Self::default();
        let mut item_of: HashMap<usize, usize> = HashMap::new();
        for (number, operation) in operations.iter().enumerate() {
            let end = end_of.get(&number).copied();
            if operation.end == End::Failed || !(whole || operation.begun < last_event) {
                continue;
            }
            let Some(effect) = effect(operation, end.is_some()) else { continue };
            item_of.insert(number, problem.items.len());
            let open_from = kept.partition_point(|(event, _)| *event < operation.begun);
            problem.items.push(Item { effect, slot: 0, open_from, end });
        }
        problem.ends = kept.iter().map(|(_, operation)| item_of[operation]).collect();
        problem.place();
        problem.index();
        problem
    }

    /// Gives slots, and notes who is open when.
    fn place(&mut self) {
        let (mut free, mut open, mut begun) = (Vec::new(), Vec::new(), 0);
        for end in 0..self.ends.len() {
            while let Some(item) = self.items.get_mut(begun).filter(|item| item.open_from <= end) {
                item.slot = free.pop().unwrap_or(self.slot_count);
                self.slot_count = self.slot_count.max(item.slot + 1);
                open.push(begun);
                begun += 1;
            }
            self.open.push(open.clone());
            let over = self.ends[end];
            open.retain(|item| *item != over);
            free.push(self.items[over].slot);
        }
    }

    fn index(&mut self) {
        for (number, item) in self.items.iter().enumerate() {
            if let Some(value) = item.effect.wants() {
                self.wanters.entry(value).or_default().push(number);
            }
            if let Some(value) = item.effect.makes() {
                self.makers.entry(Some(value)).or_default().push(number);
            }
            if matches!(item.effect, Effect::Differs(_)) {
                self.last_mismatch = self.last_mismatch.max(item.end);
            }
        }
        // From the last end to the first, those without one before all: a search through one of these lists stops soon.
        let (items, never) = (&self.items, usize::MAX);
        for list in self.wanters.values_mut().chain(self.makers.values_mut()) {
            list.sort_by_key(|number| std::cmp::Reverse(items[*number].end.unwrap_or(never)));
        }
    }

    /// Returns the operations that need this value and are not over before this end.
    pub(super) fn wanters(&self, value: Value, end: usize) -> impl Iterator<Item = &Item> {
        self.current(self.wanters.get(&value), end)
    }

    /// Returns the operations that make this value and are not over before this end.
    pub(super) fn makers(&self, value: Value, end: usize) -> impl Iterator<Item = &Item> {
        self.current(self.makers.get(&value), end)
    }

    fn current<'a>(&'a self, list: Option<&'a Vec<usize>>, end: usize) -> impl Iterator<Item = &'a Item> {
        let items = list.into_iter().flatten().map(|number| &self.items[*number]);
        items.take_while(move |item| item.is_current(end))
    }

    /// Returns whether somebody still has to find the register different from something.
    pub(super) fn mismatch_ahead(&self, end: usize) -> bool {
        self.last_mismatch.is_some_and(|last| last >= end)
    }
}

/// Returns what an operation does, or none if it can't have done anything that matters.
fn effect(operation: &Operation<Call>, is_over: bool) -> Option<Effect> {
    let answer = match &operation.end {
        End::Ok { answer, .. } if is_over => Some(*answer),
        _ => None,
    };
    match (operation.call.what, answer) {
        (_, Some(Answer::Read(value))) => Some(Effect::Holds(value)),
        (What::Read, _) => None,
        (What::Write(value), _) => Some(Effect::Set(value)),
        (What::CompareAndSet { expected, .. }, Some(Answer::Mismatch)) => Some(Effect::Differs(expected)),
        (What::CompareAndSet { expected, new }, _) => Some(Effect::Swap { from: expected, to: new }),
    }
}
