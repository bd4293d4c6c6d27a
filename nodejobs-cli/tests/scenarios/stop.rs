//! Ending jobs, with everything they started.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, eventually, is_alive, kill, lines, name_of, pid_of, signal, text};

/// Far more than an obedient job takes, and far less than its grace.
const SOON: Duration = Duration::from_secs(3);

/// A job that asks who may stop it: it ends at the second SIGTERM, never at the first.
const STUBBORN_ONCE: &str = "trap 'echo asked >> asked; [ $(wc -l < asked) -lt 2 ] || exit 0' TERM; touch ready; while :; do sleep 0.02; done";

fn stopping(home: &Home, arguments: &[&str]) -> Child {
    let mut command = home.command(["stop"].iter().chain(arguments));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
}

/// Waits until a file is there by which a script says that it is ready.
fn ready(home: &Home, name: &str) {
    eventually(&format!("{name} is there"), || home.path().join(name).exists().then_some(()));
}

fn has_status(home: &Home, id: &str, status: &str) -> Value {
    eventually(&format!("{id} is {status}"), || {
        let record = home.record(id);
        (text(&record, "status") == status).then_some(record)
    })
}

/// N16
#[test]
fn an_obedient_job_is_stopped_at_once_whatever_it_has_written() {
    let home = Home::new();
    for words in ["", "echo trouble >&2; "] {
        let id = home.run_script(&format!("{words}exec sleep 1000"));
        let pid = pid_of(&home.running(&id)["last_pid"]);
        eventually("it sleeps", || (name_of(pid) == "sleep").then_some(()));
        let before = Instant::now();
        let said = home.nodejobs(["stop", &id]);
        assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.text().starts_with(&format!("{id}: stopped by SIGTERM")), "{said:?}");
        assert!(!is_alive(pid));
        let record = home.record(&id);
        assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
        assert_eq!((&record["reason"], &record["detail"]), (&Value::Null, &Value::Null), "{record}");
        assert_eq!(home.nodejobs(["wait", &id]).code, 128 + 15);
    }
}

/// N17, G4
#[test]
fn a_tree_that_ignores_the_signal_is_killed_after_the_grace() {
    let home = Home::new();
    let id = home.run_script("trap '' TERM; for x in 1 2 3 4; do sleep 1000 & done; wait");
    let sleepers = || home.job_processes().iter().filter(|(_, name)| name == "sleep").count();
    eventually("the tree is complete", || (sleepers() == 4).then_some(()));
    let before = Instant::now();
    home.ok(["stop", "--grace", "1s", &id]);
    let took = before.elapsed();
    assert_eq!(home.job_processes(), []);
    assert!((Duration::from_secs(1)..Duration::from_secs(1) + SOON).contains(&took), "{took:?}");
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &9.into()), "{record}");
    let detail = text(&record, "detail");
    assert!(detail.starts_with("killed") && detail.matches("(sleep)").count() == 4, "{detail}");
}

/// N19
#[test]
fn what_does_not_run_is_not_stopped() {
    let home = Home::new();
    let said = home.nodejobs(["stop", "unknown"]);
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("unknown"), "{said:?}");
    let submit = |id: &str, command: &[&str]| {
        home.ok(["run", "--id", id, "--"].iter().chain(command));
        home.ended(id)
    };
    for before in [
        submit("finished", &["true"]),
        submit("failed", &["false"]),
        submit("failed_start", &["no-such-bin"]),
    ] {
        let id = text(&before, "self_id");
        assert_eq!(text(&before, "status"), id);
        for options in [&["stop", id][..], &["stop", "--force", id]] {
            let said = home.nodejobs(options);
            assert_eq!(said.code, 0, "{said:?}");
            assert!(said.stderr.contains("already ended"), "{said:?}");
            assert_eq!(home.record(id), before);
        }
    }
    let said = home.nodejobs(["stop", "--all"]);
    assert_eq!((said.code, said.text().as_str()), (0, ""), "{said:?}");
}

/// C12
#[test]
fn force_kills_at_once() {
    let home = Home::new();
    let id = home.run_script("trap '' TERM; touch ready; while :; do sleep 0.02; done");
    ready(&home, "ready");
    let before = Instant::now();
    home.ok(["stop", "--force", &id]);
    assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &9.into()), "{record}");
    assert_eq!(home.job_processes(), []);
}

/// G5
#[test]
fn the_signal_that_asks_can_be_chosen() {
    let home = Home::new();
    let id = home.run_script(
        "trap 'echo term; exit' TERM; trap 'echo int; exit 3' INT; touch ready; while :; do sleep 0.02; done",
    );
    ready(&home, "ready");
    home.ok(["stop", "--signal", "INT", &id]);
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("stopped", &3.into()), "{record}");
    assert_eq!(home.stdout(&id), b"int\n");
}

/// P6
#[test]
fn all_jobs_share_one_grace() {
    let home = Home::new();
    for number in 0..10 {
        let ignoring = if number % 2 == 0 { "trap '' TERM; " } else { "" };
        home.run_script(&format!("{ignoring}touch ready-{number}; exec sleep 1000"));
    }
    (0..10).for_each(|number| ready(&home, &format!("ready-{number}")));
    let before = Instant::now();
    let said = home.ok(["stop", "--all", "--grace", "1s"]);
    let took = before.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(1) + SOON).contains(&took), "{took:?}");
    assert_eq!(said.lines().count(), 10, "{said}");
    assert_eq!(home.job_processes(), []);
    let records = home.records();
    let with = |signal: i32| records.iter().filter(|record| record["signal"] == signal).count();
    assert_eq!((with(9), with(15)), (5, 5), "{said}");
    assert!(records.iter().all(|record| text(record, "status") == "stopped"), "{said}");
}

/// With many of them, too, the grace is what takes its time.
#[test]
fn two_hundred_of_which_half_ignore_the_signal_take_the_grace_and_half_a_second() {
    let home = Home::new();
    // One command starts them all, in two jobs a turn: one obeys.
    let script = "for n in $(seq 100); do
        $NODEJOBS run -- sleep 1000 && $NODEJOBS run --shell -- \"trap '' TERM; echo ready; while :; do sleep 1000; done\"
    done";
    let said = crate::support::said(&mut home.shell(script));
    let ids: Vec<String> = said.text().lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 200, "{said:?}");
    eventually("the tough ones are ready", || {
        ids.iter().skip(1).step_by(2).all(|id| home.stdout(id) == b"ready\n").then_some(())
    });
    let before = Instant::now();
    let said = home.nodejobs(["stop", "--all", "--grace", "2s"]);
    let took = before.elapsed();
    assert_eq!(said.code, 0, "{said:?}");
    assert!((Duration::from_secs(2)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    let told = |words: &str| said.text().lines().filter(|line| line.contains(words)).count();
    assert_eq!((told("stopped by SIGTERM"), told("stopped by SIGKILL")), (100, 100), "{said:?}");
    eventually("nobody is left", || home.job_processes().is_empty().then_some(()));
}

/// P5
#[test]
fn a_stop_in_its_grace_keeps_nobody_waiting() {
    let home = Home::new();
    let id = home.run_script("trap '' TERM; touch ready; while :; do sleep 0.02; done");
    ready(&home, "ready");
    let mut slow = stopping(&home, &["--grace", "1h", &id]);
    has_status(&home, &id, "stopping");
    for _ in 0..20 {
        let before = Instant::now();
        assert_eq!(text(&home.record(&id), "status"), "stopping");
        assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
    }
    assert_eq!(home.nodejobs(["run", "--wait", "--", "true"]).code, 0, "others go on");
    assert!(slow.try_wait().expect("looked").is_none(), "it waits for its grace");
    // Whoever has less patience shortens it for both.
    home.ok(["stop", "--force", &id]);
    assert!(slow.wait().expect("ended").success());
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &9.into()), "{record}");
}

#[test]
fn whoever_left_the_session_is_stopped_as_well() {
    let home = Home::new();
    let id = home
        .run_script("setsid sh -c 'setsid sleep 1000 & echo $! > pid.new; mv pid.new pid'; exec sleep 1000");
    ready(&home, "pid");
    let far: u32 = lines(&home.path().join("pid")).concat().parse().expect("a pid");
    eventually("it sleeps", || (name_of(far) == "sleep").then_some(()));
    home.ok(["stop", &id]);
    assert!(!is_alive(far));
    assert_eq!(home.job_processes(), []);
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
    assert!(text(&record, "detail").contains(&format!("{far} (sleep)")), "{record}");
}

#[test]
fn a_suspended_job_is_stopped_like_any_other() {
    let home = Home::new();
    let id = home.ok(["run", "--", "sleep", "1000"]);
    let pid = pid_of(&home.running(&id)["last_pid"]);
    signal(pid, Signal::STOP);
    eventually("it is suspended", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.contains(") T ").then_some(())
    });
    let before = Instant::now();
    home.ok(["stop", &id]);
    assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
}

#[test]
fn one_of_two_that_is_unknown_is_told_and_the_other_is_stopped() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    let said = home.nodejobs(["stop", "a", "unknown"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.text().starts_with("a: stopped") && said.stderr.contains("unknown"), "{said:?}");
    assert_eq!(text(&home.record("a"), "status"), "stopped");
}

#[test]
fn a_stop_outlives_the_daemon_that_was_asked() {
    let home = Home::new();
    let id = home.run_script(STUBBORN_ONCE);
    ready(&home, "ready");
    let mut asked = stopping(&home, &["--grace", "1h", &id]);
    ready(&home, "asked");
    // Nobody repeats the stop: it is the next daemon's own.
    asked.kill().expect("killed");
    asked.wait().expect("ended");
    kill(home.daemon_pid());
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("stopped", &0.into()), "{record}");
    assert_eq!(home.job_processes(), []);
}

#[test]
fn whoever_waits_for_a_stop_outlives_the_daemon_too() {
    let home = Home::new();
    let id = home.run_script(STUBBORN_ONCE);
    ready(&home, "ready");
    let mut asked = stopping(&home, &["--grace", "1h", &id]);
    ready(&home, "asked");
    kill(home.daemon_pid());
    assert!(asked.wait().expect("ended").success());
    let record = home.record(&id);
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("stopped", &0.into()), "{record}");
    assert_eq!(home.job_processes(), []);
}

#[test]
fn jobs_of_dead_keepers_are_stopped_with_their_trees() {
    let home = Home::new();
    let [kept, orphaned] = [0, 1]
        .map(|number| home.run_script(&format!("setsid sleep 1000 & touch ready-{number}; exec sleep 1000")));
    (0..2).for_each(|number| ready(&home, &format!("ready-{number}")));
    eventually("all sleep", || {
        (home.job_processes().iter().filter(|(_, name)| name == "sleep").count() == 4).then_some(())
    });
    let (guard, worker) = home.keeper();
    kill(worker);
    home.ok(["stop", &kept]);
    let record = home.record(&kept);
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
    kill(guard);
    home.ok(["stop", &orphaned]);
    assert_eq!(text(&home.record(&orphaned), "status"), "stopped");
    assert_eq!(home.job_processes(), []);
}
