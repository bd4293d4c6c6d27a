//! The ways to the failpoints, and what has to be true at their ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::{Victim, Way, all_halted, end, find, halted, kill_all, start_owner};
use crate::support::{Home, eventually, happens, is_alive, lines, pid_of, signal, text};
use crate::survival::kernel_tells_exit_statuses;

/// Reads its code, so that its input is part of it.
const AT_ONCE: &str = "read code; echo $JOB_ID $NODEJOBS_ATTEMPT $code >> evidence; exit $code";
/// Ends once there is a file `go`.
const ON_GO: &str =
    "echo $JOB_ID $NODEJOBS_ATTEMPT 7 >> evidence; until [ -e go ]; do sleep 0.02; done; exit 7";

fn start(home: &Home, arguments: &[&str]) -> Child {
    let mut command = home.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nodejobs starts");
    child.stdin.take().expect("a pipe").write_all(b"7\n").expect("written");
    child
}

fn go(home: &Home) {
    std::fs::write(home.path().join("go"), "").expect("written");
}

fn is_executed(home: &Home, line: &str) {
    eventually(&format!("{line} is executed"), || {
        lines(&home.path().join("evidence")).iter().any(|other| other == line).then_some(())
    });
}

fn run_on_go(home: &Home) {
    home.ok(["run", "--id", "a", ON_GO]);
    home.running("a");
    is_executed(home, "a 1 7");
}

/// The record of a job, which ends soon.
fn ended(home: &Home, id: &str) -> Value {
    home.nodejobs(["wait", "--timeout", "20s", id]);
    home.record(id)
}

/// The job has failed with 7, in its first attempt.
fn failed_with_7(home: &Home) {
    let record = ended(home, "a");
    let outcome = (text(&record, "status"), &record["exit_code"], &record["attempt"]);
    assert_eq!(outcome, ("failed", &7.into(), &1.into()), "{record}");
}

/// A job with input is launched, and ends by itself.
pub(super) const LAUNCH: Way = Way {
    before: None,
    act: |home| Some(start(home, &["run", "--id", "a", "--stdin", "-", "--shell", "--", AT_ONCE])),
    known: failed_with_7,
};

/// A job ends by itself and leaves a process behind.
pub(super) const LEFTOVER: Way = Way {
    before: Some(|home| {
        home.ok(["run", "--id", "a", &format!("setsid sleep 1000 & {ON_GO}")]);
        home.running("a");
        is_executed(home, "a 1 7");
    }),
    act: |home| {
        go(home);
        None
    },
    known: |home| {
        failed_with_7(home);
        assert_eq!(home.job_processes(), []);
    },
};

/// A job that has a cgroup, where there are any, is launched and ends by itself.
pub(super) const GROUPED: Way = Way {
    before: None,
    act: |home| {
        let run = ["run", "--id", "a", "--memory", "500M", "--stdin", "-", "--shell", "--", AT_ONCE];
        Some(start(home, &run))
    },
    known: |home| {
        failed_with_7(home);
        has_no_group(home);
    },
};

/// The same is stopped.
pub(super) const GROUPED_STOP: Way = Way {
    before: Some(|home| {
        home.ok(["run", "--id", "a", "--memory", "500M", ON_GO]);
        home.running("a");
        is_executed(home, "a 1 7");
    }),
    act: |home| Some(start(home, &["stop", "a"])),
    known: |home| {
        let record = ended(home, "a");
        assert_eq!(text(&record, "status"), "stopped", "{record}");
        assert_eq!(home.job_processes(), []);
        has_no_group(home);
    },
};

fn has_no_group(home: &Home) {
    eventually("no link to a cgroup is left", || {
        let mut entries = std::fs::read_dir(home.data_dir().join("keepers")).expect("keepers").flatten();
        let is_link = |entry: std::fs::DirEntry| entry.file_name().as_encoded_bytes().ends_with(b".cgroup");
        (!entries.any(is_link)).then_some(())
    });
}

/// A job that reads what is sent to it is launched, and reads it.
pub(super) const HELD: Way = Way {
    before: None,
    act: |home| Some(start(home, &["run", "--id", "a", "--stdin", "pipe", "--shell", "--", AT_ONCE])),
    known: |home| {
        // Not while it waits for its launch to be tried again.
        eventually("it takes its code", || (home.nodejobs(["send", "a", "7"]).code == 0).then_some(()));
        failed_with_7(home);
    },
};

/// A program that there is not is launched.
pub(super) const FAILURE: Way = Way {
    before: None,
    act: |home| Some(start(home, &["run", "--id", "a", "--", "./nothing"])),
    known: |home| {
        let record = ended(home, "a");
        let outcome = (text(&record, "status"), text(&record, "reason"), &record["attempt"]);
        assert_eq!(outcome, ("failed_start", "exec", &1.into()), "{record}");
        assert!(text(&record, "detail").contains("./nothing"), "{record}");
    },
};

/// A child is killed after it has noted itself: whether it has executed its program cannot be told.
pub(super) const KILLED: Way = Way { known: is_failed_by_kill, ..LAUNCH };

/// The same, of a program that there is not.
pub(super) const KILLED_FAILURE: Way = Way { known: is_failed_by_kill, ..FAILURE };

fn is_failed_by_kill(home: &Home) {
    let record = ended(home, "a");
    let outcome = (text(&record, "status"), text(&record, "reason"), &record["signal"], &record["attempt"]);
    assert_eq!(outcome, ("failed", "signal", &9.into(), &1.into()), "{record}");
}

/// A job ends by itself.
pub(super) const END: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        go(home);
        None
    },
    known: failed_with_7,
};

/// The worker is killed under a job, which ends once somebody has taken over.
pub(super) const WORKERLESS: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        kill_all(&find(home, Victim::Worker));
        None
    },
    known: ends_as_an_orphan,
};

/// The worker is killed under a job, which ends then.
pub(super) const WORKERLESS_END: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        kill_all(&find(home, Victim::Worker));
        go(home);
        None
    },
    known: failed_with_7,
};

/// Both halves of the keeper are killed under a job.
pub(super) const KEEPERLESS: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        kill_all(&[find(home, Victim::Guard), find(home, Victim::Worker)].concat());
        None
    },
    known: ends_as_an_orphan,
};

/// A job is launched that runs on, also where both halves of the keeper are killed.
pub(super) const ORPHANING: Way = Way {
    before: None,
    act: |home| Some(start(home, &["run", "--id", "a", ON_GO])),
    known: ends_as_an_orphan,
};

/// A job ends where nobody who lives may have seen it.
pub(super) const UNSEEN: Way = Way { known: failed_with_7_or_is_lost, ..END };

/// The same, where the worker was killed some time before.
pub(super) const WORKERLESS_UNSEEN: Way = Way { known: failed_with_7_or_is_lost, ..WORKERLESS_END };

fn ends_as_an_orphan(home: &Home) {
    assert_eq!(text(&home.running("a"), "status"), "running");
    // The kernel tells those who look before it ends.
    is_watched(home);
    go(home);
    let tells = kernel_tells_exit_statuses() && !home.disables("pidfd-info");
    if tells { failed_with_7(home) } else { failed_with_7_or_is_lost(home) }
}

/// Killed together with the last process that looked at it, the status is lost, unless somebody looks at the zombie in
/// time.
fn failed_with_7_or_is_lost(home: &Home) {
    if text(&ended(home, "a"), "status") != "lost" {
        failed_with_7(home);
    }
}

/// Waits until the job is with a keeper, or the owner has a descriptor of it, in whichever thread's table.
fn is_watched(home: &Home) {
    let entries =
        |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    eventually("somebody watches", || {
        let daemon = home.daemon();
        let keepers = daemon["keepers"].as_array()?;
        let tasks = format!("/proc/{}/task", daemon["pid"]);
        let descriptors = entries(Path::new(&tasks)).flat_map(|task| entries(&task.join("fd")));
        let mut files = descriptors.filter_map(|path| path.read_link().ok());
        let is_kept = keepers.iter().any(|keeper| keeper["jobs"] == 1);
        (is_kept || files.any(|file| file.to_string_lossy().contains("pidfd"))).then_some(())
    });
}

/// A tree is stopped.
pub(super) const STOP: Way = Way {
    before: Some(|home| {
        home.ok(["run", "--id", "a", "sleep 1000 & echo $JOB_ID 1 9 >> evidence; sleep 1000"]);
        is_executed(home, "a 1 9");
        home.running("a");
    }),
    act: |home| Some(start(home, &["stop", "a"])),
    known: |home| is_stopped(home, 15),
};

/// A tree that does not listen is stopped.
pub(super) const KILL: Way = Way {
    before: Some(|home| {
        let script = "trap '' TERM; sleep 1000 & echo $JOB_ID 1 9 >> evidence; while :; do sleep 1000; done";
        home.ok(["run", "--id", "a", script]);
        is_executed(home, "a 1 9");
        home.running("a");
    }),
    act: |home| Some(start(home, &["stop", "--grace", "50ms", "a"])),
    known: |home| is_stopped(home, 9),
};

fn is_stopped(home: &Home, number: i32) {
    // Who has asked gets an answer from whoever heard it; where nobody has, the job runs on and is stopped now.
    home.ok(["stop", "--grace", "50ms", "a"]);
    let record = home.record("a");
    let outcome = (text(&record, "status"), &record["signal"], &record["attempt"]);
    assert_eq!(outcome, ("stopped", &number.into(), &1.into()), "{record}");
    assert_eq!(home.job_processes(), []);
}

/// A job is stopped to begin its next attempt.
pub(super) const RESTART: Way = Way {
    before: Some(|home| {
        let script = "echo $JOB_ID $NODEJOBS_ATTEMPT 7 >> evidence; [ $NODEJOBS_ATTEMPT = 2 ] || exec sleep 1000; exit 7";
        home.ok(["run", "--id", "a", script]);
        is_executed(home, "a 1 7");
        home.running("a");
    }),
    act: |home| Some(start(home, &["restart", "a"])),
    known: |home| outcomes_are(home, &["stopped", "failed 7"]),
};

/// A job's policy begins its next attempt.
pub(super) const POLICY: Way = Way {
    before: Some(|home| {
        let script =
            "echo $JOB_ID $NODEJOBS_ATTEMPT 7 >> evidence; until [ -e go ]; do sleep 0.02; done; exit 7";
        home.ok([
            "run",
            "--id",
            "a",
            "--restart",
            "on-failure",
            "--max-restarts",
            "1",
            "--restart-delay",
            "10ms",
            script,
        ]);
        home.running("a");
        is_executed(home, "a 1 7");
    }),
    act: |home| {
        go(home);
        None
    },
    known: |home| outcomes_are(home, &["failed 7", "failed 7"]),
};

/// The history of the job in words.
fn outcomes_are(home: &Home, expected: &[&str]) {
    let outcome = |record: &Value| {
        let code = record["exit_code"].as_i64().map_or(String::new(), |code| format!(" {code}"));
        format!("{}{code}", text(record, "status"))
    };
    let mut found = Vec::new();
    let is_so = happens(|| {
        found = home.history("a").iter().map(outcome).collect();
        found == expected
    });
    assert!(is_so, "{found:?}");
}

/// A job is paused.
pub(super) const PAUSE: Way = Way {
    before: Some(run_on_go),
    act: |home| Some(start(home, &["pause", "a"])),
    known: |home| {
        home.has_status("a", "paused");
        eventually("it is halted", || home.is_halted().then_some(()));
        home.ok(["resume", "a"]);
        go(home);
        failed_with_7(home);
    },
};

/// An ended job is removed, and its id used again.
pub(super) const REMOVE: Way = Way {
    before: Some(|home| {
        home.ok(["run", "--id", "a", "--wait", "--", "echo", "old"]);
    }),
    act: |home| {
        // Asked again, it says that there is no such job, if the first time came as far as that.
        let mut rm = home.shell("$NODEJOBS rm a 2>&1 || [ $? = 3 ]");
        Some(rm.stdout(Stdio::piped()).spawn().expect("a shell starts"))
    },
    known: |home| {
        assert_eq!(home.nodejobs(["status", "a"]).code, 3);
        let said =
            home.nodejobs(["run", "--id", "a", "--wait", "echo new; echo $JOB_ID 1 7 >> evidence; exit 7"]);
        assert_eq!(said.code, 7, "{said:?}");
        assert_eq!(home.ok(["logs", "a"]), "new");
        failed_with_7(home);
    },
};

/// The owner leaves in order.
pub(super) const LEAVE: Way = Way {
    before: Some(run_on_go),
    act: |home| Some(start(home, &["daemon", "stop"])),
    known: |home| {
        go(home);
        failed_with_7(home);
    },
};

/// The owner leaves, and then the keeper has nothing left to do.
pub(super) const ALL_LEAVE: Way = Way {
    before: None,
    act: |home| {
        home.ok(["run", "--id", "a", "--wait", "--", "sh", "-c", "echo $JOB_ID 1 0 >> evidence"]);
        Some(start(home, &["daemon", "stop"]))
    },
    known: |home| assert_eq!(text(&home.record("a"), "status"), "finished"),
};

/// A new owner finds a job that runs, one that has ended meanwhile, one that was to be launched, one that was to be
/// stopped and one that waits for its time.
pub(super) const TAKE_OVER: Way = Way {
    before: Some(|home| {
        start_owner(home, "owner-committed@9");
        run_on_go(home);
        let script = "echo $JOB_ID 1 5 >> evidence; until [ -e end ]; do sleep 0.02; done; exit 5";
        home.ok(["run", "--id", "ended", script]);
        let ended = pid_of(&home.running("ended")["last_pid"]);
        let script = "trap '' TERM; echo $JOB_ID 1 9 >> evidence; exec sleep 1000";
        home.ok(["run", "--id", "stops", "--grace", "50ms", script]);
        home.running("stops");
        ["ended 1 5", "stops 1 9"].into_iter().for_each(|line| is_executed(home, line));
        // Each of them was committed when it was submitted and when it ran.
        home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
        let asked = [
            &["stop", "--grace", "1h", "stops"][..],
            &["run", "--id", "starts", "echo $JOB_ID 1 4 >> evidence; exit 4"],
        ];
        let stop = start(home, asked[0]);
        home.has_status("stops", "stopping");
        end(stop);
        let run = start(home, asked[1]);
        eventually("the last of them is committed", || halted(home));
        end(run);
        std::fs::write(home.path().join("end"), "").expect("written");
        eventually("one has ended", || (!is_alive(ended)).then_some(()));
        kill_all(&[halted(home).expect("the owner")]);
    }),
    act: |_| None,
    known: |home| {
        assert_eq!(text(&home.record("a"), "status"), "running");
        assert_eq!(text(&home.record("waits"), "status"), "queued");
        go(home);
        failed_with_7(home);
        let expected =
            [("ended", "failed", Some(5)), ("starts", "failed", Some(4)), ("stops", "stopped", None)];
        for (id, status, code) in expected {
            let record = ended(home, id);
            assert_eq!((text(&record, "status"), record["exit_code"].as_i64()), (status, code), "{record}");
        }
        home.ok(["stop", "waits"]);
    },
};

/// More happens than the journal keeps of a worker that is to halt while it is rewritten.
pub(super) const MANY: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        crate::library::block_on(async {
            let jobs = crate::library::open(home.data_dir()).await;
            let script = crate::library::script(home, "echo $JOB_ID $NODEJOBS_ATTEMPT 0 >> evidence");
            let ids = jobs.run_batch(vec![script; MANY_JOBS]).await.expect("accepted");
            assert!(ids.iter().all(Result::is_ok));
            jobs.close().await;
        });
        None
    },
    known: |home| {
        eventually("all have ended", || {
            let living = home.ok(["ls", "-q", "--status", "queued,starting,running"]);
            (living == "a").then_some(())
        });
        go(home);
        failed_with_7(home);
        assert_eq!(home.records().len(), MANY_JOBS + 1);
    },
};

/// Each leaves two entries, and one or two that acknowledge them.
const MANY_JOBS: usize = 12;

/// A job is launched while the keeper of another job is halted, longer than the owner waits for a keeper.
pub(super) const SILENT: Way = Way {
    before: Some(run_on_go),
    act: |home| {
        // The guard first: it lets its worker go on.
        for victim in [Victim::Guard, Victim::Worker] {
            find(home, victim).into_iter().for_each(|pid| signal(pid, Signal::STOP));
        }
        Some(start(home, &["run", "--id", "b", "echo $JOB_ID 1 5 >> evidence; exit 5"]))
    },
    known: |home| {
        let record = ended(home, "b");
        let outcome = (text(&record, "status"), &record["exit_code"], &record["attempt"]);
        assert_eq!(outcome, ("failed", &5.into(), &1.into()), "{record}");
        all_halted(home).for_each(|pid| signal(pid, Signal::CONT));
        go(home);
        failed_with_7(home);
    },
};
