//! Waiting: for the ends of jobs, and of jobs for their time.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, eventually, kill, millis, text};

#[test]
fn the_first_of_several_is_enough_if_any_is_waited_for() {
    let home = Home::new();
    home.ok(["run", "--id", "long", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "short", "until [ -e over ]; do sleep 0.02; done; exit 3"]);
    let mut wait = home.command(["-o", "json", "wait", "--any", "long", "short"]);
    let wait = wait.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nodejobs starts");
    std::fs::write(home.path().join("over"), "").expect("written");
    let output = wait.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let ended: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((ended.as_array().map(Vec::len), &ended[0]["self_id"]), (Some(1), &json!("short")), "{ended}");
    // What has ended already counts at once.
    assert_eq!(home.nodejobs(["wait", "--any", "long", "short"]).code, 3);
    assert_eq!(text(&home.running("long"), "status"), "running");
}

#[test]
fn several_are_waited_for_and_the_first_code_counts_in_the_order_given() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "until [ -e over ]; do sleep 0.02; done; exit 4"]);
    home.ok(["run", "--id", "b", "--", "sh", "-c", "exit 5"]);
    home.ok(["run", "--id", "c", "--name", "sea", "--", "true"]);
    home.ended("b");
    let mut wait = home.command(["-o", "json", "wait", "sea", "a", "b", "a"]);
    let wait = wait.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nodejobs starts");
    std::fs::write(home.path().join("over"), "").expect("written");
    let output = wait.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let ended: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ids: Vec<_> =
        ended.as_array().expect("a list").iter().map(|record| text(record, "self_id")).collect();
    assert_eq!(ids, ["c", "a", "b"]);
    let said = home.nodejobs(["wait", "a", "nobody"]);
    assert_eq!((said.code, said.stderr.contains("'nobody'")), (125, true), "{said:?}");
}

#[test]
fn a_wait_lasts_no_longer_than_it_may() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "b", "--wait", "--", "true"]);
    for words in [&["wait", "--timeout", "300ms", "a"][..], &["wait", "--timeout", "300ms", "a", "b"]] {
        let before = Instant::now();
        let said = home.nodejobs(words);
        assert!(before.elapsed() >= Duration::from_millis(300), "{:?}", before.elapsed());
        assert_eq!(said.code, 124, "{said:?}");
        assert!(said.stderr.contains("not ended within 300ms; the jobs run on"), "{said:?}");
        assert!(said.stdout.is_empty(), "{said:?}");
    }
    assert_eq!(home.nodejobs(["wait", "--timeout", "0ms", "a"]).code, 124);
    assert_eq!(home.nodejobs(["wait", "--timeout", "0ms", "b"]).code, 0, "what has ended counts");
    assert_eq!(home.nodejobs(["wait", "--timeout", "1h", "--any", "a", "b"]).code, 0);
    assert_eq!(text(&home.running("a"), "status"), "running");
    // Its time is one, whatever becomes of the daemon.
    let mut wait =
        home.command(["wait", "--timeout", "700ms", "a"]).stderr(Stdio::null()).spawn().expect("started");
    let before = Instant::now();
    home.ok(["ls"]);
    kill(home.daemon_pid());
    assert_eq!(wait.wait().expect("ended").code(), Some(124));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[test]
fn a_job_waits_for_its_time() {
    let home = Home::new();
    let id = home.ok(["run", "--delay", "400ms", "--timeout", "1h", "--", "echo", "late"]);
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), text(&record, "waiting_on")), ("queued", "time"), "{record}");
    assert!(text(&record, "detail").starts_with("starts at "), "{record}");
    assert_eq!((&record["last_pid"], &record["started_at"]), (&Value::Null, &Value::Null), "{record}");
    assert!(home.ok(["ls"]).contains("queued"));
    let ended = home.ended(&id);
    assert_eq!(text(&ended, "status"), "finished", "{ended}");
    assert!(millis(&ended, "started_at") - millis(&ended, "created_at") >= 400, "{ended}");
    assert_eq!((&ended["waiting_on"], &ended["detail"]), (&Value::Null, &Value::Null), "{ended}");
    assert_eq!(home.stdout(&id), b"late\n");
    // Not at all.
    home.ok(["run", "--delay", "0ms", "--wait", "--", "true"]);
}

#[test]
fn a_job_waits_for_a_time_of_day() {
    let home = Home::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    let due = nodejobs::Timestamp::from_millis(i64::try_from(now.as_millis()).expect("a time") + 700);
    let id = home.ok(["run", "--at", &due.to_string(), "--", "true"]);
    let record = home.record(&id);
    assert!(text(&record, "detail").contains(&due.to_string()), "{record}");
    assert!(millis(&home.ended(&id), "started_at") >= due.as_millis());
    let said = home.nodejobs(["run", "--id", "past", "--at", &due.to_string(), "--", "true"]);
    assert_eq!((said.code, said.stderr.contains("has passed")), (2, true), "{said:?}");
    assert_eq!(home.nodejobs(["status", "past"]).code, 3);
}

#[test]
fn a_job_that_waits_is_cancelled_by_a_stop() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--delay", "1h", "--", "touch", "never"]);
    let mut wait = home.command(["wait", "a"]).stderr(Stdio::null()).spawn().expect("started");
    home.ok(["ls"]);
    home.ok(["stop", "a"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("cancelled", "user"), "{record}");
    assert_eq!((&record["started_at"], &record["exit_code"]), (&Value::Null, &Value::Null), "{record}");
    assert_eq!(wait.wait().expect("ended").code(), Some(125));
    assert!(home.nodejobs(["logs", "a"]).code == 0 && home.stdout("a").is_empty());
    assert!(!home.path().join("never").exists());
    home.ok(["rm", "a"]);
}

#[test]
fn a_job_waits_on_when_the_daemon_is_killed() {
    let home = Home::new();
    home.ok(["run", "--id", "soon", "--delay", "500ms", "echo x >> evidence"]);
    home.ok(["run", "--id", "later", "--delay", "1h", "--", "true"]);
    kill(home.daemon_pid());
    assert_eq!(text(&home.record("later"), "status"), "queued");
    let ended = home.ended("soon");
    assert_eq!((text(&ended, "status"), &ended["attempt"]), ("finished", &json!(1)), "{ended}");
    assert!(millis(&ended, "started_at") - millis(&ended, "created_at") >= 500, "{ended}");
    assert_eq!(crate::support::lines(&home.path().join("evidence")), ["x"]);
    // One that is due while there is no daemon is late, not lost.
    home.ok(["run", "--id", "late", "--delay", "300ms", "--", "true"]);
    let due = millis(&home.record("late"), "created_at") + 300;
    kill(home.daemon_pid());
    eventually("it is due", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        (i64::try_from(now.as_millis()).expect("a time") > due).then_some(())
    });
    assert_eq!(text(&home.ended("late"), "status"), "finished");
    home.ok(["stop", "later"]);
    assert_eq!(text(&home.record("later"), "reason"), "user");
}
