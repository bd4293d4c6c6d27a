//! Jobs that are tried again until they succeed, and work that is submitted once.

use std::process::Stdio;

use crate::support::{Home, eventually, kill, lines, millis, text};

#[test]
fn a_job_is_tried_again_until_it_succeeds_with_delays_that_grow() {
    let home = Home::new();
    let script = "echo run >> ran; test $(wc -l < ran) -ge 3";
    let said = home.nodejobs([
        "run",
        "--id",
        "a",
        "--retries",
        "5",
        "--backoff",
        "100ms",
        "--wait",
        "--shell",
        "--",
        script,
    ]);
    assert_eq!(said.code, 0, "whoever waits hears of the last try: {said:?}");
    let record = home.record("a");
    assert_eq!(
        (text(&record, "status"), &record["attempt"], &record["restarts"]),
        ("finished", &3.into(), &2.into())
    );
    let attempts = home.history("a");
    for (pair, least) in attempts.windows(2).zip([95, 190]) {
        // It is measured on another clock than the times in the records are.
        let gap = millis(&pair[1], "started_at") - millis(&pair[0], "ended_at");
        assert!(gap >= least, "{gap} ms");
    }
    assert_eq!(lines(&home.path().join("ran")).len(), 3);
    assert!(home.ok(["status", "a"]).contains("attempt:     3 (2 by its policy)"));
}

#[test]
fn tries_go_on_under_daemons_that_are_killed_and_end_when_all_have_failed() {
    let home = Home::new();
    home.ok([
        "run",
        "--id",
        "a",
        "--retries",
        "6",
        "--backoff",
        "50ms..50ms",
        "--shell",
        "--",
        "echo run >> ran; exit 4",
    ]);
    home.ok(["run", "--id", "b", "--after", "a:failure", "--", "true"]);
    for _ in 0..3 {
        kill(home.daemon_pid());
        home.record("a");
    }
    assert_eq!(home.nodejobs(["wait", "a"]).code, 4);
    assert_eq!(lines(&home.path().join("ran")).len(), 7, "each attempt was executed once");
    assert_eq!(text(&home.ended("b"), "status"), "finished");
    let began = millis(&home.record("b"), "started_at");
    assert!(began >= millis(&home.record("a"), "ended_at"), "it waited for the last try");
}

#[test]
fn what_crashes_the_same_way_is_parked_and_a_restart_begins_anew() {
    let home = Home::new();
    let crash = "echo run >> ran; test -e mended || kill -SEGV $$";
    home.ok(["run", "--id", "a", "--retries", "50", "--backoff", "1ms", "--shell", "--", crash]);
    assert_eq!(home.nodejobs(["wait", "a"]).code, 139);
    let record = home.record("a");
    assert_eq!(
        (text(&record, "status"), text(&record, "reason"), &record["attempt"]),
        ("failed", "signal", &3.into())
    );
    let parked = "parked: 3 attempts in a row ended with signal 11; restart it when it is mended";
    assert_eq!(text(&record, "detail"), parked);
    std::fs::write(home.path().join("mended"), "").expect("written");
    home.ok(["restart", "a"]);
    assert_eq!(text(&home.ended("a"), "status"), "finished");

    let codes = ["run", "--wait", "--retries", "9", "--backoff", "1ms", "--id", "b", "--park-after", "2"];
    home.nodejobs(codes.iter().chain(&["--", "false"]));
    let record = home.record("b");
    assert_eq!(record["attempt"], 2);
    assert!(
        text(&record, "detail").starts_with("parked: 2 attempts in a row ended with exit code 1"),
        "{record}"
    );
}

#[test]
fn a_stop_ends_the_tries_and_what_could_not_be_executed_is_not_tried_again() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--retries", "3", "--backoff", "1h", "--", "false"]);
    let record = home.has_status("a", "restarting");
    assert!(text(&record, "detail").starts_with("attempt 1 failed, exit code 1; starts at"), "{record}");
    home.ok(["stop", "a"]);
    assert_eq!(text(&home.ended("a"), "status"), "stopped");
    home.nodejobs(["run", "--id", "b", "--retries", "3", "--wait", "--", "/no/such/program"]);
    assert_eq!(
        (text(&home.record("b"), "status"), &home.record("b")["attempt"]),
        ("failed_start", &1.into())
    );
    let timeout =
        ["run", "--id", "c", "--retries", "1", "--backoff", "1ms", "--timeout", "50ms", "--wait", "--"];
    assert_eq!(home.nodejobs(timeout.iter().chain(&["sleep", "1000"])).code, 124);
    assert_eq!(home.record("c")["attempt"], 2);
    for bad in [
        &["--retries", "2", "--restart", "always"][..],
        &["--retries", "x"],
        &["--backoff", "1s"],
        &["--retries", "2", "--backoff", "5s..1s"],
        &["--retries", "2", "--park-after", "1"],
        &["--window", "1h"],
        &["--unique", ""],
        &["--unique", "a", "--label", "unique=b"],
    ] {
        let refused = home.nodejobs(["run", "--id", "bad"].iter().chain(bad).chain(&["--", "true"]));
        assert_eq!(refused.code, 2, "{refused:?}");
    }
    assert_eq!(home.nodejobs(["status", "bad"]).code, 3);
}

#[test]
fn of_twenty_that_race_one_is_submitted_and_is_the_answer_to_all() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let arguments = ["-o", "json", "run", "--unique", "the work", "--", "sleep", "1000"];
            let mut command = home.command(arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started")
        })
        .collect();
    let mut answers = Vec::new();
    for racer in racers {
        let output = racer.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
        answers.push(serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("a record"));
    }
    assert_eq!(home.records().len(), 1);
    assert!(answers.iter().all(|answer| answer["self_id"] == answers[0]["self_id"]), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["existing"] == true).count(), 19);
    let id = text(&answers[0], "self_id").to_owned();
    assert_eq!(home.ok(["ls", "--label", "unique=the work", "-q"]), id);

    // The next daemon knows it too, and once it has ended it counts no more, except within the window.
    kill(home.daemon_pid());
    let said = home.nodejobs(["run", "--unique", "the work", "--", "true"]);
    assert_eq!((said.text(), said.code), (id.clone(), 0));
    assert!(said.stderr.contains("is there already, and running"), "{said:?}");
    home.ok(["stop", "--force", &id]);
    assert_eq!(home.ok(["run", "--unique", "the work", "--window", "1h", "--", "true"]), id);
    let second = home.ok(["run", "--unique", "the work", "--", "true"]);
    assert_ne!(second, id);
    eventually("it has ended", || (text(&home.record(&second), "status") == "finished").then_some(()));
    assert_eq!(
        home.ok(["run", "--unique", "the work", "--window", "1h", "--", "true"]),
        second,
        "the newest one"
    );
    assert_eq!(
        home.nodejobs(["run", "--unique", "other", "--id", &second, "--", "true"]).code,
        0,
        "its next attempt"
    );
}
