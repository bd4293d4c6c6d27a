//! Times as people write them: dates and times of day, still to come or passed, and how long ago.

use jiff::Zoned;
use jiff::civil::{DateTime, Time};
use nodejobs::Timestamp;
use nodejobs::units::parse_duration;

/// Reads a time that is still to come; one that has passed is refused with this way out. Without a zone it is one of the
/// local clock; without a date, the next such time.
pub(crate) fn to_come(text: &str, way_out: &str) -> Result<Timestamp, String> {
    to_come_at(text, way_out, &Zoned::now())
}

/// Reads the time at which a job is to start.
pub(crate) fn start(text: &str) -> Result<Timestamp, String> {
    to_come(text, "leave out --at to start the job now")
}

/// Reads a time that has passed, or how long ago it was. Without a zone it is one of the local clock; without a date,
/// the last such time.
pub(crate) fn passed(text: &str) -> Result<Timestamp, String> {
    passed_at(text, &Zoned::now())
}

fn to_come_at(text: &str, way_out: &str, now: &Zoned) -> Result<Timestamp, String> {
    let help = "write a time such as 18:00, \"2026-12-24 18:00\" or 2026-12-24T18:00:00Z";
    let wanted = read(text, now, Nearest::Next).ok_or_else(|| format!("'{text}' is not a time; {help}"))?;
    if wanted <= now.timestamp() {
        return Err(format!("'{text}' has passed; {way_out}"));
    }
    Ok(Timestamp::from_millis(wanted.as_millisecond()))
}

fn passed_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_millis(now.timestamp().as_millisecond().saturating_sub(ago)));
    }
    let help = "write how long ago it was, such as 90s, 1h30m or 7d, or a time such as 18:00, 2026-07-14 or \
                2026-07-14T03:33:20Z";
    let time = read(text, now, Nearest::Last).ok_or_else(|| format!("'{text}' is not a time; {help}"))?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

/// Which day a time without a date is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nearest {
    /// Today, or tomorrow if it has passed.
    Next,
    /// Today, or yesterday if it is still to come.
    Last,
}

fn read(text: &str, now: &Zoned, nearest: Nearest) -> Option<jiff::Timestamp> {
    let local = |time: DateTime| Some(time.to_zoned(now.time_zone().clone()).ok()?.timestamp());
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time);
    }
    if text.contains('[') {
        return Some(text.parse::<Zoned>().ok()?.timestamp());
    }
    let Some(time) = time_of_day(text) else { return local(text.parse().ok()?) };
    let today = local(now.date().to_datetime(time))?;
    match nearest {
        Nearest::Next if today <= now.timestamp() => local(now.date().tomorrow().ok()?.to_datetime(time)),
        Nearest::Last if today > now.timestamp() => local(now.date().yesterday().ok()?.to_datetime(time)),
        Nearest::Next | Nearest::Last => Some(today),
    }
}

/// `18:00` or `18:00:30`; other ways to write it are left to dates.
fn time_of_day(text: &str) -> Option<Time> {
    let plain = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Zoned {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        jiff::civil::date(2026, 11, 21).at(12, 0, 0, 0).to_zoned(zone).expect("a time")
    }

    fn read(text: &str) -> Result<String, String> {
        to_come_at(text, "x", &noon()).map(|time| time.to_string())
    }

    #[test]
    fn what_has_passed_is_a_time_or_how_long_ago_it_was() {
        for (text, time) in [
            ("90s", "2026-11-21T09:58:30.000Z"),
            ("1h30m", "2026-11-21T08:30:00.000Z"),
            ("7d", "2026-11-14T10:00:00.000Z"),
            ("11:59", "2026-11-21T09:59:00.000Z"),
            ("12:00", "2026-11-21T10:00:00.000Z"),
            ("12:01", "2026-11-20T10:01:00.000Z"),
            ("2026-11-20", "2026-11-19T22:00:00.000Z"),
            ("2026-11-20 08:00", "2026-11-20T06:00:00.000Z"),
            ("2026-11-20T08:00:00.5Z", "2026-11-20T08:00:00.500Z"),
        ] {
            assert_eq!(passed_at(text, &noon()).map(|time| time.to_string()).as_deref(), Ok(time), "{text}");
        }
        for text in ["", "yesterday", "25:00", "18", "-1h", "1h ago"] {
            let error = passed_at(text, &noon()).expect_err(text);
            assert!(error.contains("is not a time") && error.contains("1h30m"), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, time) in [
            ("18:00", "2026-11-21T16:00:00.000Z"),
            ("18:00:30", "2026-11-21T16:00:30.000Z"),
            ("11:59", "2026-11-22T09:59:00.000Z"),
            ("12:00", "2026-11-22T10:00:00.000Z"),
            ("2026-12-24 18:00", "2026-12-24T16:00:00.000Z"),
            ("2026-12-24T18:00:01", "2026-12-24T16:00:01.000Z"),
            ("2026-12-24", "2026-12-23T22:00:00.000Z"),
            ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00.000Z"),
            ("2026-12-24T18:00:00.25-05:00", "2026-12-24T23:00:00.250Z"),
            ("2026-12-24T18:00[UTC]", "2026-12-24T18:00:00.000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_has_passed_is_refused() {
        for text in ["", "soon", "25:00", "18", "2026-13-01", "5m", "18:00 tomorrow"] {
            assert!(read(text).expect_err(text).contains("is not a time"), "{text}");
        }
        for text in ["2026-11-21 11:00", "2020-01-01T00:00:00Z"] {
            assert!(read(text).expect_err(text).contains("has passed"), "{text}");
        }
    }
}
