//! When output was written: since, until, timestamps, the order of the two streams, and what nobody knows.

use std::process::Stdio;

use nodejobs::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cue, Home, eventually, kill, signal, text};

fn now() -> Timestamp {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().expect("later than 1970");
    Timestamp::from_millis(i64::try_from(since_1970.as_millis()).expect("small"))
}

/// A time of which everything so far is earlier, and everything to come later, as far as times are noted: to a tenth of
/// a second, and on a busy machine less exactly.
fn between() -> String {
    let pass = |millis| {
        let before = now().as_millis();
        eventually("the clock goes on", || (now().as_millis() > before + millis).then_some(()));
    };
    pass(300);
    let time = now();
    pass(300);
    time.to_string()
}

/// A job that writes each word it is told to the stream before it.
fn start(home: &Home, id: &str, options: &[&str]) -> Cue {
    let cue = Cue::new(home, id);
    let script = format!(
        "exec 9<>'{}'; while read to word <&9; do case $to in 1) echo $word;; 2) echo $word >&2;; *) exit 3;; esac; done",
        cue.path()
    );
    home.ok(["run", "--id", id].iter().chain(options).chain(&[script.as_str()]));
    home.running(id);
    cue
}

/// Has it write a word, and waits until that is noted.
fn write(home: &Home, id: &str, cue: &Cue, to: u32, word: &str) {
    cue.say(&format!("{to} {word}"));
    eventually(word, || {
        let told = home.nodejobs(["logs", "--timestamps", id]);
        let told = [told.stdout, told.stderr.into_bytes()].concat();
        String::from_utf8_lossy(&told).contains(word).then_some(())
    });
}

/// Stream and text of each piece that `logs -o jsonl` with these words prints.
fn pieces(home: &Home, words: &[&str]) -> Vec<(String, String)> {
    let said = home.nodejobs(["logs", "-o", "jsonl"].iter().chain(words));
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines
        .filter(|line| !line["stream"].is_null())
        .map(|line| (text(&line, "stream").to_owned(), text(&line, "text").to_owned()))
        .collect()
}

/// C9
#[test]
fn only_what_is_newer_or_older_than_a_time_is_shown_and_streams_are_in_order() {
    let home = Home::new();
    let cue = start(&home, "a", &[]);
    let beginning = between();
    let mut times = Vec::new();
    for (to, word) in [(1, "one"), (2, "two"), (1, "three"), (2, "four")] {
        write(&home, "a", &cue, to, word);
        times.push(between());
    }
    let order = |words: &[&str]| -> String {
        pieces(&home, &[&["a"], words].concat())
            .iter()
            .map(|(stream, text)| format!("{stream} {text}"))
            .collect()
    };
    let all = "stdout one\nstderr two\nstdout three\nstderr four\n";
    for _ in 0..2 {
        assert_eq!(order(&["--timestamps"]), all);
        assert_eq!(order(&["--since", &beginning]), all);
        assert_eq!(order(&["--since", &times[0]]), "stderr two\nstdout three\nstderr four\n");
        assert_eq!(order(&["--since", &times[2]]), "stderr four\n");
        assert_eq!(order(&["--since", &times[3]]), "");
        assert_eq!(order(&["--until", &times[3]]), all);
        assert_eq!(order(&["--until", &times[1]]), "stdout one\nstderr two\n");
        assert_eq!(order(&["--until", &beginning]), "");
        assert_eq!(order(&["--since", &times[0], "--until", &times[2]]), "stderr two\nstdout three\n");
        assert_eq!(order(&["--since", &times[0], "--tail", "1"]), "stdout three\nstderr four\n");
        assert_eq!(order(&["--since", "1h", "--tail", "9"]), all);
        // The same when it has ended, and with another daemon.
        cue.say("0 end");
        home.ended("a");
        kill(home.daemon_pid());
    }
    let said = home.nodejobs(["logs", "--since", &times[1], "a"]);
    assert_eq!((said.code, said.text().as_str(), said.stderr.as_str()), (0, "three", "four\n"));
    let said = home.nodejobs(["logs", "-f", "--since", &times[2], "a"]);
    assert_eq!((said.code, said.text().as_str()), (3, ""), "{said:?}");
    assert!(said.stderr.starts_with("four\n"), "{said:?}");
    // Behind a token: what is both newer and behind it.
    let token = format!("{}.1.4.0.0", home.record("a")["seq"]);
    assert_eq!(order(&["--from", &token, "--timestamps"]), "stderr two\nstdout three\nstderr four\n");
    assert_eq!(order(&["--from", &token, "--since", &times[2]]), "stderr four\n");
}

#[test]
fn each_line_has_the_time_at_which_it_was_written() {
    let home = Home::new();
    let cue = start(&home, "a", &["--name", "server"]);
    let before = between();
    write(&home, "a", &cue, 1, "one");
    let middle = between();
    let path = home.path().join("told");
    let mut follower = home
        .command(["logs", "-f", "--timestamps", "a"])
        .stdout(std::fs::File::create(&path).expect("made"))
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    cue.say("1 two");
    eventually("it is followed", || {
        (std::fs::read_to_string(&path).expect("text").lines().count() == 2).then_some(())
    });
    let after = between();
    cue.say("0 end");
    assert_eq!(follower.wait().expect("ended").code(), Some(3));
    home.ended("a");
    let followed = std::fs::read_to_string(&path).expect("text");
    let said = home.nodejobs(["logs", "--timestamps", "a"]);
    assert_eq!(said.text() + "\n", followed);
    let lines: Vec<_> = followed.lines().map(|line| line.split_once(' ').expect("a time")).collect();
    assert_eq!(lines.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["one", "two"]);
    for ((time, _), (from, to)) in lines.iter().zip([(&before, &middle), (&middle, &after)]) {
        let time = time.parse::<Timestamp>().expect(time);
        assert!((from.parse().expect("a time")..to.parse().expect("a time")).contains(&time), "{followed}");
    }
    let prefixed = home.ok(["logs", "--timestamps", "--grep", "^t", "a", "a", "server"]);
    assert!(prefixed.starts_with("server | 20") && prefixed.ends_with("Z two"), "{prefixed}");
    // What was over at once has the time of its record.
    home.ok(["run", "--id", "quick", "--wait", "echo x"]);
    let quick = home.ok(["logs", "--timestamps", "quick"]);
    assert_eq!(quick, format!("{} x", text(&home.record("quick"), "started_at")));
}

#[test]
fn of_what_was_written_without_a_daemon_no_time_is_invented() {
    let home = Home::new();
    let cue = start(&home, "a", &[]);
    write(&home, "a", &cue, 1, "seen");
    kill(home.daemon_pid());
    let gone = now();
    cue.say("1 unseen");
    let log = home.data_dir().join("logs");
    let log =
        std::fs::read_dir(log).expect("read").flatten().next().expect("a directory").path().join("a.1.out");
    eventually("it is written", || (std::fs::read_to_string(&log).ok()? == "seen\nunseen\n").then_some(()));
    let inside = between();
    eventually("nobody looks for a while", || (now().as_millis() > gone.as_millis() + 1_000).then_some(()));
    home.ok(["daemon", "start"]);
    write(&home, "a", &cue, 1, "again");
    for _ in 0..2 {
        let said = home.nodejobs(["logs", "--since", &inside, "a"]);
        assert_eq!((said.code, said.text().as_str()), (0, "unseen\nagain"), "{said:?}");
        assert!(said.stderr.contains("nobody noted when") && said.stderr.contains("--since"), "{said:?}");
        let said = home.nodejobs(["logs", "--until", &inside, "a"]);
        assert_eq!((said.code, said.text().as_str()), (0, "seen\nunseen"), "{said:?}");
        assert!(said.stderr.contains("--until"), "{said:?}");
        let said = home.nodejobs(["logs", "--timestamps", "a"]);
        let times: Vec<_> = said.text().lines().map(|line| line.starts_with("20")).collect();
        assert_eq!(times, [true, false, true], "{said:?}");
        assert!(said.text().lines().nth(1).is_some_and(|line| line.starts_with("- ")), "{said:?}");
        assert!(said.stderr.contains("without a time"), "{said:?}");
        // What is certain is not doubted.
        let said = home.nodejobs(["logs", "--since", &gone.to_string(), "a"]);
        assert_eq!(
            (said.text().as_str(), said.stderr.contains("older")),
            ("unseen\nagain", true),
            "{said:?}"
        );
        assert_eq!(home.nodejobs(["logs", "--since", "1h", "a"]).stderr, "");
        cue.say("0 end");
        home.ended("a");
    }
    home.ok(["rm", "a"]);
    let left = std::fs::read_dir(log.parent().expect("a directory")).expect("read").count();
    assert_eq!(left, 0, "the index goes with the logs");
}

#[test]
fn neither_is_a_time_invented_while_the_daemon_is_halted() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    // What is heard of when the daemon goes on is being written, and began long before.
    let script = format!(
        "exec 9<>'{}'; echo before; read word <&9; echo early; while :; do echo tick; sleep 0.02; done",
        cue.path()
    );
    home.ok(["run", "--id", "a", &script]);
    eventually("it is noted", || home.ok(["logs", "--timestamps", "a"]).ends_with("before").then_some(()));
    between();
    let daemon = home.daemon_pid();
    signal(daemon, Signal::STOP);
    cue.say("go on");
    let halted = now().as_millis();
    eventually("time passes", || (now().as_millis() > halted + 1_500).then_some(()));
    signal(daemon, Signal::CONT);
    let lines = eventually("it is noted again", || {
        let said = home.ok(["logs", "--timestamps", "a"]);
        said.ends_with("Z tick").then_some(said)
    });
    assert!(lines.lines().next().is_some_and(|line| line.ends_with("Z before")), "{lines}");
    let early = lines.lines().find(|line| line.ends_with(" early")).expect("it was written");
    assert!(early.starts_with("- "), "{lines}");
    home.ok(["stop", "a"]);
}

#[test]
fn lines_are_found_whatever_bytes_are_in_them() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "printf 'x\\377b\\n\\0y\\nzb'; echo err b >&2"]);
    let said = home.nodejobs(["logs", "--grep", "b", "a"]);
    assert_eq!(
        (said.code, said.stdout.as_slice(), said.stderr.as_str()),
        (0, &b"x\xffb\nzb\n"[..], "err b\n")
    );
    assert_eq!(home.nodejobs(["logs", "--grep", r"(?-u)^x\xff", "a"]).stdout, b"x\xffb\n");
    assert_eq!(home.nodejobs(["logs", "--grep", "nothing", "a"]).stdout, b"");
    assert_eq!(home.ok(["logs", "--tail", "1", "--grep", "b", "a"]), "zb");
    assert_eq!(pieces(&home, &["--grep", "^err", "a"]), [("stderr".to_owned(), "err b\n".to_owned())]);
    for bad in [
        &["logs", "--grep", "(", "a"][..],
        &["logs", "--since", "yesterday", "a"],
        &["logs", "--since", "5", "a"],
        &["logs", "--until", "1h", "-f", "a"],
        &["logs", "--since", "-1h", "a"],
    ] {
        let said = home.nodejobs(bad);
        assert_eq!((said.code, said.stdout.len()), (2, 0), "{bad:?}: {said:?}");
    }
}

#[test]
fn a_file_of_the_user_s_has_its_index_elsewhere_and_merged_output_is_in_its_own_order() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("mine")).expect("made");
    let cue = start(&home, "a", &["--logfile", "mine/log", "--merge"]);
    write(&home, "a", &cue, 2, "one");
    let middle = between();
    cue.say("1 two");
    write(&home, "a", &cue, 2, "three");
    assert_eq!(home.ok(["logs", "--since", &middle, "a"]), "two\nthree");
    assert_eq!(home.ok(["logs", "--until", &middle, "a"]), "one");
    let own = std::fs::read_dir(home.path().join("mine")).expect("read").flatten();
    assert_eq!(own.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["log"]);
    cue.say("0 end");
    home.ended("a");
    home.ok(["rm", "a"]);
    assert_eq!(std::fs::read_to_string(home.path().join("mine/log")).expect("kept"), "one\ntwo\nthree\n");
}
