//! What must hold for any input of the pure parsers: run by the fuzz targets, and over their corpora by the tests.
//!
//! Each property takes the bytes that a fuzzer makes up, and panics where it does not hold.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::env_file::{self, EnvFileError};
use crate::filter::{FilterError, JobFilter};
use crate::id::{AttemptId, JobId};
use crate::logs::Logs;
use crate::spec::Command;
use crate::spec::Output;
use crate::store::export::{ReadError, Reader, Writer};
use crate::units::{parse_duration, parse_size, show_duration};

/// An accepted id is a plain file name, stays below the log directory, and survives text and JSON.
pub fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let json = serde_json::to_string(text).expect("a text is JSON");
    let Ok(id) = JobId::new(text) else {
        assert!(serde_json::from_str::<JobId>(&json).is_err(), "refused as text and taken as JSON");
        return;
    };
    assert_eq!((id.as_str(), id.to_string()), (text, text.to_owned()));
    assert_eq!(Path::new(text).file_name(), Some(OsStr::new(text)));
    assert!(text.len() <= JobId::MAX_LEN && !text.starts_with('-'));
    assert_eq!(serde_json::to_string(&id).expect("an id is JSON"), json);
    assert_eq!(serde_json::from_str::<JobId>(&json).expect("the same id"), id);
    let paths = Logs::new(&Output::default(), "/logs".into()).paths(&AttemptId { id, attempt: 1 });
    for path in [paths.stdout, paths.stderr] {
        let path = path.to_string();
        let parts: Vec<_> = path.split('/').collect();
        assert!(matches!(parts[..], ["", "logs", _, file] if file.starts_with(text)), "{path}");
    }
}

/// What is read as words is shown as words that are read as the same, and so is every line taken as one word.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let one = Command::argv([text]);
    for command in Command::words(text).into_iter().chain([one]) {
        assert_eq!(Command::words(&command.to_string()), Ok(command));
    }
}

/// A duration that is read is its canonical form read, and what is shown for it is never more, and nearly it.
pub fn durations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let duration = match parse_duration(text) {
        Ok(duration) => duration,
        Err(error) => return assert!(error.to_string().contains("write durations like"), "{error}"),
    };
    let millis = u64::try_from(duration.as_millis()).expect("64 bits hold what was read");
    let parts = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut left = millis;
    let mut canonical = String::new();
    for (unit, length) in parts {
        canonical.push_str(&format!("{}{unit}", left / length));
        left %= length;
    }
    assert_eq!(parse_duration(&canonical), Ok(duration), "{canonical}");
    let shown = show_duration(millis);
    if let Some((seconds, tenth)) = shown.split_once('.') {
        assert_eq!(format!("{seconds}{}", &tenth[..1]), (millis / 100).to_string());
    } else {
        let read = parse_duration(&shown).expect("what is shown");
        assert!(read <= duration && duration - read <= duration / 10, "{shown} for {duration:?}");
    }
    assert!(duration < Duration::from_secs(1) || !shown.contains("ms"));
}

/// A size that is read is its number of bytes read, and ends in one of the units.
pub fn sizes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let size = match parse_size(text) {
        Ok(size) => size,
        Err(error) => return assert!(error.to_string().contains("write sizes"), "{error}"),
    };
    assert_eq!(parse_size(&size.to_string()), Ok(size));
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let power = ["", "K", "M", "G", "T"].iter().position(|known| *known == unit).expect("a unit");
    assert_eq!(size % 1024_u64.pow(u32::try_from(power).expect("small")), 0);
}

/// Variables that are read are such as a process can have, each there once, and survive being written; the ends of
/// lines do not matter. The line that is refused is the first bad one.
pub fn env_files(bytes: &[u8]) {
    let variables = match env_file::parse(bytes) {
        Ok(variables) => variables,
        Err(EnvFileError::TooLarge(length)) => return assert_eq!(length, bytes.len()),
        Err(EnvFileError::Line { line, .. }) => {
            // It was the first one: the lines before it are in order.
            let before: Vec<_> = bytes.split(|byte| *byte == b'\n').take(line - 1).collect();
            return assert!(
                env_file::parse(&before.join(&b'\n')).is_ok(),
                "line {line} is not the first bad one"
            );
        }
    };
    let mut written = Vec::new();
    for (index, (name, value)) in variables.iter().enumerate() {
        let text = name.as_bytes();
        assert!(text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && !name.is_empty());
        assert!(!text[0].is_ascii_digit() && !value.has_nul());
        assert!(!variables[..index].iter().any(|(earlier, _)| earlier == name), "{name} is there twice");
        written.extend_from_slice(text);
        written.extend_from_slice(b"=\"");
        for byte in value.as_bytes() {
            match byte {
                b'\n' => written.extend_from_slice(b"\\n"),
                b'"' | b'\\' | b'$' => written.extend_from_slice(&[b'\\', *byte]),
                byte => written.push(*byte),
            }
        }
        written.extend_from_slice(b"\"\n");
    }
    let again = |bytes: &[u8]| env_file::parse(bytes).expect("what was read once");
    // Escapes may double the length, and only the length can then be wrong.
    if written.len() <= env_file::MAX_BYTES {
        assert!(again(&written) == variables, "not the same when written");
    }
    let other_ends = bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    if !bytes.contains(&b'\r') && other_ends.len() <= env_file::MAX_BYTES {
        assert!(again(&other_ends) == variables, "not the same with other ends of lines");
    }
}

/// Conditions, one `key=value` a line: what is taken survives JSON and never takes a condition back.
pub fn filters(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut filter = JobFilter::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let before = filter.clone();
        let Err(error) = filter.set(key, value) else { continue };
        assert_eq!(filter, before, "a refused condition left something");
        let is_unknown = matches!(&error, FilterError::UnknownKey(unknown) if unknown == key);
        assert_eq!(is_unknown, !JobFilter::KEYS.contains(&key), "{error}");
        assert!(!is_unknown || JobFilter::KEYS.iter().all(|known| error.to_string().contains(known)));
    }
    let json = serde_json::to_string(&filter).expect("a filter is JSON");
    assert_eq!(serde_json::from_str::<JobFilter>(&json).expect("the same filter"), filter);
}

/// An export that is read is written and read as the same; what is refused is refused at a line that it has, or at the
/// one that is missing behind them.
pub fn exports(bytes: &[u8]) {
    let read = |bytes: &[u8]| -> Result<_, ReadError> {
        let mut reader = Reader::new(bytes)?;
        let mut items = Vec::new();
        while let Some((item, _)) = reader.next_item()? {
            items.push(item);
        }
        Ok((reader.header().clone(), items, reader.totals()))
    };
    let content = match read(bytes) {
        Ok(content) => content,
        Err(error) => {
            let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
            return assert!((1..=lines + 1).contains(&error.line), "{error}, with {lines} lines");
        }
    };
    let (header, items, totals) = &content;
    let mut writer = Writer::new(Vec::new(), header).expect("a header");
    items.iter().for_each(|item| writer.item(item).expect("what was read once"));
    let (text, counted) = writer.finish().expect("an end");
    assert_eq!(Some(counted), *totals);
    assert_eq!(read(&text).expect("what was written"), content);
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_hold_for_what_the_fuzzers_found() {
        for (target, property) in [
            ("ids", ids as fn(&[u8])),
            ("words", words),
            ("durations", durations),
            ("sizes", sizes),
            ("env_files", env_files),
            ("filters", filters),
            ("exports", exports),
        ] {
            corpus::for_each(target, property);
        }
    }
}
