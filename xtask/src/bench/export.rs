//! Makes what `nodejobs store export` would write of a directory in which many jobs have ended.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One job in so many has failed.
pub(super) const FAILED: usize = 100;
/// The changes that a job has noted until it has ended: it starts, runs, has exited, has ended.
const EVENTS: [&str; 4] = ["starting", "running", "running", "finished"];

/// Writes an export of `count` ended jobs.
pub(crate) fn write(path: &Path, count: usize) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
    lines(count).try_for_each(|line| writeln!(file, "{line}")).with_context(cannot)?;
    file.flush().with_context(cannot)
}

fn lines(count: usize) -> impl Iterator<Item = Value> {
    let events = count * EVENTS.len();
    let head = [
        json!({ "nodejobs_export": 1, "version": "0.1.0", "store": "sqlite", "directory_id": "bench",
            "machine_id": null, "boot_id": null, "exported_at": time(count) }),
        json!({ "counters": { "last_seq": count, "last_event": events } }),
        json!({ "document": { "kind": "context", "key": CONTEXT,
            "body": json!({ "environment": [["PATH", "/usr/bin:/bin"]], "umask": 18, "soft_limits": {} }).to_string() } }),
    ];
    let end = json!({ "end": { "jobs": count, "attempts": count, "events": events, "documents": 1 } });
    head.into_iter().chain((1..=count).map(job)).chain((1..=events).map(event)).chain([end])
}

const CONTEXT: &str = "0123456789abcdef0123456789abcdef";

fn job(number: usize) -> Value {
    let at = time(number);
    let moment = json!({ "wall": at, "boot_ms": number });
    let failed = is_failed(number);
    let attempt = json!({
        "attempt": 1, "revision": EVENTS.len(), "status": status(number), "reason": failed.then_some("exit"),
        "detail": null, "waiting_on": null, "restarts": 0,
        "process": {
            "handle": format!("5c1e0a4f-0000-4000-8000-000000000000:4026531836:{number}:67890:0011223344556677"),
            "pid": number % 30_000 + 100,
        },
        "started": moment, "ended": moment, "exit": { "code": i32::from(failed) },
        "usage": { "cpu_ms": 12, "peak_memory_kib": 3456 }, "launch_asked_boot_ms": number,
        "log_start": { "stdout": 0, "stderr": 0 }, "pending_restart": null, "last_update": at,
        "name": number.is_multiple_of(10).then(|| format!("name-{}", number / 10 % 1000)),
        "command": { "argv": ["/usr/bin/convert", "-resize", "800x600", "input-0001.png", "output-0001.png"] },
        "cwd": "/home/somebody/project", "context_key": CONTEXT, "input": "null",
        "logs": { "layout": "spread", "path": "/home/somebody/.local/state/nodejobs/logs", "merge": false },
        "group": number.is_multiple_of(4).then_some("nightly"), "priority": 0, "slots": 1,
        "labels": if number.is_multiple_of(5) { json!({ "project": format!("p{}", number / 5 % 50) }) } else { json!({}) },
        "start": "now",
        "policy": { "stop_signal": 15, "grace_ms": 5000, "timeout_ms": null, "success_codes": [0],
            "keep_children": false, "restart": "no", "max_restarts": null, "restart_delay_ms": 1000 },
        "submit_key": format!("{number:032x}"), "created_at": at,
    });
    json!({ "job": { "seq": number, "id": id(number), "attempts": [attempt] } })
}

fn event(event: usize) -> Value {
    let number = event.div_ceil(EVENTS.len());
    let last = event == number * EVENTS.len();
    let reason = (last && is_failed(number)).then_some("exit");
    let status = if last { status(number) } else { EVENTS[(event - 1) % EVENTS.len()] };
    json!({ "event": { "seq": event, "id": id(number), "attempt": 1, "status": status, "reason": reason,
        "at": time(number) } })
}

fn is_failed(number: usize) -> bool {
    number.is_multiple_of(FAILED)
}

fn status(number: usize) -> &'static str {
    if is_failed(number) { "failed" } else { "finished" }
}

fn id(number: usize) -> String {
    format!("job-{number:010}")
}

/// One job a second.
fn time(number: usize) -> String {
    let (days, second) = (number / 86_400, number % 86_400);
    let (month, day) = (days / 28 % 12 + 1, days % 28 + 1);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.000Z", 2020 + days / 28 / 12, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_has_its_events_and_the_end_counts_them() {
        let lines: Vec<Value> = lines(200).collect();
        assert_eq!(lines.len(), 3 + 200 + 800 + 1);
        let job = &lines[2 + 100]["job"];
        assert_eq!((&job["seq"], &job["attempts"][0]["status"]), (&json!(100), &json!("failed")));
        let last = &lines[2 + 200 + 400]["event"];
        assert_eq!(
            (&last["id"], &last["status"], &last["reason"]),
            (&job["id"], &json!("failed"), &json!("exit"))
        );
        assert_eq!(lines[1003]["end"]["events"], 800);
        assert!((1..100_000).map(time).is_sorted());
    }
}
