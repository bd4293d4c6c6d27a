//! One job, from its command to its outcome.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::{Cue, Home, eventually, is_alive, lines, millis, pid_of, said, signal, text};

/// The words by which an outcome is told from others.
fn outcome(record: &Value) -> (&str, &str, Option<i64>, Option<i64>) {
    let (code, signal) = (record["exit_code"].as_i64(), record["signal"].as_i64());
    (text(record, "status"), text(record, "reason"), code, signal)
}

fn write_executable(path: &Path, content: &str, mode: u32) {
    std::fs::write(path, content).expect("written");
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode set");
}

/// N1
#[test]
fn a_job_that_succeeds_is_finished_with_its_times_and_its_process() {
    let home = Home::new();
    let said = home.nodejobs(["run", "--id", "a", "--wait", "--", "true"]);
    assert_eq!((said.code, said.text().as_str()), (0, "a"), "{said:?}");
    let record = home.record("a");
    assert_eq!((&record["status"], &record["exit_code"]), (&"finished".into(), &0.into()));
    assert!(record["last_pid"].as_u64().is_some_and(|pid| pid > 1), "{record}");
    let time = |name: &str| record[name].as_str().expect(name).to_owned();
    assert!(time("ended_at") >= time("started_at") && time("started_at") >= time("created_at"), "{record}");
}

/// N2, N3, N4
#[test]
fn the_exit_code_alone_decides() {
    let home = Home::new();
    let silent = home.run_script("sleep 1; exit 3");
    for (script, code) in [
        ("exit 3", 3),
        ("sleep 0.01; exit 3", 3),
        ("echo 'error: fatal' >&2; exit 0", 0),
        ("echo 'error: fatal' >&2; exit 3", 3),
        ("exit 255", 255),
    ] {
        let record = home.ended(&home.run_script(script));
        let expected = if code == 0 { ("finished", "") } else { ("failed", "exit") };
        assert_eq!(outcome(&record), (expected.0, expected.1, Some(code), None), "{script}: {record}");
    }
    let record = home.ended(&silent);
    assert_eq!(outcome(&record), ("failed", "exit", Some(3), None), "{record}");
    assert!(record["runtime_ms"].as_u64().is_some_and(|runtime| runtime >= 1000), "{record}");
    assert!(millis(&record, "ended_at") - millis(&record, "started_at") >= 1000, "{record}");
}

/// N5
#[test]
fn a_program_that_cannot_be_executed_is_told_with_its_path_and_the_reason() {
    let home = Home::new();
    let plain = home.path().join("plain");
    write_executable(&plain, "#!/bin/sh\n", 0o644);
    let plain = plain.display().to_string();
    let script = home.path().join("script");
    write_executable(&script, "#!/no/such/interpreter\n", 0o755);
    let script = script.display().to_string();
    let missing = home.path().join("missing").display().to_string();
    let below = format!("{plain}/below");
    let (absent, denied, no_directory) = ("No such file", "Permission denied", "Not a directory");
    for (arguments, reason, path, error) in [
        (vec!["--", "no-such-bin"], "exec", "no-such-bin", absent),
        (vec!["--", "./no-such-bin", "x"], "exec", "./no-such-bin", absent),
        (vec!["--", &plain], "exec", plain.as_str(), denied),
        (vec!["--", &script], "exec", &script, absent),
        (vec!["--", &below], "exec", &below, no_directory),
        (vec!["--cwd", &missing, "--", "true"], "cwd", &missing, absent),
        (vec!["--cwd", &plain, "--", "true"], "cwd", &plain, no_directory),
    ] {
        let arguments = ["run", "--wait"].into_iter().chain(arguments);
        let said = home.nodejobs(arguments);
        assert_eq!(said.code, 125, "{said:?}");
        assert!(said.stderr.contains(path), "{said:?}");
        let id = said.text();
        let record = home.record(&id);
        assert_eq!(outcome(&record), ("failed_start", reason, None, None), "{record}");
        let detail = text(&record, "detail");
        assert!(detail.contains(path) && detail.contains(error), "{detail}");
        assert_eq!((&record["last_pid"], &record["started_at"]), (&Value::Null, &Value::Null), "{record}");
        assert_eq!((home.stdout(&id), home.stderr(&id)), (vec![], vec![]));
        assert_eq!(home.nodejobs(["wait", &id]).code, 125);
    }
    assert_eq!(home.ok(["ls", "--status", "starting,running,queued"]), "");
}

/// N5, for whoever may not enter every directory
#[test]
fn a_directory_that_may_not_be_entered_is_told() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let closed = home.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o000)).expect("closed");
    let closed = closed.display().to_string();
    let record = home.ended(&home.ok(["run", "--cwd", &closed, "--", "true"]));
    assert_eq!(outcome(&record), ("failed_start", "cwd", None, None), "{record}");
    let detail = text(&record, "detail");
    assert!(detail.contains(&closed) && detail.contains("Permission denied"), "{detail}");
}

/// N6, C16
#[test]
fn a_script_is_the_shell_s_and_arguments_are_nobody_s() {
    let home = Home::new();
    for (arguments, expected) in [
        (vec!["echo hello"], "hello\n"),
        (vec!["--env", "VAR=it is", "echo \"$VAR\" 'a  b' | tr a c"], "it is c  b\n"),
        (vec!["--shell", "--", "for x in 1 2; do echo $x; done"], "1\n2\n"),
        (vec!["--", "printf", "%s|", "a\"b", "", "$VAR", "c d", "*", "'"], "a\"b||$VAR|c d|*|'|"),
        (vec!["printf", "%s|", "a | b", ";"], "a | b|;|"),
    ] {
        let said = home.nodejobs(["run", "--wait"].into_iter().chain(arguments));
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(String::from_utf8_lossy(&home.stdout(&said.text())), expected);
    }
    let said = home.nodejobs(["run", "--wait", "--", "echo hello"]);
    assert_eq!(said.code, 125, "one argument after -- is a program: {said:?}");
}

/// N7
#[test]
fn a_job_that_was_killed_has_failed_with_the_signal() {
    let home = Home::new();
    let record = home.ended(&home.ok(["run", "ulimit -c 0; kill -SEGV $$"]));
    assert_eq!(outcome(&record), ("failed", "signal", None, Some(11)), "{record}");
    let killed = home.ok(["run", "--", "sleep", "1000"]);
    signal(pid_of(&home.running(&killed)["last_pid"]), Signal::KILL);
    let record = home.ended(&killed);
    assert_eq!(outcome(&record), ("failed", "signal", None, Some(9)), "{record}");
    let group = home.run_script("sleep 1000 & sleep 1000 & wait");
    let leader = pid_of(&home.running(&group)["last_pid"]);
    eventually("the group is complete", || (home.job_processes().len() == 3).then_some(()));
    let leader = Pid::from_raw(i32::try_from(leader).expect("a pid")).expect("a pid");
    kill_process_group(leader, Signal::KILL).expect("killed");
    let record = home.ended(&group);
    assert_eq!(outcome(&record), ("failed", "signal", None, Some(9)), "{record}");
    assert_eq!(home.job_processes(), []);
}

/// N13
#[test]
fn an_id_is_one_job_s_as_long_as_that_one_lives() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!("echo first; read line < {}; echo $line", cue.path());
    home.ok(["run", "--id", "a", "--shell", "--", &script]);
    home.running("a");
    let refused = home.nodejobs(["run", "--id", "a", "--", "echo", "second"]);
    assert_eq!((refused.code, refused.text().as_str()), (4, ""), "{refused:?}");
    assert!(refused.stderr.contains("'a' is running"), "{refused:?}");
    assert_eq!(home.nodejobs(["run", "--id", "a", "--wait", "--", "echo", "second"]).code, 125);
    cue.say("last");
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), &record["attempt"]), ("finished", &1.into()), "{record}");
    assert_eq!(home.stdout("a"), b"first\nlast\n");
    assert_eq!(home.records().len(), 1);
}

/// N15
#[test]
fn an_ended_id_runs_again_as_its_next_attempt() {
    let home = Home::new();
    for (word, code) in [("one", "1"), ("two", "0")] {
        let script = format!("echo {word} $NODEJOBS_ATTEMPT; echo err-{word} >&2; exit {code}");
        home.nodejobs(["run", "--wait", "--id", "a", "--shell", "--", &script]);
    }
    let record = home.record("a");
    assert_eq!(outcome(&record), ("finished", "", Some(0), None), "{record}");
    assert_eq!((&record["attempt"], home.records().len()), (&2.into(), 1), "{record}");
    for (arguments, out, err) in [
        (vec!["logs", "a"], "two 2\n", "err-two\n"),
        (vec!["logs", "a", "--attempt", "2"], "two 2\n", "err-two\n"),
        (vec!["logs", "a", "--attempt", "1"], "one 1\n", "err-one\n"),
    ] {
        let said = home.nodejobs(arguments);
        assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, out.as_bytes(), err));
    }
    let said = home.nodejobs(["logs", "a", "--attempt", "3"]);
    assert_eq!(said.code, 3, "{said:?}");
    // Also when the first attempt could not start, was killed or was stopped.
    home.nodejobs(["run", "--wait", "--id", "b", "--", "no-such-bin"]);
    home.ok(["run", "--id", "b", "--", "sleep", "1000"]);
    home.ok(["stop", "b"]);
    assert_eq!(home.nodejobs(["run", "--wait", "--id", "b", "--", "true"]).code, 0);
    assert_eq!(home.record("b")["attempt"], 3);
}

/// N21
#[test]
fn two_directories_know_nothing_of_each_other() {
    let (one, other) = (Home::new(), Home::new());
    for home in [&one, &other] {
        home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    }
    let pid = pid_of(&other.running("a")["last_pid"]);
    assert_ne!(pid_of(&one.running("a")["last_pid"]), pid);
    one.ok(["stop", "a"]);
    one.ok(["run", "--id", "b", "--wait", "--", "true"]);
    assert_eq!(text(&one.record("a"), "status"), "stopped");
    assert_eq!(text(&other.record("a"), "status"), "running");
    assert_eq!(one.ok(["stop", "--all", "--force"]), "");
    assert!(is_alive(pid));
    assert_eq!((one.records().len(), other.records().len()), (2, 1));
    assert_eq!(other.nodejobs(["status", "b"]).code, 3);
}

/// N23
#[test]
fn output_is_kept_byte_for_byte() {
    let home = Home::new();
    let id = home.run_script(r"printf '\377\376\000x'; printf '\001\200' >&2");
    home.ended(&id);
    assert_eq!((home.stdout(&id), home.stderr(&id)), (b"\xff\xfe\0x".to_vec(), vec![1, 0x80]));
    let followed = home.nodejobs(["logs", "-f", &id]);
    assert_eq!((followed.code, followed.stdout), (0, b"\xff\xfe\0x".to_vec()));
}

/// N29
#[test]
fn a_job_sees_its_variables_and_nobody_else_sees_anything() {
    let home = Home::new();
    let script = "echo $FOO $BAR $JOB_ID $NODEJOBS_ATTEMPT; umask";
    let submit = format!(
        "umask 0; BAR=inherited JOB_ID=outer exec \"$NODEJOBS\" run --id a --wait --env FOO=bar --shell -- '{script}'"
    );
    let ran = said(&mut home.shell(&submit));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&home.stdout("a")), "bar inherited a 1\n0000\n");
    let mut seen = 0;
    let mut waiting = vec![home.data_dir().to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("metadata");
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            let entries = std::fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if metadata.is_file() {
            assert_eq!(mode, 0o600, "{}", path.display());
            seen += 1;
        } else {
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
    assert!(seen > 4, "there is a store and there are logs");
    for arguments in
        [vec!["ls"], vec!["-o", "json", "ls"], vec!["status", "a"], vec!["-o", "json", "status", "a"]]
    {
        assert!(!home.ok(arguments.clone()).contains("inherited"), "{arguments:?} shows the environment");
    }
}

/// P1
#[test]
fn run_and_wait_gives_everything_about_the_outcome() {
    let home = Home::new();
    let command = ["sh", "-c", "echo hi; echo e >&2; exit 3"];
    let ran = home.nodejobs(["run", "-o", "json", "--wait", "--"].into_iter().chain(command));
    assert_eq!(ran.code, 3, "{ran:?}");
    let record = ran.json();
    assert_eq!(outcome(&record), ("failed", "exit", Some(3), None), "{record}");
    assert!(record["last_pid"].as_u64().is_some_and(|pid| pid > 1), "{record}");
    assert!(record["runtime_ms"].as_u64().is_some_and(|runtime| runtime < 10_000), "{record}");
    let id = text(&record, "self_id");
    let log = home.nodejobs(["logs", id]);
    assert_eq!((log.code, &*log.stdout, log.stderr.as_str()), (0, &b"hi\n"[..], "e\n"));
    let followed = home.nodejobs(["run", "--follow", "--"].into_iter().chain(command));
    assert_eq!((followed.code, &*followed.stdout), (3, &b"hi\n"[..]), "{followed:?}");
    assert!(followed.stderr.lines().any(|line| line == "e"), "{followed:?}");
}

/// C11
#[test]
fn wait_ends_with_the_job_s_code() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let id = home.run_script(&format!("read code < {}; exit $code", cue.path()));
    let mut waiting = home.command(["wait", &id]).stderr(Stdio::null()).spawn().expect("started");
    home.running(&id);
    assert!(waiting.try_wait().expect("looked").is_none(), "it waits as long as the job runs");
    cue.say("5");
    assert_eq!(waiting.wait().expect("ended").code(), Some(5));
    assert_eq!(home.nodejobs(["wait", &id]).code, 5);
    assert_eq!(home.nodejobs(["run", "--wait", "kill -TERM $$"]).code, 128 + 15);
    let killed = home.run_script("kill -KILL $$");
    assert_eq!(home.nodejobs(["wait", &killed]).code, 128 + 9);
    let unknown = home.nodejobs(["wait", "unknown"]);
    assert_eq!(unknown.code, 125);
    assert!(unknown.stderr.contains("unknown"), "{unknown:?}");
}

#[test]
fn wait_for_several_ends_with_the_first_failure_in_their_order() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let submit = |id: &str, script: &str| home.ok(["run", "--id", id, "--shell", "--", script]);
    submit("slow", &format!("read line < {}; exit 4", cue.path()));
    submit("quick", "exit 6");
    submit("good", "exit 0");
    let mut waiting = home
        .command(["wait", "good", "slow", "quick", "slow"])
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    home.ended("quick");
    assert!(waiting.try_wait().expect("looked").is_none(), "it waits for all of them");
    cue.say("go");
    assert_eq!(waiting.wait().expect("ended").code(), Some(4));
    assert_eq!(home.nodejobs(["wait", "quick", "slow"]).code, 6);
    assert_eq!(home.nodejobs(["wait", "good"]).code, 0);
    let said = home.nodejobs(["-o", "json", "wait", "good", "quick"]);
    let ids: Vec<_> =
        said.json().as_array().expect("a list").iter().map(|r| text(r, "self_id").to_owned()).collect();
    assert_eq!((said.code, ids), (6, vec!["good".to_owned(), "quick".to_owned()]));
    assert_eq!(home.nodejobs(["wait", "good", "unknown"]).code, 125);
}

#[test]
fn a_job_has_a_clean_state_and_the_submitter_s_surroundings() {
    let home = Home::new();
    let directory = home.path().join("the directory");
    std::fs::create_dir(&directory).expect("made");
    // A submitter with as much of its own as it can have: the first one, so that it starts daemon and keeper as well.
    let submit = "trap '' HUP INT QUIT PIPE TERM CHLD; umask 027; ulimit -S -n 123; cd 'the directory'; \
                  exec 8> ../left-open 9< /dev/zero; exec \"$NODEJOBS\" run --id a -- sleep 1000";
    let ran = said(&mut home.shell(submit));
    assert_eq!(ran.code, 0, "{ran:?}");
    let pid = pid_of(&home.running("a")["last_pid"]);
    let proc = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect(file);
    let status = proc("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("Umask"), "0027");
    assert_eq!(u64::from_str_radix(&field("SigBlk"), 16), Ok(0), "nothing is blocked");
    // Signals 32 and 33 are the C library's own: its posix_spawn, here that of the keeper, ignores them.
    let ignored = u64::from_str_radix(&field("SigIgn"), 16).expect("a mask");
    assert_eq!(ignored & 0x7fff_ffff, 0, "nothing is ignored, SIGPIPE least of all");
    let open_files =
        proc("limits").lines().find(|line| line.starts_with("Max open files")).expect("it").to_owned();
    assert_eq!(open_files.split_ascii_whitespace().nth(3), Some("123"), "{open_files}");
    let stat = proc("stat");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_ascii_whitespace().collect();
    let own = pid.to_string();
    assert_eq!((fields[2], fields[3]), (own.as_str(), own.as_str()), "it leads its own group and session");
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("a link");
    assert_eq!(link("cwd"), directory.canonicalize().expect("a path"));
    let descriptors = |pid: u32| -> Vec<(u32, String)> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let target = std::fs::read_link(entry.path()).ok()?.display().to_string();
                Some((entry.file_name().to_str()?.parse().ok()?, target))
            })
            .collect();
        all.sort();
        all
    };
    let open = descriptors(pid);
    assert_eq!(open.iter().map(|(fd, _)| *fd).collect::<Vec<_>>(), [0, 1, 2], "{open:?}");
    assert_eq!(open[0].1, "/dev/null");
    assert!(open[1].1.ends_with(".out") && open[2].1.ends_with(".err"), "{open:?}");
    let (guard, worker) = home.keeper();
    for server in [home.daemon_pid(), guard, worker] {
        let kept: Vec<_> = descriptors(server)
            .into_iter()
            .filter(|(_, to)| to.contains("left-open") || to == "/dev/zero")
            .collect();
        assert_eq!(kept, [], "process {server} keeps what its starter had open");
    }
}

#[test]
fn a_script_without_an_interpreter_is_the_shell_s() {
    let home = Home::new();
    let script = home.path().join("script");
    write_executable(&script, "echo \"$1\" ${JOB_ID}\nexit 9\n", 0o755);
    let ran = home.nodejobs(["run", "--id", "a", "--wait", "--", "./script", "word"]);
    assert_eq!((ran.code, home.stdout("a")), (9, b"word a\n".to_vec()), "{ran:?}");
}

/// Starts a sleeper with these words in front and goes on once it sleeps.
fn leaving_a_sleeper(words: &str) -> String {
    format!(
        "{words} sleep 1000 & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done; echo $! > pid; echo hi"
    )
}

#[test]
fn what_a_job_leaves_behind_is_ended_and_named() {
    let home = Home::new();
    let daemonised = "setsid sh -c 'sleep 1000 & echo $! > pid'; until [ \"$(cat /proc/$(cat pid)/comm)\" = sleep ]; do :; done; echo hi";
    for (script, signal) in [
        (leaving_a_sleeper(""), "TERM"),
        (leaving_a_sleeper("setsid"), "TERM"),
        (daemonised.to_owned(), "TERM"),
    ] {
        let id = home.run_script(&script);
        let record = home.ended(&id);
        assert_eq!(outcome(&record), ("finished", "", Some(0), None), "{record}");
        let sleeper = lines(&home.path().join("pid")).concat();
        let detail = text(&record, "detail");
        assert!(detail.contains(&format!("{sleeper} (sleep)")), "{signal}: {detail}");
        assert!(!is_alive(sleeper.parse().expect("a pid")), "{detail}");
        assert_eq!((home.stdout(&id), home.job_processes()), (b"hi\n".to_vec(), vec![]));
    }
}

#[test]
fn a_leftover_does_not_change_the_outcome_nor_its_time() {
    let home = Home::new();
    let record = home.ended(&home.run_script(&format!("{}; exit 4", leaving_a_sleeper(""))));
    assert_eq!(outcome(&record), ("failed", "exit", Some(4), None), "{record}");
    let before = Instant::now();
    let record = home.ended(&home.ok(["run", "--", "true"]));
    assert_eq!((text(&record, "status"), &record["detail"]), ("finished", &Value::Null), "{record}");
    assert!(before.elapsed().as_secs() < 5, "nobody waits for a grace when nothing is left");
}
