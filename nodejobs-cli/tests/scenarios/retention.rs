//! Ended jobs that are forgotten by themselves, as `[history]` says.

use crate::support::{Home, eventually, text};

fn write(home: &Home, text: &str) {
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("config.toml"), text).expect("written");
}

fn left(home: &Home) -> Vec<String> {
    home.records().iter().map(|record| text(record, "self_id").to_owned()).collect()
}

#[test]
fn jobs_go_when_their_time_is_up_and_their_logs_with_them() {
    let home = Home::new();
    write(&home, "[history]\nkeep_for = \"4s\"\n");
    home.ok(["run", "--id", "lives", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "first", "--wait", "echo x"]);
    let log = text(&home.record("first"), "logfile").to_owned();
    assert!(std::path::Path::new(&log).exists());
    eventually("the first is gone", || (!left(&home).contains(&"first".to_owned())).then_some(()));
    assert!(!std::path::Path::new(&log).exists());
    // What ends after a time without any end has its own time.
    home.ok(["run", "--id", "second", "--wait", "--", "true"]);
    assert_eq!(left(&home), ["lives", "second"]);
    eventually("the second is gone", || (left(&home) == ["lives"]).then_some(()));
    let log = std::fs::read_to_string(home.data_dir().join("daemon.log")).expect("a log");
    assert!(log.contains("forgot 1 ended jobs, as [history] says"), "{log}");
}

#[test]
fn what_was_due_without_a_daemon_goes_when_the_next_one_comes() {
    let home = Home::new();
    for number in 0..5 {
        home.ok(["run", "--id", &format!("j{number}"), "--wait", "--", "true"]);
    }
    home.ok(["run", "--id", "lives", "--", "sleep", "1000"]);
    home.ok(["daemon", "stop"]);
    write(&home, "[history]\nkeep_last = 2\n");
    eventually("three are gone", || (left(&home) == ["j3", "j4", "lives"]).then_some(()));
    home.ok(["run", "--id", "j5", "--wait", "--", "true"]);
    eventually("one more is gone", || (left(&home) == ["j4", "lives", "j5"]).then_some(()));
    // Without the setting nothing goes.
    write(&home, "");
    home.ok(["daemon", "reload"]);
    for number in 6..9 {
        home.ok(["run", "--id", &format!("j{number}"), "--wait", "--", "true"]);
    }
    assert_eq!(left(&home).len(), 6);
    write(&home, "[history]\nkeep_last = 1\n");
    home.ok(["daemon", "reload"]);
    eventually("all but one are gone", || (left(&home) == ["lives", "j8"]).then_some(()));
}

#[test]
fn of_a_job_that_is_started_again_and_again_the_newest_attempts_are_kept() {
    let home = Home::new();
    write(&home, "[history]\nkeep_attempts = 5\n");
    let run =
        ["run", "--id", "again", "--restart", "always", "--restart-delay", "1ms", "--give-up-after", "never"];
    home.ok([&run[..], &["--max-restarts", "40", "echo \"attempt $NODEJOBS_ATTEMPT\""]].concat());
    home.ok(["run", "--id", "other", "--wait", "--", "true"]);
    home.nodejobs(["wait", "again"]);
    let kept = || {
        let attempts = home.nodejobs(["-o", "json", "history", "again"]).json();
        let number = |record: &serde_json::Value| record["attempt"].as_u64().expect("a number");
        attempts.as_array().expect("a list").iter().map(number).collect::<Vec<_>>()
    };
    // At the 16th and the 32nd all but five were forgotten.
    eventually("the old ones are gone", || (kept() == (28..=41).collect::<Vec<_>>()).then_some(()));
    assert_eq!(home.ok(["logs", "again", "--attempt", "28"]), "attempt 28");
    let said = home.nodejobs(["logs", "again", "--attempt", "27"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.stderr.contains("attempt 27 of job 'again' is not kept any more; the oldest that is, is 28"),
        "{said:?}"
    );
    let logs = home.data_dir().join("logs");
    let files = |directory: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
    };
    let names: Vec<String> = files(&logs).iter().flat_map(|name| files(&logs.join(name))).collect();
    let of =
        |attempt: u32| names.iter().filter(|name| name.starts_with(&format!("again.{attempt}."))).count();
    assert_eq!((1..28).map(of).sum::<usize>(), 0, "{names:?}");
    assert!((28..=41).all(|attempt| of(attempt) > 0), "{names:?}");
    // The store agrees with itself, also as an export that is read again.
    home.ok(["daemon", "stop"]);
    home.ok(["store", "check"]);
    home.ok(["store", "export", "--to", "e.jsonl"]);
    let copy = Home::new();
    let export = std::fs::read(home.path().join("e.jsonl")).expect("an export");
    let said = copy.with_input(&["store", "import", "-"], &export);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(copy.nodejobs(["-o", "json", "history", "again"]).json().as_array().map(Vec::len), Some(14));
}
