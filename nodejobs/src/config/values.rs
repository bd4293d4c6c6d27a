//! How each kind of value is read from a file and shown.

use std::path::PathBuf;
use std::time::Duration;

use nodejobs_core::engine::WhenFull;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::{MIN_LOG_CAP, Restart};
use nodejobs_core::units::{parse_duration, parse_size, write_duration, write_size};
use toml::de::DeValue;

/// Reads and shows values of one kind. What is shown is what a file would say, without quotes.
pub(super) struct Codec<T> {
    pub(super) read: fn(&DeValue<'_>) -> Result<T, String>,
    pub(super) show: fn(&T) -> Option<String>,
}

const NEVER: &str = "never";
const NONE: &str = "none";
const ALL: &str = "all";

pub(super) const BOOLEAN: Codec<bool> = Codec {
    read: |value| value.as_bool().ok_or_else(|| wrong("true or false", value)),
    show: |value| Some(value.to_string()),
};

pub(super) const TEXT: Codec<String> = Codec {
    read: |value| value.as_str().map(str::to_owned).ok_or_else(|| wrong("a text in quotes", value)),
    show: |value| Some(value.clone()),
};

/// A path that means the same from everywhere.
pub(super) const ABSOLUTE_PATH: Codec<Option<PathBuf>> = Codec {
    read: |value| match value.as_str().map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(Some(path)),
        _ => Err(wrong("a path in quotes that begins with /", value)),
    },
    show: |value| value.as_ref().map(|path| path.display().to_string()),
};

/// A list of texts; one alone needs no brackets.
pub(super) const TEXTS: Codec<Vec<String>> = Codec {
    read: |value| match value.as_array() {
        Some(items) => items.iter().map(|item| (TEXT.read)(item.get_ref())).collect(),
        None => (TEXT.read)(value).map(|text| vec![text]),
    },
    show: |value| Some(value.join(", ")),
};

/// At least one text, in brackets.
pub(super) const WORDS: Codec<Vec<String>> = Codec {
    read: |value| match value.as_array() {
        Some(items) if !items.is_empty() => items.iter().map(|item| (TEXT.read)(item.get_ref())).collect(),
        _ => Err("write a program and its arguments, such as [\"notify-send\", \"done\"]".to_owned()),
    },
    show: |value| Some(value.join(" ")),
};

/// A table of texts.
pub(super) const VARIABLES: Codec<Vec<(String, String)>> = Codec {
    read: |value| {
        let table = value.as_table().ok_or_else(|| wrong("a table, such as { DISPLAY = \":0\" }", value))?;
        let read = |(name, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
            let name = name.get_ref().to_string();
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("'{}' is no name of a variable", name.escape_debug()));
            }
            // What is wrong with a value is said without it: it may be a secret.
            match value.get_ref().as_str() {
                Some(text) if !text.contains('\0') => Ok((name, text.to_owned())),
                _ => Err(format!("variable '{name}' needs a text in quotes")),
            }
        };
        table.iter().map(read).collect()
    },
    show: |value| Some(value.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")),
};

pub(super) const DURATION: Codec<Duration> =
    Codec { read: duration, show: |value| Some(write_duration(*value)) };

pub(super) const MILLIS: Codec<u64> =
    Codec { read: millis, show: |value| Some(write_duration(Duration::from_millis(*value))) };

pub(super) const OPTIONAL_MILLIS: Codec<Option<u64>> = Codec {
    read: |value| millis(value).map(Some),
    show: |value| value.map(|millis| write_duration(Duration::from_millis(millis))),
};

/// A duration that is more than nothing.
pub(super) const SPAN: Codec<Option<Duration>> = Codec {
    read: |value| match duration(value)? {
        Duration::ZERO => Err("give more than no time; to switch it off, leave it out".to_owned()),
        span => Ok(Some(span)),
    },
    show: |value| value.map(write_duration),
};

pub(super) const DURATION_OR_NEVER: Codec<Option<Duration>> = Codec {
    read: |value| match value.as_str() {
        Some(NEVER) => Ok(None),
        _ => duration(value).map(Some).map_err(|problem| format!("{problem}, or \"{NEVER}\"")),
    },
    show: |value| Some(value.map_or_else(|| NEVER.to_owned(), write_duration)),
};

pub(super) const SIGNAL: Codec<Signal> = Codec {
    read: |value| {
        let text = match value {
            DeValue::Integer(number) => number.as_str(),
            value => value.as_str().ok_or_else(|| wrong("the name or number of a signal", value))?,
        };
        text.parse::<Signal>().map_err(|error| error.to_string())
    },
    show: |value| Some(value.to_string()),
};

pub(super) const RESTART: Codec<Restart> = Codec {
    read: |value| {
        let text = value.as_str().ok_or_else(|| wrong("a restart policy in quotes", value))?;
        text.parse::<Restart>().map_err(|error| error.to_string())
    },
    show: |value| Some(value.as_str().to_owned()),
};

pub(super) const OPTIONAL_COUNT: Codec<Option<u32>> = Codec {
    read: |value| number(value, 0, u64::from(u32::MAX)).map(|number| u32::try_from(number).ok()),
    show: |value| value.map(|count| count.to_string()),
};

pub(super) const COUNT_OR_NEVER: Codec<Option<u32>> = Codec {
    read: |value| match value.as_str() {
        Some(NEVER) => Ok(None),
        _ => number(value, 1, u64::from(u32::MAX))
            .map(|number| u32::try_from(number).ok())
            .map_err(|problem| format!("{problem}, or \"{NEVER}\"")),
    },
    show: |value| Some(value.map_or_else(|| NEVER.to_owned(), |count| count.to_string())),
};

pub(super) const COUNT_OR_ALL: Codec<Option<u32>> = Codec {
    read: |value| match value.as_str() {
        Some(ALL) => Ok(None),
        _ => number(value, 1, u64::from(u32::MAX))
            .map(|number| u32::try_from(number).ok())
            .map_err(|problem| format!("{problem}, or \"{ALL}\"")),
    },
    show: |value| Some(value.map_or_else(|| ALL.to_owned(), |count| count.to_string())),
};

pub(super) const POSITIVE_COUNT: Codec<Option<u32>> = Codec {
    read: |value| number(value, 1, u64::from(u32::MAX)).map(|number| u32::try_from(number).ok()),
    show: |value| value.map(|count| count.to_string()),
};

pub(super) const WHEN_FULL: Codec<WhenFull> = Codec {
    read: |value| match value.as_str() {
        Some("queue") => Ok(WhenFull::Queue),
        Some("refuse") => Ok(WhenFull::Refuse),
        _ => Err(wrong("\"queue\" or \"refuse\"", value)),
    },
    show: |value| {
        Some(match value {
            WhenFull::Queue => "queue".to_owned(),
            WhenFull::Refuse => "refuse".to_owned(),
        })
    },
};

pub(super) const AT_LEAST_ONE: Codec<Option<u64>> = Codec {
    read: |value| number(value, 1, i64::MAX.unsigned_abs()).map(Some),
    show: |value| value.map(|count| count.to_string()),
};

pub(super) const EXIT_CODES: Codec<Vec<i32>> = Codec {
    read: |value| {
        let items = value.as_array().ok_or_else(|| wrong("a list of exit codes, such as [0, 3]", value))?;
        let codes = items.iter().map(|item| number(item.get_ref(), 0, 255));
        codes.map(|code| code.map(|code| i32::try_from(code).unwrap_or_default())).collect()
    },
    show: |value| Some(value.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")),
};

/// A size, or that there is no bound: 0.
pub(super) const LOG_CAP: Codec<u64> = Codec {
    read: |value| match value.as_str() {
        Some(NONE) => Ok(0),
        _ => size(value)
            .and_then(|cap| if cap < MIN_LOG_CAP { Err("give at least 64K".to_owned()) } else { Ok(cap) })
            .map_err(|problem| format!("{problem}, or \"{NONE}\"")),
    },
    show: |value| Some(if *value == 0 { NONE.to_owned() } else { write_size(*value) }),
};

pub(super) const OPTIONAL_SIZE: Codec<Option<u64>> =
    Codec { read: |value| size(value).map(Some), show: |value| value.map(write_size) };

fn size(value: &DeValue<'_>) -> Result<u64, String> {
    let text = value.as_str().ok_or_else(|| wrong("a size in quotes, such as \"10M\"", value))?;
    parse_size(text).map_err(|error| error.to_string())
}

fn number(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, String> {
    let what = || format!("a whole number from {least} to {most}");
    let integer = value.as_integer().ok_or_else(|| wrong(&what(), value))?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{integer} is not {}", what()))
}

fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value.as_str() {
        Some(text) => parse_duration(text).map_err(|error| error.to_string()),
        None => Err(wrong("a duration in quotes, such as \"5s\"", value)),
    }
}

fn millis(value: &DeValue<'_>) -> Result<u64, String> {
    duration(value).map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn wrong(what: &str, value: &DeValue<'_>) -> String {
    format!("write {what}; this is of type {}", value.type_str())
}
