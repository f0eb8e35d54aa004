//! Times as they come in and go out.

use model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes a time: RFC 3339, whole seconds, UTC.
pub(super) fn written(at: Timestamp) -> String {
    executor::rfc3339::rfc3339(at.seconds())
}

/// Writes a time as BOSH writes those of its database.
pub(super) fn dated(at: Timestamp) -> String {
    written(at).replace('T', " ").replace('Z', " UTC")
}

/// Reads a time: Unix seconds, RFC 3339, or the date that BOSH writes.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(Timestamp(seconds.checked_mul(1000)?));
    }
    let bosh = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = at.or_else(|| Some(time::PrimitiveDateTime::parse(text, bosh).ok()?.assume_utc()))?;
    Some(Timestamp(at.unix_timestamp().checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let at = Timestamp(1_451_020_321_000);
        for text in
            ["1451020321", "2015-12-25T05:12:01Z", "2015-12-25T06:12:01+01:00", "2015-12-25 05:12:01 UTC"]
        {
            assert_eq!(read(text), Some(at), "{text}");
        }
        assert_eq!(written(at), "2015-12-25T05:12:01Z");
        assert_eq!((dated(at), read(&dated(at))), ("2015-12-25 05:12:01 UTC".to_owned(), Some(at)));
        for text in ["", "yesterday", "2015-13-25T05:12:01Z", "99999999999999999999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
