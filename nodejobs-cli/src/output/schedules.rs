//! Schedules for people: a table, a block, a sentence.

use nodejobs::Timestamp;
use nodejobs::api::{ScheduleRecord, ScheduleState};
use nodejobs::units::write_duration;

use super::block::Block;
use super::columns;
use crate::readable::{ago, ahead, printable};

/// Schedules as a table; a sentence if there are none.
pub(crate) fn schedule_table(records: &[ScheduleRecord], now: Timestamp) -> String {
    let rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
    if rows.is_empty() {
        return String::new();
    }
    columns(["NAME", "STATE", "WHEN", "NEXT", "LAST", "OUTCOME"], &rows)
}

fn row(record: &ScheduleRecord, now: Timestamp) -> [String; 6] {
    let absent = || "-".to_owned();
    let last = record.last.as_ref();
    [
        record.name.clone(),
        record.state.to_string(),
        when(record),
        record.next.first().map_or_else(absent, |next| ahead(now, *next)),
        last.map_or_else(absent, |last| ago(now, last.due)),
        last.map_or_else(absent, |last| last.outcome.clone().unwrap_or_else(|| "forgotten".to_owned())),
    ]
}

/// The rule by which it is due.
fn when(record: &ScheduleRecord) -> String {
    match (&record.cron, record.every_ms) {
        (Some(cron), _) => format!("{cron} ({})", record.zone.as_deref().unwrap_or("UTC")),
        (None, Some(every)) => format!("every {}", write_duration(std::time::Duration::from_millis(every))),
        (None, None) => "-".to_owned(),
    }
}

/// A schedule as a block of lines.
pub(crate) fn schedule_block(record: &ScheduleRecord, now: Timestamp) -> String {
    let labels: Vec<_> =
        record.labels.iter().map(|(key, value)| format!("{}={}", printable(key), printable(value))).collect();
    let mut block = Block::default();
    block.line("name", &record.name);
    block.line("state", &record.state.to_string());
    if record.state == ScheduleState::UnknownZone {
        block.line(
            "",
            "its time zone is not in this machine's database; install tzdata, and restart the daemon",
        );
    }
    block.line("when", &when(record));
    block.line("overlap", &record.overlap.to_string());
    block.line("catch up", &record.catch_up.to_string());
    block.maybe("until", record.until.map(|time| time.to_string()).as_deref());
    block.lines("command", &record.command.to_string());
    block.line("cwd", &record.cwd.to_lossy());
    block.line("labels", &labels.join(" "));
    block.line("created", &format!("{} ({})", record.created_at, ago(now, record.created_at)));
    if let Some(last) = &record.last {
        let outcome = last.outcome.as_deref().unwrap_or("forgotten");
        block.line("last", &format!("{} ({}), {}: {outcome}", last.due, ago(now, last.due), last.self_id));
    }
    if let [first, ..] = record.waiting.as_slice() {
        let count = record.waiting.len();
        block.line("waiting", &format!("{count}, the first one since {first} ({})", ago(now, *first)));
    }
    let next: Vec<_> = record.next.iter().map(|next| coming(record, *next, now)).collect();
    if !next.is_empty() {
        block.lines("next", &next.join("\n"));
    }
    block.text
}

/// A time to come, in UTC and on the clock of the schedule's zone.
fn coming(record: &ScheduleRecord, time: Timestamp, now: Timestamp) -> String {
    let there = record.zone.as_deref().filter(|zone| *zone != "UTC").and_then(|zone| {
        let zone = jiff::tz::TimeZone::get(zone).ok()?;
        let there = jiff::Timestamp::from_millisecond(time.as_millis()).ok()?.to_zoned(zone);
        Some(there.strftime(", %a %F %T %Z").to_string())
    });
    format!("{time} ({}){}", ahead(now, time), there.unwrap_or_default())
}

/// What somebody who has added one wants to know.
pub(crate) fn next_sentence(record: &ScheduleRecord, now: Timestamp) -> String {
    match (record.next.first(), record.state) {
        (Some(next), _) => format!("{} runs next at {}\n", record.name, coming(record, *next, now)),
        (None, ScheduleState::Paused) => format!("{} is paused, and runs once it is resumed\n", record.name),
        (None, _) => format!("{} never runs again\n", record.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::tests::noon;

    fn records() -> Vec<ScheduleRecord> {
        let record = json!({
            "name": "backup", "state": "active", "cron": "30 2 * * *", "zone": "Europe/Berlin", "every_ms": null,
            "overlap": "skip", "catch_up": "all:3", "until": null, "created_at": "2026-07-14T03:30:00.000Z",
            "next": ["2026-07-15T00:30:00.000Z"], "waiting": ["2026-07-14T03:30:00.000Z"],
            "last": {"due": "2026-07-14T00:30:00.000Z", "self_id": "backup-20260714T003000Z", "status": "failed",
                "outcome": "failed, exit code 3", "started_at": null, "ended_at": null},
            "command": {"argv": ["./backup", "all"]}, "cwd": "/srv", "labels": {"schedule": "backup"},
        });
        let first: ScheduleRecord = serde_json::from_value(record).expect("a record");
        let mut second = first.clone();
        (second.name, second.state, second.cron, second.zone) =
            ("poll".to_owned(), ScheduleState::Paused, None, None);
        (second.every_ms, second.next, second.last) = (Some(90_000), Vec::new(), None);
        vec![first, second]
    }

    #[test]
    fn schedules_are_a_line_each() {
        let expected = "\
NAME    STATE   WHEN                        NEXT    LAST    OUTCOME
backup  active  30 2 * * * (Europe/Berlin)  in 20h  3h ago  failed, exit code 3
poll    paused  every 1m30s                 -       -       -
";
        assert_eq!(schedule_table(&records(), noon()), expected);
        assert_eq!(schedule_table(&[], noon()), "");
    }

    #[test]
    fn a_block_says_when_it_runs_next_on_the_clock_of_its_zone() {
        let block = schedule_block(&records()[0], noon());
        let next = "next:        2026-07-15T00:30:00.000Z (in 20h), Wed 2026-07-15 02:30:00 CEST\n";
        assert!(block.contains(next), "{block}");
        assert!(block.contains("waiting:     1, the first one since 2026-07-14T03:30:00.000Z"), "{block}");
        assert!(block.contains("backup-20260714T003000Z: failed, exit code 3\n"), "{block}");
        let sentence = next_sentence(&records()[0], noon());
        assert!(
            sentence.starts_with("backup runs next at 2026-07-15T00:30:00.000Z (in 20h), Wed"),
            "{sentence}"
        );
        assert!(next_sentence(&records()[1], noon()).contains("once it is resumed"));
    }
}
