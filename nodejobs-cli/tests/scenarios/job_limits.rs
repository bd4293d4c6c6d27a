//! What a job may use, and as whom it runs.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

use serde_json::Value;

use crate::support::{Cue, Home, eventually, kill, millis, pid_of, text};

/// Runs a script with these options to its end, and gives its record.
fn run(home: &Home, options: &[&str], script: &str) -> Value {
    let said = home.nodejobs(["run"].iter().chain(options).chain(&["--shell", "--", script]));
    assert_eq!(said.code, 0, "{said:?}");
    home.ended(&said.text())
}

fn output(home: &Home, record: &Value) -> String {
    assert_eq!(text(record, "status"), "finished", "{record}");
    String::from_utf8(home.stdout(text(record, "self_id"))).expect("UTF-8").trim_end().to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How many threads of the daemon look after memory.
fn samplers(home: &Home) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", home.daemon_pid())).expect("threads").flatten();
    let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
    names.filter(|name| name.starts_with("nodejobs-memory")).count()
}

#[test]
fn limits_that_make_no_sense_or_cannot_be_kept_are_refused_and_leave_nothing() {
    let home = without_cgroups();
    for (options, words) in [
        (["--memory", "0"], "0 bytes"),
        (["--memory", "-1"], "'-1'"),
        (["--memory", "99999999T"], "too large"),
        (["--memory", "1025T"], "give 1M to 1024T"),
        (["--cpu", "0"], "0 processors"),
        (["--cpu", "-2"], "'-2'"),
        (
            ["--cpu", "0.5"],
            "processor time cannot be limited here: that takes the cpu controller of cgroup v2",
        ),
        (["--pids", "0"], "0 processes"),
        (["--pids", "-1"], "'-1'"),
        (["--pids", "10"], "the number of processes cannot be limited here: that takes the pids controller"),
        (["--nofile", "1"], "1 open files"),
        (["--nofile", "20:10"], "above the hard one of 10"),
        (["--nofile", "18446744073709551615"], "fs.nr_open"),
        (["--nice", "20"], "20 is no nice value"),
        (["--nice", "-21"], "-21 is no nice value"),
        (["--user", ""], "not the name of a user"),
        (["--user", "no-such-user-of-nodejobs"], if is_root() { "there is no user" } else { "only root" }),
    ] {
        let said = home.nodejobs(["run"].iter().chain(&options).chain(&["--", "true"]));
        assert_eq!((said.code, said.text().as_str()), (2, ""), "{options:?}: {said:?}");
        assert!(said.stderr.contains(words), "{options:?}: {said:?}");
    }
    if !is_root() {
        let said = home.nodejobs(["run", "--nice", "-5", "--", "true"]);
        assert!(said.code == 2 && said.stderr.contains("only root may go below"), "{said:?}");
    }
    assert_eq!(home.records(), [Value::Null; 0]);
}

#[test]
fn open_files_and_nice_values_are_those_of_the_whole_tree() {
    let home = Home::new();
    let options = ["--nofile", "100:200", "--nice", "7"];
    let record = run(&home, &options, "sh -c 'ulimit -Sn; ulimit -Hn; nice'");
    assert_eq!(output(&home, &record), "100\n200\n7");
    assert!(home.ok(["status", text(&record, "self_id")]).contains("open files 100:200, nice 7"));
    // A limit of its own goes above that of whoever submitted it.
    let hard = output(&home, &run(&home, &[], "ulimit -Hn"));
    let said = crate::support::said(
        &mut home.shell("ulimit -Sn 50; $NODEJOBS run --nofile 64 --shell -- 'ulimit -Sn; ulimit -Hn'"),
    );
    let record = home.ended(&said.text());
    assert_eq!(output(&home, &record), format!("64\n{hard}"));
    // It stays for further attempts.
    home.ok(["restart", text(&record, "self_id")]);
    let again = home.ended(text(&record, "self_id"));
    assert_eq!((&again["attempt"], output(&home, &again)), (&2.into(), format!("64\n{hard}")));
}

#[test]
fn another_user_is_for_root() {
    let home = Home::new();
    let said = home.nodejobs(["run", "--user", "nobody", "--cwd", "/", "--", "true"]);
    if !is_root() {
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains("'nobody'") && said.stderr.contains("only root"), "{said:?}");
        return;
    }
    let script =
        "id -un; id -Gn; echo $HOME $USER $LOGNAME; grep -c 'CapEff:.0*$' /proc/self/status; echo e >&2";
    let record = run(&home, &["--user", "nobody", "--cwd", "/"], script);
    let said = output(&home, &record);
    let lines: Vec<_> = said.lines().collect();
    let account = std::fs::read_to_string("/etc/passwd").expect("accounts");
    let account = account.lines().find(|line| line.starts_with("nobody:")).expect("nobody").to_owned();
    let directory = account.split(':').nth(5).expect("a directory");
    assert_eq!((lines[0], lines[2], lines[3]), ("nobody", &*format!("{directory} nobody nobody"), "1"));
    assert!(!lines[1].split(' ').any(|group| group == "root"), "{said}");
    // Its files were opened before, and stay ours.
    let log = std::fs::metadata(text(&record, "logfile")).expect("a log");
    assert_eq!((log.uid(), log.mode() & 0o777), (0, 0o600));
    assert_eq!(home.stderr(text(&record, "self_id")), b"e\n");
    // What the user may not enter it does not run in.
    std::fs::DirBuilder::new().mode(0o700).create(home.path().join("closed")).expect("a directory");
    let id = home.ok(["run", "--user", "nobody", "--cwd", "closed", "--", "true"]);
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed_start", "cwd"), "{record}");
    // A terminal is its own, also by name.
    let id = home.ok([
        "run",
        "--pty",
        "--user",
        "nobody",
        "--cwd",
        "/",
        "--shell",
        "--",
        "stat -c %U $(tty) > /dev/tty",
    ]);
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), output(&home, &record).trim()), ("finished", "nobody"), "{record}");
    // And stop reaches it.
    let id = home.ok(["run", "--user", "nobody", "--cwd", "/", "--", "sleep", "1000"]);
    home.running(&id);
    assert!(home.ok(["stop", &id]).contains("stopped by SIGTERM"));
}

/// Where nobody keeps limits of whole trees.
fn without_cgroups() -> Home {
    Home::new().with("NODEJOBS_DISABLE", "cgroups")
}

/// Each process is far below the limit, and one is in a session of its own.
#[test]
fn who_has_more_memory_than_it_may_is_killed_with_all_its_processes() {
    let home = without_cgroups();
    let hold = "(head -c 25M /dev/zero; exec sleep 1000) | tail -n 1";
    let script = format!("trap '' TERM; setsid sh -c '{hold}' & {hold}");
    let said = home.nodejobs(["run", "--memory", "40M", "--shell", "--", &script]);
    assert!(said.stderr.contains("kept by looking at the processes"), "{said:?}");
    let record = home.ended(&said.text());
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "memory"), "{record}");
    assert_eq!(record["signal"], 9, "{record}");
    let detail = text(&record, "detail");
    assert!(detail.contains("of the 40.0 MiB") && detail.contains("sampling"), "{detail}");
    assert!(detail.contains("(tail)"), "the others were ended too: {detail}");
    assert_eq!(home.job_processes(), []);
    assert!(millis(&record, "ended_at") - millis(&record, "started_at") < 5_000, "{record}");
    let shared = run(&home, &["--memory", "40M"], "head -c 25M /dev/zero | tail -n 1 | wc -c");
    assert_eq!(output(&home, &shared), "26214400", "whoever stays below goes on");
    eventually("nobody samples any more", || (samplers(&home) == 0).then_some(()));
}

#[test]
fn the_next_owner_looks_after_the_limits_of_the_jobs_it_finds() {
    let home = without_cgroups();
    let cue = Cue::new(&home, "cue");
    let script = format!("read x < {}; head -c 60M /dev/zero | tail -n 1", cue.path());
    let id = home.nodejobs(["run", "--memory", "30M", "--shell", "--", &script]).text();
    home.running(&id);
    eventually("somebody samples", || (samplers(&home) == 1).then_some(()));
    kill(home.daemon_pid());
    let pid = pid_of(&home.record(&id)["last_pid"]);
    cue.say("grow");
    let record = home.ended(&id);
    assert_eq!((text(&record, "reason"), pid_of(&record["last_pid"])), ("memory", pid), "{record}");
}
