//! The output of several jobs at once, each line with its job.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Cue, Home, eventually};

/// Three jobs that have ended: `a` with a name, `bb` with two streams, `c` without a newline at its end.
fn three(home: &Home) {
    home.ok(["run", "--id", "a", "--name", "server", "--wait", "echo 1; echo 2"]);
    home.nodejobs(["run", "--id", "bb", "--wait", "echo out; echo err >&2; exit 7"]);
    home.ok(["run", "--id", "c", "--wait", "printf 'x\\377\\0y\\nend'"]);
}

#[test]
fn each_line_of_several_jobs_says_whose_it_is_and_those_of_one_are_as_they_were() {
    let home = Home::new();
    three(&home);
    let said = home.nodejobs(["logs", "server", "bb", "c", "a"]);
    let expected = b"server | 1\nserver | 2\nbb     | out\nc      | x\xff\0y\nc      | end\n";
    assert_eq!((said.code, said.stdout.as_slice()), (0, &expected[..]), "each job once: {said:?}");
    assert_eq!(said.stderr, "bb     | err\n");
    let said = home.nodejobs(["logs", "--tail", "1", "a", "c"]);
    assert_eq!(said.text(), "server | 2\nc      | end");
    let said = home.nodejobs(["logs", "--stderr", "a", "bb"]);
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("bb     | err", ""));
    assert_eq!(home.nodejobs(["logs", "c"]).stdout, b"x\xff\0y\nend");
    // What is not there is said, and the rest shown.
    let said = home.nodejobs(["logs", "a", "nobody"]);
    assert_eq!((said.code, said.text().as_str()), (6, "server | 1\nserver | 2"), "{said:?}");
    assert!(said.stderr.contains("'nobody'"), "{said:?}");
    assert_eq!(home.nodejobs(["logs", "nobody", "nothing"]).code, 3);
    assert_eq!(home.nodejobs(["logs", "--from", "1.1.0.0.0", "a", "c"]).code, 2);
}

#[test]
fn several_are_followed_to_the_end_of_the_last_with_nobody_s_code() {
    let home = Home::new();
    let cues = ["left", "right"].map(|id| {
        let cue = Cue::new(&home, id);
        let script =
            format!("while read word; do [ $word = end ] && exit 5; echo $word; done < {}", cue.path());
        home.ok(["run", "--id", id, &script]);
        home.running(id);
        cue
    });
    let path = home.path().join("told");
    let mut follower = home
        .command(["logs", "-f", "left", "right", "nobody"])
        .stdout(std::fs::File::create(&path).expect("made"))
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let told = |expected: &str| {
        eventually(&format!("{expected:?} is told"), || {
            (std::fs::read_to_string(&path).expect("text") == expected).then_some(())
        });
    };
    cues[1].say("one");
    told("right | one\n");
    cues[0].say("two");
    told("right | one\nleft  | two\n");
    cues[0].say("end");
    home.ended("left");
    assert!(follower.try_wait().expect("looked").is_none(), "the other one goes on");
    // Neither is a daemon that is killed the end.
    crate::support::kill(home.daemon_pid());
    cues[1].say("three");
    told("right | one\nleft  | two\nright | three\n");
    cues[1].say("end");
    assert_eq!(follower.wait().expect("ended").code(), Some(6), "one of the three is not there");
    let said = home.nodejobs(["logs", "-f", "left", "right"]);
    let mut lines: Vec<_> = said.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        (said.code, lines),
        (0, ["left  | two", "right | one", "right | three"].map(str::to_owned).into())
    );
    assert!(said.stderr.contains("left: failed, exit code 5"), "{said:?}");
}

#[test]
fn json_lines_say_which_job_they_are_of() {
    let home = Home::new();
    three(&home);
    for words in [&["logs", "-o", "jsonl", "a", "bb"][..], &["logs", "-f", "-o", "jsonl", "a", "bb"]] {
        let said = home.nodejobs(words);
        let lines: Vec<Value> =
            said.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let of = |job: &str| -> Vec<&Value> { lines.iter().filter(|line| line["job"] == job).collect() };
        let (a, bb) = (of("a"), of("bb"));
        assert_eq!((said.code, a.len() + bb.len(), a.len()), (0, lines.len(), 2), "{lines:?}");
        assert_eq!((&a[0]["text"], &a[1]["ended"]), (&"1\n2\n".into(), &true.into()));
        assert_eq!(bb.last().expect("an end")["record"]["exit_code"], 7);
    }
}

#[test]
fn colours_are_for_terminals() {
    let home = Home::new();
    three(&home);
    let with = |name: &str, value: &str| {
        let mut command = home.command(["logs", "a", "bb"]);
        crate::support::said(command.env(name, value))
    };
    let coloured = with("CLICOLOR_FORCE", "1");
    assert!(coloured.text().starts_with("\x1b[36mserver | \x1b[0m1\n"), "{coloured:?}");
    assert!(coloured.stderr.starts_with("\x1b[33mbb     | \x1b[0merr"), "{coloured:?}");
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "xterm")] {
        assert!(!with(name, value).text().contains('\x1b'), "{name}");
    }
}
