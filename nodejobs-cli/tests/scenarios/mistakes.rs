//! Wrong command lines: each is refused before anything is done, and says what is wrong and how it is written.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::support::Home;

#[test]
fn a_mistake_is_named_with_the_way_out() {
    let home = Home::new();
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("written");
    let (file, below) = (file.display().to_string(), format!("{}/x", file.display()));
    let mistakes: [(&[&str], i32, &str); 20] = [
        (&["run", "--id", "a b", "--", "true"], 2, "allowed are A-Z a-z 0-9 . _ -"),
        (&["run", "--timeout", "5", "--", "true"], 2, "'5' lacks a unit; write durations like 500ms, 5s"),
        (&["run", "--label", "k", "--", "true"], 2, "write KEY=VALUE"),
        (&["run", "--stdin", "/nope", "--", "true"], 2, "cannot read --stdin '/nope'"),
        (&["run", "--success-codes", "0,x", "--", "true"], 2, "an exit code is a number from 0 to 255"),
        (&["run", "--success-codes", "256", "--", "true"], 2, "an exit code is a number from 0 to 255"),
        (&["run", "--shell", "a", "b"], 2, "--shell takes one script, not 2 arguments; put it in quotes"),
        (&["run", "--follow", "-o", "json", "--", "true"], 2, "leave out -o"),
        (&["run", ""], 2, "the command is empty; say what to run"),
        (&["ls", "--pid", "x"], 2, "not a whole number"),
        (&["ls", "--after", "99999999999999999999"], 2, "too large"),
        (&["ls", "--since", "tomorrow"], 2, "write how long ago it was, such as 90s"),
        (&["ls", "--sort", "size"], 2, "log-size"),
        (&["ls", "--status", "done"], 2, "finished"),
        (&["logs", "--tail", "x", "a"], 2, "not a whole number"),
        (&["stop", "--signal", "99", "a"], 2, "a name such as TERM or a number from 1 to 31"),
        (&["--data-dir", &file, "ls"], 5, "is a file, not a directory; choose another with --data-dir"),
        (&["--data-dir", &below, "ls"], 5, "is a file; choose another with --data-dir"),
        (
            &["--data-dir", "/proc/nodejobs", "ls"],
            5,
            "choose another directory with --data-dir or NODEJOBS_DIR",
        ),
        (&["daemon", "status"], 5, "`nodejobs daemon start` starts one"),
    ];
    for (words, code, way_out) in mistakes {
        let said = home.nodejobs(words);
        assert_eq!((said.code, said.stdout.len()), (code, 0), "{words:?} {said:?}");
        assert!(said.stderr.contains(way_out), "{words:?} {said:?}");
        // What a library says of a number it cannot read helps nobody.
        assert!(!said.stderr.contains("invalid digit"), "{words:?} {said:?}");
    }
    assert!(!home.data_dir().exists(), "nothing was begun for any of them");
    let odd = home.nodejobs(["status", "my job"]);
    assert!(odd.code == 2 && odd.stderr.contains("no job has the name 'my job', and it is no id"), "{odd:?}");
}

#[test]
fn json_was_asked_for_and_errors_are_still_words_on_standard_error() {
    let home = Home::new();
    for words in [&["status", "nobody"][..], &["history", "nobody"], &["wait", "nobody"], &["logs", "nobody"]]
    {
        let said = home.nodejobs(["-o", "jsonl"].iter().chain(words));
        assert!(said.stdout.is_empty() && said.stderr.starts_with("error: no job has"), "{words:?} {said:?}");
    }
}

#[test]
fn a_directory_of_other_files_is_neither_closed_to_its_users_nor_written_to() {
    let home = Home::new();
    let shared = home.path().join("shared");
    std::fs::create_dir(&shared).expect("made");
    std::fs::write(shared.join("theirs"), "").expect("written");
    let mode = |mode| std::fs::set_permissions(&shared, Permissions::from_mode(mode)).expect("set");
    mode(0o1777);
    let place = shared.display().to_string();
    for words in [&["ls"][..], &["run", "--", "true"], &["daemon", "start"], &["daemon", "serve"]] {
        let said = home.nodejobs(["--data-dir", &place].iter().chain(words));
        assert!(said.code == 5 && said.stderr.contains("'theirs', which is not ours"), "{words:?} {said:?}");
    }
    let doctor = home.nodejobs(["--data-dir", &place, "doctor"]);
    assert!(doctor.code == 1 && doctor.text().contains("'theirs' in it is not ours"), "{doctor:?}");
    let now = std::fs::metadata(&shared).expect("there").permissions().mode() & 0o7777;
    assert_eq!((now, std::fs::read_dir(&shared).expect("read").count()), (0o1777, 1));
    // The way out that is told.
    mode(0o700);
    let said = home.nodejobs(["--data-dir", &place, "run", "--wait", "--", "true"]);
    let stopped = home.nodejobs(["--data-dir", &place, "daemon", "stop"]);
    assert_eq!((said.code, stopped.code), (0, 0), "{said:?} {stopped:?}");
}

#[test]
fn what_is_meant_otherwise_is_not_done_as_it_is_written() {
    let home = Home::new();
    for (words, told) in [
        (&["run", "echo a; sleep 1", "-o", "json"][..], "options before it"),
        (&["run", "--env", "JOB_ID=mine", "--", "true"], "'JOB_ID' is set by nodejobs"),
    ] {
        let refused = home.nodejobs(words);
        assert!(refused.code == 2 && refused.stderr.contains(told), "{refused:?}");
    }
    assert!(!home.data_dir().exists());
    // Said with `--` it is meant so, and a path may have any name.
    let job = home.ok(["run", "--", "no such", "-x"]);
    assert_eq!(home.ended(&job)["status"], "failed_start");
    // A mistyped directory is not made.
    let file = home.path().join("typo/x.log");
    let job = home.ok(["run", "--logfile", file.to_str().expect("UTF-8"), "--", "true"]);
    let record = home.ended(&job);
    assert!(record["detail"].as_str().expect("why").contains("typo/x.log'"), "{record}");
    assert!(!home.path().join("typo").exists());
}
