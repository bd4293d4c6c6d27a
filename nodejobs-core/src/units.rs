//! Durations (`1h30m`) and sizes (`64K`), as people write them on a command line and in a file.

use std::time::Duration;

/// Units of time in milliseconds, longest first: the order in which they have to be written.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size in bytes.
const SIZES: [(&str, u64); 5] = [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {problem}; write durations like 500ms, 5s, 10m, 1h30m or 7d")]
pub struct InvalidDuration {
    /// The text that was refused.
    pub text: String,
    /// What is wrong with it.
    pub problem: DurationProblem,
}

/// What is wrong with a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationProblem {
    /// A place that needs a whole number has none.
    #[error("is no duration")]
    NoNumber,
    /// A number stands alone.
    #[error("lacks a unit")]
    NoUnit,
    /// A unit that there is not.
    #[error("has an unknown unit '{0}'")]
    UnknownUnit(String),
    /// A unit behind a smaller or equal one.
    #[error("has its units in the wrong order")]
    UnitOrder,
    /// More milliseconds than 64 bits count.
    #[error("is too long")]
    TooLong,
}

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {problem}; write sizes in bytes, or like 64K, 10M or 2G (powers of 1024)")]
pub struct InvalidSize {
    /// The text that was refused.
    pub text: String,
    /// What is wrong with it.
    pub problem: SizeProblem,
}

/// What is wrong with a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeProblem {
    /// It does not begin with a whole number.
    #[error("is no size")]
    NoNumber,
    /// A unit that there is not.
    #[error("has an unknown unit '{0}'")]
    UnknownUnit(String),
    /// More bytes than 64 bits count.
    #[error("is too large")]
    TooLarge,
}

/// Reads a duration: whole numbers with their units `d h m s ms`, each at most once, the larger unit first.
///
/// ```
/// use std::time::Duration;
/// use nodejobs_core::units::parse_duration;
///
/// assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
/// assert!(parse_duration("5").unwrap_err().to_string().contains("'5' lacks a unit"));
/// ```
///
/// # Errors
/// [`InvalidDuration`] names the text, what is wrong with it, and how durations are written.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let wrong = |problem| InvalidDuration { text: text.to_owned(), problem };
    let (mut rest, mut millis, mut units) = (text, 0_u64, &TIMES[..]);
    loop {
        let (number, behind) = split_digits(rest);
        if number.is_empty() {
            return Err(wrong(DurationProblem::NoNumber));
        }
        let letters = behind.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let (name, behind) = behind.split_at(behind.len() - letters.len());
        let Some(position) = units.iter().position(|(unit, _)| *unit == name) else {
            return Err(wrong(match TIMES.iter().any(|(unit, _)| *unit == name) {
                _ if name.is_empty() => DurationProblem::NoUnit,
                true => DurationProblem::UnitOrder,
                false => DurationProblem::UnknownUnit(name.to_owned()),
            }));
        };
        let sum = times(number, units[position].1).and_then(|part| millis.checked_add(part));
        millis = sum.ok_or_else(|| wrong(DurationProblem::TooLong))?;
        units = &units[position + 1..];
        rest = behind;
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
}

/// A duration for people, rounded down: milliseconds below a second, tenths below ten, then two units at most.
///
/// ```
/// use nodejobs_core::units::show_duration;
///
/// assert_eq!([7, 1_999, 61_000].map(show_duration), ["7ms", "1.9s", "1m01s"]);
/// ```
pub fn show_duration(millis: u64) -> String {
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

/// A duration as [`parse_duration`] reads it, to the millisecond.
///
/// ```
/// use nodejobs_core::units::{parse_duration, write_duration};
///
/// assert_eq!(["90s", "1000ms", "0s"].map(|text| write_duration(parse_duration(text).unwrap())), ["1m30s", "1s", "0s"]);
/// ```
pub fn write_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, millis) in TIMES {
        if left >= millis {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    text
}

/// Reads a size in bytes: a whole number, or one with `K M G T`, which are powers of 1024.
///
/// ```
/// use nodejobs_core::units::parse_size;
///
/// assert_eq!(parse_size("64K"), Ok(65_536));
/// assert!(parse_size("64KB").unwrap_err().to_string().contains("unknown unit 'KB'"));
/// ```
///
/// # Errors
/// [`InvalidSize`] names the text, what is wrong with it, and how sizes are written.
pub fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let wrong = |problem| InvalidSize { text: text.to_owned(), problem };
    let (number, name) = split_digits(text);
    if number.is_empty() {
        return Err(wrong(SizeProblem::NoNumber));
    }
    let Some((_, bytes)) = SIZES.iter().find(|(unit, _)| *unit == name) else {
        return Err(wrong(SizeProblem::UnknownUnit(name.to_owned())));
    };
    times(number, *bytes).ok_or_else(|| wrong(SizeProblem::TooLarge))
}

/// A size as [`parse_size`] reads it, exactly.
///
/// ```
/// use nodejobs_core::units::write_size;
///
/// assert_eq!([10 << 20, 1536, 7, 0].map(write_size), ["10M", "1536", "7", "0"]);
/// ```
pub fn write_size(bytes: u64) -> String {
    let whole = SIZES
        .iter()
        .filter(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit))
        .max_by_key(|(_, unit)| *unit);
    whole.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// The digits at the beginning, and what is behind them.
fn split_digits(text: &str) -> (&str, &str) {
    let behind = text.trim_start_matches(|c: char| c.is_ascii_digit());
    text.split_at(text.len() - behind.len())
}

fn times(number: &str, unit: u64) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(unit)
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
            ("18446744073709551615ms", u64::MAX),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(parse_duration(&write_duration(duration)), Ok(duration), "{text}");
        }
    }

    #[test]
    fn every_other_duration_is_refused_with_a_hint() {
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
            ("18446744073709551s616ms", "is too long"),
        ] {
            let error = parse_duration(text).expect_err(text).to_string();
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
            assert_eq!(show_duration(millis), shown);
        }
    }

    #[test]
    fn the_documented_sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1_000),
            ("64K", 65_536),
            ("10M", 10_485_760),
            ("2G", 2_147_483_648),
            ("1T", 1_099_511_627_776),
            ("18446744073709551615", u64::MAX),
            ("17179869183G", u64::MAX - (1 << 30) + 1),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn every_other_size_is_refused_with_a_hint() {
        for (text, what) in [
            ("", "is no size"),
            ("K", "is no size"),
            ("-1", "is no size"),
            ("+1", "is no size"),
            (" 1", "is no size"),
            ("1 K", "unknown unit ' K'"),
            ("1k", "unknown unit 'k'"),
            ("1.5G", "unknown unit '.5G'"),
            ("1K1", "unknown unit 'K1'"),
            ("18446744073709551616", "is too large"),
            ("17179869184G", "is too large"),
        ] {
            let error = parse_size(text).expect_err(text).to_string();
            assert!(error.contains(what) && error.contains("64K"), "{text}: {error}");
        }
    }
}
