//! Everything that may be killed is killed, and nothing is lost.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::{
    Cue, Home, NODEJOBS, eventually, happens, is_alive, kill, lines, millis, pid_of, said, signal, text,
};

/// Jobs at a time.
const JOBS: usize = 20;
/// How far from a job's own last word its recorded end may be, in milliseconds.
const TOLERANCE_MS: i64 = 200;

/// Starts jobs that leave a line of evidence each time they are executed, and one when they end.
fn start_jobs(home: &Home) -> Vec<String> {
    let evidence = home.path().join("evidence");
    let script =
        "echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence; sleep 3; echo $JOB_ID $(date +%s%3N) >> ends; exit 7";
    let ids: Vec<String> = (0..JOBS).map(|_| home.run_script(script)).collect();
    eventually("all jobs have left evidence", || (lines(&evidence).len() == JOBS).then_some(()));
    ids
}

/// When each job said that it ends.
fn ends(home: &Home) -> BTreeMap<String, i64> {
    let words = |line: &String| {
        let (id, at) = line.split_once(' ')?;
        Some((id.to_owned(), at.parse().ok()?))
    };
    lines(&home.path().join("ends")).iter().filter_map(words).collect()
}

/// Waits, without a command that would start a daemon, until all jobs have said that they end.
fn all_have_ended(home: &Home) {
    eventually("all jobs have ended", || (ends(home).len() == JOBS).then_some(()));
    eventually("no process is left", || home.job_processes().is_empty().then_some(()));
}

fn were_executed_once(home: &Home, ids: &[String]) {
    let mut evidence = lines(&home.path().join("evidence"));
    evidence.sort();
    let mut expected: Vec<String> = ids.iter().map(|id| format!("{id} 1")).collect();
    expected.sort();
    assert_eq!(evidence, expected, "every job was executed once");
}

fn check_outcomes(home: &Home, ids: &[String]) {
    for id in ids {
        let record = home.ended(id);
        assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
        assert_eq!(record["attempt"], 1, "{record}");
        let runtime = record["runtime_ms"].as_u64().expect("a run time");
        assert!(runtime >= 2_900, "{record}");
        let off = millis(&record, "ended_at") - ends(home)[id];
        assert!((-TOLERANCE_MS..=TOLERANCE_MS).contains(&off), "{off} ms off the true end time: {record}");
    }
    were_executed_once(home, ids);
}

/// A keeper of which something was killed: new jobs go to another one, and it leaves once it has nothing to do.
fn is_replaced(home: &Home, (guard, worker): (u32, u32)) {
    let record = home.ended(&home.run_script("exit 3"));
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &3.into()), "{record}");
    eventually("the old keeper has left", || (!is_alive(guard) && !is_alive(worker)).then_some(()));
    let keepers = eventually("one keeper is left", || {
        let keepers = home.daemon()["keepers"].clone();
        (keepers.as_array().map(Vec::len) == Some(1)).then_some(keepers)
    });
    let (new_guard, new_worker) = home.keeper();
    assert!(new_guard != guard && new_worker != worker, "{keepers}");
    assert_eq!(keepers[0]["draining"], false, "{keepers}");
}

/// Kills several at once.
fn kill_together(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    pids.iter().for_each(|pid| kill(*pid));
}

/// Whether the kernel tells the exit status of a process to everybody who holds a descriptor of it.
pub(crate) fn kernel_tells_exit_statuses() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn jobs_outlive_a_killed_daemon_that_comes_back_while_they_run() {
    let home = Home::new();
    let ids = start_jobs(&home);
    kill(home.daemon_pid());
    check_outcomes(&home, &ids);
}

/// N9
#[test]
fn what_happened_without_a_daemon_is_known_to_the_next_one() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill(home.daemon_pid());
    all_have_ended(&home);
    check_outcomes(&home, &ids);
    assert_eq!(home.keeper(), keeper, "the keeper stays with the next daemon");
}

#[test]
fn jobs_outlive_a_killed_worker() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill(keeper.1);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn jobs_outlive_a_killed_guard() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill(keeper.0);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn new_jobs_run_while_half_a_keeper_still_has_its_own() {
    for half in [0, 1] {
        let home = Home::new();
        let cue = Cue::new(&home, "cue");
        let id = home.run_script(&format!("read code < {}; exit $code", cue.path()));
        home.running(&id);
        let old = home.keeper();
        kill([old.0, old.1][half]);
        for code in [0, 3] {
            let ran = home.nodejobs(["run", "--wait", &format!("exit {code}")]);
            assert_eq!(ran.code, code, "{ran:?}");
        }
        assert_eq!(text(&home.record(&id), "status"), "running");
        cue.say("7");
        let record = home.ended(&id);
        assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
        is_replaced(&home, old);
    }
}

#[test]
fn jobs_outlive_a_worker_and_a_daemon_killed_together() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill_together(&[keeper.1, home.daemon_pid()]);
    all_have_ended(&home);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn jobs_outlive_a_guard_and_a_daemon_killed_together() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill_together(&[keeper.0, home.daemon_pid()]);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn jobs_outlive_a_worker_killed_after_another_daemon_took_over() {
    let home = Home::new();
    let ids = start_jobs(&home);
    kill(home.daemon_pid());
    home.records();
    let keeper = home.keeper();
    kill(keeper.1);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn jobs_outlive_a_worker_where_the_kernel_tells_nothing() {
    let home = Home::new().with("NODEJOBS_DISABLE", "pidfd-info,pidfs");
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill(keeper.1);
    check_outcomes(&home, &ids);
    is_replaced(&home, keeper);
}

/// The outcomes after both processes of the keeper are gone.
fn check_outcomes_without_a_keeper(home: &Home, ids: &[String]) {
    if kernel_tells_exit_statuses() {
        return check_outcomes(home, ids);
    }
    // The end was seen; the exit status only if it was looked at before somebody collected it.
    for id in ids {
        let record = home.ended(id);
        let outcome = (text(&record, "status"), text(&record, "reason"), record["exit_code"].as_i64());
        assert!([("lost", "unknown", None), ("failed", "exit", Some(7))].contains(&outcome), "{record}");
    }
    were_executed_once(home, ids);
}

#[test]
fn jobs_outlive_both_halves_of_their_keeper() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill_together(&[keeper.0, keeper.1]);
    check_outcomes_without_a_keeper(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn jobs_outlive_everything_that_belongs_to_nodejobs() {
    let home = Home::new();
    let ids = start_jobs(&home);
    let keeper = home.keeper();
    kill_together(&[keeper.0, keeper.1, home.daemon_pid()]);
    check_outcomes_without_a_keeper(&home, &ids);
    is_replaced(&home, keeper);
}

#[test]
fn what_nobody_could_see_is_lost_and_never_finished() {
    // Its first daemon runs in a job, so that a keeper collects what is orphaned below it, at once.
    let (outer, home) = (Home::new(), Home::new());
    let data_dir = home.data_dir().display();
    let script = format!("{NODEJOBS} --data-dir {data_dir} daemon start && touch started && exec sleep 1000");
    outer.ok(["run", "--id", "outer", "--shell", "--", &script]);
    eventually("the daemon is started", || outer.path().join("started").exists().then_some(()));
    let cue = Cue::new(&home, "cue");
    let script =
        format!("echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence; read code < {}; exit $code", cue.path());
    let id = home.run_script(&script);
    let pid = pid_of(&home.running(&id)["last_pid"]);
    let (guard, worker) = home.keeper();
    kill_together(&[guard, worker, home.daemon_pid()]);
    cue.say("0");
    eventually("it has ended and was collected", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("lost", "unknown"), "{record}");
    assert_eq!((&record["exit_code"], &record["signal"]), (&Value::Null, &Value::Null), "{record}");
    assert_eq!(home.nodejobs(["wait", &id]).code, 125);
    were_executed_once(&home, std::slice::from_ref(&id));
    is_replaced(&home, (guard, worker));
    assert_eq!(text(&outer.record("outer"), "status"), "running");
}

/// N8
#[test]
fn a_job_outlives_whoever_waits_for_it() {
    let home = Home::new();
    let mut command = home.command(["run", "--id", "a", "--wait", "--", "sleep", "1000"]);
    // With everything that a terminal would take along; it has started the daemon, too.
    let mut caller = command.process_group(0).stdout(Stdio::null()).spawn().expect("started");
    let pid = eventually("the job runs", || {
        let said = home.nodejobs(["-o", "json", "status", "a"]);
        (said.code == 0).then(|| said.json()["last_pid"].as_u64()).flatten()
    });
    let group = Pid::from_raw(i32::try_from(caller.id()).expect("a pid")).expect("a pid");
    kill_process_group(group, Signal::KILL).expect("killed");
    caller.wait().expect("ended");
    let record = home.record("a");
    assert_eq!((text(&record, "status"), record["last_pid"].as_u64()), ("running", Some(pid)), "{record}");
    home.ok(["stop", "a"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["signal"]), ("stopped", &15.into()), "{record}");
}

/// N9
#[test]
fn an_outcome_outlives_whoever_waited_for_it() {
    let home = Home::new();
    for words in ["", "echo trouble >&2; "] {
        let cue = Cue::new(&home, if words.is_empty() { "quiet" } else { "loud" });
        let script = format!("read line < {}; {words}date +%s%3N > end; exit 7", cue.path());
        let mut command = home.command(["run", "--wait", "--shell", "--", &script]);
        let mut caller = command.stdout(Stdio::null()).spawn().expect("started");
        let id = eventually("the job runs", || {
            let records = home.records();
            let record = records.last().filter(|record| text(record, "status") == "running")?;
            Some(text(record, "self_id").to_owned())
        });
        caller.kill().expect("killed");
        caller.wait().expect("ended");
        cue.say("go");
        let record = home.ended(&id);
        assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
        let end: i64 = lines(&home.path().join("end")).concat().parse().expect("a time");
        assert!((millis(&record, "ended_at") - end).abs() <= TOLERANCE_MS, "{record}");
    }
}

/// How often whoever submits is killed.
const KILLED_CALLERS: u32 = 120;

/// N11
#[test]
fn a_submitter_killed_at_any_moment_leaves_a_whole_job_or_none() {
    let home = Home::new();
    let submit = |id: &str| {
        let mut command = home.command(["run", "--id", id, "echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
    };
    let timed = |id: &str| {
        let before = Instant::now();
        assert!(submit(id).wait().expect("ended").success());
        before.elapsed()
    };
    // With a daemon to start, and without.
    let (cold, warm) = (timed("cold"), timed("warm"));
    for number in 0..KILLED_CALLERS {
        let is_cold = number % 6 == 0;
        if is_cold {
            let daemon = home.nodejobs(["-o", "json", "daemon", "status"]);
            if daemon.code == 0 {
                kill(pid_of(&daemon.json()["pid"]));
            }
        }
        let whole = if is_cold { cold } else { warm };
        let moment = Instant::now() + whole * number / KILLED_CALLERS;
        let mut caller = submit(&format!("job-{number}"));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        caller.kill().expect("killed");
        caller.wait().expect("ended");
    }
    let evidence = home.path().join("evidence");
    let (expected, mut executed) = eventually("every job has ended", || {
        // Before the records: the last caller may have asked just before it was killed.
        let executed = lines(&evidence);
        let records = home.records();
        let all_ended = records.iter().all(|record| text(record, "status") == "finished");
        let mut ids: Vec<String> = records
            .iter()
            .map(|record| format!("{} {}", text(record, "self_id"), record["attempt"]))
            .collect();
        ids.sort();
        (all_ended && executed.len() >= ids.len()).then_some((ids, executed))
    });
    executed.sort();
    assert_eq!(executed, expected, "each job has a record and was executed once");
    // The last callers may have been killed before they asked for anything; a keeper without jobs and owner has left.
    home.ok(["run", "--wait", "--", "true"]);
    let mut names = Vec::new();
    let is_alone = happens(|| {
        names = home.processes();
        names.sort_by(|one, other| one.1.cmp(&other.1));
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        names == ["nodejobs", "nodejobs-guard", "nodejobs-worker"]
    });
    assert!(is_alone, "one daemon with one keeper is all there should be: {names:?}, {}", home.daemon());
}

#[test]
fn submits_in_flight_outlive_the_daemon_and_make_one_job_each() {
    let home = Home::new();
    let evidence = home.path().join("evidence");
    let mut all = Vec::new();
    for round in 0..8 {
        home.records();
        let daemon = home.daemon_pid();
        let before = all.len();
        let script = "echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence; exit 7";
        let callers: Vec<Child> = (0..8)
            .map(|_| {
                let mut command = home.command(["run", "--shell", "--", script]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
            })
            .collect();
        // At another moment each time: before the first of them is executed, and after so many.
        eventually("some are executed", || (lines(&evidence).len() >= before + round).then_some(()));
        kill(daemon);
        for caller in callers {
            let output = caller.wait_with_output().expect("ended");
            assert!(output.status.success(), "{output:?}");
            all.push(String::from_utf8(output.stdout).expect("an id").trim().to_owned());
        }
    }
    for id in &all {
        let record = home.ended(id);
        assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
    }
    were_executed_once(&home, &all);
    assert_eq!(home.records().len(), all.len(), "nothing was submitted twice");
}

#[test]
fn eight_that_submit_one_new_id_start_one_process() {
    let home = Home::new();
    let callers: Vec<Child> = (0..8)
        .map(|_| {
            let mut command = home.command(["run", "--id", "a", "echo x >> evidence; exec sleep 1000"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
        })
        .collect();
    let mut codes: Vec<_> =
        callers.into_iter().map(|mut caller| caller.wait().expect("ended").code()).collect();
    codes.sort();
    assert_eq!(codes, [vec![Some(0)], vec![Some(4); 7]].concat());
    home.running("a");
    eventually("it has left evidence", || (lines(&home.path().join("evidence")) == ["x"]).then_some(()));
    assert_eq!((home.job_processes().len(), home.records().len()), (1, 1));
    home.ok(["stop", "a"]);
}

#[test]
fn nothing_waits_for_a_daemon_that_leaves_in_order() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let id = home.run_script(&format!("read code < {}; exit $code", cue.path()));
    let pid = home.running(&id)["last_pid"].clone();
    home.ok(["daemon", "stop"]);
    assert_eq!(home.nodejobs(["daemon", "status"]).code, 5);
    cue.say("7");
    eventually("it has ended", || (!is_alive(pid_of(&pid))).then_some(()));
    let before = Instant::now();
    assert_eq!(said(&mut home.command(["wait", &id])).code, 7);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}
