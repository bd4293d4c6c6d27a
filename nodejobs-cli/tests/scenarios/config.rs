//! `config.toml`: defaults of `run`, what the daemon goes by, and files with mistakes.

use serde_json::{Value, json};

use crate::support::{Home, eventually, is_alive, text};

fn write(home: &Home, text: &str) {
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("config.toml"), text).expect("written");
}

fn setting(status: &Value, key: &str) -> Value {
    let settings = status["settings"].as_array().expect("settings");
    settings.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("{key}: {status}")).clone()
}

#[test]
fn run_has_the_defaults_of_the_file_where_no_option_says_otherwise() {
    let home = Home::new();
    write(
        &home,
        "[defaults]\ntimeout = \"200ms\"\nstop_signal = \"KILL\"\nsuccess_codes = [7]\nmerge = true\n",
    );
    let said = home.nodejobs(["run", "--id", "slow", "--wait", "--", "sleep", "100"]);
    assert_eq!(said.code, 124, "{said:?}");
    let slow = home.record("slow");
    assert_eq!((text(&slow, "reason"), &slow["signal"]), ("timeout", &json!(9)), "{slow}");
    assert_eq!(home.nodejobs(["run", "--wait", "exit 7"]).code, 7);
    assert_eq!(text(&home.ended("slow"), "status"), "failed");
    home.ok([
        "run",
        "--id",
        "both",
        "--timeout",
        "none",
        "--wait",
        "--success-codes",
        "0",
        "echo o; echo e >&2",
    ]);
    assert_eq!(home.stdout("both"), b"o\ne\n", "standard error is in the same file");
    home.ok([
        "run",
        "--id",
        "apart",
        "--merge=false",
        "--wait",
        "--success-codes",
        "0",
        "echo o; echo e >&2",
    ]);
    assert_eq!(home.stdout("apart"), b"o\n");
    // What the file has counts from the next `run` on, whatever the daemon has read.
    write(&home, "[defaults]\nrestart = \"on-failure\"\nrestart_delay = \"1ms\"\n");
    home.nodejobs(["run", "--id", "again", "--max-restarts", "2", "--wait", "exit 1"]);
    assert_eq!(home.history("again").len(), 3);
    home.nodejobs(["run", "--id", "once", "--restart", "no", "--wait", "exit 1"]);
    assert_eq!(home.history("once").len(), 1);
}

#[test]
fn a_file_with_mistakes_is_refused_by_whoever_needs_it() {
    let home = Home::new();
    write(&home, "[defaults]\ngrce = \"5s\"\n\n[history]\nkeep_for = \"5\"\n");
    let expected = [
        "config.toml' cannot be used:\n  line 2: unknown key 'grce' in [defaults]; did you mean 'grace'?",
        "\n  line 5: history.keep_for: '5' lacks a unit; write durations like",
    ];
    let path = home.data_dir().join("config.toml").display().to_string();
    for words in
        [&["run", "--", "true"][..], &["ls"], &["daemon", "start"], &["config", "check"], &["config", "show"]]
    {
        let said = home.nodejobs(words);
        assert_eq!(said.code, 2, "{words:?}: {said:?}");
        assert!(said.stderr.contains(&path), "{words:?}: {said:?}");
        assert!(expected.iter().all(|expected| said.stderr.contains(expected)), "{words:?}: {said:?}");
    }
    assert!(!home.data_dir().join("nodejobs.json").exists(), "nothing was begun");
    assert!(!home.data_dir().join("failed-starts.json").exists(), "the next command looks again at once");
    let said = home.nodejobs(["doctor"]);
    assert!(said.code == 1 && said.text().contains("problem  config.toml"), "{said:?}");
    assert_eq!(home.ok(["config", "path"]), path);
    write(&home, "");
    home.ok(["run", "--wait", "--", "true"]);
}

#[test]
fn the_daemon_goes_by_what_it_read_until_it_is_told_to_read_again() {
    let home = Home::new();
    assert_eq!(home.nodejobs(["daemon", "reload"]).code, 5, "there is none");
    home.ok(["daemon", "start"]);
    write(&home, "[daemon]\nidle_exit = \"1h\"\n");
    let said = home.nodejobs(["doctor"]);
    assert!(said.text().contains("idle_exit = 1h (config.toml:2)"), "{said:?}");
    assert!(said.text().contains("changed since the daemon read it: daemon.idle_exit"), "{said:?}");
    let pid = home.daemon_pid();
    let reloaded = home.nodejobs(["-o", "json", "daemon", "reload"]).json();
    assert_eq!(
        setting(&reloaded, "daemon.idle_exit"),
        json!({"key": "daemon.idle_exit", "value": "1h", "line": 2})
    );
    assert_eq!(reloaded, home.nodejobs(["-o", "json", "config", "show"]).json());
    assert!(!home.nodejobs(["doctor"]).text().contains("changed since"));
    write(&home, "[daemon]\nidle_exit = 5\n");
    let said = home.nodejobs(["daemon", "reload"]);
    assert!(said.code == 2 && said.stderr.contains("line 2: daemon.idle_exit: write a duration"), "{said:?}");
    assert_eq!(home.nodejobs(["daemon", "restart"]).code, 2, "before the old one is stopped");
    // It goes on as before, and says why in its log.
    assert_eq!(home.daemon_pid(), pid);
    assert_eq!(home.nodejobs(["ls"]).code, 0);
    let log = std::fs::read_to_string(home.data_dir().join("daemon.log")).expect("a log");
    assert!(log.contains("the settings stay as they were"), "{log}");
}

#[test]
fn a_daemon_leaves_as_soon_as_the_file_says() {
    let home = Home::new();
    write(&home, "[daemon]\nidle_exit = \"50ms\"\n");
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    // Nobody leaves while a job lives.
    let pid = home.daemon_pid();
    home.ok(["stop", "a"]);
    eventually("the daemon has left", || (!is_alive(pid)).then_some(()));
    write(&home, "[daemon]\nidle_exit = \"never\"\n");
    home.ok(["run", "--wait", "--", "true"]);
    let pid = home.daemon_pid();
    write(&home, "[daemon]\nidle_exit = \"500ms\"\n");
    home.ok(["daemon", "reload"]);
    eventually("the daemon has left", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_named_pipe_in_its_place_is_refused_and_nobody_waits_for_a_writer() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let pipe = home.data_dir().join("config.toml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a named pipe");
    for command in [&["config", "check"][..], &["daemon", "reload"], &["daemon", "restart"], &["run", "true"]]
    {
        let said = home.nodejobs(command);
        assert!(said.code != 0 && said.stderr.contains("it is no file"), "{command:?}: {said:?}");
    }
    std::fs::remove_file(pipe).expect("removed");
    home.ok(["daemon", "reload"]);
}
