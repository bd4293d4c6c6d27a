//! Jobs that are halted, and go on.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, eventually, is_alive, kill, lines, pid_of, signal, text};

fn all_halted(home: &Home) {
    eventually("all are halted", || home.is_halted().then_some(()));
}

/// Two processes, one of them in a session of its own, that each append to a file.
const BUSY: &str = "setsid sh -c 'while :; do echo x >> far; sleep 0.01; done' & while :; do echo x >> near; sleep 0.01; done";

fn sizes(home: &Home) -> [usize; 2] {
    ["near", "far"].map(|name| lines(&home.path().join(name)).len())
}

fn grows(home: &Home) {
    let [near, far] = sizes(home);
    eventually("both go on", || {
        let [now_near, now_far] = sizes(home);
        (now_near > near && now_far > far).then_some(())
    });
}

fn busy() -> Home {
    let home = Home::new();
    home.ok(["run", "--id", "a", BUSY]);
    grows(&home);
    home
}

#[test]
fn a_paused_job_makes_no_progress_and_goes_on_when_it_is_resumed() {
    let home = busy();
    assert_eq!(home.ok(["pause", "a"]), "a: paused");
    assert_eq!(text(&home.record("a"), "status"), "paused");
    all_halted(&home);
    let before = sizes(&home);
    // As many steps as it takes another job to take some.
    home.ok(["run", "--wait", "for n in 1 2 3 4 5 6 7 8; do sleep 0.01; done"]);
    assert_eq!(sizes(&home), before);
    assert_eq!(home.ok(["pause", "a"]), "a: paused", "asked again it is no other");
    assert_eq!(home.ok(["resume", "a"]), "a: running");
    assert_eq!(text(&home.record("a"), "status"), "running");
    grows(&home);
    // What has been halted otherwise goes on as well, and nothing is harmed.
    signal(pid_of(&home.record("a")["last_pid"]), Signal::STOP);
    home.ok(["resume", "a"]);
    grows(&home);
}

#[test]
fn a_paused_job_is_stopped_like_any_other() {
    let home = busy();
    home.ok(["pause", "a"]);
    all_halted(&home);
    home.ok(["stop", "a"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
    assert_eq!(home.job_processes(), []);
}

#[test]
fn a_paused_job_is_restarted_and_its_next_attempt_runs() {
    let home = busy();
    home.ok(["pause", "a"]);
    all_halted(&home);
    home.ok(["restart", "a"]);
    let record = home.running("a");
    assert_eq!((text(&record, "status"), &record["attempt"]), ("running", &2.into()), "{record}");
    grows(&home);
}

#[test]
fn a_paused_job_is_halted_whatever_becomes_of_the_daemon() {
    let home = busy();
    home.ok(["pause", "a"]);
    all_halted(&home);
    kill(home.daemon_pid());
    assert_eq!(text(&home.record("a"), "status"), "paused");
    all_halted(&home);
    home.ok(["resume", "a"]);
    grows(&home);
    // A daemon that was killed between its word and the signal: the next one keeps the word.
    home.ok(["pause", "a"]);
    all_halted(&home);
    kill(home.daemon_pid());
    home.job_processes().iter().for_each(|(pid, _)| signal(*pid, Signal::CONT));
    grows(&home);
    home.ok(["ls"]);
    all_halted(&home);
}

#[test]
fn the_time_of_a_paused_job_goes_on() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--timeout", "500ms", "--", "sleep", "1000"]);
    home.running("a");
    home.ok(["pause", "a"]);
    assert_eq!(home.nodejobs(["wait", "a"]).code, 124);
    assert_eq!(home.job_processes(), []);
}

#[test]
fn a_paused_job_that_somebody_kills_has_ended() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    let pid = pid_of(&home.running("a")["last_pid"]);
    home.ok(["pause", "a"]);
    signal(pid, Signal::KILL);
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "signal"), "{record}");
    assert_eq!(record["signal"], 9);
    assert!(!is_alive(pid));
}

#[test]
fn only_what_runs_is_paused_and_resumed() {
    let home = Home::new();
    home.ok(["run", "--id", "over", "--wait", "--", "true"]);
    home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "runs", "--", "sleep", "1000"]);
    home.running("runs");
    for command in ["pause", "resume"] {
        for (id, status) in [("over", "finished"), ("waits", "queued")] {
            let said = home.nodejobs([command, id]);
            assert_eq!(said.code, 4, "{said:?}");
            assert!(said.stderr.contains(&format!("'{id}' is {status}")), "{said:?}");
        }
        assert_eq!(home.nodejobs([command, "nobody"]).code, 3);
        let said = home.nodejobs(["-o", "json", command, "runs", "over"]);
        assert_eq!((said.code, said.json().as_array().map(Vec::len)), (6, Some(2)), "{said:?}");
        let expected = if command == "pause" { "paused" } else { "running" };
        assert_eq!(said.json()[0]["record"]["status"], expected);
        assert_eq!(said.json()[1]["error"]["kind"], "conflict");
    }
    assert_eq!(home.record("over")["attempt"], Value::from(1));
    // One that is being stopped is not kept from it.
    home.ok([
        "run",
        "--id",
        "slow",
        "--grace",
        "1h",
        "trap 'touch asked' TERM; while :; do sleep 0.02; done",
    ]);
    home.running("slow");
    let mut stop =
        home.command(["stop", "slow"]).stdout(std::process::Stdio::null()).spawn().expect("started");
    home.has_status("slow", "stopping");
    assert_eq!(home.nodejobs(["pause", "slow"]).code, 4);
    home.ok(["stop", "--force", "slow"]);
    assert!(stop.wait().expect("ended").success());
}

#[test]
fn a_job_that_is_being_started_is_paused_as_soon_as_it_runs() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    let keeper = home.halt_keeper();
    home.ok(["run", "--id", "a", "--", "sleep", "60"]);
    home.has_status("a", "starting");
    let mut pause = home.command(["pause", "a"]).stdout(Stdio::null()).spawn().expect("started");
    let waits = (0..10).all(|_| {
        home.has_status("a", "starting");
        pause.try_wait().expect("asked").is_none()
    });
    keeper.into_iter().for_each(|pid| signal(pid, Signal::CONT));
    assert!(pause.wait().expect("waited for").success() && waits, "it waits for the start");
    home.has_status("a", "paused");
    home.ok(["stop", "a"]);
}
