//! Semi-semantic versions: `release[-pre][+post]`, the order that BOSH sorts releases and stemcells by.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Compares two version texts.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    compare_segments(a.release, b.release)
        // Absent counts as later: `1` comes after `1-rc.1`.
        .then_with(|| compare_optional(a.pre, b.pre, Ordering::Greater))
        .then_with(|| compare_optional(a.post.as_deref(), b.post.as_deref(), Ordering::Less))
}

/// Returns the newest of some versions that `wanted` allows: `latest`, `<prefix>.latest` or an exact text.
pub fn newest<'a, T>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a T>,
    text: impl Fn(&T) -> &str,
) -> Option<&'a T> {
    let prefix = if wanted == "latest" { Some("") } else { wanted.strip_suffix(".latest") };
    candidates
        .into_iter()
        .filter(|c| match prefix {
            Some(prefix) => has_prefix(text(c), prefix),
            None => text(c) == wanted,
        })
        .max_by(|a, b| compare(text(a), text(b)))
}

/// Returns the version after the newest of `existing` with the same release and pre-release as `given`, counted in the
/// post-release; none if `given` has no post-release that could be counted.
pub fn rebased<'a>(given: &str, existing: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let line = Parts::of(given);
    line.post.as_ref()?;
    let base = match line.pre {
        Some(pre) => format!("{}-{pre}", line.release),
        None => line.release.to_owned(),
    };
    let same_line = |text: &&str| {
        let parts = Parts::of(text);
        compare_segments(parts.release, line.release)
            .then_with(|| compare_optional(parts.pre, line.pre, Ordering::Greater))
            .is_eq()
    };
    let newest = existing.into_iter().filter(same_line).max_by(|a, b| compare(a, b));
    let post = newest.and_then(|text| Parts::of(text).post.map(Cow::into_owned));
    let next = match post.as_deref().map(|post| post.rsplit_once('.').unwrap_or(("", post))) {
        None => "dev.1".to_owned(),
        Some((head, number)) => match number.parse::<u64>() {
            Ok(number) if head.is_empty() => (number + 1).to_string(),
            Ok(number) => format!("{head}.{}", number + 1),
            Err(_) => format!("{}.1", post.as_deref().unwrap_or_default()),
        },
    };
    Some(format!("{base}+{next}"))
}

/// Returns whether the text leaves the choice of a version to us.
pub fn is_latest(wanted: &str) -> bool {
    wanted == "latest" || wanted.ends_with(".latest")
}

/// Returns whether a text is a version: a release, perhaps with what comes before it behind `-`, perhaps with what comes after
/// it behind `+`. One that is none must not be stored: the CLI reads all versions of a list, or refuses the list.
pub fn is_version(text: &str) -> bool {
    let (rest, post) = text.split_once('+').map_or((text, None), |(rest, post)| (rest, Some(post)));
    let (release, pre) = rest.split_once('-').map_or((rest, None), |(release, pre)| (release, Some(pre)));
    let is_made_of = |part: &str, others: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    is_made_of(release, "_.") && [pre, post].into_iter().flatten().all(|part| is_made_of(part, "_.-"))
}

/// Returns the first component, which all versions of a line of stemcells share: what is compiled on `1.83` runs on
/// `1.500`.
pub fn line(version: &str) -> &str {
    version.split(['.', '_', '-', '+']).next().unwrap_or(version)
}

fn has_prefix(version: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || version
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
}

struct Parts<'a> {
    release: &'a str,
    pre: Option<&'a str>,
    post: Option<Cow<'a, str>>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (rest, post) = match text.split_once('+') {
            Some((rest, post)) => (rest, Some(Cow::Borrowed(post))),
            None => (text, None),
        };
        match rest.split_once('-') {
            // The old style `1.2-dev` is `1+dev.2`.
            Some((version, "dev")) if post.is_none() => match version.rsplit_once('.') {
                Some((release, n)) => Self { release, pre: None, post: Some(format!("dev.{n}").into()) },
                None => Self { release: version, pre: Some("dev"), post },
            },
            Some((release, pre)) => Self { release, pre: Some(pre), post },
            None => Self { release: rest, pre: None, post },
        }
    }
}

fn compare_optional(a: Option<&str>, b: Option<&str>, absent: Ordering) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => absent,
        (Some(_), None) => absent.reverse(),
        (Some(a), Some(b)) => compare_segments(a, b),
    }
}

fn compare_segments(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<&str>, Vec<&str>) = (split(a), split(b));
    for i in 0..a.len().max(b.len()) {
        let order = match (a.get(i), b.get(i)) {
            (Some(a), Some(b)) => compare_component(a, b),
            // Extra zeros do not count: `1` equals `1.0`.
            (Some(extra), None) if extra.trim_start_matches('0').is_empty() => Ordering::Equal,
            (None, Some(extra)) if extra.trim_start_matches('0').is_empty() => Ordering::Equal,
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => Ordering::Equal,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn split(text: &str) -> Vec<&str> {
    text.split(['.', '_']).collect()
}

fn compare_component(a: &str, b: &str) -> Ordering {
    match (a.parse::<u128>(), b.parse::<u128>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_bosh_does() {
        let sorted = ["1-rc.1", "1", "1+dev.1", "1+dev.10", "1.2", "1.10", "2"];
        for pair in sorted.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1", "1.0"), Ordering::Equal);
        assert_eq!(compare("3_1", "3.1"), Ordering::Equal);
        assert_eq!(compare("1.2-dev", "1+dev.2"), Ordering::Equal, "the old style of the same version");
        assert_eq!(compare("1.9-dev", "1+dev.10"), Ordering::Less);
        assert_eq!(compare("1.2-dev", "1.1"), Ordering::Less);
    }

    #[test]
    fn what_the_cli_could_not_read_is_no_version() {
        for version in
            ["1", "1.2.3", "1-rc.1", "1+dev.2", "1.0-rc.1+build-7", "2026_11_29", "621.5", "0+dev.1"]
        {
            assert!(is_version(version), "{version}");
        }
        for text in ["", "-1", "+1", "1-", "1+", "1+a+b", "1-+a", "1/2", "1 2", "1:2", "é", "1-a+"] {
            assert!(!is_version(text), "{text}");
        }
    }

    #[test]
    fn a_rebased_version_follows_the_newest_of_its_line() {
        let check = |given: &str, existing: &[&str], expected: Option<&str>| {
            assert_eq!(
                rebased(given, existing.iter().copied()).as_deref(),
                expected,
                "{given} on {existing:?}"
            );
        };
        check("1", &["1"], None);
        check("1+dev.7", &[], Some("1+dev.1"));
        check("1+dev.7", &["1"], Some("1+dev.1"));
        check("1+dev.1", &["1+dev.9", "1+dev.10", "1", "2+dev.30", "1-rc.1+dev.40"], Some("1+dev.11"));
        check("1-rc.1+dev.2", &["1-rc.1+dev.4", "1+dev.9"], Some("1-rc.1+dev.5"));
        check("1+build", &["1+build"], Some("1+build.1"));
        check("1.0+3", &["1+7"], Some("1.0+8"));
    }

    #[test]
    fn latest_takes_the_newest_of_a_line() {
        let all = ["1", "1.9", "1.10", "10", "2-rc.1"].map(String::from);
        let pick = |wanted| newest(wanted, &all, String::as_str).map(String::as_str);
        assert_eq!(pick("latest"), Some("10"));
        assert_eq!(pick("1.latest"), Some("1.10"));
        assert_eq!(pick("2.latest"), Some("2-rc.1"));
        assert_eq!(pick("7.latest"), None);
        assert_eq!(pick("1.9"), Some("1.9"));
    }
}
