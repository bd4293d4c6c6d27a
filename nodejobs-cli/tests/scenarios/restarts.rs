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
        // The delay is measured on another clock than the times in the records are.
        assert!(gap >= 190, "{gap} ms");
    }
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
        &["--restart-delay", "50ms", "--max-restarts", "8"],
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
    ] {
        let refused = home.nodejobs(["run"].iter().chain(bad).chain(&["--", "true"]));
        assert_eq!(refused.code, 2, "{refused:?}");
    }
    assert!(!home.data_dir().exists());
}
