//! One thing as a block of `key: value` lines.

use std::collections::BTreeMap;

use nodejobs::api::{DaemonStatus, StoreStatus};
use nodejobs::array::Counts;
use nodejobs::record::{ElementRecord, JobRecord};
use nodejobs::spec::{Condition, Dependency, Values};
use nodejobs::units::show_duration;
use nodejobs::{Status, Timestamp};

use super::{Screen, signal_name};
use crate::readable::{ago, ahead, printable};

/// So many of the jobs that another one waits for are named.
const AWAITED: usize = 10;

/// A job as a block. What is absent has no line.
pub(crate) fn record_block(record: &JobRecord, screen: Screen, now: Timestamp) -> String {
    let time = |time: Timestamp| format!("{time} ({})", ago(now, time));
    let status = match record.reason {
        Some(reason) => format!("{} ({reason})", record.status),
        None => record.status.to_string(),
    };
    let attempt = match record.restarts {
        0 => record.attempt.to_string(),
        restarts => format!("{} ({restarts} by its policy)", record.attempt),
    };
    let signal = record.signal.map(|number| match record.core_dumped {
        Some(true) => format!("{} ({number}), core dumped", signal_name(number)),
        _ => format!("{} ({number})", signal_name(number)),
    });
    let labels: Vec<_> =
        record.labels.iter().map(|(key, value)| format!("{}={}", printable(key), printable(value))).collect();
    let after = record.after.as_ref().map(|after| {
        let one = |on: &Dependency| match on.condition {
            Condition::Success => on.id.to_string(),
            condition => format!("{}:{}", on.id, condition.as_str()),
        };
        let more = after.on.len().saturating_sub(AWAITED);
        let named = after.on.iter().take(AWAITED).map(one).collect::<Vec<_>>().join(" ");
        if more > 0 { format!("{named} and {more} more") } else { named }
    });
    let next_start = record.next_start_at.map(|time| format!("{time} ({})", ahead(now, time)));
    let mut block = Block::default();
    block.line("id", record.self_id.as_str());
    block.maybe("name", record.name.as_deref());
    block.styled("status", &screen.paint(record.status, &status));
    block.maybe("detail", record.detail.as_deref());
    block.maybe("waiting on", record.waiting_on.as_deref());
    block.maybe("after", after.as_deref());
    block.lines("command", &record.command.to_string());
    block.line("cwd", &record.cwd.to_lossy());
    block.line("attempt", &attempt);
    block.maybe("pid", record.last_pid.map(|pid| pid.to_string()).as_deref());
    block.maybe("exit code", record.exit_code.map(|code| code.to_string()).as_deref());
    block.maybe("signal", signal.as_deref());
    block.line("created", &time(record.created_at));
    block.maybe("next start", next_start.as_deref());
    block.maybe("started", record.started_at.map(time).as_deref());
    block.maybe("ended", record.ended_at.map(time).as_deref());
    block.maybe("runtime", record.runtime_ms.map(show_duration).as_deref());
    block.maybe("cpu time", record.cpu_ms.map(show_duration).as_deref());
    block.maybe("cpu", record.cpu_percent.map(|percent| format!("{percent:.1} %")).as_deref());
    block.maybe("memory", record.memory_mb.map(|size| format!("{size:.1} MiB")).as_deref());
    block.maybe("peak memory", record.peak_memory_mb.map(|size| format!("{size:.1} MiB")).as_deref());
    block.maybe("limits", record.limits.as_ref().map(ToString::to_string).as_deref());
    block.maybe("group", record.group.as_deref());
    block.maybe("slots", (record.slots != 1).then(|| record.slots.to_string()).as_deref());
    block.maybe("priority", (record.priority != 0).then(|| record.priority.to_string()).as_deref());
    block.maybe("needs", needs(record).as_deref());
    block.maybe("elements", record.progress.as_ref().map(elements).as_deref());
    block.maybe("element", record.element.as_ref().map(element).as_deref());
    block.maybe("labels", (!labels.is_empty()).then(|| labels.join(" ")).as_deref());
    if record.progress.is_none() {
        block.line("log", &record.logfile.to_lossy());
    }
    block.maybe("log size", record.log_bytes.map(size).as_deref());
    block.text
}

/// What a job takes of named resources, and which ones it has.
fn needs(record: &JobRecord) -> Option<String> {
    let each = record.needs.iter().map(|(name, count)| match record.assigned.get(name) {
        Some(indices) => {
            let indices: Vec<_> = indices.iter().map(u32::to_string).collect();
            format!("{name}={count} (number {})", indices.join(", "))
        }
        None => format!("{name}={count}"),
    });
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| each.join(" "))
}

/// How far an array got: `100: 57 finished, 3 failed, 2 running, 38 pending`.
fn elements(counts: &Counts) -> String {
    let Counts { size, pending, running, finished, failed, stopped } = *counts;
    let parts = [
        (finished, "finished"),
        (failed, "failed"),
        (stopped, "stopped"),
        (running, "running"),
        (pending, "pending"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    format!("{size}: {}", parts.collect::<Vec<_>>().join(", "))
}

/// Which element it is: `57 of 2mxp3x0r01, lr=0.1 seed=3`.
fn element(element: &ElementRecord) -> String {
    format!("{} of {}, {}", element.index, element.array, values(&element.values))
}

/// The values of an element in one line.
pub(crate) fn values(values: &Values) -> String {
    let pairs = values.iter().map(|(name, value)| format!("{name}={}", printable(&value.to_lossy())));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Bytes for people, in powers of 1024.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

/// A daemon as a block.
pub(crate) fn daemon_block(status: &DaemonStatus, now: Timestamp) -> String {
    let mut block = Block::default();
    block.line("pid", &status.pid.to_string());
    block.line("version", &status.version);
    block.line("data dir", &status.data_dir.to_lossy());
    block.line("socket", &status.socket.to_lossy());
    block.line("store", &status.store);
    block.maybe("last write", status.store_trouble.as_deref().map(|why| format!("failed: {why}")).as_deref());
    block.line("started", &format!("{} ({})", status.started_at, ago(now, status.started_at)));
    for hang in &status.hanging {
        block.line("hangs", &format!("{hang} (since {}, {})", hang.since, ago(now, hang.since)));
    }
    if status.keepers.is_empty() {
        block.line("keeper", "none yet");
    }
    for keeper in &status.keepers {
        let pid = |pid: Option<u32>| pid.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
        let draining = if keeper.draining { ", draining" } else { "" };
        let jobs = if keeper.jobs == 1 { "1 job".to_owned() } else { format!("{} jobs", keeper.jobs) };
        let (guard, worker) = (pid(keeper.pid), pid(keeper.worker_pid));
        let text = format!("guard {guard}, worker {worker}, version {}, {jobs}{draining}", keeper.version);
        block.line("keeper", &text);
    }
    block.line("jobs", &counts(&status.jobs));
    block.maybe("schedules", (status.schedules > 0).then(|| status.schedules.to_string()).as_deref());
    block.text
}

/// How many jobs have which status.
fn counts(jobs: &BTreeMap<Status, u64>) -> String {
    let counts: Vec<_> = jobs
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

/// A store as a block.
pub(crate) fn store_block(store: &StoreStatus) -> String {
    let mut block = Block::default();
    block.line("store", &format!("{}, format {}", store.store, store.format));
    block.line("path", &store.path.to_lossy());
    block.line("size", &size(store.bytes));
    block.maybe("in use by", store.owner_pid.map(|pid| format!("process {pid}")).as_deref());
    let shareable = if store.shareable { "yes" } else { "no, only by its owner" };
    block.line("readable", &format!("{shareable}, while it is in use"));
    if store.weaker.is_empty() {
        block.line("promises", "all");
    }
    store.weaker.iter().for_each(|sentence| block.line("weaker", sentence));
    block.line("jobs", &counts(&store.jobs));
    block.line("last job", &format!("seq {}", store.last_seq));
    block.line("events", &format!("{}, the last one is {}", store.events, store.last_event));
    block.line("documents", &store.documents.to_string());
    block.text
}

#[derive(Default)]
pub(super) struct Block {
    pub(super) text: String,
}

impl Block {
    pub(super) fn line(&mut self, key: &str, value: &str) {
        self.styled(key, &printable(value));
    }

    /// A value of several lines, such as a script, each under the one before.
    pub(super) fn lines(&mut self, key: &str, value: &str) {
        let mut key = format!("{key}:");
        for line in value.trim_end_matches('\n').split('\n') {
            let shown = printable(&line.replace('\t', "    "));
            self.text.push_str(format!("{key:<13}{shown}").trim_end());
            self.text.push('\n');
            key.clear();
        }
    }

    pub(super) fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }

    /// A value that may hold control sequences, since they are ours.
    fn styled(&mut self, key: &str, value: &str) {
        self.text.push_str(&format!("{:<13}{value}\n", format!("{key}:")));
    }
}

#[cfg(test)]
mod tests {
    use nodejobs::Reason;

    use super::*;
    use crate::output::tests::{noon, record};

    const PLAIN: Screen = Screen { width: Some(80), colour: false };

    #[test]
    fn a_script_keeps_its_lines() {
        let mut job = record("a");
        job.command = nodejobs::spec::Command::shell("for x in 1 2; do\n\techo $x\x1b[2J\n\ndone\n");
        let block = record_block(&job, PLAIN, noon());
        let expected = "\ncommand:     for x in 1 2; do\n                 echo $x\u{FFFD}[2J\n\n             done\ncwd: ";
        assert!(block.contains(expected), "{block}");
    }

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        for (bytes, shown) in
            [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")]
        {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn a_finished_job_is_a_block() {
        let mut job = record("a");
        job.name = Some("build".to_owned());
        job.labels.insert("team".to_owned(), "x".to_owned());
        let expected = "\
id:          a
name:        build
status:      finished
command:     make all
cwd:         /home/u/src
attempt:     1
pid:         7
exit code:   0
created:     2026-07-14T03:33:20.000Z (3m ago)
started:     2026-07-14T03:33:20.100Z (3m ago)
ended:       2026-07-14T03:33:21.350Z (2m ago)
runtime:     1.2s
cpu time:    12ms
peak memory: 2.5 MiB
labels:      team=x
log:         /d/logs/00/x.1.out
";
        assert_eq!(record_block(&job, PLAIN, noon()), expected);
    }

    #[test]
    fn a_job_that_never_started_says_why() {
        let mut job = record("a");
        (job.status, job.reason) = (Status::FailedStart, Some(Reason::Exec));
        job.detail = Some("cannot execute '/no/such': no such file".to_owned());
        let block = record_block(&job, PLAIN, noon());
        assert!(
            block.contains("status:      failed_start (exec)\ndetail:      cannot execute '/no/such'"),
            "{block}"
        );
    }

    #[test]
    fn a_daemon_is_a_block() {
        let status = serde_json::json!({
            "pid": 5, "version": "0.1.0", "data_dir": "/d", "socket": "/d/sock", "store": "sqlite",
            "started_at": "2026-07-14T03:33:20.000Z",
            "keepers": [
                {"pid": 6, "worker_pid": null, "version": "0.1.0", "jobs": 2, "draining": true},
                {"pid": 7, "worker_pid": 8, "version": "0.1.0", "jobs": 1, "draining": false},
            ],
            "jobs": {"running": 2, "finished": 10, "lost": 0},
        });
        let mut status: DaemonStatus = serde_json::from_value(status).expect("a status");
        let expected = "\
pid:         5
version:     0.1.0
data dir:    /d
socket:      /d/sock
store:       sqlite
started:     2026-07-14T03:33:20.000Z (3m ago)
keeper:      guard 6, worker gone, version 0.1.0, 2 jobs, draining
keeper:      guard 7, worker 8, version 0.1.0, 1 job
jobs:        2 running, 10 finished
";
        assert_eq!(daemon_block(&status, noon()), expected);
        status.keepers.clear();
        assert!(daemon_block(&status, noon()).contains("keeper:      none yet\n"));
    }

    #[test]
    fn a_store_is_a_block() {
        let store = serde_json::json!({
            "store": "sqlite", "format": 2, "path": "/d/jobs.sqlite", "bytes": 5 << 20, "shareable": true, "weaker": [],
            "owner_pid": null, "jobs": {"running": 2, "finished": 10}, "events": 30, "documents": 3, "last_seq": 14,
            "last_event": 40,
        });
        let mut store: StoreStatus = serde_json::from_value(store).expect("a store");
        let expected = "\
store:       sqlite, format 2
path:        /d/jobs.sqlite
size:        5.0 MiB
readable:    yes, while it is in use
promises:    all
jobs:        2 running, 10 finished
last job:    seq 14
events:      30, the last one is 40
documents:   3
";
        assert_eq!(store_block(&store), expected);
        store.weaker = ["less".to_owned(), "still less".to_owned()].into();
        (store.owner_pid, store.shareable) = (Some(7), false);
        let block = store_block(&store);
        for line in ["in use by:   process 7", "weaker:      less", "weaker:      still less"] {
            assert!(block.lines().any(|found| found == line), "{block}");
        }
    }
}
