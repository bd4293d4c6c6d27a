//! `nodejobs joblog`: what each element of an array came to.

use clap::Args;
use nodejobs::api::{ListQuery, Order};
use nodejobs::array::LABEL;
use nodejobs::record::JobRecord;
use nodejobs::spec::Values;
use nodejobs::units::show_duration;
use nodejobs::{JobId, Status, Timestamp};
use serde::Serialize;

use super::ls::array_of;
use crate::connect::Target;
use crate::exit::{Failure, USAGE, say};
use crate::output::{self, Format, columns, values};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Joblog {
    /// The array's id, a unique beginning of it, or a unique name
    #[arg(value_name = "ID")]
    array: String,
    /// Only elements with this status; several with commas between them
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs joblog ID
  nodejobs joblog ID --status failed
  nodejobs joblog ID -o jsonl | jq -r 'select(.exit_code != 0) | .values.lr'

Elements that were not started have no line. With -o json it is one array, with -o jsonl an object a line: index, id, \
status, exit_code, signal, attempt, started_at, runtime_ms, values.";

const HEADER: [&str; 7] = ["INDEX", "ID", "STATUS", "EXIT", "STARTED", "RUNTIME", "VALUES"];

/// An element as it is printed.
#[derive(Serialize)]
struct Line<'r> {
    index: u32,
    id: &'r JobId,
    status: Status,
    exit_code: Option<i32>,
    signal: Option<i32>,
    attempt: u32,
    started_at: Option<Timestamp>,
    runtime_ms: Option<u64>,
    values: &'r Values,
}

impl<'r> Line<'r> {
    fn new(record: &'r JobRecord) -> Option<Self> {
        let element = record.element.as_ref()?;
        Some(Self {
            index: element.index,
            id: &record.self_id,
            status: record.status,
            exit_code: record.exit_code,
            signal: record.signal,
            attempt: record.attempt,
            started_at: record.started_at,
            runtime_ms: record.runtime_ms,
            values: &element.values,
        })
    }

    fn cells(&self) -> [String; 7] {
        let absent = || "-".to_owned();
        let exit = match (self.exit_code, self.signal) {
            (Some(code), _) => code.to_string(),
            (None, Some(number)) => output::signal_name(number),
            (None, None) => absent(),
        };
        [
            self.index.to_string(),
            self.id.to_string(),
            self.status.to_string(),
            exit,
            self.started_at.map_or_else(absent, |time| time.to_string()),
            self.runtime_ms.map_or_else(absent, show_duration),
            values(self.values),
        ]
    }
}

impl Joblog {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.array))?;
        let mut connection = target.connect()?;
        let array = array_of(&mut connection, &self.array)?;
        let mut query = ListQuery::default();
        (query.order, query.limit) = (Order::OldestFirst, ListQuery::MAX_LIMIT);
        let mut conditions =
            vec![("label", format!("{LABEL}={}", array.self_id)), ("is_element", "true".to_owned())];
        conditions.extend(self.status.iter().map(|status| ("status", status.to_string())));
        for (key, value) in conditions {
            query.require(key, &value).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        let (mut is_first, mut rows) = (true, Vec::new());
        loop {
            let page = connection.ask(|client| client.list(&query))?;
            let lines: Vec<Line<'_>> = page.jobs.iter().filter_map(Line::new).collect();
            match format {
                // Its columns are as wide as the widest of all.
                Format::Table => rows.extend(lines.iter().map(Line::cells)),
                Format::Json | Format::Jsonl => show(&lines, format == Format::Json, is_first)?,
            }
            is_first &= lines.is_empty();
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        match (format, is_first) {
            (Format::Json, true) => output::print("[]\n")?,
            (Format::Json, false) => output::print("]\n")?,
            (Format::Table, true) => say(&"no element was started yet"),
            (Format::Table, false) => output::print(&columns(HEADER, &rows))?,
            (Format::Jsonl, _) => {}
        }
        Ok(0)
    }
}

fn show(lines: &[Line<'_>], is_one_document: bool, is_first: bool) -> Result<(), Failure> {
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        if is_one_document {
            text.push_str(if is_first && number == 0 { "[" } else { ",\n " });
        }
        text.push_str(&output::json(line)?);
        if !is_one_document {
            text.push('\n');
        }
    }
    output::print(&text)
}
