//! Where we are in a task's output.

/// The byte that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(u64);

/// A message that begins behind the byte we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task's output lacks the bytes from {wanted} to {got}")]
pub struct Gap {
    /// What comes next.
    pub wanted: u64,
    /// What came.
    pub got: u64,
}

impl Cursor {
    /// Returns the offset of the byte that comes next.
    pub fn offset(self) -> u64 {
        self.0
    }

    /// Returns the part of `data` that is new, and moves behind it.
    pub fn take<'a>(&mut self, offset: u64, data: &'a [u8]) -> Result<&'a [u8], Gap> {
        // A last message that carries only the task may leave its offset at 0.
        if data.is_empty() {
            return Ok(data);
        }
        let Some(known) = self.0.checked_sub(offset) else {
            return Err(Gap { wanted: self.0, got: offset });
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        let fresh = &data[known..];
        self.0 += fresh.len() as u64;
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_dropped_and_what_is_missing_is_noticed() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.take(0, b"abc"), Ok(&b"abc"[..]));
        assert_eq!(cursor.take(3, b""), Ok(&b""[..]));
        assert_eq!(cursor.take(1, b"bcd"), Ok(&b"d"[..]), "an overlap");
        assert_eq!(cursor.take(0, b"ab"), Ok(&b""[..]), "nothing new at all");
        assert_eq!(cursor.take(6, b"g"), Err(Gap { wanted: 4, got: 6 }));
        assert_eq!(cursor.offset(), 4, "a gap moves nothing");
    }
}
