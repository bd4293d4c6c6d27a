//! Scenarios with each of daemon, guard and worker as victim, with and without what the kernel tells of processes.
//! Who waits or submits as victim: `survival.rs`. Several kills one after another: `failpoints.rs`.

use std::process::{Child, Stdio};

use crate::support::{Cue, Home, eventually, is_alive, kill, lines, millis, name_of, pid_of, signal, text};
use crate::survival::kernel_tells_exit_statuses;

/// Processes that are killed in one instant, by their names.
type Victims = &'static [&'static str];

const DAEMON: &str = "nodejobs";
const GUARD: &str = "nodejobs-guard";
const WORKER: &str = "nodejobs-worker";
/// All that may be killed without anything being lost.
const SURVIVABLE: [Victims; 5] = [&[DAEMON], &[GUARD], &[WORKER], &[DAEMON, GUARD], &[DAEMON, WORKER]];
const BOTH_HALVES: [Victims; 2] = [&[GUARD, WORKER], &[DAEMON, GUARD, WORKER]];

/// Calls the test for each victims, with the kernel's help and without.
fn for_each(victims: &[Victims], test: impl Fn(&Home, Victims)) {
    for victims in victims {
        for disabled in ["", "pidfs,pidfd-info"] {
            test(&Home::new().with("NODEJOBS_DISABLE", disabled), victims);
        }
    }
}

fn strike(home: &Home, victims: Victims) {
    let processes = home.processes();
    let pids: Vec<u32> = processes
        .iter()
        .filter(|(pid, name)| victims.contains(&name.as_str()) && name_of(*pid) == *name && !is_child(*pid))
        .map(|(pid, _)| *pid)
        .collect();
    assert_eq!(pids.len(), victims.len(), "{victims:?}: {processes:?}");
    pids.iter().for_each(|pid| signal(*pid, rustix::process::Signal::KILL));
    pids.into_iter().for_each(kill);
}

/// N8, G12
#[test]
fn a_running_job_keeps_its_process_and_can_be_stopped() {
    for_each(&[&SURVIVABLE[..], &BOTH_HALVES].concat(), |home, victims| {
        home.ok(["run", "--id", "a", "--", "sleep", "600"]);
        let pid = pid_of(&home.running("a")["last_pid"]);
        strike(home, victims);
        let record = home.record("a");
        assert_eq!(
            (text(&record, "status"), pid_of(&record["last_pid"])),
            ("running", pid),
            "{victims:?}: {record}"
        );
        // Without the owner's look at it, there is nobody to see its end.
        let is_orphan = victims.contains(&GUARD) && victims.contains(&WORKER);
        home.ok(["stop", "a"]);
        let record = home.record("a");
        let outcome = (text(&record, "status"), record["signal"].as_i64());
        let expected = [("stopped", Some(15)), ("lost", None)];
        let may_be_lost = is_orphan && (home.disables("pidfd-info") || !kernel_tells_exit_statuses());
        assert!(expected[..=usize::from(may_be_lost)].contains(&outcome), "{victims:?}: {record}");
        assert!(!is_alive(pid));
    });
}

/// N9: the end comes while the daemon is gone, or right after somebody else was killed.
#[test]
fn an_end_is_known_whoever_was_killed_before_it() {
    for_each(&SURVIVABLE, |home, victims| {
        for words in ["", "echo trouble >&2; "] {
            let id = if words.is_empty() { "quiet" } else { "loud" };
            let cue = Cue::new(home, id);
            let script = format!("read line < {}; {words}date +%s%3N > {id}.end; exit 7", cue.path());
            home.ok(["run", "--id", id, &script]);
            let pid = pid_of(&home.running(id)["last_pid"]);
            strike(home, victims);
            cue.say("go");
            eventually("it has ended", || (!is_alive(pid)).then_some(()));
            let record = home.ended(id);
            let outcome = (text(&record, "status"), &record["exit_code"], &record["attempt"]);
            assert_eq!(outcome, ("failed", &7.into(), &1.into()), "{victims:?}: {record}");
            let end: i64 = lines(&home.path().join(format!("{id}.end"))).concat().parse().expect("a time");
            assert!((millis(&record, "ended_at") - end).abs() <= 200, "{victims:?}: {record}");
            // The next one has a whole keeper again.
            home.ok(["run", "--wait", "--", "true"]);
            eventually("what was half a keeper has left", || (home.processes().len() == 3).then_some(()));
        }
    });
}

/// Whether it is a worker's child that has not executed its program and so has the worker's name.
fn is_child(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(1)?.parse().ok());
    parent.is_none_or(|parent| name_of(parent) == WORKER)
}

/// Rounds in which somebody is killed while jobs are submitted.
const ROUNDS: usize = 100;

/// N11: no job stuck, none executed twice, none executed without a record.
#[test]
fn jobs_submitted_under_kills_are_whole() {
    let home = Home::new();
    let submit = |id: &str| -> Child {
        let mut command = home.command(["run", "--id", id, "echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
    };
    assert!(submit("first").wait().expect("ended").success());
    home.ended("first");
    for round in 0..ROUNDS {
        let mut callers: Vec<Child> = (0..2).map(|number| submit(&format!("job-{round}-{number}"))).collect();
        // At another moment each time.
        (0..round * 40_000).for_each(|_| std::hint::spin_loop());
        // Whoever is there: at most one is between two.
        let victim = [DAEMON, GUARD, WORKER][round % 3];
        let mut pids = home.processes();
        pids.retain(|(pid, name)| name == victim && !is_child(*pid));
        pids.into_iter().for_each(|(pid, _)| kill(pid));
        for caller in &mut callers {
            assert!(caller.wait().expect("ended").success(), "round {round}");
        }
    }
    let mut expected = vec!["first 1".to_owned()];
    expected
        .extend((0..ROUNDS).flat_map(|round| (0..2).map(move |number| format!("job-{round}-{number} 1"))));
    expected.sort();
    eventually("every job has ended", || {
        let living = home.ok(["ls", "-q", "--status", "queued,starting,running,stopping"]);
        living.is_empty().then_some(())
    });
    let unfinished: Vec<_> =
        home.records().into_iter().filter(|record| record["status"] != "finished").collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    let mut executed = lines(&home.path().join("evidence"));
    executed.sort();
    assert_eq!(executed, expected);
}

/// N13
#[test]
fn an_id_in_use_stays_in_use() {
    for_each(&SURVIVABLE, |home, victims| {
        home.ok(["run", "--id", "a", "echo first; exec sleep 600"]);
        let pid = home.running("a")["last_pid"].clone();
        eventually("it has spoken", || (home.stdout("a") == b"first\n").then_some(()));
        strike(home, victims);
        assert_eq!(home.nodejobs(["run", "--id", "a", "echo second"]).code, 4, "{victims:?}");
        assert_eq!((home.stdout("a"), &home.record("a")["last_pid"]), (b"first\n".to_vec(), &pid));
        assert_eq!(home.history("a").len(), 1);
    });
}

/// N14, with a kill in the middle of it.
#[test]
fn of_many_submits_of_one_id_one_wins_whoever_is_killed() {
    for_each(&SURVIVABLE, |home, victims| {
        home.ok(["run", "--wait", "--", "true"]);
        let submit = |_| {
            let mut command = home.command(["run", "--id", "a", "echo $$ >> evidence; exec sleep 600"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
        };
        let callers: Vec<Child> = (0..8).map(submit).collect();
        strike(home, victims);
        let codes = callers.into_iter().map(|mut caller| caller.wait().expect("ended").code().unwrap_or(-1));
        let mut codes: Vec<i32> = codes.collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 4, 4, 4, 4, 4, 4, 4], "{victims:?}");
        let pid = eventually("it runs", || home.running("a")["last_pid"].as_u64());
        eventually("it has left evidence", || {
            (!lines(&home.path().join("evidence")).is_empty()).then_some(())
        });
        assert_eq!(lines(&home.path().join("evidence")), [pid.to_string()], "{victims:?}");
    });
}

/// N21
#[test]
fn a_kill_in_one_directory_is_nothing_to_another() {
    let other = Home::new();
    other.ok(["run", "--id", "a", "--", "sleep", "600"]);
    other.running("a");
    let look = || (other.record("a")["last_pid"].clone(), other.daemon_pid(), other.keeper());
    let before = look();
    for_each(&[&SURVIVABLE[..], &BOTH_HALVES].concat(), |home, victims| {
        home.ok(["run", "--id", "a", "--", "sleep", "600"]);
        home.running("a");
        strike(home, victims);
        home.ok(["stop", "--force", "--all"]);
        assert_eq!(look(), before, "{victims:?}");
        assert_eq!(text(&other.record("a"), "status"), "running", "{victims:?}");
    });
}

/// P17: what waits for its time goes on waiting, and runs then.
#[test]
fn waiting_jobs_outlive_everybody() {
    for_each(&[&SURVIVABLE[..], &BOTH_HALVES].concat(), |home, victims| {
        home.ok(["run", "--wait", "--", "true"]);
        for number in 0..5 {
            let id = format!("job-{number}");
            home.ok(["run", "--id", &id, "--delay", "700ms", "echo $JOB_ID >> evidence"]);
        }
        strike(home, victims);
        for number in 0..5 {
            let record = home.ended(&format!("job-{number}"));
            assert_eq!(
                (&record["status"], &record["attempt"]),
                (&"finished".into(), &1.into()),
                "{victims:?}"
            );
        }
        let mut evidence = lines(&home.path().join("evidence"));
        evidence.sort();
        assert_eq!(evidence, ["job-0", "job-1", "job-2", "job-3", "job-4"], "{victims:?}");
    });
}

/// C3
#[test]
fn restarts_go_on_whoever_is_killed() {
    for_each(&SURVIVABLE, |home, victims| {
        let script = "echo $NODEJOBS_ATTEMPT >> evidence; exit 3";
        let policy = ["--restart", "on-failure", "--max-restarts", "3", "--restart-delay", "60ms"];
        home.ok(["run", "--id", "a"].into_iter().chain(policy).chain(["--shell", "--", script]));
        let evidence = home.path().join("evidence");
        eventually("it is executed", || (!lines(&evidence).is_empty()).then_some(()));
        strike(home, victims);
        let record = home.ended("a");
        let outcome = (text(&record, "status"), &record["exit_code"], &record["restarts"]);
        assert_eq!(outcome, ("failed", &3.into(), &3.into()), "{victims:?}: {record}");
        assert_eq!(lines(&evidence), ["1", "2", "3", "4"], "{victims:?}");
    });
}
