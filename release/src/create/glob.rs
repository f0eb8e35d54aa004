//! The patterns of package specs: `*`, `?`, `[…]`, `{a,b}`, and `**` across folders. Dot files match like others.

/// A pattern, its alternatives written out.
#[derive(Clone, Debug)]
pub struct Glob {
    alternatives: Vec<Vec<String>>,
}

/// Alternatives that a pattern's braces may multiply to.
const ALTERNATIVES_MAX: usize = 1000;

impl Glob {
    /// Reads a pattern. Braces that do not close stand for themselves.
    pub fn new(pattern: &str) -> Self {
        let mut texts = vec![pattern.to_owned()];
        while let Some(expanded) = texts.iter().position(|t| braces(t).is_some()) {
            let text = texts.swap_remove(expanded);
            let Some((before, choices, after)) = braces(&text) else { break };
            texts.extend(choices.iter().map(|choice| format!("{before}{choice}{after}")));
            if texts.len() > ALTERNATIVES_MAX {
                break;
            }
        }
        let segments = |text: &String| {
            text.split('/').filter(|s| !s.is_empty() && *s != ".").map(str::to_owned).collect()
        };
        Self { alternatives: texts.iter().map(segments).collect() }
    }

    /// Returns whether a relative path matches.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        self.alternatives.iter().any(|pattern| path_matches(pattern, &path))
    }
}

/// Splits at the first pair of braces: what is before, the choices, what is after.
fn braces(text: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = text.find('{')?;
    let (mut depth, mut choices, mut start) = (0, Vec::new(), open + 1);
    for (i, c) in text.char_indices().skip_while(|(i, _)| *i < open) {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => {
                choices.push(&text[start..i]);
                start = i + 1;
            }
            '}' if depth == 1 => {
                choices.push(&text[start..i]);
                return Some((&text[..open], choices, &text[i + 1..]));
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn path_matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), _) if first == "**" => {
            path_matches(rest, path) || (!path.is_empty() && path_matches(pattern, &path[1..]))
        }
        (Some(_), None) => false,
        (Some((first, rest)), Some((name, others))) => {
            let (first, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            name_matches(&first, &name) && path_matches(rest, others)
        }
    }
}

fn name_matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(('*', rest)), _) => {
            name_matches(rest, name) || (!name.is_empty() && name_matches(pattern, &name[1..]))
        }
        (Some(_), None) => false,
        (Some(('?', rest)), Some((_, others))) => name_matches(rest, others),
        (Some(('[', rest)), Some((c, others))) => match class(rest, *c) {
            Some((is_in, after)) => is_in && name_matches(after, others),
            None => *c == '[' && name_matches(rest, others),
        },
        (Some(('\\', rest)), Some((c, others))) if !rest.is_empty() => {
            rest[0] == *c && name_matches(&rest[1..], others)
        }
        (Some((p, rest)), Some((c, others))) => p == c && name_matches(rest, others),
    }
}

/// Looks for a character in a class that has just opened; none if the class never closes.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let (negated, pattern) = match pattern.first()? {
        '^' | '!' => (true, &pattern[1..]),
        _ => (false, pattern),
    };
    let close = pattern.iter().skip(1).position(|p| *p == ']')? + 1;
    let (mut set, mut is_in) = (&pattern[..close], false);
    while let Some((from, rest)) = set.split_first() {
        match rest {
            ['-', to, after @ ..] => {
                is_in |= (*from..=*to).contains(&c);
                set = after;
            }
            _ => {
                is_in |= *from == c;
                set = rest;
            }
        }
    }
    Some((is_in != negated, &pattern[close + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, hits: &str, misses: &str) {
        let glob = Glob::new(pattern);
        hits.split_whitespace().for_each(|path| assert!(glob.matches(path), "{pattern} should match {path}"));
        misses
            .split_whitespace()
            .for_each(|path| assert!(!glob.matches(path), "{pattern} should not match {path}"));
    }

    #[test]
    fn patterns_match_as_in_package_specs() {
        check("tool/**/*", "tool/a tool/.hidden tool/sub/run.sh", "tool other/a tool2/a");
        check("**/*", "a a/b a/b/c", "");
        check("p/*.txt", "p/b.txt p/.txt", "p/q/b.txt p/b.txtx");
        check("p/skip*", "p/skip1 p/skip", "p/x p/skip/y");
        check("{a,b/{c,d}}/x", "a/x b/c/x b/d/x", "b/x c/x");
        check("f?[0-9a][!b]", "fx1c fyac", "fx1b fxbc f1c");
        check("./a//b", "a/b", "b");
        check("a{b", "a{b", "ab");
        check("lib/**", "lib/a lib/a/b", "libs/a");
    }
}
