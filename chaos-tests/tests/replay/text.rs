//! Texts with names in them: what is written around the names must be the same.

use super::names::{Kind, Names};

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// Stands as it is.
    Plain(&'a str),
    /// A long random name.
    Token(&'a str),
    /// A number of something.
    Number(Kind, &'a str),
    /// An address; which one an instance gets is chance, its network is not.
    Address(&'a str),
    /// A moment; what stands between day and hour.
    Time(&'a str),
}

/// Returns whether two texts say the same, and learns the names in them.
pub fn same(recorded: &str, ours: &str, names: &mut Names) -> bool {
    let (there, here) = (pieces(recorded), pieces(ours));
    there.len() == here.len()
        && there.iter().zip(&here).all(|pair| match pair {
            (Piece::Token(a), Piece::Token(b)) => names.learn(&Kind::Token, a, b),
            (Piece::Number(kind, a), Piece::Number(other, b)) => kind == other && names.learn(kind, a, b),
            // A cloud that counts its VMs, and one that does not.
            (Piece::Number(Kind::Token, a), Piece::Token(b)) => names.learn(&Kind::Token, a, b),
            (Piece::Address(a), Piece::Address(b)) => network(a) == network(b),
            (a, b) => a == b,
        })
}

/// Returns the text with our names in it.
pub fn translated(recorded: &str, names: &Names) -> String {
    let piece = |piece: &Piece<'_>| match piece {
        Piece::Plain(text) | Piece::Address(text) => (*text).to_owned(),
        Piece::Token(token) => {
            let known = names.ours(&Kind::Token, token).or_else(|| names.ours(&Kind::Blob, token));
            known.unwrap_or(token).to_owned()
        }
        Piece::Number(kind, number) => names.number(kind, number),
        // As good as any.
        Piece::Time(between) => format!("2026-11-22{between}08:54:33"),
    };
    pieces(recorded).iter().map(piece).collect()
}

/// Returns an address's first three numbers.
fn network(address: &str) -> &str {
    address.rsplit_once('.').map_or(address, |(network, _)| network)
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut plain, mut at) = (Vec::new(), 0, 0);
    while at < text.len() {
        let is_start = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        let found =
            (is_start && text.is_char_boundary(at)).then(|| named(&text[..at], &text[at..])).flatten();
        let Some((piece, length)) = found else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if plain < at {
            pieces.push(Piece::Plain(&text[plain..at]));
        }
        pieces.push(piece);
        at += length;
        plain = at;
    }
    if plain < text.len() {
        pieces.push(Piece::Plain(&text[plain..]));
    }
    pieces
}

/// Reads a name at the beginning of a text; `before` is what comes before it.
fn named<'a>(before: &str, text: &'a str) -> Option<(Piece<'a>, usize)> {
    // What the simulated cloud calls its own.
    let own = OWN.iter().find(|prefix| text.starts_with(**prefix)).map_or(0, |prefix| prefix.len());
    if own > 0 && text.get(own..own + 36).is_some_and(is_uuid) {
        return Some((Piece::Token(&text[..own + 36]), own + 36));
    }
    let run = |ok: fn(u8) -> bool| text.bytes().take_while(|b| ok(*b)).count();
    let dashed = run(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_uuid(&text[..dashed.min(36)]) && dashed == 36 {
        return Some((Piece::Token(&text[..36]), 36));
    }
    let hex = run(|b| b.is_ascii_hexdigit());
    // As long as the shortest of the ids that the recorded cloud drew, and no word.
    if hex >= 26 && run(|b| b.is_ascii_alphanumeric()) == hex {
        return Some((Piece::Token(&text[..hex]), hex));
    }
    if text.len() >= 19 && is_time(&text.as_bytes()[..19]) {
        return Some((Piece::Time(&text[10..11]), 19));
    }
    let dotted = run(|b| b.is_ascii_digit() || b == b'.');
    let address = text[..dotted].trim_end_matches('.');
    if address.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some((Piece::Address(address), address.len()));
    }
    let digits = run(|b| b.is_ascii_digit());
    let numbered = NUMBERED.iter().find(|(word, _)| before.ends_with(word)).filter(|_| digits > 0);
    let row = || ROWS.iter().find(|(words, _)| before.ends_with(words)).filter(|_| digits > 0);
    let kind = numbered.map(|(_, kind)| kind.clone()).or_else(|| Some(Kind::Row(row()?.1.into())));
    kind.map(|kind| (Piece::Number(kind, &text[..digits]), digits))
}

/// What stands before an id of the simulated cloud's, and is a part of it.
const OWN: &[&str] = &["vm-", "disk-", "snapshot-"];

/// What stands before a number of something.
const NUMBERED: &[(&str, Kind)] = &[
    ("Task ", Kind::Task),
    ("task ", Kind::Task),
    ("task '", Kind::Task),
    ("/tasks/", Kind::Task),
    ("/task/", Kind::Task),
    ("Latest Id: '", Kind::Config),
    ("with cloud ID '", Kind::Token),
];

/// What stands before a number of a row of a list.
const ROWS: &[(&str, &str)] = &[("provider id: ", "link_providers")];

fn is_uuid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12]
}

/// Returns whether this is `2026-11-22 08:54:33`, or so with a `T`.
fn is_time(text: &[u8]) -> bool {
    let pattern = b"9999-99-99 99:99:99";
    text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
        b'9' => byte.is_ascii_digit(),
        b' ' => *byte == b' ' || *byte == b'T',
        other => byte == other,
    })
}

/// Returns what a moment or a measure looks like: every number is 9.
pub fn shape(text: &str) -> String {
    let mut shape = String::new();
    for char in text.chars() {
        match char.is_ascii_digit() {
            true if shape.ends_with('9') => {}
            true => shape.push('9'),
            false => shape.push(char),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: &str = "78871f0d-e157-4d5d-830a-1b256dc807d9";
    const HERE: &str = "11111111-e157-4d5d-830a-1b256dc807d9";

    #[test]
    fn names_may_differ_and_what_is_around_them_may_not() {
        let mut names = Names::default();
        for (recorded, ours, expected) in [
            (format!("api/{THERE} (0)"), format!("api/{HERE} (0)"), true),
            (format!("api/{THERE} (0)"), format!("api/{HERE} (1)"), false),
            (format!("compilation-{THERE}"), format!("compilation-{HERE}"), true),
            ("Task 92 cancelled".into(), "Task 7 cancelled".into(), true),
            ("Task 92 cancelled".into(), "Task 8 cancelled".into(), false),
            ("10.10.1.21 is taken".into(), "10.10.1.22 is taken".into(), true),
            ("10.10.1.21 is taken".into(), "10.10.2.21 is taken".into(), false),
            ("at 2026-11-22 08:54:33 UTC".into(), "at 2027-01-01 00:00:00 UTC".into(), true),
            ("at 2026-11-22 08:54:33 UTC".into(), "at 2027-01-01T00:00:00Z".into(), false),
            ("golden/1".into(), "golden/2".into(), false),
            ("with cloud ID '4401'".into(), format!("with cloud ID 'vm-{HERE}'"), true),
            ("with cloud ID '4402'".into(), format!("with cloud ID 'vm-{HERE}'"), false),
            ("f81b9b67ce02890a4f9fbafb97".into(), "f81b9b67ce02890a4f9fbafb97".into(), true),
        ] {
            assert_eq!(same(&recorded, &ours, &mut names), expected, "{recorded} | {ours}");
        }
        assert_eq!(translated(&format!("/a/{THERE}/b?task 92"), &names), format!("/a/{HERE}/b?task 7"));
    }

    #[test]
    fn moments_have_a_shape() {
        assert_eq!(shape("2026-11-22 08:54:33 UTC"), "9-9-9 9:9:9 UTC");
        assert_ne!(shape("2026-11-22T08:54:33Z"), shape("2026-11-22 08:54:33 UTC"));
    }
}
