//! How a job is ended: by its time, by its own signal and grace, with its children or without them.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, eventually, is_alive, kill, lines, name_of, pid_of, signal, text};

/// Far more than an obedient job takes, and far less than a long grace.
const SOON: Duration = Duration::from_secs(3);

#[track_caller]
fn timed_out(record: &Value) {
    assert_eq!((text(record, "status"), text(record, "reason")), ("failed", "timeout"), "{record}");
}

/// P3
#[test]
fn a_job_that_takes_too_long_has_failed_with_what_it_had_written() {
    let home = Home::new();
    let before = Instant::now();
    let said = home.nodejobs(["run", "--id", "a", "--timeout", "300ms", "--wait", "echo begun; sleep 1000"]);
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(said.code, 124, "{said:?}");
    let record = home.record("a");
    timed_out(&record);
    assert!(record["runtime_ms"].as_u64().is_some_and(|runtime| runtime >= 300), "{record}");
    assert_eq!(home.stdout("a"), b"begun\n");
    assert_eq!(home.job_processes(), []);
    assert_eq!(home.nodejobs(["wait", "a"]).code, 124);
    // Whatever it makes of the signal.
    let said = home.nodejobs([
        "run",
        "--id",
        "b",
        "--timeout",
        "200ms",
        "--wait",
        "trap 'exit 0' TERM; sleep 1000 & wait",
    ]);
    assert_eq!(said.code, 124, "{said:?}");
    timed_out(&home.record("b"));
    assert_eq!(home.record("b")["exit_code"], 0);
}

#[test]
fn a_tree_that_ignores_the_signal_is_killed_when_its_grace_is_over_too() {
    let home = Home::new();
    let script = "trap '' TERM; sleep 1000 & setsid sleep 1000 & while :; do sleep 0.05; done";
    let said =
        home.nodejobs(["run", "--id", "a", "--timeout", "300ms", "--grace", "300ms", "--wait", script]);
    assert_eq!(said.code, 124, "{said:?}");
    let record = home.record("a");
    timed_out(&record);
    assert_eq!(record["signal"], 9, "{record}");
    assert!(record["runtime_ms"].as_u64().is_some_and(|runtime| runtime >= 600), "{record}");
    assert!(text(&record, "detail").contains("killed"), "{record}");
    assert_eq!(home.job_processes(), []);
}

#[test]
fn a_job_that_ends_in_time_is_judged_by_its_exit() {
    let home = Home::new();
    let said =
        home.nodejobs(["run", "--id", "a", "--timeout", "400ms", "--wait", "--", "sh", "-c", "exit 3"]);
    assert_eq!(said.code, 3, "{said:?}");
    // Nothing comes later: another job's time passes meanwhile.
    home.nodejobs(["run", "--timeout", "500ms", "--wait", "--", "sleep", "1000"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "exit"), "{record}");
    // Each attempt has its own time.
    home.ok(["restart", "a"]);
    assert_eq!(text(&home.ended("a"), "reason"), "exit");
}

#[test]
fn a_timeout_outlives_the_daemon() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--timeout", "600ms", "--", "sleep", "1000"]);
    home.running("a");
    kill(home.daemon_pid());
    let record = home.ended("a");
    timed_out(&record);
    assert!(record["runtime_ms"].as_u64().is_some_and(|runtime| runtime >= 600), "{record}");
    // Of one whose time is up while there is no daemon.
    home.ok(["run", "--id", "b", "--timeout", "300ms", "--", "sleep", "1000"]);
    let started = crate::support::millis(&home.running("b"), "started_at");
    kill(home.daemon_pid());
    eventually("its time is up", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        (now.as_millis() > u128::try_from(started).expect("a time") + 350).then_some(())
    });
    timed_out(&home.ended("b"));
    assert_eq!(home.job_processes(), []);
}

#[test]
fn a_timeout_that_has_begun_is_carried_on_by_the_next_daemon() {
    let home = Home::new();
    // It obeys the second signal, which only the next daemon sends.
    let script =
        "trap 'echo >> asked; [ $(wc -l < asked) -lt 2 ] || exit 0' TERM; while :; do sleep 0.02; done";
    home.ok(["run", "--id", "a", "--timeout", "200ms", "--grace", "1h", script]);
    home.ready("asked");
    kill(home.daemon_pid());
    let record = home.ended("a");
    timed_out(&record);
    assert_eq!(record["exit_code"], 0, "{record}");
    assert_eq!(lines(&home.path().join("asked")).len(), 2);
}

#[test]
fn who_stops_a_job_whose_time_is_up_has_stopped_it() {
    let home = Home::new();
    let script = "trap 'touch asked' TERM; while :; do sleep 0.02; done";
    home.ok(["run", "--id", "a", "--timeout", "200ms", "--grace", "1h", script]);
    home.ready("asked");
    home.ok(["stop", "--force", "a"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["reason"]), ("stopped", &Value::Null), "{record}");
}

/// G5
#[test]
fn a_job_is_asked_by_its_own_signal_unless_the_stop_has_another() {
    let home = Home::new();
    let script = "trap 'echo quit > mark; exit 0' QUIT; trap 'echo term > mark; exit 0' TERM; \
                  trap 'echo usr1 > mark; exit 0' USR1; touch ready; while :; do sleep 0.02; done";
    let mark = home.path().join("mark");
    let run = |options: &[&str]| {
        let _ = std::fs::remove_file(home.path().join("ready"));
        let _ = std::fs::remove_file(&mark);
        home.ok(["run", "--id", "a"].iter().chain(options).chain(&["--shell", "--", script]));
        home.ready("ready");
    };
    run(&["--stop-signal", "QUIT"]);
    home.ok(["stop", "a"]);
    assert_eq!(lines(&mark), ["quit"]);
    run(&["--stop-signal", "SIGQUIT"]);
    home.ok(["stop", "--signal", "USR1", "a"]);
    assert_eq!(lines(&mark), ["usr1"]);
    run(&["--stop-signal", "10", "--timeout", "300ms"]);
    assert_eq!(home.nodejobs(["wait", "a"]).code, 124);
    assert_eq!(lines(&mark), ["usr1"], "also when its time is up");
    run(&[]);
    home.ok(["restart", "--signal", "QUIT", "a"]);
    assert_eq!(lines(&mark), ["quit"]);
}

#[test]
fn a_job_has_its_own_grace_unless_the_stop_has_another() {
    let home = Home::new();
    let script = "trap '' TERM; rm -f ready; touch ready; while :; do sleep 0.02; done";
    let stop = |own: &str, options: &[&str]| {
        let _ = std::fs::remove_file(home.path().join("ready"));
        home.ok(["run", "--id", "a", "--grace", own, "--shell", "--", script]);
        home.ready("ready");
        let before = Instant::now();
        home.ok(["stop", "a"].iter().chain(options));
        let record = home.record("a");
        assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &9.into()), "{record}");
        before.elapsed()
    };
    let own = stop("400ms", &[]);
    assert!((Duration::from_millis(400)..Duration::from_millis(400) + SOON).contains(&own), "{own:?}");
    let shorter = stop("1h", &["--grace", "200ms"]);
    assert!((Duration::from_millis(200)..SOON).contains(&shorter), "{shorter:?}");
    assert!(stop("0ms", &[]) < SOON);
    assert!(stop("1h", &["--force"]) < SOON);
}

#[test]
fn children_are_kept_if_that_is_asked_for_and_named() {
    let home = Home::new();
    let script = "sleep 1000 & echo $! > child.new; setsid sleep 1000 & mv child.new child";
    home.ok(["run", "--id", "a", "--keep-children", "--wait", script]);
    let child: u32 = lines(&home.path().join("child")).concat().parse().expect("a pid");
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("finished", &0.into()), "{record}");
    let detail = text(&record, "detail");
    assert!(detail.starts_with("left running: ") && detail.contains(&format!("{child} (")), "{record}");
    assert!(is_alive(child));
    // Also when the daemon and the next attempt come and go.
    kill(home.daemon_pid());
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    assert!(is_alive(child));
    assert_eq!(home.job_processes().len(), 2, "{:?}", home.job_processes());
    home.job_processes().iter().for_each(|(pid, _)| kill(*pid));
}

#[test]
fn kept_children_end_with_a_job_that_is_ended() {
    let home = Home::new();
    let script = "sleep 1000 & setsid sleep 1000 & touch ready; wait; sleep 1000";
    for (ending, status) in [("stop", "stopped"), ("timeout", "failed")] {
        let _ = std::fs::remove_file(home.path().join("ready"));
        let timeout = if ending == "timeout" { "400ms" } else { "1h" };
        home.ok(["run", "--id", "a", "--keep-children", "--timeout", timeout, script]);
        home.ready("ready");
        if ending == "stop" {
            home.ok(["stop", "a"]);
        }
        assert_eq!(text(&home.ended("a"), "status"), status);
        assert_eq!(home.job_processes(), [], "{ending}");
    }
    // And without the option whoever is left is ended.
    home.ok(["run", "--id", "b", "--wait", "sleep 1000 & sleep 1000 & exit 0"]);
    assert_eq!(home.job_processes(), []);
    assert!(text(&home.record("b"), "detail").contains("also ended"), "{}", home.record("b"));
    assert!(!is_alive(pid_of(&home.record("b")["last_pid"])));
}

/// Leaves the session, clears its environment, and loses its parent: nothing ties it to the job but its trace.
const ESCAPES: &str = "env -i setsid sh -c '(sleep 1000 & echo $! >> escaped)'";

fn escaped(home: &Home, count: usize) -> Vec<u32> {
    eventually("they have escaped", || {
        let pids: Vec<u32> =
            lines(&home.path().join("escaped")).iter().filter_map(|line| line.parse().ok()).collect();
        // It may have been ended already.
        let is_asleep = pids.last().is_some_and(|pid| name_of(*pid) == "sleep" || !is_alive(*pid));
        (pids.len() == count && is_asleep).then_some(pids)
    })
}

#[test]
fn who_escapes_by_every_means_is_ended_all_the_same() {
    let home = Home::new();
    // By a stop, and after a normal end, under a living keeper.
    let id = home.run_script(&format!("{ESCAPES}; exec sleep 1000"));
    let other = home.run_script("exec sleep 1000");
    let first = escaped(&home, 1)[0];
    assert!(home.ok(["stop", &id]).contains(&format!("{first} (sleep)")));
    assert!(!is_alive(first));
    let id = home.run_script(&format!("{ESCAPES}; exit 3"));
    let record = home.ended(&id);
    // It may not have come to executing `sleep`.
    let second = escaped(&home, 2)[1];
    assert!(text(&record, "detail").contains(&format!("also ended: {second} (")), "{record}");
    assert!(!is_alive(second));
    // And once the keeper that had adopted it is gone, and it is anybody's child.
    let id = home.run_script(&format!("{ESCAPES}; exec sleep 1000"));
    let third = escaped(&home, 3)[2];
    let (guard, worker) = home.keeper();
    [guard, worker].into_iter().for_each(|pid| signal(pid, Signal::KILL));
    [guard, worker].into_iter().for_each(kill);
    assert!(home.ok(["stop", &id]).contains(&format!("{third} (sleep)")));
    assert!(!is_alive(third));
    // Nobody else's job was touched.
    assert_eq!(text(&home.record(&other), "status"), "running");
}

#[test]
fn who_escapes_may_stay_if_children_may() {
    let home = Home::new();
    let said = home.ok(["run", "--keep-children", "--shell", "--", ESCAPES]);
    let record = home.ended(&said);
    let pid = escaped(&home, 1)[0];
    assert!(text(&record, "detail").contains(&format!("left running: {pid} (")), "{record}");
    assert!(is_alive(pid));
    kill(pid);
}
