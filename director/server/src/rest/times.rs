//! Times as they come in and go out.

use model::{ErrorCode, Timestamp};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::answer::Failure;

/// Writes a time: RFC 3339, whole seconds, UTC.
pub(super) fn written(at: Timestamp) -> String {
    executor::rfc3339::rfc3339(at.seconds())
}

/// Writes a time as BOSH writes those of its database.
pub(super) fn dated(at: Timestamp) -> String {
    written(at).replace('T', " ").replace('Z', " UTC")
}

/// Reads a time: Unix seconds, RFC 3339, the date that BOSH writes, or as much of one as people type. What names no zone is
/// UTC.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let at = match text.parse::<i64>() {
        // Within the years that a date can name: whatever is reckoned from it stays within bounds, too.
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok()?,
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| typed(text.trim()))?,
    };
    Some(Timestamp(at.unix_timestamp() * 1000))
}

fn typed(text: &str) -> Option<OffsetDateTime> {
    let offset = format_description!("[offset_hour sign:mandatory][optional [:]][offset_minute]");
    let (local, offset) = match text.rsplit_once(' ') {
        Some((local, "UTC" | "GMT" | "Z")) => (local, UtcOffset::UTC),
        Some((local, zone)) if zone.starts_with(['+', '-']) => (local, UtcOffset::parse(zone, offset).ok()?),
        _ => (text, UtcOffset::UTC),
    };
    let date = format_description!("[year]-[month]-[day]");
    let (day, hour) = local.split_once([' ', 'T']).map_or((local, None), |(day, hour)| (day, Some(hour)));
    let day = Date::parse(day, date).ok()?;
    let hour = match hour {
        None => Time::MIDNIGHT,
        Some(hour) => Time::parse(hour, format_description!("[hour]:[minute]:[second]"))
            .or_else(|_| Time::parse(hour, format_description!("[hour]:[minute]")))
            .ok()?,
    };
    Some(PrimitiveDateTime::new(day, hour).assume_offset(offset))
}

/// Reads before when VMs must have been made to be recreated.
pub(super) fn before(text: Option<&str>) -> Result<Option<Timestamp>, Failure> {
    let wrong = |text: &str| {
        let told = format!("'recreate_vms_created_before' is no time (RFC 3339): '{text}'");
        super::answer::told(ErrorCode::ValidationInvalidValue, told)
    };
    text.map(|text| read(text).ok_or_else(|| wrong(text))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let at = Timestamp(1_451_020_321_000);
        for text in [
            "1451020321",
            "2015-12-25T05:12:01Z",
            "2015-12-25T06:12:01+01:00",
            "2015-12-25 05:12:01 UTC",
            "2015-12-25 05:12:01",
            "2015-12-25T05:12:01",
            "2015-12-25 06:12:01 +0100",
            "2015-12-25 03:42:01 -01:30",
        ] {
            assert_eq!(read(text), Some(at), "{text}");
        }
        for (text, seconds) in [("2015-12-25", 1_451_001_600), ("2015-12-25 05:12", 1_451_020_320)] {
            assert_eq!(read(text), Some(Timestamp(seconds * 1000)), "{text}");
        }
        assert_eq!(written(at), "2015-12-25T05:12:01Z");
        assert_eq!((dated(at), read(&dated(at))), ("2015-12-25 05:12:01 UTC".to_owned(), Some(at)));
        for text in [
            "",
            "yesterday",
            "2015-13-25T05:12:01Z",
            "2015-12-25 25:00",
            "2015-12-25 +",
            "99999999999999999999",
            "9223372036854775",
            "-9223372036854775",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
