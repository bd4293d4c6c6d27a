//! What a file may say, and what is said about one that it may not.

use nodejobs_core::Status;
use nodejobs_core::engine::WhenFull;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::{Backoff, Restart};

use super::*;

fn parsed(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse(text.as_bytes()).expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_setting_is_read_and_told_with_its_line() {
    let text = r##"
[defaults]
timeout = "1h"
stop_signal = "INT"
grace = "10s"
success_codes = [0, 3]
keep_children = true
restart = "on-failure"
max_restarts = 7
restart_delay = "2s"
restart_delay_max = "1m"
healthy_after = "5s"
give_up_after = "never"
merge = true

[daemon]
idle_exit = "never"

[limits]
max_processes = 8
max_memory = "2G"
when_full = "refuse"
cgroup = "/sys/fs/cgroup/jobs"

[resources]
gpu = 2
[logs]
cap = "none"
quota = "10G"

[history]
keep_for = "30d"
keep_last = 10_000
keep_attempts = "all"

[[hooks]]
on = ["failed", "lost"]
run = ["notify-send", "-u", "critical"]
env = { DISPLAY = ":0" }

[[hooks]]
on = "ended"
shell = "cat >> /tmp/x"
timeout = "1m"
"##;
    let config = parsed(text);
    let policy = Policy {
        timeout_ms: Some(3_600_000),
        stop_signal: Signal::INT,
        grace_ms: 10_000,
        success_codes: vec![0, 3],
        keep_children: true,
        restart: Restart::OnFailure,
        max_restarts: Some(7),
        restart_delay_ms: 2_000,
        backoff: Backoff { delay_max_ms: 60_000, healthy_after_ms: 5_000, give_up_after: None },
        limits: None,
        log_cap: None,
        retry: None,
    };
    assert_eq!(config.defaults, JobDefaults { policy, merge: true });
    assert_eq!(config.daemon.idle_exit, None);
    let limits = Capacity {
        max_processes: Some(8),
        max_memory: Some(2 << 30),
        when_full: WhenFull::Refuse,
        resources: [("gpu".to_owned(), 2)].into(),
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.cgroup.as_deref(), Some("/sys/fs/cgroup/jobs".as_ref()));
    assert_eq!(config.logs, LogSettings { cap: 0, quota: Some(10 << 30) });
    let history = HistorySettings {
        keep_for: Some(Duration::from_secs(30 * 86_400)),
        keep_last: Some(10_000),
        keep_attempts: None,
    };
    assert_eq!(config.history, history);
    let [first, second] = config.hooks.as_slice() else { panic!("{:?}", config.hooks) };
    assert_eq!(first.on, [Status::Failed, Status::Lost]);
    assert_eq!(first.timeout, Duration::from_secs(30));
    assert_eq!(second.on.len(), Status::ALL.iter().filter(|status| status.is_terminal()).count());
    assert_eq!(second.command, HookCommand::Shell("cat >> /tmp/x".to_owned()));
    // Everything comes from where it stands.
    for Setting { key, value, line } in config.settings() {
        let line = text.lines().nth(line.expect(key) as usize - 1).expect(key);
        let name = key.rsplit('.').next().expect("a name");
        assert!(line.starts_with(name) || line == "[[hooks]]", "{key}: {line}");
        assert!(value.is_some(), "{key}");
    }
    let shown = |key: &str| {
        let setting = config.settings().iter().find(|setting| setting.key == key).expect(key);
        setting.value.clone().expect(key)
    };
    assert_eq!(shown("defaults.stop_signal"), "SIGINT");
    assert_eq!(
        (shown("history.keep_for"), shown("history.keep_attempts")),
        ("30d".to_owned(), "all".to_owned())
    );
    assert_eq!(shown("hooks.1"), "on failed,lost, at most 30s: notify-send -u critical");
    let told = format!("{config:?}");
    assert!(told.contains("DISPLAY") && !told.contains(":0"), "values of variables may be secrets: {told}");
}

#[test]
fn without_a_file_everything_has_the_default_of_the_code() {
    let config = Config::default();
    assert_eq!(config, parsed("# nothing\n"));
    assert_eq!(config.defaults, JobDefaults::default());
    assert_eq!(config.history, HistorySettings::default());
    assert_eq!(config.daemon.idle_exit, Some(Duration::from_secs(60)));
    assert!(config.settings().iter().all(|setting| setting.line.is_none()));
    let value =
        |key: &str| config.settings().iter().find(|setting| setting.key == key).expect(key).value.clone();
    assert_eq!(value("defaults.grace").as_deref(), Some("5s"));
    assert_eq!(value("defaults.timeout"), None);
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(Config::load(directory.path()), Ok(Config::default()));
    assert_eq!(JobDefaults::load(directory.path()), Ok(Config::default().defaults));
    assert_eq!(Config::load(&directory.path().join("not/there")), Ok(Config::default()));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = "\
[defaults]
grce = \"5s\"
timeout = 5
grace = \"5\"
colour = \"red\"
max_restarts = -1
stop_signal = \"SIGFOO\"
success_codes = [0, 256]
restart = \"sometimes\"

[histroy]
keep_for = \"30d\"

[history]
keep_for = \"0s\"
keep_last = 0

[[hooks]]
on = [\"done\"]
timeout = \"0s\"

[[hooks]]
run = []
shell = \"x\"
env = { A = 1 }
";
    let expected = [
        "line 11: unknown table or key 'histroy'; did you mean 'history'?",
        "line 3: defaults.timeout: write a duration in quotes, such as \"5s\"; this is of type integer",
        "line 7: defaults.stop_signal: ",
        "line 4: defaults.grace: '5' lacks a unit; write durations like",
        "line 8: defaults.success_codes: 256 is not a whole number from 0 to 255",
        "line 9: defaults.restart: 'sometimes' is not a restart policy; one of no, on-failure, always",
        "line 6: defaults.max_restarts: -1 is not a whole number from 0 to 4294967295",
        "line 5: unknown key 'colour' in [defaults]; there are timeout, stop_signal,",
        "line 2: unknown key 'grce' in [defaults]; did you mean 'grace'?",
        "line 15: history.keep_for: give more than no time",
        "line 16: history.keep_last: 0 is not a whole number from 1 to",
        "line 19: hooks.1.on: 'done' is not a status; one of queued,",
        "line 20: hooks.1.timeout: give more than no time",
        "line 18: hooks.1: it runs nothing; write run",
        "line 23: hooks.2.run: write a program and its arguments",
        "line 25: hooks.2.env: variable 'A' needs a text in quotes",
        "line 22: hooks.2: it says nothing about when",
    ];
    let found = problems(text);
    for expected in expected {
        assert!(found.iter().any(|found| found.starts_with(expected)), "{expected}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for path in ["\"\"", "\"jobs\"", "7"] {
        let found = problems(&format!("[limits]\ncgroup = {path}\n"));
        assert!(
            found.len() == 1 && found[0].starts_with("line 2: limits.cgroup: write a path in quotes"),
            "{found:?}"
        );
    }
    for program in ["", "./x", "a/b"] {
        let found = problems(&format!("[[hooks]]\non = \"lost\"\nrun = [\"{program}\"]\n"));
        let expected =
            format!("line 1: hooks.1: '{program}' is neither an absolute path nor the name of a program");
        assert_eq!(found, [expected]);
    }
    let mut lines: Vec<_> = Config::parse(text.as_bytes()).expect_err("bad").iter().map(|p| p.line).collect();
    let told = lines.clone();
    lines.sort();
    assert_eq!(told, lines, "in the order of the file");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let found = problems("[defaults]\ngrace = 5s\n");
    assert!(found[0].starts_with("line 2: "), "{found:?}");
    let found = problems("[defaults]\ngrace = \"5s\"\ngrace = \"6s\"\n");
    assert!(found.len() == 1 && found[0].starts_with("line 3: "), "{found:?}");
    let error = Config::parse(b"a = 1\n\xff = 2\n").expect_err("no text");
    assert_eq!((error[0].line, error[0].message.as_str()), (Some(2), "it is not UTF-8"));
    let found = problems("defaults = 5\nhooks = 7\n");
    assert_eq!(
        found,
        [
            "line 1: 'defaults' is a table; write [defaults]",
            "line 2: 'hooks' is a list of tables; write [[hooks]]"
        ]
    );
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = Config::path(directory.path());
    std::fs::write(&path, "").expect("written");
    assert!(Config::load(directory.path()).is_ok());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("set");
    let error = Config::load(directory.path()).expect_err("open").to_string();
    assert!(error.contains("config.toml' cannot be used: everybody may write it; chmod 600 it"), "{error}");
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a directory");
    assert!(Config::load(directory.path()).expect_err("no file").to_string().contains("it is no file"));
}
