//! Durations on the command line (`500ms 5s 10m 1h30m 7d`) and in what it prints.

use std::time::Duration;

/// Units, longest first: the order in which they have to be written.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: whole numbers with their units, the larger unit first.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        |what: &str| Err(format!("'{text}' {what}; write durations like 500ms, 5s, 10m, 1h30m or 7d"));
    let (mut rest, mut millis, mut units) = (text, 0_u64, &UNITS[..]);
    if rest.is_empty() {
        return wrong("is no duration");
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        if number.is_empty() {
            return wrong("is no duration");
        }
        let letters = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (name, behind) = behind.split_at(letters);
        let Some(position) = units.iter().position(|(unit, _)| *unit == name) else {
            return match (name, UNITS.iter().any(|(unit, _)| *unit == name)) {
                ("", _) => wrong("lacks a unit"),
                (_, true) => wrong("has its units in the wrong order"),
                (_, false) => wrong(&format!("has an unknown unit '{name}'")),
            };
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(units[position].1));
        let Some(sum) = part.and_then(|part| millis.checked_add(part)) else {
            return wrong("is too long");
        };
        millis = sum;
        units = &units[position + 1..];
        rest = behind;
    }
    Ok(Duration::from_millis(millis))
}

/// A duration for people: milliseconds below a second, tenths below ten, then two units at most.
pub(crate) fn show(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{}.{}s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// How long ago, in one unit.
pub(crate) fn show_ago(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_durations_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_hint() {
        for (text, what) in [
            ("", "is no duration"),
            ("s", "is no duration"),
            ("-5s", "is no duration"),
            ("+5s", "is no duration"),
            (" 5s", "is no duration"),
            ("5", "lacks a unit"),
            ("1h30", "lacks a unit"),
            ("5 s", "lacks a unit"),
            ("1.5h", "lacks a unit"),
            ("5y", "unknown unit 'y'"),
            ("5S", "unknown unit 'S'"),
            ("5s ", "is no duration"),
            ("30m1h", "wrong order"),
            ("1s1s", "wrong order"),
            ("٣s", "is no duration"),
            ("99999999999999999999s", "is too long"),
            ("18446744073709551615d", "is too long"),
            ("18446744073709551615s", "is too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(what) && error.contains("1h30m"), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        for (millis, shown) in [
            (0, "0ms"),
            (4, "4ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (1_999, "1.9s"),
            (59_999, "59s"),
            (61_000, "1m01s"),
            (3_660_000, "1h01m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(show(millis), shown);
        }
        for (millis, shown) in [
            (999, "now"),
            (1_000, "1s ago"),
            (180_000, "3m ago"),
            (7_200_000, "2h ago"),
            (86_400_000, "1d ago"),
        ] {
            assert_eq!(show_ago(millis), shown);
        }
    }
}
