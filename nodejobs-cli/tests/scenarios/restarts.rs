//! Jobs that are started again when they have ended by themselves (scenarios C1 to C3).

use serde_json::Value;

use crate::support::{Home, eventually, kill, lines, millis};

fn attempts(home: &Home, id: &str) -> Vec<Value> {
    let said = home.nodejobs(["history", id, "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.json().as_array().expect("attempts").clone()
}

fn run(home: &Home, id: &str, when: &str, more: &[&str], script: &str) {
    let arguments = ["run", "--id", id, "--restart", when].into_iter().chain(more.iter().copied());
    assert_eq!(home.ok(arguments.chain(["--", "sh", "-c", script])), id);
}

#[test]
fn a_job_that_fails_is_started_again_as_often_as_it_may_be() {
    let home = Home::new();
    run(
        &home,
        "a",
        "on-failure",
        &["--max-restarts", "3", "--restart-delay", "200ms"],
        "echo run >> ran; exit 1",
    );
    eventually("it is restarting", || (home.record("a")["status"] == "restarting").then_some(()));
    let waited = home.nodejobs(["wait", "a"]);
    assert_eq!(waited.code, 1, "whoever waits hears of the last attempt: {waited:?}");
    assert_eq!(lines(&home.path().join("ran")).len(), 4);
    let record = home.record("a");
    assert_eq!(
        (&record["status"], &record["restarts"], &record["attempt"]),
        (&"failed".into(), &3.into(), &4.into())
    );
    let attempts = attempts(&home, "a");
    assert!(attempts.iter().all(|attempt| attempt["status"] == "failed" && attempt["exit_code"] == 1));
    for pair in attempts.windows(2) {
        let gap = millis(&pair[1], "started_at") - millis(&pair[0], "ended_at");
        // Doubled each time. It is measured on another clock than the times in the records are.
        let least = 190 << (pair[0]["restarts"].as_u64().expect("a number"));
        assert!(gap >= least, "{gap} ms");
    }
}

#[test]
fn a_job_that_fails_again_and_again_is_given_up_also_when_the_daemon_was_killed() {
    let home = Home::new();
    let policy = ["--restart-delay", "20ms", "--give-up-after", "4"];
    run(&home, "a", "always", &policy, "echo run >> ran; test -e hold && sleep 1000; exit 7");
    kill(home.daemon_pid());
    assert_eq!(home.nodejobs(["wait", "a"]).code, 7);
    let record = home.record("a");
    assert_eq!((&record["status"], &record["attempt"]), (&"failed".into(), &4.into()), "{record}");
    assert_eq!(record["detail"], "given up: 4 failures in a row, none after a run of 30s");
    assert_eq!(lines(&home.path().join("ran")).len(), 4);

    // Each of these is healthy, so the row never gets longer than one.
    let policy =
        ["--restart-delay", "1ms", "--give-up-after", "2", "--healthy-after", "0s", "--max-restarts", "5"];
    run(&home, "b", "on-failure", &policy, "exit 1");
    assert_eq!(home.ended("b")["attempt"], 6);
}

#[test]
fn the_time_of_the_next_try_is_shown() {
    let home = Home::new();
    run(&home, "a", "on-failure", &["--restart-delay", "1h"], "exit 1");
    let waiting = eventually("it waits", || {
        let record = home.record("a");
        (record["status"] == "restarting").then_some(record)
    });
    let delay = millis(&waiting, "next_start_at") - millis(&waiting, "created_at");
    assert!((3_600_000..=3_960_000).contains(&delay), "{delay} ms");
    let shown = home.ok(["status", "a"]);
    let line = shown.lines().find(|line| line.starts_with("next start:")).expect("the line");
    assert!(line.contains("in 1h") || line.contains("in 59m"), "{line}");
    home.ok(["stop", "a"]);
    assert_eq!(home.ended("a")["next_start_at"], Value::Null);
}

#[test]
fn a_stop_between_two_attempts_ends_it() {
    let home = Home::new();
    run(&home, "a", "always", &["--restart-delay", "1h"], "echo run >> ran");
    eventually("it is restarting", || (home.record("a")["status"] == "restarting").then_some(()));
    assert!(home.record("a")["detail"].as_str().expect("why").starts_with("attempt 1 finished, exit code 0"));
    home.ok(["stop", "a"]);
    let statuses: Vec<_> =
        attempts(&home, "a").into_iter().map(|attempt| attempt["status"].clone()).collect();
    assert_eq!(statuses, ["finished", "stopped"]);
    assert_eq!(lines(&home.path().join("ran")).len(), 1);
}

#[test]
fn restarts_go_on_under_daemons_that_are_killed() {
    let home = Home::new();
    run(
        &home,
        "a",
        "on-failure",
        &["--restart-delay", "50ms", "--restart-delay-max", "50ms", "--max-restarts", "8"],
        "echo run >> ran; exit 3",
    );
    for _ in 0..4 {
        kill(home.daemon_pid());
        home.record("a");
    }
    assert_eq!(home.nodejobs(["wait", "a"]).code, 3);
    assert_eq!(home.record("a")["restarts"], 8);
    assert_eq!(lines(&home.path().join("ran")).len(), 9, "each attempt was executed once");
}

#[test]
fn a_restart_policy_needs_its_options_to_make_sense() {
    let home = Home::new();
    for bad in [
        &["--restart", "sometimes"][..],
        &["--max-restarts", "3"],
        &["--restart-delay", "5s"],
        &["--restart", "always", "--max-restarts", "-1"],
        &["--restart", "always", "--give-up-after", "0"],
        &["--restart", "always", "--give-up-after", "often"],
        &["--restart", "always", "--restart-delay-max", "5"],
        &["--healthy-after", "5s"],
    ] {
        let refused = home.nodejobs(["run"].iter().chain(bad).chain(&["--", "true"]));
        assert_eq!(refused.code, 2, "{refused:?}");
    }
    assert!(!home.data_dir().exists());
}
