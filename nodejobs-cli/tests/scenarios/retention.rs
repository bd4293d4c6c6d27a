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
