//! The processes that a rule starts of the test program itself: to be killed, traced, or put on a small disk.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::case::DiskCase;

/// Set for such a process: what it is to do.
pub(super) const ROLE: &str = "NODEJOBS_CONFORMANCE_ROLE";
/// Set for the same: the store, or the directory, that it is to do it with.
pub(super) const PLACE: &str = "NODEJOBS_CONFORMANCE_PLACE";

/// What a process is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Rules,
    Commits,
    Abort,
    Open,
    Flush,
    FullDisk,
    FullFromTheBeginning,
    ReadOnly,
}

impl Role {
    pub(super) const ALL: [Role; 8] = [
        Role::Rules,
        Role::Commits,
        Role::Abort,
        Role::Open,
        Role::Flush,
        Role::FullDisk,
        Role::FullFromTheBeginning,
        Role::ReadOnly,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Role::Rules => "rules",
            Role::Commits => "commits",
            Role::Abort => "abort",
            Role::Open => "open",
            Role::Flush => "flush",
            Role::FullDisk => "full-disk",
            Role::FullFromTheBeginning => "full-from-the-beginning",
            Role::ReadOnly => "read-only",
        }
    }
}

/// What runs this program as a child in that role: behind `wrapper`, where that has a word.
pub(super) fn command(case: &DiskCase, role: Role, place: &Path, wrapper: &[&str]) -> Command {
    let program = std::env::current_exe().expect("this program");
    let mut command = match wrapper.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command
        .args(["--exact", case.child, "--nocapture", "--test-threads", "1"])
        .env(ROLE, role.as_str())
        .env(PLACE, place)
        // What it makes for itself and leaves when it is killed goes with the case.
        .env("TMPDIR", case.directory())
        // Where a core would be dumped.
        .current_dir(super::files::around(place))
        .stdin(Stdio::null());
    command
}

/// Runs a child to its end, which has to be a good one, and gives what it printed.
pub(super) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("started");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the child ended with {}:\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "the child ran no test:\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Writes a line at once and past the capturing of tests.
pub(super) fn say(line: &str) {
    let mut stdout = std::io::stdout();
    stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).expect("the parent reads");
}
