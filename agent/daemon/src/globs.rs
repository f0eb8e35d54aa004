//! Globs that choose files below a directory, by their paths relative to it. They come from operators through directors:
//! one that would lead out of the directory is refused, and none takes more than its length times the path's to match.

use crate::error::ActionError;

/// The longest glob, and the most of them. Nobody writes more by hand.
const GLOB_BYTES_MAX: usize = 512;
const GLOBS_MAX: usize = 64;

/// A set of globs; a path is chosen by any of them.
#[derive(Debug)]
pub(crate) struct Globs(Vec<Vec<Part>>);

/// What one part of a glob, between slashes, stands for.
#[derive(Debug)]
enum Part {
    /// `**`: any directories, or none; at the end, everything below.
    Any,
    /// A name in which `*` is any characters and `?` is one.
    Name(Vec<char>),
}

impl Globs {
    /// Reads globs; everything is chosen by none.
    pub fn parse(texts: &[String]) -> Result<Self, ActionError> {
        if texts.is_empty() {
            return Ok(Self(vec![vec![Part::Any]]));
        }
        if texts.len() > GLOBS_MAX {
            return Err(ActionError::failed(format!("{} filters: {GLOBS_MAX} are allowed", texts.len())));
        }
        texts.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether a relative path is chosen.
    pub fn choose(&self, path: &str) -> bool {
        let names: Vec<Vec<char>> = path.split('/').map(|name| name.chars().collect()).collect();
        self.0.iter().any(|parts| matches(parts, &names))
    }
}

fn parse(text: &str) -> Result<Vec<Part>, ActionError> {
    if text.is_empty() || text.len() > GLOB_BYTES_MAX {
        return Err(ActionError::failed(format!("a filter has 1 to {GLOB_BYTES_MAX} bytes")));
    }
    let leads_out = text.starts_with('/') || text.split('/').any(|part| part == "..") || text.contains('\0');
    if leads_out {
        return Err(ActionError::failed(format!("filter {text:?} leads out of the directory of logs")));
    }
    let part = |part: &str| if part == "**" { Part::Any } else { Part::Name(part.chars().collect()) };
    Ok(text.split('/').filter(|part| !matches!(*part, "" | ".")).map(part).collect())
}

/// Returns whether all parts together stand for all names together.
fn matches(parts: &[Part], names: &[Vec<char>]) -> bool {
    let fits = |part: &Part, name: &Vec<char>| match part {
        Part::Any => true,
        Part::Name(glob) => {
            fits_in_order(glob, name, |c| *c == '*', |want, have| *want == '?' || want == have)
        }
    };
    // `**` at the end is for what is below, not for the directory itself, which is no file.
    fits_in_order(parts, names, |part| matches!(part, Part::Any), fits)
}

/// Returns whether a pattern stands for a whole sequence: `is_many` for any number of elements, everything else for one that
/// it `fits`. One row of the table of all beginnings of both is kept.
fn fits_in_order<P, T>(
    pattern: &[P],
    sequence: &[T],
    is_many: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let mut row: Vec<bool> = vec![false; sequence.len() + 1];
    row[0] = true;
    for part in pattern {
        let many = is_many(part);
        let mut before = row[0];
        row[0] &= many;
        for (at, element) in sequence.iter().enumerate() {
            let here = row[at + 1];
            row[at + 1] = if many { here || row[at] } else { before && fits(part, element) };
            before = here;
        }
    }
    row[sequence.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(text: &str) -> Result<Globs, ActionError> {
        Globs::parse(&[text.to_owned()])
    }

    #[test]
    fn globs_choose_paths() {
        for (glob, path, expect) in [
            ("**/*", "a.log", true),
            ("**/*", "x/y/a.log", true),
            ("**", "x/a.log", true),
            ("x/**", "x/y/a.log", true),
            ("x/**", "y/a.log", false),
            ("*.log", "a.log", true),
            ("*.log", "x/a.log", false),
            ("x/*.log", "x/a.log", true),
            ("./x/*.log", "x/a.log", true),
            ("**/*.std???.log", "web/pre-start.stdout.log", true),
            ("**/*.std???.log", "web/pre-start.log", false),
            ("x/**/a.log", "x/y/z/a.log", true),
            ("x/**/a.log", "x/a.log", true),
            ("a?.log", "a/.log", false),
            ("a*", "a", true),
            ("*a*b*", "xaxxb", true),
            ("*a*b*", "xbxxa", false),
            ("\u{e4}?", "\u{e4}\u{f6}", true),
        ] {
            assert_eq!(globs(glob).unwrap().choose(path), expect, "{glob} {path}");
        }
        assert!(Globs::parse(&[]).unwrap().choose("x/y"));
    }

    #[test]
    fn what_leads_out_of_the_directory_is_refused() {
        for glob in ["/etc/shadow", "../*", "x/../../y", "x/..", "a\0b", ""] {
            assert!(globs(glob).is_err(), "{glob:?}");
        }
        assert!(globs("..a/b..").is_ok());
        assert!(globs(&"a".repeat(GLOB_BYTES_MAX + 1)).is_err());
        assert!(Globs::parse(&vec!["a".to_owned(); GLOBS_MAX + 1]).is_err());
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_time() {
        let stars = globs(&"*a".repeat(250)).unwrap();
        assert!(!stars.choose(&"a".repeat(240)));
        let deep = globs(&format!("{}x", "**/a/".repeat(90))).unwrap();
        assert!(!deep.choose(&"a/".repeat(200)));
    }
}
