//! Times of day and dates, as people write them after `--at`.

use jiff::Zoned;
use jiff::civil::{DateTime, Time};
use nodejobs::Timestamp;

/// Reads a time that is still to come. Without a zone it is one of the local clock; without a date, the next such time.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let help = "write a time such as 18:00, \"2026-12-24 18:00\" or 2026-12-24T18:00:00Z";
    let unknown = || format!("'{text}' is not a time; {help}");
    let wanted = if let Ok(time) = text.parse::<jiff::Timestamp>() {
        time
    } else if text.contains('[') {
        text.parse::<Zoned>().map_err(|_| unknown())?.timestamp()
    } else if let Some(time) = time_of_day(text) {
        let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone());
        let today = today.map_err(|_| unknown())?;
        // Asked for on the clock's face, so tomorrow's if today's has passed.
        let next = if today > *now {
            today
        } else {
            let tomorrow = now.date().tomorrow().map_err(|_| unknown())?;
            tomorrow.to_datetime(time).to_zoned(now.time_zone().clone()).map_err(|_| unknown())?
        };
        next.timestamp()
    } else {
        let local: DateTime = text.parse().map_err(|_| unknown())?;
        local.to_zoned(now.time_zone().clone()).map_err(|_| unknown())?.timestamp()
    };
    if wanted <= now.timestamp() {
        return Err(format!("'{text}' has passed; leave out --at to start the job now"));
    }
    Ok(Timestamp::from_millis(wanted.as_millisecond()))
}

/// `18:00` or `18:00:30`; other ways to write it are left to dates.
fn time_of_day(text: &str) -> Option<Time> {
    let plain = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        let now = jiff::civil::date(2026, 11, 21).at(12, 0, 0, 0).to_zoned(zone).expect("a time");
        parse_at(text, &now).map(|time| time.to_string())
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
