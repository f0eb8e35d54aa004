//! Pages of long lists. A page's token is the key of its last row: rows that come and go meanwhile make nobody miss a row
//! that was there all the time, or see one twice.

use model::{ErrorCode, Revision};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ServiceError;

/// Items in a page, unless asked otherwise.
const DEFAULT: usize = 100;

/// The most that anybody gets at once.
const MAX: usize = 1000;

/// A piece of a list to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many; 0 for the default.
    pub size: u32,
    /// The token of the page before; empty for the first.
    pub token: String,
}

/// A page of a list, as it was returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The token of the next page; empty if that was all.
    pub next_page_token: String,
    /// Everything up to this revision is in it: who watches from there on misses nothing.
    pub revision: Revision,
}

impl Page {
    /// Returns how many items to give.
    pub fn limit(&self) -> usize {
        match self.size as usize {
            0 => DEFAULT,
            size => size.min(MAX),
        }
    }

    /// Returns the key that the page begins after; none on the first page.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, ServiceError> {
        if self.token.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&self.token).map(Some).map_err(|_| {
            let text = format!("`{}` is not a page token of this list", self.token);
            ServiceError::told(ErrorCode::BadRequest, text)
        })
    }

    /// Cuts a page out of rows that come in the order of their keys; returns it with the token of the next one. Takes no
    /// more rows than it needs.
    pub fn cut<T, K: Ord + Serialize + DeserializeOwned>(
        &self,
        rows: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> K,
    ) -> Result<(Vec<T>, String), ServiceError> {
        let after: Option<K> = self.after()?;
        let mut rows = rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| key(row) > *after));
        let page: Vec<T> = rows.by_ref().take(self.limit()).collect();
        let last = page.last().filter(|_| rows.next().is_some());
        let token = last.map(|last| serde_json::to_string(&key(last))).transpose();
        let token = token.map_err(|error| {
            ServiceError::told(ErrorCode::SystemError, format!("a page token can't be written: {error}"))
        })?;
        Ok((page, token.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;

    fn page(token: &str) -> Page {
        Page { size: 2, token: token.into() }
    }

    #[test]
    fn pages_cover_a_list_without_gap_or_repeat_whatever_comes_and_goes() {
        let mut items = vec!["a", "c", "e", "g", "i"];
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (part, next) = page(&token).cut(items.clone(), |item| (*item).to_owned()).unwrap();
            seen.extend(part);
            if next.is_empty() {
                break;
            }
            token = next;
            // One that was seen goes, one comes behind us, one before us.
            items.retain(|item| *item != "a");
            items.insert(1, "d");
            items.dedup();
            items.sort();
        }
        let stayed: Vec<_> = seen.iter().filter(|item| **item != "d").collect();
        assert_eq!(stayed, [&"a", &"c", &"e", &"g", &"i"]);
    }

    #[test]
    fn lists_may_run_backwards() {
        let newest = |token: &str| page(token).cut((1..=5u64).rev(), |id| Reverse(*id)).unwrap();
        let (first, token) = newest("");
        assert_eq!(first, [5, 4]);
        assert_eq!(newest(&token).0, [3, 2]);
    }

    #[test]
    fn the_last_page_has_no_token_and_strange_tokens_are_refused() {
        assert_eq!(page("").cut([1u64, 2], |id| *id).unwrap(), (vec![1, 2], String::new()));
        for wrong in ["x", "\"text\"", "{"] {
            assert!(page(wrong).cut([1u64], |id| *id).is_err(), "{wrong}");
        }
    }
}
