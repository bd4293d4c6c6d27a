//! Jobs with a terminal of their own, and users who attach theirs to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::sending::{holders, nothing_is_held};
use crate::support::{Cue, Home, eventually, kill, signal, text};

/// A user's terminal, on which `nodejobs attach` runs.
struct User {
    screen: File,
    terminal: OwnedFd,
    attach: Child,
    seen: String,
}

impl User {
    fn attaches(home: &Home, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let screen = openpt(flags).expect("a terminal");
        unlockpt(&screen).expect("unlocked");
        let terminal = ioctl_tiocgptpeer(&screen, flags).expect("its other side");
        fcntl_setfl(&screen, OFlags::RDWR | OFlags::NONBLOCK).expect("set");
        resize(&terminal, 30, 100);
        let stdio = || Stdio::from(terminal.try_clone().expect("cloned"));
        let mut command = home.command(["attach"].iter().chain(arguments));
        let attach = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("started");
        Self { screen: screen.into(), terminal, attach, seen: String::new() }
    }

    fn types(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("typed");
    }

    fn look(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = self.screen.read(&mut bytes) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    fn sees(&mut self, what: &str) {
        let found = crate::support::happens(|| {
            self.look();
            self.seen.contains(what)
        });
        assert!(found, "no {what:?} in {:?}", self.seen);
    }

    /// What is shown up to here is of no interest further on.
    fn looks_away(&mut self) {
        self.look();
        self.seen.clear();
    }

    /// The exit code, and whether the terminal is as it was.
    fn leaves(mut self) -> (Option<i32>, bool) {
        let status = eventually("attach ends", || {
            self.look();
            self.attach.try_wait().expect("asked")
        });
        self.look();
        (status.code(), is_cooked(&self.terminal))
    }

    fn pid(&self) -> u32 {
        self.attach.id()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.attach.kill();
        let _ = self.attach.wait();
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("resized");
}

fn is_cooked(terminal: &OwnedFd) -> bool {
    let modes = tcgetattr(terminal).expect("modes").local_modes;
    modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
}

/// A shell that says `ready` and then what its commands say.
fn shell(home: &Home) {
    home.ok(["run", "--id", "a", "--pty", "--env", "PS1=$ ", "--env", "TERM=xterm", "--", "sh", "-i"]);
    eventually("the shell is there", || home.stdout("a").ends_with(b"$ ").then_some(()));
}

#[test]
fn a_job_has_a_terminal_for_all_of_its_streams() {
    let home = Home::new();
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM && echo err >&2 && exec 3</dev/tty && \
                  ps -o tpgid= -p $$ | grep -q $$; exit 7";
    let said = home.nodejobs(["run", "--id", "a", "--pty", "--env", "TERM=xterm", "--wait", script]);
    assert_eq!(said.code, 7, "{said:?} {}", String::from_utf8_lossy(&home.stdout("a")));
    let output = String::from_utf8(home.stdout("a")).expect("text");
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{output:?}");
    assert_eq!(lines[1..], ["24 80", "xterm", "err"], "{output:?}");
    assert!(output.contains("\r\n"), "{output:?}");
    let record = home.record("a");
    assert_eq!(record["log_bytes"], output.len(), "{record}");
    nothing_is_held(&home);
}

#[test]
fn colours_are_there_where_programs_ask_whether_they_are_shown() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--pty", "--env", "TERM=xterm", "--wait", "--", "ls", "--color=auto", "/"]);
    home.ok(["run", "--id", "b", "--env", "TERM=xterm", "--wait", "--", "ls", "--color=auto", "/"]);
    assert!(home.stdout("a").contains(&0x1b) && !home.stdout("b").contains(&0x1b));
}

#[test]
fn all_that_was_written_is_in_the_log_when_the_job_has_ended() {
    let home = Home::new();
    for round in 0..10 {
        let id = format!("a{round}");
        home.ok(["run", "--id", &id, "--pty", "--wait", "--", "seq", "1", "5000"]);
        let file = home.record(&id)["logfile"].as_str().expect("a path").to_owned();
        let expected: String = (1..=5000).map(|number| format!("{number}\r\n")).collect();
        let output = std::fs::read_to_string(file).expect("the log");
        let same = output.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
        let rest = &output[same.saturating_sub(20)..(same + 20).min(output.len())];
        assert!(output == expected, "round {round}: {} bytes, the same up to {same}: {rest:?}", output.len());
    }
    let said = home.nodejobs(["run", "--pty", "--follow", "--", "seq", "1", "5000"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout).lines().last(), Some("5000"));
}

#[test]
fn a_user_types_into_it_sees_it_and_leaves_it() {
    let home = Home::new();
    shell(&home);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("$ ");
    assert!(!is_cooked(&user.terminal), "every key goes to the job");
    user.types("stty size; tty\r");
    user.sees("30 100\r\n/dev/pts/");
    resize(&user.terminal, 40, 120);
    // It is not the user's controlling terminal here, so nobody else tells.
    signal(user.pid(), Signal::WINCH);
    eventually("the size is passed on", || {
        user.looks_away();
        user.types("stty size\r");
        user.sees("$ ");
        user.seen.contains("40 120").then_some(())
    });
    // Ctrl-C ends what runs in front, and not the shell.
    user.types("sleep 1000; echo code $?\r");
    eventually("it sleeps", || home.job_processes().iter().any(|(_, name)| name == "sleep").then_some(()));
    user.types("\x03");
    user.types("echo still $((40 + 2))\r");
    user.sees("still 42");
    // Half of the keys are keys.
    user.types("echo a\x10b\r");
    user.types("\x10\x11");
    user.sees("attach a` shows it again");
    assert_eq!(user.leaves(), (Some(0), true));
    assert_eq!(text(&home.record("a"), "status"), "running");
    // What was there is shown again, and whoever comes later sees the same.
    let mut again = User::attaches(&home, &["--detach-keys", "ctrl-\\", "a"]);
    again.sees("still 42");
    let mut another = User::attaches(&home, &["a"]);
    another.sees("still 42");
    again.types("echo to $((1 + 1))\r");
    again.sees("to 2");
    another.sees("to 2");
    again.types("\x1c");
    assert_eq!(again.leaves(), (Some(0), true));
    another.types("exit 9\r");
    assert_eq!(another.leaves(), (Some(9), true));
    assert_eq!(home.ended("a")["exit_code"], 9);
    nothing_is_held(&home);
}

#[test]
fn the_user_s_terminal_is_as_it_was_whatever_ends_the_attachment() {
    let home = Home::new();
    shell(&home);
    for number in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut user = User::attaches(&home, &["a"]);
        user.sees("$ ");
        signal(user.pid(), number);
        let (code, is_cooked) = user.leaves();
        assert!(code.is_none() && is_cooked, "{number:?}: {code:?}");
    }
    let mut user = User::attaches(&home, &["a"]);
    user.sees("$ ");
    home.ok(["stop", "--force", "a"]);
    assert_eq!(user.leaves(), (Some(137), true));
}

#[test]
fn a_terminal_goes_on_whoever_is_killed() {
    let home = Home::new();
    shell(&home);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("$ ");
    let (_, worker) = home.keeper();
    kill(home.daemon_pid());
    kill(worker);
    user.types("echo one $((1 + 1))\r");
    user.sees("one 2");
    home.ok(["send", "a", "echo two $((1 + 3))"]);
    user.sees("two 4");
    user.types("exit 3\r");
    assert_eq!(user.leaves(), (Some(3), true));
    let output = String::from_utf8(home.stdout("a")).expect("text");
    assert!(output.contains("one 2\r\n") && output.contains("two 4\r\n"), "{output:?}");
    nothing_is_held(&home);
}

#[test]
fn what_is_sent_is_typed_and_its_end_is_what_ctrl_d_types() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--pty", "--", "cat"]);
    home.ok(["send", "a", "hello"]);
    eventually("it is echoed, and answered", || (home.stdout("a") == b"hello\r\nhello\r\n").then_some(()));
    home.ok(["send", "a", "--eof"]);
    assert_eq!(text(&home.ended("a"), "status"), "finished");
}

#[test]
fn a_job_that_has_redirected_all_of_its_output_is_not_hung_up_on() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!(
        "exec </dev/null >out 2>&1; touch away; read line < {}; echo back >/dev/tty; exit 5",
        cue.path()
    );
    home.ok(["run", "--id", "a", "--pty", &script]);
    home.ready("away");
    // Answered once the holder has seen that.
    home.ok(["send", "a", "x"]);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("x");
    cue.say("go on");
    user.sees("back");
    assert_eq!(user.leaves(), (Some(5), true));
    assert!(String::from_utf8_lossy(&home.stdout("a")).ends_with("back\r\n"));
    nothing_is_held(&home);
}

#[test]
fn a_terminal_whose_holder_is_killed_hangs_up() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--pty", "--", "sleep", "1000"]);
    home.running("a");
    let [holder] = holders(&home)[..] else { panic!("not one holder") };
    kill(holder);
    assert_eq!(home.ended("a")["signal"], 1);
}

#[test]
fn a_log_that_takes_nothing_keeps_nobody_from_their_end() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--pty", "--logfile", "/dev/full", "while :; do echo $((n += 1)); done"]);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("1\r\n");
    home.ok(["stop", "a"]);
    assert_eq!(user.leaves(), (Some(143), true));
    nothing_is_held(&home);
    // Nobody reads from it.
    let _cue = Cue::new(&home, "nobody");
    home.ok(["run", "--id", "b", "--pty", "--logfile", "nobody", "yes | head -c 300000; sleep 1000"]);
    home.running("b");
    home.ok(["stop", "b"]);
    nothing_is_held(&home);
}

#[test]
fn a_user_who_does_not_look_holds_nobody_up_for_long() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["run", "--id", "a", "--pty", &format!("echo there; read line < {}; seq 1 200000", cue.path())]);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("there");
    signal(user.pid(), Signal::STOP);
    cue.say("write");
    assert_eq!(text(&home.ended("a"), "status"), "finished");
    assert!(home.stdout("a").ends_with(b"200000\r\n"));
    signal(user.pid(), Signal::CONT);
    assert_eq!(user.leaves().0, Some(0));
}

#[test]
fn a_user_who_looks_misses_nothing() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["run", "--id", "a", "--pty", &format!("echo there; read line < {}; seq 1 100000", cue.path())]);
    let mut user = User::attaches(&home, &["a"]);
    user.sees("there");
    cue.say("write");
    user.sees("\n100000\r\n");
    let numbers: Vec<u32> = user.seen.lines().filter_map(|line| line.parse().ok()).collect();
    let gap = numbers.iter().copied().zip(1..).find(|(seen, expected)| seen != expected);
    assert!(
        numbers.len() == 100_000,
        "{} lines; first gap {gap:?}; log has {}",
        numbers.len(),
        home.stdout("a").len()
    );
}

#[test]
fn whoever_cannot_be_shown_a_terminal_is_told_what_there_is_instead() {
    let home = Home::new();
    shell(&home);
    let said = home.nodejobs(["attach", "a"]);
    assert!(
        said.code == 125 && said.stderr.contains("`logs -f`") && said.stderr.contains("`send`"),
        "{said:?}"
    );
    home.ok(["run", "--id", "piped", "--stdin", "pipe", "--", "cat"]);
    home.ok(["run", "--id", "over", "--pty", "--wait", "--", "true"]);
    home.ok(["run", "--id", "later", "--pty", "--delay", "1h", "--", "true"]);
    let cases =
        [("piped", "has no terminal"), ("over", "is finished"), ("later", "is queued"), ("nobody", "no job")];
    for (id, words) in cases {
        let mut user = User::attaches(&home, &[id]);
        user.sees(words);
        assert_eq!(user.leaves(), (Some(125), true));
    }
    assert_eq!(home.nodejobs(["attach", "--detach-keys", "ctrl-1", "a"]).code, 2);
}

#[test]
fn each_attempt_has_a_terminal_of_its_own() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--pty", "--", "sh", "-c", "read line; echo got $line"]);
    home.ok(["send", "a", "first"]);
    home.ended("a");
    home.ok(["restart", "a"]);
    home.ok(["send", "a", "second"]);
    home.ended("a");
    let of = |attempt: &str| home.ok(["logs", "--attempt", attempt, "a"]);
    assert!(of("1").contains("got first") && !of("1").contains("second"));
    assert!(of("2").contains("got second") && !of("2").contains("first"));
}
