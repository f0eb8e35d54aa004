//! Times as text, as clouds' metadata and BOSH's lists have them.

/// Writes seconds since the Unix epoch as RFC 3339.
pub fn rfc3339(seconds: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    at.format(&format).unwrap_or_default()
}
