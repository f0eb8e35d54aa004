//! The syntax of placeholders: `((name))`, `((/abs/name))`, `((name.sub.key))`, `((!name))`.

/// A reference to a variable, or to a part of its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The name as written, without `!`.
    pub name: String,
    /// Keys to follow into the value.
    pub keys: Vec<String>,
}

/// A text cut at its placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Plain text.
    Text(&'a str),
    /// A placeholder.
    Reference(Reference),
}

/// Cuts a text at its placeholders. What only looks like one stays text.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut plain_from = 0;
    let mut at = 0;
    while let Some(open) = rest.find("((") {
        let Some(close) = rest[open..].find("))") else { break };
        match reference(&rest[open + 2..open + close]) {
            Some(reference) => {
                if at + open > plain_from {
                    out.push(Piece::Text(&text[plain_from..at + open]));
                }
                out.push(Piece::Reference(reference));
                at += open + close + 2;
                plain_from = at;
            }
            None => at += open + 2,
        }
        rest = &text[at..];
    }
    if plain_from < text.len() {
        out.push(Piece::Text(&text[plain_from..]));
    }
    out
}

fn reference(inner: &str) -> Option<Reference> {
    let inner = inner.strip_prefix('!').unwrap_or(inner);
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if inner.is_empty() || !inner.chars().all(valid) {
        return None;
    }
    // Dots separate keys only after the last slash: a folder's name may have some.
    let last = inner.rfind('/').map_or(0, |at| at + 1);
    let mut parts = inner[last..].split('.');
    let name = format!("{}{}", &inner[..last], parts.next()?);
    Some(Reference { name, keys: parts.map(str::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let got: Vec<String> = pieces(text)
            .into_iter()
            .map(|p| match p {
                Piece::Text(text) => text.to_owned(),
                Piece::Reference(r) => format!("<{}|{}>", r.name, r.keys.join(",")),
            })
            .collect();
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn texts_are_cut_at_their_placeholders() {
        check("plain", &["plain"]);
        check("((a))", &["<a|>"]);
        check("x((!a.b.c))y((/d/e.f))", &["x", "<a|b,c>", "y", "</d/e|f>"]);
        check("((not this)) ((a", &["((not this)) ((a"]);
        check("((((a))", &["((", "<a|>"]);
    }
}
