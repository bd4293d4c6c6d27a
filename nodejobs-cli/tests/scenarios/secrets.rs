//! What nobody shall see: values of variables and input, in whatever is said, written or listed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::{Home, text};

const SECRETS: [&str; 4] =
    ["s3cret-of-the-caller", "s3cret-of-an-option", "s3cret-of-a-file", "s3cret-of-the-input"];

#[track_caller]
fn is_silent(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} tells {secret}: {text}");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn values_and_input_are_told_to_the_job_alone() {
    let home = Home::new().with("CALLERS", SECRETS[0]);
    std::fs::write(home.path().join("vars"), format!("FILES={}\n", SECRETS[2])).expect("written");
    let option = format!("OPTIONS={}", SECRETS[1]);
    let options = ["--env", &option, "--env-file", "vars", "--stdin", "-", "--label", "k=v", "--name", "n"];
    let input = SECRETS[3].as_bytes();
    // The job has them all.
    let check = "printf '%s ' \"$CALLERS\" \"$OPTIONS\" \"$FILES\"; cat";
    let mut said = vec![home.with_input(
        &[&["run", "--id", "a"], &options[..], &["--wait", "--", "sh", "-c", check]].concat(),
        input,
    )];
    assert_eq!(home.stdout("a"), SECRETS.join(" ").as_bytes());
    home.ok(["rm", "a"]);
    let run = |id: &str, more: &[&str], words: &[&str]| {
        home.with_input(&[&["run", "--id", id], &options[..], more, words].concat(), input)
    };
    said.push(run("runs", &["-o", "json"], &["--", "sleep", "1000"]));
    said.push(run("fails", &["--wait", "-o", "jsonl"], &["--", "no-such-program"]));
    said.push(run("waits", &["--delay", "1h"], &["--", "true"]));
    said.push(run("bad-cwd", &["--cwd", "/no/such/place", "--follow"], &["--", "true"]));
    // And what is refused.
    said.push(run("runs", &[], &["--", "true"]));
    said.push(run("bad/id", &[], &["--", "true"]));
    said.push(run("x", &["--timeout", "0s"], &["--", "true"]));
    said.push(run("x", &["--env", "s3cret-of-an-option"], &["--", "true"]));
    said.push(run("x", &["--env", "=s3cret-of-an-option"], &["--", "true"]));
    home.running("runs");
    for words in [
        &["ls", "--all"][..],
        &["-o", "json", "ls", "--all"],
        &["-o", "jsonl", "ls", "--all"],
        &["status", "runs", "fails", "waits"],
        &["-o", "json", "status", "runs", "fails", "waits"],
        &["history", "runs"],
        &["-o", "json", "history", "fails"],
        &["logs", "runs"],
        &["logs", "fails"],
        &["pause", "runs"],
        &["-o", "json", "resume", "runs"],
        &["-o", "json", "restart", "runs"],
        &["-o", "json", "wait", "fails", "bad-cwd"],
        &["daemon", "status"],
        &["-o", "json", "daemon", "status"],
        &["-o", "json", "stop", "waits"],
        &["-o", "json", "rm", "waits"],
    ] {
        said.push(home.nodejobs(words));
    }
    for said in &said {
        is_silent("standard output", &said.stdout);
        is_silent("standard error", said.stderr.as_bytes());
    }
    assert_eq!(text(&home.running("runs"), "status"), "running");
    is_silent("daemon.log", &std::fs::read(home.data_dir().join("daemon.log")).unwrap_or_default());
    let (guard, worker) = home.keeper();
    for pid in [home.daemon_pid(), guard, worker] {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("a process");
            is_silent(&format!("{file} of {pid}"), &bytes);
        }
    }
    // It is where it has to be, and nobody else can read it.
    for path in files(home.data_dir()) {
        let metadata = std::fs::symlink_metadata(&path).expect("there");
        // To execute a socket means nothing.
        let is_file = metadata.is_file();
        let expected = if is_file { 0o600 } else { 0o700 };
        let mask = if is_file || metadata.is_dir() { 0o777 } else { 0o077 };
        let mode = metadata.permissions().mode();
        assert_eq!(mode & mask, expected & mask, "{}", path.display());
    }
}

#[test]
fn log_directories_that_are_made_are_the_users_own() {
    let home = Home::new();
    let umask = "umask 0; exec \"$NODEJOBS\" run --id a --logdir own/logs --wait -- true";
    assert!(home.shell(umask).status().expect("sh").success());
    let mode =
        |path: &str| std::fs::metadata(home.path().join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!(
        (mode("own"), mode("own/logs"), mode("own/logs/a.1.out"), mode("data")),
        (0o700, 0o700, 0o600, 0o700)
    );
}
