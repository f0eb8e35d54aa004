//! The overlay must look exactly like a store to which everything was already written.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::disk::{Disk, LocalDisk};
use crate::fatal::Fatal;
use crate::hot_rows::HotRows;
use crate::state_db::StateDb;
use crate::type_config::{CommittedLeaderId, LogId};
use crate::{Direction, StateBatch, StateView};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
/// A key, and its new value or its removal.
type Change = (u8, Option<u8>);

fn open(dir: &std::path::Path) -> Arc<StateDb> {
    let fatal = Fatal::new(Arc::new(|message: &str| panic!("{message}")));
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    Arc::new(StateDb::open(&disk, &dir.join("db"), fatal).unwrap())
}

fn key(of: u8) -> Vec<u8> {
    vec![b'k', of]
}

fn change(batch: &mut StateBatch<'_>, model: &mut Model, changes: &[Change]) {
    for (of, value) in changes {
        match value {
            Some(value) => {
                batch.put(key(*of), vec![*value]);
                model.insert(key(*of), vec![*value]);
            }
            None => {
                batch.delete(&key(*of));
                model.remove(&key(*of));
            }
        }
    }
}

fn expected(model: &Model, start: u8, end: Option<u8>, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let within = |at: &Vec<u8>| *at >= key(start) && end.is_none_or(|end| *at < key(end));
    let mut pairs: Vec<_> =
        model.iter().filter(|(at, _)| within(at)).map(|(at, value)| (at.clone(), value.clone())).collect();
    if direction == Direction::Reverse {
        pairs.reverse();
    }
    pairs
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((0u8..24, prop::option::of(any::<u8>())), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_over_a_database_is_one_store(
        stored in changes(),
        written in changes(),
        start in 0u8..26,
        end in prop::option::of(0u8..26),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let (mut model, mut hot) = (Model::new(), HotRows::default());
        let mut batch = StateBatch::new(&db, &mut hot);
        change(&mut batch, &mut model, &stored);
        let position = |index| LogId::new(CommittedLeaderId::new(1), index);
        let writes = batch.into_writes();
        db.write(&writes, &position(1), None).unwrap();
        writes.iter().for_each(|(key, value)| hot.written(key, value.as_deref()));
        let (view, before) = (StateView::take(&db), model.clone());

        let mut batch = StateBatch::new(&db, &mut hot);
        change(&mut batch, &mut model, &written);
        let end_key = end.map(key);
        for direction in [Direction::Forward, Direction::Reverse] {
            let found: Vec<_> = batch.scan(&key(start), end_key.as_deref(), direction).collect();
            prop_assert_eq!(found, expected(&model, start, end, direction));
        }
        for of in 0..26 {
            prop_assert_eq!(batch.get(&key(of)), model.get(&key(of)).cloned());
        }
        db.write(&batch.into_writes(), &position(2), None).unwrap();

        let after = StateView::take(&db);
        prop_assert_eq!((view.applied_index(), after.applied_index()), (1, 2));
        for direction in [Direction::Forward, Direction::Reverse] {
            let old: Vec<_> = view.scan(&key(start), end_key.as_deref(), direction).collect();
            prop_assert_eq!(old, expected(&before, start, end, direction));
            let new: Vec<_> = after.scan(&key(start), end_key.as_deref(), direction).collect();
            prop_assert_eq!(new, expected(&model, start, end, direction));
        }
    }
}
