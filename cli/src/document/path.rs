//! The path language of ops files: `/instance_groups/name=web/jobs/0`, with `?`, `:before`, `-` and escapes.

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A key of a hash.
    Key {
        /// Its name.
        key: String,
        /// Whether it may be missing.
        need: Need,
    },
    /// An index of a list; from its end if negative.
    Index {
        /// The number.
        index: i64,
        /// Where from there.
        side: Side,
    },
    /// Behind the last item.
    AfterLast,
    /// The one item whose `key` is `value`.
    Match {
        /// The key.
        key: String,
        /// Its value, as text.
        value: String,
        /// Whether it may be missing.
        need: Need,
        /// Where from there.
        side: Side,
    },
}

/// Whether what a token names must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It must.
    Must,
    /// `?`: replacing creates it, removing does not mind.
    May,
}

/// `:before`, `:after`, `:prev`, `:next`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The item itself.
    At,
    /// Insert in front of it.
    Before,
    /// Insert behind it.
    After,
    /// The item in front of it.
    Prev,
    /// The item behind it.
    Next,
}

/// Reads a path; the empty one is the whole document.
pub(super) fn parse(path: &str) -> Result<Vec<Token>, String> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(format!("expected path '{path}' to start with '/'"));
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let last = parts.len() - 1;
    let mut need = Need::Must;
    let mut tokens = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let token = token(part, &mut need);
        let only_last = match token {
            Token::AfterLast => true,
            Token::Index { side, .. } | Token::Match { side, .. } => {
                matches!(side, Side::Before | Side::After)
            }
            Token::Key { .. } => false,
        };
        if only_last && at != last {
            return Err(format!("expected '{part}' to be the last token of path '{path}'"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Reads one step. A `?` also counts for everything behind it.
fn token(part: &str, need: &mut Need) -> Token {
    if part == "-" {
        return Token::AfterLast;
    }
    let (part, side) = split_side(part);
    if let Ok(index) = part.parse::<i64>()
        && !part.starts_with('+')
    {
        return Token::Index { index, side };
    }
    let part = match part.strip_suffix('?') {
        Some(stem) => {
            *need = Need::May;
            stem
        }
        None => part,
    };
    match part.split_once('=') {
        Some((key, value)) => Token::Match { key: unescape(key), value: unescape(value), need: *need, side },
        None => Token::Key { key: unescape(part), need: *need },
    }
}

fn split_side(part: &str) -> (&str, Side) {
    let sides =
        [(":before", Side::Before), (":after", Side::After), (":prev", Side::Prev), (":next", Side::Next)];
    let found = sides.iter().find_map(|(suffix, side)| Some((part.strip_suffix(suffix)?, *side)));
    found.unwrap_or((part, Side::At))
}

fn unescape(text: &str) -> String {
    // `~0` last: `~01` is `~1`, not a slash.
    text.replace("~1", "/").replace("~7", ":").replace("~0", "~")
}
