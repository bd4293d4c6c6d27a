//! What running jobs use, for whoever asks.

use nodejobs::api::ListQuery;
use nodejobs::client::Client;
use serde_json::Value;

use crate::support::{Home, eventually, text};

/// What `ls --usage` says of a job.
fn usage(home: &Home, id: &str) -> (f64, f64) {
    let said = home.nodejobs(["-o", "json", "ls", "--usage"]);
    let records = said.json();
    let record = records.as_array().expect("a list").iter().find(|record| text(record, "self_id") == id);
    let record = record.unwrap_or_else(|| panic!("{id} in {records}"));
    (record["memory_mb"].as_f64().unwrap_or(-1.0), record["cpu_percent"].as_f64().unwrap_or(-1.0))
}

/// C8
#[test]
fn what_a_job_uses_is_that_of_its_whole_tree() {
    let home = Home::new();
    // `tail` keeps what it reads, until there is a line; the other process is in a session of its own.
    let hold = |mib: u32| format!("(head -c {mib}M /dev/zero; echo ready >&2; exec sleep 1000) | tail -n 1");
    let script = format!("setsid sh -c '{}' & {}", hold(40), hold(60));
    let id = home.run_script(&script);
    eventually("both have read it", || (home.stderr(&id) == b"ready\nready\n").then_some(()));
    eventually("it holds about 100 MB", || {
        let (memory, cpu) = usage(&home, &id);
        ((80.0..=120.0).contains(&memory) && cpu < 20.0).then_some(())
    });
    home.ok(["stop", "--force", &id]);
    assert_eq!(usage(&home, &id), (-1.0, -1.0), "what has ended uses nothing");

    // Burnt by a child, and by one that has ended before it was looked at a second time.
    let id = home.run_script("(while :; do :; done) & wait");
    eventually("it has a processor for itself, more or less", || {
        let (memory, cpu) = usage(&home, &id);
        ((50.0..=120.0).contains(&cpu) && memory < 20.0).then_some(())
    });
}

#[test]
fn nobody_looks_who_was_not_asked_to() {
    let home = Home::new();
    let id = home.ok(["run", "--", "sleep", "1000"]);
    home.running(&id);
    let unknown = |record: &Value| record["memory_mb"].is_null() && record["cpu_percent"].is_null();
    assert!(unknown(&home.record(&id)));
    assert!(unknown(&home.nodejobs(["-o", "json", "ls"]).json()[0]));
    let asked = home.nodejobs(["-o", "json", "status", "--usage", &id]).json();
    assert!(asked["memory_mb"].as_f64().is_some_and(|size| size > 0.0) && asked["cpu_percent"] == 0.0);

    let shown = home.ok(["ls", "--usage"]);
    assert!(shown.lines().next().is_some_and(|header| header.contains("%CPU  MEMORY")), "{shown}");
    assert!(!home.ok(["ls"]).contains("MEMORY"));
    assert!(home.ok(["status", "--usage", &id]).contains("memory:"));
    assert_eq!(home.nodejobs(["ls", "--usage", "-q"]).code, 2, "ids alone say nothing about use");

    let client = Client::connect(home.data_dir()).expect("connected");
    let mut query = ListQuery::default();
    query.usage = true;
    let page = client.list(&query).expect("a page");
    assert!(page.jobs[0].memory_mb.is_some());
    // Of a job that halts nothing is used, and all of it is still there.
    home.ok(["pause", &id]);
    assert!(usage(&home, &id).0 > 0.0);
}
