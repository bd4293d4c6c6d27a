//! Output as JSON lines, and going on behind the token of one of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::support::{Cue, Home, eventually, kill, text};

/// What `logs -o jsonl` with these words printed.
struct Lines {
    code: i32,
    lines: Vec<Value>,
}

impl Lines {
    fn of(home: &Home, words: &[&str]) -> Self {
        let said = home.nodejobs(["logs", "-o", "jsonl"].iter().chain(words));
        let text = String::from_utf8(said.stdout).expect("UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        Self { code: said.code, lines }
    }

    /// The bytes of a stream.
    fn bytes(&self, stream: &str) -> Vec<u8> {
        let of_stream = self.lines.iter().filter(|line| line["stream"] == stream);
        of_stream.flat_map(bytes_of).collect()
    }

    fn last(&self) -> &Value {
        self.lines.last().expect("a last line")
    }
}

fn bytes_of(line: &Value) -> Vec<u8> {
    match (&line["text"], &line["base64"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(text)) => BASE64.decode(text).expect("base64"),
        other => panic!("{other:?}"),
    }
}

/// N23, N28
#[test]
fn binary_output_goes_on_at_each_token_byte_for_byte_whoever_was_killed() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!(
        "while read word; do case $word in
           end) exit 4;;
           *) printf '\\377\\376\\000%s\\n' $word; printf 'e\\000\\370%s' $word >&2;;
         esac; done < {}",
        cue.path()
    );
    home.ok(["run", "--id", "a", "--shell", "--", &script]);
    let (mut token, mut out, mut err) = (None::<String>, Vec::new(), Vec::new());
    for round in 0..4 {
        cue.say(&format!("word-{round}"));
        let expected = |count: usize| -> (Vec<u8>, Vec<u8>) {
            let words = |before: &[u8], after: &[u8]| -> Vec<u8> {
                let word = |n: usize| [before, format!("word-{n}").as_bytes(), after].concat();
                (0..count).flat_map(word).collect()
            };
            (words(b"\xff\xfe\0", b"\n"), words(b"e\0\xf8", b""))
        };
        eventually("both are written", || (home.stderr("a") == expected(round + 1).1).then_some(()));
        if round > 0 {
            kill(home.daemon_pid());
        }
        let from = token.iter().flat_map(|token| ["--from", token]).collect::<Vec<_>>();
        let told = Lines::of(&home, &[&["a"], &from[..]].concat());
        assert_eq!((told.code, &told.last()["ended"]), (0, &Value::Bool(false)), "{:?}", told.lines);
        out.extend(told.bytes("stdout"));
        err.extend(told.bytes("stderr"));
        assert_eq!((&out, &err), (&expected(round + 1).0, &expected(round + 1).1), "round {round}");
        token = Some(text(told.last(), "token").to_owned());
    }
    // From every single token: what is told before it and what comes after it is everything, once.
    cue.say("end");
    let all = Lines::of(&home, &["-f", "a"]);
    assert_eq!((all.code, all.bytes("stdout"), all.bytes("stderr")), (4, out.clone(), err.clone()));
    assert_eq!((&all.last()["ended"], &all.last()["record"]["exit_code"]), (&true.into(), &4.into()));
    for (index, line) in all.lines.iter().enumerate() {
        for follow in [&["-f"][..], &[]] {
            let rest = Lines::of(&home, &[&["a", "--from", text(line, "token")], follow].concat());
            assert_eq!(rest.code, if follow.is_empty() { 0 } else { 4 });
            for stream in ["stdout", "stderr"] {
                let told = all.lines[..=index].iter().filter(|line| line["stream"] == stream);
                let whole: Vec<u8> = told.flat_map(bytes_of).chain(rest.bytes(stream)).collect();
                assert_eq!(whole, all.bytes(stream), "{stream} after line {index}");
            }
        }
    }
    // The next attempt writes elsewhere; the token is still about its own.
    home.ok(["run", "--id", "a", "--", "echo", "second"]);
    home.ended("a");
    let token = text(&all.lines[0], "token");
    let rest = Lines::of(&home, &["-f", "a", "--from", token]);
    assert_eq!((rest.code, rest.last()["record"]["attempt"].clone()), (4, 1.into()));
    let first = bytes_of(&all.lines[0]).len();
    let stream = text(&all.lines[0], "stream");
    assert_eq!(rest.bytes(stream), all.bytes(stream)[first..]);
    let raw = home.nodejobs(["logs", "a", "--from", token, "--stderr"]);
    assert_eq!((raw.code, raw.stdout), (0, rest.bytes("stderr")));
    assert_eq!(Lines::of(&home, &["a"]).bytes("stdout"), b"second\n");
    assert_eq!(Lines::of(&home, &["a", "--attempt", "1"]).bytes("stdout"), out);
}

#[test]
fn a_follower_that_prints_json_outlives_the_daemon() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let id = home.run_script(&format!("while read word; do echo $word; done < {}", cue.path()));
    let printed = home.path().join("printed");
    let mut follower = home
        .command(["logs", "-f", "-o", "jsonl", &id])
        .stdout(std::fs::File::create(&printed).expect("made"))
        .spawn()
        .expect("started");
    let mut expected = String::new();
    for round in 0..3 {
        cue.say(&format!("word-{round}"));
        expected.push_str(&format!("word-{round}\n"));
        eventually("it is told", || {
            let lines = std::fs::read_to_string(&printed).expect("text");
            let texts = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
            (texts.map(|line| text(&line, "text").to_owned()).collect::<String>() == expected).then_some(())
        });
        if round < 2 {
            kill(home.daemon_pid());
            eventually("the follower has started another", || {
                (home.nodejobs(["daemon", "status"]).code == 0).then_some(())
            });
        }
    }
    home.ok(["stop", "--force", &id]);
    assert_eq!(follower.wait().expect("ended").code(), Some(137));
}

#[test]
fn the_last_lines_come_with_tokens_that_repeat_nothing() {
    let home = Home::new();
    home.ok([
        "run",
        "--id",
        "a",
        "--wait",
        "--shell",
        "--",
        "for n in 1 2 3; do echo $n; echo e$n >&2; done",
    ]);
    let last = Lines::of(&home, &["--tail", "1", "a"]);
    assert_eq!((last.bytes("stdout"), last.bytes("stderr")), (b"3\n".to_vec(), b"e3\n".to_vec()));
    assert_eq!(last.lines[0]["offset"], 4);
    let rest = Lines::of(&home, &["a", "--from", text(&last.lines[0], "token")]);
    assert_eq!((rest.bytes("stdout"), rest.bytes("stderr")), (vec![], b"e3\n".to_vec()));
    let only = Lines::of(&home, &["--stderr", "a"]);
    assert_eq!((only.bytes("stdout"), only.bytes("stderr")), (vec![], b"e1\ne2\ne3\n".to_vec()));
    // One that waits has nothing yet, and no file either.
    home.ok(["run", "--id", "later", "--delay", "1h", "--", "true"]);
    let nothing = Lines::of(&home, &["later", "--tail", "3"]);
    assert_eq!((nothing.lines.len(), &nothing.last()["record"]["status"]), (1, &"queued".into()));
}

#[test]
fn a_token_of_another_job_and_what_is_none_are_refused() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "echo", "hello"]);
    home.ok(["run", "--id", "b", "--wait", "--", "echo", "hello"]);
    let told = Lines::of(&home, &["a"]);
    let token = text(told.last(), "token");
    let other = home.nodejobs(["logs", "b", "--from", token]);
    assert_eq!((other.code, other.stdout.len()), (2, 0), "{other:?}");
    assert!(other.stderr.contains("belongs to another job than 'b'"), "{other:?}");
    assert_eq!(home.nodejobs(["logs", "-f", "b", "--from", token]).code, 125);
    for bad in ["", "yesterday", "1.1.0.0", "1.1.-1.0.0"] {
        let said = home.nodejobs(["logs", "-f", "a", &format!("--from={bad}")]);
        assert_eq!((said.code, said.stdout.len()), (2, 0), "{bad} {said:?}");
    }
    for wrong in [
        &["logs", "a", "b", "--from", token][..],
        &["logs", "-o", "json", "a"],
        &["logs", "a", "--from", token, "--tail", "1"],
        &["logs", "a", "--from", token, "--attempt", "1"],
    ] {
        let said = home.nodejobs(wrong);
        assert_eq!((said.code, said.stdout.len()), (2, 0), "{wrong:?} {said:?}");
    }
}
