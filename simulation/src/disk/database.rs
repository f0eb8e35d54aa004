//! A database in memory: what is seen, what is synced, and what is between them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use raft::disk::{Change, DatabaseKind, DiskError, DiskScan, Family, Reader};
use raft::{Direction, Pair};
use sha2::{Digest as _, Sha256};

use crate::chance::Chance;

type Rows = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// A database's rows at one moment; cheap to clone.
#[derive(Clone, Default)]
pub struct Content {
    families: BTreeMap<String, Rows>,
}

/// A database on a disk.
pub struct Stored {
    seen: Content,
    synced: Content,
    /// Writes since the last sync, in order.
    since: Vec<Vec<Change>>,
    /// Somebody has it open.
    pub open: bool,
}

/// A database that somebody has open.
pub struct OpenDatabase<H> {
    pub handle: H,
    pub dir: PathBuf,
    pub kind: DatabaseKind,
    pub stored: Arc<Mutex<Stored>>,
}

impl Content {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(family, key, value) => {
                    self.rows(family).insert(key.clone(), value.clone());
                }
                Change::Delete(family, key) => {
                    self.rows(family).remove(key);
                }
                Change::DeleteRange(family, start, end) => {
                    self.rows(family).retain(|key, _| key < start || key >= end);
                }
            }
        }
    }

    fn rows(&mut self, family: &str) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        Arc::make_mut(self.families.entry(family.to_owned()).or_default())
    }

    /// Returns the pairs of a range, which live as long as this moment's rows.
    pub fn into_scan(
        self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> DiskScan<'static> {
        let Some(rows) = self.families.get(family).cloned() else { return Box::new(std::iter::empty()) };
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        let range = (start.to_vec(), end.map(<[u8]>::to_vec));
        Box::new(Pieces { rows, range, direction, piece: VecDeque::new(), ended: false })
    }

    /// Returns the rows as one file: with its digest at the end, so that a torn one is known.
    pub fn to_image(&self) -> Vec<u8> {
        let mut image = Vec::new();
        let mut put = |bytes: &[u8]| {
            image.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            image.extend_from_slice(bytes);
        };
        for (family, rows) in &self.families {
            for (key, value) in rows.iter() {
                put(family.as_bytes());
                put(key);
                put(value);
            }
        }
        let digest = Sha256::digest(&image);
        image.extend_from_slice(&digest);
        image
    }

    /// Reads what [`Content::to_image`] wrote.
    pub fn from_image(image: &[u8]) -> Option<Self> {
        let (mut rest, digest) = image.split_at_checked(image.len().checked_sub(32)?)?;
        if Sha256::digest(rest).as_slice() != digest {
            return None;
        }
        let mut content = Self::default();
        while !rest.is_empty() {
            let mut take = || {
                let (length, after) = rest.split_at_checked(8)?;
                let length = usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok()?;
                let (bytes, after) = after.split_at_checked(length)?;
                rest = after;
                Some(bytes.to_vec())
            };
            let (family, key, value) = (take()?, take()?, take()?);
            content.rows(&String::from_utf8(family).ok()?).insert(key, value);
        }
        Some(content)
    }
}

/// A scan, a few rows at a time: whoever stops early has not paid for the rest.
struct Pieces {
    rows: Rows,
    /// What is left of the range: its start, and its end, which is not part of it.
    range: (Vec<u8>, Option<Vec<u8>>),
    direction: Direction,
    piece: VecDeque<Pair>,
    ended: bool,
}

/// Rows that are taken at once.
const PIECE: usize = 32;

impl Pieces {
    fn fetch(&mut self) {
        let (start, end) = &self.range;
        let end = end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.rows.range::<Vec<u8>, _>((Bound::Included(start), end));
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        self.piece = match self.direction {
            Direction::Forward => range.take(PIECE).map(pair).collect(),
            Direction::Reverse => range.rev().take(PIECE).map(pair).collect(),
        };
        self.ended = self.piece.len() < PIECE;
        let Some((last, _)) = self.piece.back() else { return };
        match self.direction {
            // The first key after it.
            Direction::Forward => self.range.0 = [last.as_slice(), &[0]].concat(),
            Direction::Reverse => self.range.1 = Some(last.clone()),
        }
    }
}

impl Iterator for Pieces {
    type Item = Result<Pair, DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.piece.is_empty() && !self.ended {
            let emptied = self.range.1.as_ref().is_some_and(|end| *end <= self.range.0);
            if emptied {
                self.ended = true;
            } else {
                self.fetch();
            }
        }
        self.piece.pop_front().map(Ok)
    }
}

impl Reader for Content {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.families.get(family).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, family: Family, start: &[u8], end: Option<&[u8]>, direction: Direction) -> DiskScan<'_> {
        self.clone().into_scan(family, start, end, direction)
    }
}

impl Stored {
    /// Returns a database with these rows, all of them synced or none.
    pub fn of(content: Content, is_synced: bool) -> Self {
        let synced = if is_synced { content.clone() } else { Content::default() };
        Self { seen: content, synced, since: Vec::new(), open: false }
    }

    pub fn content(&self) -> Content {
        self.seen.clone()
    }

    pub fn write(&mut self, changes: Vec<Change>) {
        self.seen.apply(&changes);
        self.since.push(changes);
    }

    pub fn sync(&mut self) {
        self.synced = self.seen.clone();
        self.since.clear();
    }

    /// Loses what was not synced, but for some first writes; returns how many were lost.
    pub fn crash(&mut self, chance: &mut Chance) -> usize {
        let kept = chance.between(0, self.since.len() as u64) as usize;
        let lost = self.since.len() - kept;
        if lost > 0 {
            for changes in self.since.drain(..kept) {
                self.synced.apply(&changes);
            }
            self.seen = self.synced.clone();
        } else {
            self.synced = self.seen.clone();
        }
        self.since.clear();
        self.open = false;
        lost
    }
}
