//! Watching a job while it writes.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::support::{Cue, Home, eventually, kill, text};

/// A `nodejobs` that is still at work, with its words in files.
struct Follower {
    process: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Follower {
    fn start(home: &Home, name: &str, command: &mut Command) -> Self {
        let [stdout, stderr] = ["out", "err"].map(|stream| home.path().join(format!("{name}.{stream}")));
        command.stdout(File::create(&stdout).expect("made")).stderr(File::create(&stderr).expect("made"));
        Self { process: command.spawn().expect("started"), stdout, stderr }
    }

    fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("text")
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("text")
    }

    /// Waits until it has printed exactly this.
    fn has_printed(&self, expected: &str) {
        eventually(&format!("{expected:?} is printed"), || {
            let printed = self.stdout();
            assert!(expected.starts_with(&printed), "{printed:?} is not the beginning of {expected:?}");
            (printed == expected).then_some(())
        });
    }

    /// Its exit code.
    fn ended(&mut self) -> Option<i32> {
        self.process.wait().expect("ended").code()
    }
}

/// Repeats every word it is told, on the stream whose number is before it, until it is told a code to end with.
fn echoing(cue: &Cue) -> String {
    format!(
        "while read to word; do case $to in 1) echo $word;; 2) echo $word >&2;; *) exit $word;; esac; done < {}",
        cue.path()
    )
}

/// N28, C9
#[test]
fn a_follower_hears_each_line_once_in_order_and_ends_with_the_job_s_code() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let mut follower = Follower::start(
        &home,
        "follower",
        &mut home.command(["run", "--id", "a", "--follow", &echoing(&cue)]),
    );
    let mut expected = String::new();
    for word in ["one", "two", "three"] {
        cue.say(&format!("1 {word}"));
        expected.push_str(&format!("{word}\n"));
        follower.has_printed(&expected);
    }
    cue.say("2 trouble");
    eventually("standard error is shown", || follower.stderr().contains("trouble\n").then_some(()));
    assert!(follower.process.try_wait().expect("looked").is_none());
    cue.say("end 4");
    assert_eq!((follower.ended(), follower.stdout()), (Some(4), expected));
    assert_eq!(text(&home.record("a"), "status"), "failed");
}

#[test]
fn lines_that_are_there_already_are_heard_too_and_the_end_of_the_job_ends_the_stream() {
    let home = Home::new();
    let id = home.run_script("for x in 1 2 3; do echo line $x; done; exit 4");
    home.ended(&id);
    for arguments in [vec!["logs", "-f", &id], vec!["logs", "-f", "--tail", "9", &id]] {
        let said = home.nodejobs(arguments);
        assert_eq!((said.code, said.text().as_str()), (4, "line 1\nline 2\nline 3"), "{said:?}");
    }
    let said = home.nodejobs(["logs", "-f", "--tail", "1", &id]);
    assert_eq!((said.code, said.text().as_str()), (4, "line 3"), "{said:?}");
}

#[test]
fn a_follower_stays_through_retries_and_ends_with_the_last_attempt_s_code() {
    let home = Home::new();
    let script = "echo try $NODEJOBS_ATTEMPT; [ $NODEJOBS_ATTEMPT -lt 3 ] && exit 1; exit 4";
    let retries =
        ["run", "--id", "a", "--follow", "--retries", "2", "--backoff", "1ms", "--shell", "--", script];
    let said = home.nodejobs(retries);
    assert_eq!((said.code, said.text().as_str()), (4, "try 1\ntry 2\ntry 3"), "{said:?}");
    assert!(said.stderr.contains("a: attempt 1: failed, exit code 1"), "{said:?}");
    assert!(said.stderr.contains("attempt 2: failed") && !said.stderr.contains("attempt 3:"), "{said:?}");
    let cue = Cue::new(&home, "cue");
    let script = format!("echo here; read word < {}; echo $word $NODEJOBS_ATTEMPT; exit 1", cue.path());
    home.ok(["run", "--id", "b", "--retries", "1", "--backoff", "1ms", "--shell", "--", &script]);
    let followers = [
        Follower::start(&home, "plain", &mut home.command(["logs", "-f", "b"])),
        Follower::start(&home, "lines", &mut home.command(["logs", "-f", "--grep", "e", "b"])),
    ];
    let mut only_one =
        Follower::start(&home, "one", &mut home.command(["logs", "-f", "--attempt", "1", "b"]));
    for follower in followers.iter().chain([&only_one]) {
        follower.has_printed("here\n");
    }
    cue.say("one");
    assert_eq!((only_one.ended(), only_one.stdout()), (Some(1), "here\none 1\n".to_owned()));
    for follower in &followers {
        follower.has_printed("here\none 1\nhere\n");
    }
    cue.say("three");
    for mut follower in followers {
        assert_eq!(
            (follower.ended(), follower.stdout()),
            (Some(1), "here\none 1\nhere\nthree 2\n".to_owned())
        );
    }
}

#[test]
fn a_follower_of_a_running_job_hears_the_past_and_the_rest() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let id = home.run_script(&echoing(&cue));
    for word in ["one", "two"] {
        cue.say(&format!("1 {word}"));
    }
    eventually("it has written", || (home.stdout(&id) == b"one\ntwo\n").then_some(()));
    let mut all = Follower::start(&home, "all", &mut home.command(["logs", "-f", &id]));
    let mut last = Follower::start(&home, "last", &mut home.command(["logs", "-f", "--tail", "1", &id]));
    all.has_printed("one\ntwo\n");
    last.has_printed("two\n");
    cue.say("1 three");
    cue.say("end 0");
    assert_eq!((all.ended(), all.stdout().as_str()), (Some(0), "one\ntwo\nthree\n"));
    assert_eq!((last.ended(), last.stdout().as_str()), (Some(0), "two\nthree\n"));
}

#[test]
fn a_follower_outlives_the_daemon_and_neither_loses_nor_repeats_a_line() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let mut follower =
        Follower::start(&home, "follower", &mut home.command(["run", "--follow", &echoing(&cue)]));
    let mut expected = String::new();
    for round in 0..3 {
        cue.say(&format!("1 before-{round}"));
        expected.push_str(&format!("before-{round}\n"));
        follower.has_printed(&expected);
        // The follower itself starts the next one.
        kill(eventually("a daemon serves", || {
            let said = home.nodejobs(["-o", "json", "daemon", "status"]);
            (said.code == 0).then(|| crate::support::pid_of(&said.json()["pid"]))
        }));
        cue.say(&format!("1 without-{round}"));
        expected.push_str(&format!("without-{round}\n"));
        follower.has_printed(&expected);
    }
    cue.say("1 last");
    cue.say("end 4");
    assert_eq!((follower.ended(), follower.stdout()), (Some(4), expected + "last\n"));
}

/// C9
#[test]
fn the_last_lines_are_exactly_those() {
    let home = Home::new();
    let id = home.run_script("for x in 1 2 3 4; do echo out $x; echo err $x >&2; done; printf unfinished");
    home.ended(&id);
    let said = home.nodejobs(["logs", "--tail", "2", &id]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, &b"out 4\nunfinished"[..], "err 3\nerr 4\n"));
    assert_eq!(home.nodejobs(["logs", "--tail", "0", &id]).stdout, b"");
    assert_eq!(
        home.nodejobs(["logs", "--tail", "100", "--stderr", &id]).stdout,
        b"err 1\nerr 2\nerr 3\nerr 4\n"
    );
    assert_eq!(home.nodejobs(["logs", "unknown"]).code, 3);
    assert_eq!(home.nodejobs(["logs", "-f", "unknown"]).code, 125);
}

#[test]
fn a_job_that_truncates_its_output_is_followed_to_its_end() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!(
        "echo a long line before >&2; read line < {0}; echo short > /dev/stderr; read line < {0}; echo more >&2; exit 4",
        cue.path()
    );
    let mut follower =
        Follower::start(&home, "follower", &mut home.command(["run", "--id", "a", "--follow", &script]));
    eventually("the first line", || follower.stderr().contains("a long line before\n").then_some(()));
    cue.say("go");
    eventually("the truncation", || follower.stderr().contains("truncated its stderr").then_some(()));
    eventually("what replaced it", || follower.stderr().contains("short\n").then_some(()));
    cue.say("go");
    assert_eq!(follower.ended(), Some(4));
    assert!(follower.stderr().contains("short\nmore\n"), "{}", follower.stderr());
    assert_eq!(home.stderr("a"), b"short\nmore\n");
}

#[test]
fn megabytes_arrive_whole_while_they_are_written() {
    let home = Home::new();
    let random = home.path().join("random");
    let script = format!("head -c 5242880 /dev/urandom > {0}; cat {0}", random.display());
    let followed = home.nodejobs(["run", "--follow", &script]);
    assert_eq!(followed.code, 0);
    let written = std::fs::read(&random).expect("what was written");
    assert_eq!(written.len(), 5 << 20);
    assert!(followed.stdout == written, "{} of {} bytes", followed.stdout.len(), written.len());
    let id = followed.stderr.lines().next().expect("the id").to_owned();
    assert!(home.stdout(&id) == written);
}
