//! The options of `run`: what a job reads, its variables, its labels, what counts as success, what is refused.

use std::path::Path;

use serde_json::json;

use crate::support::{Home, Said, kill, text};

#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.is_empty() && !said.stderr.contains("panicked"), "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "'{word}' is not in {said:?}");
    }
}

/// The names in a directory that end so.
fn names(directory: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(ending)).collect()
}

fn inputs_on_disk(home: &Home) -> Vec<String> {
    names(&home.data_dir().join("keepers"), ".input")
}

fn inputs_in_store(home: &Home) -> usize {
    home.documents("input")
}

/// P2
#[test]
fn a_job_reads_what_it_is_given_byte_for_byte() {
    let home = Home::new();
    for (number, input) in [&b"abc"[..], b"", b"\xff\xfe\0\n\r\n"].into_iter().enumerate() {
        let id = format!("in-{number}");
        let said = home.with_input(&["run", "--id", &id, "--stdin", "-", "--wait", "--", "cat"], input);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(home.stdout(&id), input);
        assert_eq!(inputs_on_disk(&home), [""; 0], "it goes once it was opened");
    }
    // Nobody who gives nothing gives what is on the command's own standard input.
    let said = home.with_input(&["run", "--id", "none", "--wait", "--", "cat"], b"not for it");
    assert_eq!((said.code, home.stdout("none")), (0, vec![]), "{said:?}");
}

#[test]
fn input_of_16_mib_is_kept_with_a_job_and_not_a_byte_more() {
    let home = Home::new();
    let input: Vec<u8> = (0..(16 << 20) + 1).map(|n: u32| (n % 251) as u8).collect();
    let whole = &input[..16 << 20];
    std::fs::write(home.path().join("whole"), whole).expect("written");
    let said = home.with_input(&["run", "--stdin", "-", "--wait", "--", "cmp", "-", "whole"], whole);
    assert_eq!(said.code, 0, "{said:?}");
    let said = home.with_input(&["run", "--id", "b", "--stdin", "-", "--", "cat"], &input);
    refused(&said, &["16 MiB", "--stdin FILE"]);
    assert_eq!(home.nodejobs(["status", "b"]).code, 3);
    std::fs::write(home.path().join("more"), &input).expect("written");
    assert_eq!(home.nodejobs(["run", "--stdin", "more", "--wait", "--", "cmp", "-", "more"]).code, 0);
}

#[test]
fn a_file_is_read_when_the_job_starts_and_named_if_it_is_not_there() {
    let home = Home::new();
    std::fs::write(home.path().join("in"), "one\n").expect("written");
    home.ok(["run", "--id", "a", "--cwd", "/", "--stdin", "in", "--wait", "--", "cat"]);
    assert_eq!(home.stdout("a"), b"one\n", "it is relative to the caller's directory, not to the job's");
    std::fs::remove_file(home.path().join("in")).expect("removed");
    home.ok(["restart", "a"]);
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed_start", "exec"), "{record}");
    let path = home.path().join("in");
    assert!(text(&record, "detail").contains(path.to_str().expect("UTF-8")), "{record}");
    assert_eq!(home.nodejobs(["wait", "a"]).code, 125);
    assert_eq!(home.stdout("a"), b"");
}

#[test]
fn what_is_no_file_is_no_input() {
    let home = Home::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, home.path().join("fifo"), rustix::fs::Mode::RWXU).expect("a pipe");
    refused(&home.nodejobs(["run", "--stdin", "fifo", "--", "cat"]), &["'fifo'", "is not a file"]);
    refused(&home.nodejobs(["run", "--stdin", ".", "--", "cat"]), &["'.'", "is not a file"]);
    refused(&home.nodejobs(["run", "--stdin", "none", "--", "cat"]), &["'none'"]);
    assert!(!home.data_dir().exists());
}

#[test]
fn input_is_there_for_every_attempt_and_goes_with_the_job() {
    let home = Home::new();
    let said = home.with_input(&["run", "--id", "a", "--stdin", "-", "--wait", "--", "cat"], b"kept\n");
    assert_eq!((said.code, inputs_in_store(&home)), (0, 1), "{said:?}");
    home.ok(["restart", "a"]);
    assert_eq!(home.ended("a")["attempt"], 2);
    assert_eq!(home.stdout("a"), b"kept\n");
    kill(home.daemon_pid());
    home.ok(["restart", "a"]);
    assert_eq!(home.ended("a")["attempt"], 3);
    assert_eq!(home.stdout("a"), b"kept\n");
    // A further submit brings its own.
    home.with_input(&["run", "--id", "a", "--stdin", "-", "--wait", "--", "cat"], b"new\n");
    assert_eq!((home.stdout("a"), inputs_in_store(&home)), (b"new\n".to_vec(), 2));
    home.ok(["rm", "a"]);
    assert_eq!(inputs_in_store(&home), 0);
}

#[test]
fn no_input_is_left_on_disk_when_the_daemon_is_killed_at_the_launch() {
    let home = Home::new();
    let input = vec![b'x'; 1 << 20];
    for round in 0..8 {
        home.ok(["ls"]);
        let daemon = home.daemon_pid();
        let id = format!("r{round}");
        let said = std::thread::scope(|scope| {
            let run = scope
                .spawn(|| home.with_input(&["run", "--id", &id, "--stdin", "-", "--", "wc", "-c"], &input));
            // Sooner or later in what it does for the job.
            for _ in 0..round {
                home.ok(["ls"]);
            }
            kill(daemon);
            run.join().expect("no panic")
        });
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(text(&home.ended(&id), "status"), "finished");
        assert_eq!(String::from_utf8_lossy(&home.stdout(&id)).trim(), "1048576");
        assert_eq!(inputs_on_disk(&home), [""; 0]);
    }
}

#[test]
fn variables_come_from_the_caller_then_from_files_then_from_the_options() {
    let home = Home::new()
        .with("ONE", "caller")
        .with("TWO", "caller")
        .with("THREE", "caller")
        .with("FOUR", "caller");
    std::fs::write(home.path().join("first"), "TWO=first\nTHREE='first'\nexport FOUR=\"first\"\n")
        .expect("written");
    std::fs::write(home.path().join("second"), "THREE=second\n# x\n\nFOUR=second\n").expect("written");
    let files = ["run", "--env-file", "first", "--env-file", "second", "--env", "FOUR=option", "--id", "a"];
    home.ok(files.iter().chain(&[
        "--env",
        "FIVE=",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo $ONE $TWO $THREE $FOUR [$FIVE]",
    ]));
    assert_eq!(home.stdout("a"), b"caller first second option []\n");
    home.ok([
        "run",
        "--id",
        "b",
        "--env",
        "X=1",
        "--env",
        "X=2",
        "--env",
        "Y=a=b",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo $X $Y",
    ]);
    assert_eq!(home.stdout("b"), b"2 a=b\n", "the last one counts");
}

#[test]
fn a_clean_environment_has_nothing_but_what_is_given_and_the_marks() {
    let home = Home::new().with("LEAK", "leak");
    std::fs::write(home.path().join("vars"), "A=1\n").expect("written");
    let words = [
        "run",
        "--id",
        "a",
        "--clean-env",
        "--env-file",
        "vars",
        "--env",
        "B=2",
        "--wait",
        "--",
        "/usr/bin/env",
        "-0",
    ];
    home.ok(words);
    let out = String::from_utf8(home.stdout("a")).expect("UTF-8");
    let mut names: Vec<_> =
        out.split_terminator('\0').map(|line| line.split_once('=').expect("a variable").0).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "B", "JOB_ID", "NODEJOBS_ATTEMPT", "NODEJOBS_MARK"], "{out:?}");
    assert!(out.contains("A=1\0") && out.contains("B=2\0") && out.contains("JOB_ID=a\0"), "{out:?}");
    // Programs are found all the same.
    home.ok(["run", "--clean-env", "--wait", "--", "env"]);
}

#[test]
fn a_bad_line_of_variables_is_named_and_never_shown() {
    let home = Home::new();
    for (line, word) in [
        ("s3cret", "there is no '='"),
        ("A B=s3cret", "not a name"),
        ("A='s3cret", "not closed"),
        ("A=s3cret # x", "comment"),
    ] {
        std::fs::write(home.path().join("vars"), format!("X=s3cret\n\n{line}\n")).expect("written");
        let said = home.nodejobs(["run", "--env-file", "vars", "--", "true"]);
        refused(&said, &["'vars'", "line 3", word]);
        assert!(!said.stderr.contains("s3cret"), "{said:?}");
    }
    refused(&home.nodejobs(["run", "--env-file", "none", "--", "true"]), &["'none'"]);
    refused(&home.nodejobs(["run", "--env-file", ".", "--", "true"]), &["'.'"]);
    let said = home.nodejobs(["run", "--env", "s3cret", "--", "true"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(!home.data_dir().exists());
}

#[test]
fn the_codes_that_mean_success_are_the_users() {
    let home = Home::new();
    for (codes, exit, status) in [
        ("0,3", 3, "finished"),
        ("0,3", 0, "finished"),
        ("0,3", 4, "failed"),
        ("3", 0, "failed"),
        ("255", 255, "finished"),
    ] {
        let script = format!("exit {exit}");
        let said = home.nodejobs([
            "run",
            "--id",
            "a",
            "--success-codes",
            codes,
            "--wait",
            "--",
            "sh",
            "-c",
            &script,
        ]);
        assert_eq!(said.code, exit, "the code is the job's own, success or not: {said:?}");
        let record = home.record("a");
        assert_eq!(
            (text(&record, "status"), &record["exit_code"]),
            (status, &json!(exit)),
            "{codes} {record}"
        );
    }
    // A signal is no code.
    home.nodejobs(["run", "--id", "a", "--success-codes", "137,9", "--wait", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(text(&home.record("a"), "reason"), "signal");
}

#[test]
fn jobs_are_found_by_their_labels() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--label", "kind=report", "--label", "for=ü x=1", "--wait", "--", "true"]);
    home.ok(["run", "--id", "b", "--label", "kind=build", "--wait", "--", "true"]);
    assert_eq!(home.record("a")["labels"], json!({"kind": "report", "for": "ü x=1"}));
    let found = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", *filter]);
        let said = home.nodejobs(["-o", "json", "ls", "--all", "--oldest-first"].into_iter().chain(filters));
        let jobs = said.json();
        let jobs = jobs.as_array().expect("a list").iter();
        jobs.map(|job| text(job, "self_id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["label=kind=report"]), ["a"]);
    assert_eq!(found(&["label=kind"]), ["a", "b"]);
    assert_eq!(found(&["label=kind=build", "label=for"]), [""; 0]);
    assert_eq!(found(&["label=for=ü x=1"]), ["a"]);
    home.ok(["restart", "b"]);
    home.ended("b");
    assert_eq!(found(&["label=kind=build"]), ["b"], "the next attempt has them as well");
}

#[test]
fn options_that_mean_nothing_are_refused_before_anything_is_made() {
    let home = Home::new();
    let long = "x".repeat(129);
    let many_codes = "0,256";
    for options in [
        &["--timeout", "0s"][..],
        &["--timeout", "5"],
        &["--timeout", "-5s"],
        &["--timeout", ""],
        &["--grace", "soon"],
        &["--delay", "5"],
        &["--delay", "5m", "--at", "18:00"],
        &["--at", "2020-01-01T00:00:00Z"],
        &["--at", "yesterday"],
        &["--at", ""],
        &["--stop-signal", "NONE"],
        &["--stop-signal", "0"],
        &["--stop-signal", "999"],
        &["--success-codes", "x"],
        &["--success-codes", ""],
        &["--success-codes", many_codes],
        &["--success-codes", "-1"],
        &["--label", "a"],
        &["--label", "=b"],
        &["--label", "a="],
        &["--label", "a=1", "--label", "a=2"],
        &["--label", "a\nb=c"],
        &["--label", &format!("{long}=1")],
        &["--logfile", ""],
        &["--logfile", "dir/"],
        &["--logdir", ""],
        &["--logdir", "d", "--logfile", ""],
        &["--logdir", "d", "--logfile", "f/"],
        &["--env-file", ""],
        &["--stdin", ""],
        &["--stdin", "/"],
    ] {
        let said = home.nodejobs(["run"].iter().chain(options).chain(&["--", "true"]));
        assert_eq!(said.code, 2, "{options:?} {said:?}");
        assert!(said.stdout.is_empty() && said.stderr.contains("error"), "{options:?} {said:?}");
    }
    assert_eq!(names(home.path(), ""), [""; 0], "not even the data directory was made");
    // Nor where there is a daemon.
    home.ok(["ls"]);
    for words in [
        &["wait", "--timeout", "5", "a"][..],
        &["wait", "--any"],
        &["restart"],
        &["restart", "--force", "--grace", "1s", "a"],
        &["restart", "--signal", "NONE", "a"],
        &["rm"],
        &["rm", "a/b"],
        &["pause"],
        &["resume"],
        &["history"],
        &["history", "a", "b"],
    ] {
        let said = home.nodejobs(words);
        let expected = if words[0] == "wait" && words[1] == "a/b" { 125 } else { 2 };
        assert_eq!(said.code, expected, "{words:?} {said:?}");
    }
    assert_eq!(home.records(), [] as [serde_json::Value; 0]);
}
