//! Real programs: a compiler, pipelines, much output, output that is no text.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Home, eventually, said};

#[test]
fn a_compiler_fails_with_its_own_words() {
    let home = Home::new();
    let source = "int main(void) {\n    return nothing_of_this_name;\n}\n";
    std::fs::write(home.path().join("bad.c"), source).expect("written");
    let arguments = ["-Wall", "-o", "bad", "bad.c"];
    let ended = home.nodejobs(["run", "--id", "cc", "--wait", "--", "cc"].into_iter().chain(arguments));
    let direct = said(&mut home.shell(&format!("exec cc {}", arguments.join(" "))));
    assert_eq!((direct.code, ended.code), (1, 1), "{ended:?} {direct:?}");
    let record = home.record("cc");
    assert_eq!((&record["status"], &record["exit_code"]), (&json!("failed"), &json!(1)), "{record}");
    assert_eq!(record["reason"], "exit");
    let logs = home.nodejobs(["logs", "cc"]);
    assert!(logs.stderr.contains("nothing_of_this_name"), "{logs:?}");
    assert_eq!((&logs.stderr, &logs.stdout), (&direct.stderr, &direct.stdout));
    assert_eq!(home.nodejobs(["logs", "--stderr", "cc"]).stdout, direct.stderr.as_bytes());
    assert!(!home.path().join("bad").exists());
}

#[test]
fn a_compiler_makes_a_program_that_is_a_job_itself() {
    let home = Home::new();
    let source =
        "#include <stdio.h>\nint main(int n, char **a) { printf(\"%d %s\\n\", n, a[1]); return 42; }\n";
    std::fs::write(home.path().join("good.c"), source).expect("written");
    assert_eq!(home.ok(["run", "--id", "cc", "--wait", "--", "cc", "-o", "good", "good.c"]), "cc");
    assert_eq!(home.record("cc")["status"], "finished");
    let ended = home.nodejobs(["run", "--id", "good", "--wait", "--", "./good", "it's"]);
    assert_eq!(ended.code, 42, "{ended:?}");
    assert_eq!(home.ok(["logs", "good"]), "2 it's");
}

const BIG: u64 = 200_000_000;

/// A line of `sha256sum`, without the file's name.
fn sum(line: &str) -> String {
    line.split_whitespace().next().expect("a checksum").to_owned()
}

/// The checksum of what a script prints when it is run by hand.
fn expected_sum() -> String {
    sum(&said(Command::new("sh").args(["-c", &format!("head -c {BIG} /dev/zero | tr '\\0' x | sha256sum")]))
        .text())
}

#[test]
fn much_goes_through_a_job_and_out_of_it_unchanged() {
    let home = Home::new();
    home.ok(["run", "--id", "pipe", &format!("head -c {BIG} /dev/zero | tr '\\0' x | sha256sum")]);
    home.ok(["run", "--id", "out", "--log-cap", "none", &format!("head -c {BIG} /dev/zero | tr '\\0' x")]);
    let expected = expected_sum();
    assert_eq!(home.ended("pipe")["status"], "finished");
    assert_eq!(sum(&home.ok(["logs", "pipe"])), expected);

    let record = home.ended("out");
    assert_eq!((&record["status"], &record["log_bytes"]), (&json!("finished"), &json!(BIG)), "{record}");
    let file = Path::new(record["logfile"].as_str().expect("a path"));
    assert_eq!(std::fs::metadata(file).expect("there").len(), BIG);
    assert_eq!(sum(&said(Command::new("sha256sum").arg(file)).text()), expected, "the file");

    let mut logs = home.command(["logs", "out"]).stdout(Stdio::piped()).spawn().expect("nodejobs starts");
    let streamed = logs.stdout.take().expect("a pipe");
    let streamed = said(Command::new("sha256sum").stdin(streamed));
    assert!(logs.wait().expect("an end").success());
    assert_eq!(sum(&streamed.text()), expected, "the stream");
    assert_eq!(home.nodejobs(["logs", "--tail", "1", "out"]).stdout.len() as u64, BIG, "it is one line");

    // Whoever stops reading early stops nothing else.
    let early = said(
        Command::new("sh")
            .args(["-c", r#""$0" logs out | head -c 10"#, crate::support::NODEJOBS])
            .env("NODEJOBS_DIR", home.data_dir()),
    );
    assert_eq!(early.text(), "xxxxxxxxxx", "{early:?}");
}

/// N23
#[test]
fn output_that_is_no_text_is_kept_byte_for_byte() {
    let home = Home::new();
    home.ok(["run", "--id", "odd", "--wait", "--", "printf", r"\377\376\000\033[2J\r\303("]);
    let bytes = b"\xff\xfe\0\x1b[2J\r\xc3(";
    assert_eq!(home.nodejobs(["logs", "odd"]).stdout, bytes);
    let record = home.record("odd");
    assert_eq!(std::fs::read(record["logfile"].as_str().expect("a path")).expect("a log"), bytes);
    let followed = home.nodejobs(["logs", "-f", "odd"]);
    assert_eq!((followed.code, followed.stdout.as_slice()), (0, &bytes[..]));
    for words in [&["ls"][..], &["status", "odd"]] {
        let shown = home.nodejobs(words);
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(!shown.stdout.contains(&0x1b), "a job cannot reach the terminal: {shown:?}");
    }
}

/// N6
#[test]
fn a_script_has_its_shell_and_a_command_has_none() {
    let home = Home::new();
    let logs = |words: &[&str]| {
        let id = home.ok(["run"].iter().chain(words));
        assert_eq!(home.ended(&id)["status"], "finished");
        home.ok(["logs", &id])
    };
    assert_eq!(logs(&["echo hello"]), "hello");
    assert_eq!(logs(&[r#"X='a  b'; echo "$X" | tr ab xy && echo $((6 * 7))"#]), "x  y\n42");
    assert_eq!(logs(&["--", "echo", "$HOME | cat"]), "$HOME | cat");
}

#[test]
fn a_job_may_submit_jobs_of_its_own() {
    let home = Home::new();
    let script =
        format!("'{}' run --id inner --wait -- sh -c 'echo $JOB_ID; exit 5'", crate::support::NODEJOBS);
    let outer = home.nodejobs(["run", "--id", "outer", "--wait", &script]);
    assert_eq!(outer.code, 5, "{outer:?}");
    assert_eq!(home.ok(["logs", "inner"]), "inner", "it has its own id, not its submitter's");
    assert_eq!(home.record("inner")["exit_code"], 5);
}

#[test]
fn a_daemon_started_inside_a_job_is_not_its_leftover() {
    let (home, nested) = (Home::new(), Home::new());
    let script = format!(
        "NODEJOBS_DIR='{}' '{}' run --id inner -- sleep 1000",
        nested.data_dir().display(),
        crate::support::NODEJOBS
    );
    assert_eq!(home.nodejobs(["run", "--id", "outer", "--wait", &script]).code, 0);
    assert_eq!(home.ended("outer")["status"], "finished");
    let inner = eventually("the inner job runs", || {
        let record = nested.record("inner");
        (record["status"] == "running").then_some(record)
    });
    assert!(crate::support::is_alive(crate::support::pid_of(&inner["last_pid"])));
}
