//! Pages of long lists.

use model::ErrorCode;

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

impl Page {
    /// Returns how many items to give.
    pub fn limit(&self) -> usize {
        match self.size as usize {
            0 => DEFAULT,
            size => size.min(MAX),
        }
    }

    /// Cuts a page out of a whole list; returns it with the token of the next one.
    pub fn cut<T>(&self, items: Vec<T>) -> Result<(Vec<T>, String), ServiceError> {
        let from = self.number()?.unwrap_or(0) as usize;
        let total = items.len();
        let page: Vec<T> = items.into_iter().skip(from).take(self.limit()).collect();
        let next = from + page.len();
        let token = if next < total && !page.is_empty() { next.to_string() } else { String::new() };
        Ok((page, token))
    }

    /// Reads the token as a number: an offset, or the last id of the page before.
    pub fn number(&self) -> Result<Option<u64>, ServiceError> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let number = self.token.parse().ok();
        number.map(Some).ok_or_else(|| {
            ServiceError::told(
                ErrorCode::BadRequest,
                format!("`{}` is not a page token of this list", self.token),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_list_without_gap_or_repeat() {
        let items: Vec<u32> = (0..7).collect();
        let mut page = Page { size: 3, token: String::new() };
        let mut seen = Vec::new();
        loop {
            let (part, next) = page.cut(items.clone()).unwrap();
            seen.extend(part);
            if next.is_empty() {
                break;
            }
            page.token = next;
        }
        assert_eq!(seen, items);
        assert!(Page { size: 1, token: "x".into() }.cut(items).is_err());
    }
}
