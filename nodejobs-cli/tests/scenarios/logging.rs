//! Where output goes: into one file or two, into the user's directory or file, and what of it is whose.

use std::fmt::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Cue, Home, eventually, kill, lines, text};

fn output(home: &Home, id: &str, attempt: u32) -> String {
    home.ok(["logs", "--attempt", &attempt.to_string(), id])
}

#[test]
fn merged_outputs_are_in_the_order_in_which_they_came() {
    let home = Home::new();
    let script = "for n in $(seq 300); do echo out $n; echo err $n >&2; done";
    home.ok(["run", "--id", "a", "--merge", "--wait", script]);
    let expected = (1..=300).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "out {n}\nerr {n}");
        text
    });
    assert_eq!(String::from_utf8(home.stdout("a")).expect("UTF-8"), expected);
    assert_eq!(home.stderr("a"), b"", "all of it is in the one");
    assert_eq!(home.record("a")["log_bytes"], json!(expected.len()), "and counted once");
    // Together with a file, and followed.
    let said = home.nodejobs(["run", "--id", "b", "--merge", "--logfile", "b.log", "--follow", script]);
    assert_eq!((said.code, said.stdout == expected.as_bytes()), (0, true));
    assert_eq!(std::fs::read_to_string(home.path().join("b.log")).expect("read"), expected);
    assert!(!home.path().join("b.log.err").exists());
    home.ok(["restart", "b"]);
    home.ended("b");
    assert_eq!(home.stdout("b"), expected.as_bytes());
    assert_eq!(home.record("b")["log_bytes"], json!(expected.len()));
}

/// N30
#[test]
fn logs_are_found_wherever_the_caller_goes() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("elsewhere")).expect("made");
    let absolute = home.path().join("abs/logs");
    let absolute = absolute.to_str().expect("UTF-8");
    for (id, options, file) in [
        ("a", &["--logdir", "rel/logs"][..], "rel/logs/a.1.out"),
        ("b", &["--logdir", absolute], "abs/logs/b.1.out"),
        ("c", &["--logfile", "./c.log"], "c.log"),
        ("d", &["--logfile", &format!("{absolute}/d.log")], "abs/logs/d.log"),
        ("e", &["--logdir", "both", "--logfile", "sub/e.log"], "both/sub/e.log"),
        ("f", &["--logdir", "both", "--logfile", &format!("{absolute}/f.log")], "abs/logs/f.log"),
    ] {
        home.ok(["run", "--id", id, "--cwd", "/"]
            .iter()
            .chain(options)
            .chain(&["--wait", "echo $JOB_ID; echo e >&2"]));
        let path = home.path().join(file);
        assert_eq!(lines(&path), [id], "{options:?}");
        let record = home.record(id);
        assert_eq!(text(&record, "logfile"), path.to_str().expect("UTF-8"), "{record}");
        assert_eq!(text(&record, "logdir"), path.parent().and_then(|path| path.to_str()).expect("UTF-8"));
        let read = |words: &[&str]| {
            let mut command = home.command(words);
            crate::support::said(command.current_dir(home.path().join("elsewhere"))).text()
        };
        assert_eq!(read(&["logs", id]), id);
        assert_eq!(read(&["logs", "--stderr", id]), "e");
        let filter = format!("logdir={}", text(&record, "logdir"));
        assert!(read(&["ls", "--all", "--filter", &filter]).contains(id));
    }
    kill(home.daemon_pid());
    home.ok(["restart", "a"]);
    home.ended("a");
    assert_eq!(lines(&home.path().join("rel/logs/a.2.out")), ["a"], "the next attempt is beside it");
}

#[test]
fn attempts_that_share_a_file_each_have_their_part() {
    let home = Home::new();
    std::fs::write(home.path().join("log"), "not ours\n").expect("written");
    let script =
        "printf \"begin $NODEJOBS_ATTEMPT\\n1\\n2\\nend $NODEJOBS_ATTEMPT\"; echo err $NODEJOBS_ATTEMPT >&2";
    home.ok(["run", "--id", "a", "--logfile", "log", "--wait", script]);
    for _ in 0..2 {
        home.ok(["restart", "a"]);
        home.ended("a");
    }
    let whole = std::fs::read_to_string(home.path().join("log")).expect("read");
    let part = |n: u32| format!("begin {n}\n1\n2\nend {n}");
    assert_eq!(whole, format!("not ours\n{}{}{}", part(1), part(2), part(3)));
    for attempt in 1..=3 {
        let number = attempt.to_string();
        assert_eq!(output(&home, "a", attempt), part(attempt));
        assert_eq!(home.ok(["logs", "--stderr", "--attempt", &number, "a"]), format!("err {attempt}"));
        assert_eq!(home.ok(["logs", "--tail", "2", "--attempt", &number, "a"]), format!("2\nend {attempt}"));
        let all = home.ok(["logs", "--tail", "99", "--attempt", &number, "a"]);
        assert_eq!(all, part(attempt), "lines of others are none of its own");
        let followed = home.nodejobs(["logs", "-f", "--attempt", &number, "a"]);
        assert_eq!(followed.text(), part(attempt));
        let tail = home.nodejobs(["logs", "-f", "--tail", "1", "--attempt", &number, "a"]);
        assert_eq!(tail.text(), format!("end {attempt}"));
    }
    let bytes: Vec<_> = home.history("a").iter().map(|record| record["log_bytes"].clone()).collect();
    assert_eq!(bytes, [json!(23), json!(23), json!(23)]);
}

#[test]
fn a_part_ends_where_the_next_one_in_the_file_begins_whatever_comes_between() {
    let home = Home::new();
    let run = |logfile: &str, words: &[&str]| {
        let options = ["run", "--id", "a", "--logfile", logfile, "--wait"];
        home.nodejobs(options.iter().chain(words));
    };
    run("log", &["echo one"]);
    run("log", &["--", "no-such-program"]);
    run("other", &["echo three"]);
    run("log", &["echo four"]);
    assert_eq!(lines(&home.path().join("log")), ["one", "four"]);
    let outputs: Vec<_> = (1..=4).map(|attempt| output(&home, "a", attempt)).collect();
    assert_eq!(outputs, ["one", "", "three", "four"]);
    let bytes: Vec<_> = home.history("a").iter().map(|record| record["log_bytes"].clone()).collect();
    assert_eq!(bytes, [json!(4), json!(null), json!(6), json!(5)]);
}

#[test]
fn jobs_that_share_a_file_lose_nothing() {
    let home = Home::new();
    let script = "for n in $(seq 200); do echo $JOB_ID $n; done";
    let ids = ["a", "b", "c"];
    for id in ids {
        home.ok(["run", "--id", id, "--merge", "--logfile", "log", script]);
    }
    ids.iter().for_each(|id| drop(home.ended(id)));
    let written = lines(&home.path().join("log"));
    assert_eq!(written.len(), 600);
    for id in ids {
        let own: Vec<_> = written.iter().filter(|line| line.starts_with(id)).cloned().collect();
        let expected: Vec<_> = (1..=200).map(|n| format!("{id} {n}")).collect();
        assert_eq!(own, expected);
    }
    // One that comes later begins where they had ended.
    home.ok(["run", "--id", "d", "--merge", "--logfile", "log", "--wait", "echo last"]);
    assert_eq!(home.stdout("d"), b"last\n");
}

#[test]
fn a_shared_file_is_followed_from_where_the_attempt_began() {
    let home = Home::new();
    std::fs::write(home.path().join("log"), "old\nold\n").expect("written");
    let cue = Cue::new(&home, "cue");
    let script = format!("exec 9<>'{}'; echo first; read line <&9; echo second; exit 3", cue.path());
    home.ok(["run", "--id", "a", "--logfile", "log", &script]);
    for options in [&["logs", "-f", "a"][..], &["logs", "-f", "--tail", "5", "a"]] {
        let follow =
            home.command(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        eventually("it runs", || (home.stdout("a") == b"first\n").then_some(()));
        cue.say("go on");
        let output = follow.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "first\nsecond\n");
        home.ok(["restart", "a"]);
    }
    home.ok(["stop", "a"]);
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let home = Home::new();
    std::fs::write(home.path().join("file"), "mine").expect("written");
    std::fs::create_dir(home.path().join("dir")).expect("made");
    std::fs::create_dir(home.path().join("log.err")).expect("made");
    for (options, path) in [
        (&["--logfile", "dir"][..], "dir"),
        (&["--logfile", "file/log"], "file"),
        (&["--logdir", "file"], "file"),
        (&["--logfile", "log"], "log.err"),
        (&["--logdir", "/proc/none"], "/proc/none"),
    ] {
        let said = home.nodejobs(["run", "--id", "a"].iter().chain(options).chain(&["--wait", "--", "true"]));
        assert_eq!(said.code, 125, "{said:?}");
        let record = home.record("a");
        assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed_start", "exec"), "{record}");
        let path = home.path().join(path);
        assert!(text(&record, "detail").contains(path.to_str().expect("UTF-8")), "{record}");
        home.nodejobs(["logs", "a"]);
    }
    assert_eq!(std::fs::read(home.path().join("file")).expect("read"), b"mine");
    assert_eq!(home.nodejobs(["run", "--wait", "--", "true"]).code, 0, "others go on");
}

#[test]
fn a_named_pipe_as_a_log_file_keeps_nobody_waiting() {
    let home = Home::new();
    for name in ["fifo", "fifo.err"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, home.path().join(name), rustix::fs::Mode::RWXU)
            .expect("a pipe");
    }
    // Without a reader it cannot be opened.
    let run = ["run", "--id", "a", "--logfile", "fifo", "--wait", "echo out; echo err >&2"];
    assert_eq!(home.nodejobs(run).code, 125);
    let record = home.record("a");
    let path = home.path().join("fifo");
    assert!(text(&record, "detail").contains(path.to_str().expect("UTF-8")), "{record}");
    let nothing = |words: &[&str]| {
        let said = home.nodejobs(words);
        assert!(said.stdout.is_empty(), "{said:?}");
        assert_eq!(home.nodejobs(["run", "--wait", "--", "true"]).code, 0, "{words:?} keeps nobody waiting");
    };
    let reads = [
        &["logs", "a"][..],
        &["logs", "--tail", "1", "a"],
        &["logs", "-f", "a"],
        &["logs", "-f", "--tail", "1", "a"],
    ];
    reads.iter().for_each(|words| nothing(words));
    // With one it can, and whoever asks for logs takes nothing away from that one.
    let mut readers = ["fifo", "fifo.err"].map(|name| {
        std::process::Command::new("cat")
            .arg(home.path().join(name))
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat")
    });
    let cue = Cue::new(&home, "cue");
    let script = format!("exec 9<>'{}'; read line <&9; echo out; echo err >&2", cue.path());
    // Opened for nothing but to keep the readers, which may not have come yet, from missing the job.
    let held = ["fifo", "fifo.err"].map(|name| {
        std::fs::OpenOptions::new().read(true).write(true).open(home.path().join(name)).expect("opened")
    });
    home.ok(["run", "--id", "a", "--logfile", "fifo", &script]);
    home.running("a");
    let mut follow = home
        .command(["logs", "-f", "a"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    nothing(&["logs", "a"]);
    cue.say("go on");
    drop(held);
    let read = readers.each_mut().map(|reader| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader.stdout.take().expect("a pipe"), &mut text).expect("read");
        reader.wait().expect("ended");
        text
    });
    assert_eq!(read, ["out\n", "err\n"]);
    assert_eq!(text(&home.ended("a"), "status"), "finished");
    assert!(follow.wait().expect("ended").success());
    // Now nobody is at its other end. Whoever waited for somebody would be one of few threads that look into the store.
    let bound = ["logs", "-o", "jsonl", "--tail", "1", "a"];
    for _ in 0..5 {
        let said = home.nodejobs(bound);
        assert_eq!((said.code, said.text().lines().count()), (0, 1), "nothing but its end: {said:?}");
    }
}

#[test]
fn what_keeps_nothing_may_be_a_log_file_too() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--merge", "--logfile", "/dev/null", "--wait", "echo x; echo y >&2"]);
    assert_eq!((home.stdout("a"), home.stderr("a")), (vec![], vec![]));
    assert_eq!(home.nodejobs(["logs", "-f", "a"]).code, 0);
    home.ok(["rm", "a"]);
    assert!(std::path::Path::new("/dev/null").exists());
}
