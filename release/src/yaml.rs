//! Texts in YAML that is written line by line, in the form that BOSH gives it.

/// Writes text so that every YAML reader takes it for text: `1` and `12e4` are quoted, `hello` is not.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | ':');
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !text.ends_with(':');
    let special = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if is_word && !special.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::to_string(text).expect("a text is JSON, and JSON is YAML")
}
