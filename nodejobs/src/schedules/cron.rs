//! Cron expressions as calendars: which times of a zone's clock fit, and what the clock does twice a year.
//!
//! The rule is that of Vixie's cron. An expression whose minute and hour (and second) do not begin with `*` names **fixed
//! times** of the day: one that the clock leaves out, when it goes forward, comes at the moment at which it does; one that
//! the clock shows twice, when it goes back, comes the first time only. Everything else goes by **real time**: what the clock
//! leaves out does not come, what it shows twice comes twice, so that `*/15 * * * *` stays a quarter of an hour apart.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp as Instant};
use nodejobs_core::Timestamp;
use nodejobs_core::schedule::Calendar;

/// The longest expression, in bytes.
const MAX_LEN: usize = 256;

const FIELDS: &str = "write 5 fields, such as \"30 2 * * *\" (minute, hour, day of the month, month, day of the week), or \
                      6 with the second first";

/// The times of an expression on the clock of a zone.
pub(crate) struct CronCalendar {
    cron: Cron,
    zone: TimeZone,
    is_fixed: bool,
}

impl fmt::Debug for CronCalendar {
    /// Without the table of years.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronCalendar({:?} in {:?})", self.cron.pattern.to_string(), self.zone)
    }
}

impl CronCalendar {
    /// Reads an expression; says in words what is wrong with it.
    pub(crate) fn new(expression: &str, zone: TimeZone) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{expression}' is no cron expression: {why}");
        if expression.len() > MAX_LEN {
            return Err(format!("a cron expression has at most {MAX_LEN} characters, this one has more"));
        }
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let is_fixed = match fields.as_slice() {
            [name] if name.starts_with('@') => match name.to_ascii_lowercase().as_str() {
                "@hourly" => false,
                "@daily" | "@weekly" | "@monthly" | "@yearly" | "@annually" => true,
                _ => {
                    return Err(wrong(
                        "the names are @hourly, @daily, @weekly, @monthly, @yearly and @annually",
                    ));
                }
            },
            [_, _, _, _, _] | [_, _, _, _, _, _] => {
                let skipped = FIELD.len() - fields.len();
                for (field, text) in FIELD[skipped..].iter().zip(&fields) {
                    field.check(text).map_err(|why| wrong(&why))?;
                }
                let times = &fields[..fields.len() - 3];
                !times.iter().any(|field| field.starts_with('*'))
            }
            other => return Err(wrong(&format!("it has {} fields; {FIELDS}", other.len()))),
        };
        let cron = parser().parse(expression).map_err(|error| wrong(&error.to_string()))?;
        let calendar = Self { cron, zone, is_fixed };
        // Whatever the day is: the calendar comes back to where it was after 400 years at most.
        if calendar.cron.find_next_occurrence(&DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true).is_err() {
            return Err(format!("'{expression}' never comes: no month that it names has such a day"));
        }
        Ok(calendar)
    }

    fn next(&self, after: Instant) -> Option<Instant> {
        if self.is_fixed { self.next_fixed(after) } else { self.next_running(after) }
    }

    fn next_fixed(&self, after: Instant) -> Option<Instant> {
        let mut shown = self.zone.to_datetime(after);
        loop {
            shown = self.cron.find_next_occurrence(&shown, false).ok()?;
            let ambiguous = self.zone.to_ambiguous_timestamp(shown);
            let instant = match ambiguous.offset() {
                AmbiguousOffset::Gap { .. } => {
                    // As if the clock had gone on: at or behind the change.
                    let behind = ambiguous.later().ok()?.checked_add(SignedDuration::from_secs(1)).ok()?;
                    self.zone.preceding(behind).next()?.timestamp()
                }
                AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                    ambiguous.earlier().ok()?
                }
            };
            if instant > after {
                return Some(instant);
            }
        }
    }

    fn next_running(&self, after: Instant) -> Option<Instant> {
        let (mut from, mut is_change) = (after, false);
        loop {
            // Up to the next change the clock runs like any other.
            let offset = self.zone.to_offset(from);
            let shown = self.cron.find_next_occurrence(&offset.to_datetime(from), is_change).ok()?;
            let instant = offset.to_timestamp(shown).ok()?;
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            match change.filter(|change| instant >= *change) {
                None => return Some(instant),
                Some(change) => (from, is_change) = (change, true),
            }
        }
    }
}

impl Calendar for CronCalendar {
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = Instant::from_millisecond(after.as_millis()).ok()?;
        self.next(after).map(|next| Timestamp::from_millis(next.as_millisecond()))
    }

    fn is_fixed(&self) -> bool {
        self.is_fixed
    }
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build()
}

/// What a field may hold. The parser takes names and signs in places where they mean nothing.
struct Field {
    name: &'static str,
    range: &'static str,
    names: &'static [&'static str],
    signs: &'static str,
    /// An expression in which it is the only one that says something.
    alone: fn(&str) -> String,
}

const FIELD: [Field; 6] = [
    Field {
        name: "second",
        range: "0 to 59",
        names: &[],
        signs: "",
        alone: |field| format!("{field} * * * * *"),
    },
    Field {
        name: "minute",
        range: "0 to 59",
        names: &[],
        signs: "",
        alone: |field| format!("{field} * * * *"),
    },
    Field {
        name: "hour",
        range: "0 to 23",
        names: &[],
        signs: "",
        alone: |field| format!("* {field} * * *"),
    },
    Field {
        name: "day of the month",
        range: "1 to 31, or L for the last",
        names: &["L", "W", "LW"],
        signs: "?",
        alone: |field| format!("* * {field} * *"),
    },
    Field {
        name: "month",
        range: "1 to 12, or JAN to DEC",
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        signs: "",
        alone: |field| format!("* * * {field} *"),
    },
    Field {
        name: "day of the week",
        range: "0 to 7, where 0 and 7 are Sunday, or SUN to SAT",
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"],
        signs: "?#",
        alone: |field| format!("* * * * {field}"),
    },
];

impl Field {
    fn check(&self, text: &str) -> Result<(), String> {
        let upper = text.to_ascii_uppercase();
        let mut words = upper.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        let is_sign = |c: char| c.is_ascii_alphanumeric() || "*,-/".contains(c) || self.signs.contains(c);
        let is_known = words.all(|word| self.names.contains(&word))
            && upper.chars().all(is_sign)
            && !upper.split(',').any(str::is_empty);
        if is_known && parser().parse(&(self.alone)(&upper)).is_ok() {
            return Ok(());
        }
        let Self { name, range, .. } = self;
        Err(format!("'{text}' is no {name}: {range}, or several as in * 1,2 1-5 */2"))
    }
}

#[cfg(test)]
mod tests;
