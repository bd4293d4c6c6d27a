//! Finding jobs again.

use std::io::Read as _;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::support::Home;

/// Four jobs: `alpha` finished, `beta` failed with 3, both named `build`, in directories `x` and `y`; `gamma` runs;
/// `delta` never started.
fn with_jobs() -> Home {
    let home = Home::new();
    for directory in ["x", "y"] {
        std::fs::create_dir(home.path().join(directory)).expect("made");
    }
    home.ok(["run", "--id", "alpha", "--name", "build", "--cwd", "x", "--wait", "--", "echo", "hello"]);
    let beta = ["run", "--id", "beta", "--name", "build", "--cwd", "y", "--wait", "--", "sh", "-c", "exit 3"];
    assert_eq!(home.nodejobs(beta).code, 3);
    home.ok(["run", "--id", "gamma", "--", "sleep", "1000"]);
    home.running("gamma");
    assert_eq!(home.nodejobs(["run", "--id", "delta", "--wait", "--", "/no/such/program"]).code, 125);
    home
}

/// The ids that `ls` with these options lists, in its order.
#[track_caller]
fn listed(home: &Home, options: &[&str]) -> Vec<String> {
    let said = home.nodejobs(["-o", "json", "ls"].iter().chain(options));
    assert_eq!(said.code, 0, "{options:?} {said:?}");
    let ids = |record: &Value| record["self_id"].as_str().expect("an id").to_owned();
    said.json().as_array().expect("an array").iter().map(ids).collect()
}

/// N22
#[test]
fn every_filter_finds_what_it_says() {
    let home = with_jobs();
    let (alpha, gamma) = (home.record("alpha"), home.record("gamma"));
    let check = |conditions: &[String], expected: &[&str]| {
        let options: Vec<&str> = conditions.iter().flat_map(|word| ["--filter", word]).collect();
        assert_eq!(listed(&home, &options), expected, "{conditions:?}");
    };
    let text = |record: &Value, key: &str| record[key].as_str().expect(key).to_owned();
    let same = |record: &Value, key: &str| {
        let value = record[key].as_str().map_or_else(|| record[key].to_string(), str::to_owned);
        format!("{key}={value}")
    };
    check(&[], &["delta", "gamma", "beta", "alpha"]);
    check(&["status=running".into()], &["gamma"]);
    check(&["status=finished,failed_start".into()], &["delta", "alpha"]);
    check(&["status=finished".into(), "status=failed".into()], &["beta", "alpha"]);
    check(&["status=queued".into()], &[]);
    check(&["self_id=alpha".into()], &["alpha"]);
    check(&["self_id=alph".into()], &[]);
    check(&["id_prefix=alph".into()], &["alpha"]);
    check(&["name=build".into()], &["beta", "alpha"]);
    check(&["name=build".into(), "exit_code=3".into()], &["beta"]);
    check(&["exit_code=0".into()], &["alpha"]);
    check(&["dirname=x".into()], &["alpha"]);
    check(&[same(&alpha, "cwd")], &["alpha"]);
    check(&["cwd=x".into()], &[]);
    check(&[same(&alpha, "logdir")], &["delta", "gamma", "beta", "alpha"]);
    check(&["logdir=/elsewhere".into()], &[]);
    check(&[same(&alpha, "logfile")], &["alpha"]);
    check(&[same(&gamma, "last_pid")], &["gamma"]);
    let updated = text(&alpha, "last_update");
    check(&[format!("last_update_from={updated}"), format!("last_update_until={updated}")], &["alpha"]);
    check(&[format!("last_update_until={updated}")], &["alpha"]);
    check(&[format!("last_update_from={}", text(&gamma, "last_update"))], &["delta", "gamma"]);
    check(&["last_update_from=2100-01-01T00:00:00Z".into()], &[]);
    check(&[format!("ended_until={}", text(&alpha, "ended_at"))], &["alpha"]);
    check(&[format!("started_from={}", text(&gamma, "started_at"))], &["gamma"]);
    check(&[format!("created_until={}", text(&alpha, "created_at"))], &["alpha"]);

    assert_eq!(listed(&home, &["--status", "failed,running"]), ["gamma", "beta"]);
    assert_eq!(listed(&home, &["--name", "build", "--status", "failed"]), ["beta"]);
    assert_eq!(listed(&home, &["--id-prefix", "g"]), ["gamma"]);

    let pid = gamma["last_pid"].to_string();
    assert_eq!(listed(&home, &["--pid", &pid]), ["gamma"]);
    assert_eq!(listed(&home, &["--exit-code", "3"]), ["beta"]);
    for directory in ["x", "./x/", alpha["cwd"].as_str().expect("a path")] {
        assert_eq!(listed(&home, &["--cwd", directory]), ["alpha"], "{directory}");
    }
    assert_eq!(listed(&home, &["--since", "1h"]).len(), 4);
    assert_eq!(listed(&home, &["--until", "1h"]), [""; 0]);
    assert_eq!(listed(&home, &["--until", &text(&alpha, "created_at")]), ["alpha"]);
    assert_eq!(listed(&home, &["--since", &text(&gamma, "created_at")]), ["delta", "gamma"]);
}

#[test]
fn labels_find_jobs_by_key_and_by_value() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--label", "team=web", "--label", "urgent=yes", "--", "true"]);
    home.ok(["run", "--id", "b", "--label", "team=db", "--", "true"]);
    home.ok(["run", "--id", "c", "--", "true"]);
    assert_eq!(listed(&home, &["--label", "team"]), ["b", "a"]);
    assert_eq!(listed(&home, &["--label", "team=web"]), ["a"]);
    assert_eq!(listed(&home, &["--label", "team", "--label", "urgent=yes"]), ["a"]);
    assert_eq!(listed(&home, &["--filter", "label=team=db"]), ["b"]);
    assert_eq!(listed(&home, &["--label", "team=we"]), [""; 0]);
}

#[test]
fn a_sorted_listing_has_the_first_of_all_and_a_quiet_one_only_ids() {
    let home = with_jobs();
    assert_eq!(listed(&home, &["--sort", "id"]), ["alpha", "beta", "delta", "gamma"]);
    assert_eq!(listed(&home, &["--sort", "id", "--reverse", "--limit", "2"]), ["gamma", "delta"]);
    // Who has no exit code comes last, newest first.
    assert_eq!(listed(&home, &["--sort", "exit-code"]), ["alpha", "beta", "delta", "gamma"]);
    assert_eq!(listed(&home, &["--sort", "exit-code", "--reverse"]), ["beta", "alpha", "delta", "gamma"]);
    assert_eq!(
        listed(&home, &["--sort", "runtime", "--reverse", "--limit", "1"]),
        ["gamma"],
        "it still runs"
    );
    assert_eq!(listed(&home, &["--sort", "status"])[0], "gamma");
    let quiet = home.nodejobs(["ls", "-q", "--sort", "created", "--limit", "3"]);
    assert_eq!((quiet.text().as_str(), quiet.code), ("alpha\nbeta\ngamma", 0));
    assert!(quiet.stderr.contains("more jobs") && !quiet.stderr.contains("--after"), "{quiet:?}");
    let nothing = home.nodejobs(["ls", "-q", "--status", "queued"]);
    assert_eq!((nothing.text().as_str(), nothing.stderr.as_str(), nothing.code), ("", "", 0));
    assert_eq!(home.nodejobs(["ls", "-q", "-o", "json"]).code, 2);
}

#[test]
fn a_cursor_goes_on_where_a_part_ended() {
    let home = with_jobs();
    let part = home.nodejobs(["ls", "-q", "--limit", "2"]);
    assert_eq!(part.text(), "delta\ngamma");
    let next = part.stderr.split_once("--after ").expect("a cursor").1.split(' ').next().expect("a number");
    assert_eq!(next, home.record("gamma")["seq"].to_string(), "the seq of the last one shown");
    home.ok(["run", "--id", "epsilon", "--wait", "--", "true"]);
    assert_eq!(listed(&home, &["--limit", "2", "--after", next]), ["beta", "alpha"]);
    assert_eq!(listed(&home, &["--reverse", "--after", next]), ["delta", "epsilon"]);
}

#[test]
fn a_filter_that_means_nothing_is_a_usage_error_with_those_that_do() {
    let home = with_jobs();
    let unknown = home.nodejobs(["ls", "--filter", "colour=red"]);
    assert_eq!((unknown.code, unknown.stdout.len()), (2, 0), "{unknown:?}");
    for key in ["'colour'", "status", "self_id", "dirname", "cwd", "logdir", "logfile", "last_update_from"] {
        assert!(unknown.stderr.contains(key), "{key} is not in {unknown:?}");
    }
    for bad in ["status=done", "last_pid=many", "last_update_from=yesterday", "exit_code=", "name"] {
        let said = home.nodejobs(["ls", "--filter", bad]);
        assert_eq!((said.code, said.stdout.len()), (2, 0), "{bad} {said:?}");
    }
    let twice = home.nodejobs(["ls", "--name", "build", "--filter", "name=x"]);
    assert!(twice.code == 2 && twice.stderr.contains("name: is given twice"), "{twice:?}");
}

#[test]
fn a_listing_has_an_order_and_a_length() {
    let home = with_jobs();
    assert_eq!(listed(&home, &["--oldest-first"]), ["alpha", "beta", "gamma", "delta"]);
    assert_eq!(listed(&home, &["--limit", "2"]), ["delta", "gamma"]);
    assert_eq!(listed(&home, &["--limit", "2", "--oldest-first", "--name", "build"]), ["alpha", "beta"]);
    assert_eq!(listed(&home, &["--all"]).len(), 4);
    let part = home.nodejobs(["ls", "--limit", "3"]);
    assert_eq!(part.text().lines().count(), 4, "with the header: {part:?}");
    assert!(part.stderr.contains("more jobs"), "{part:?}");
    assert_eq!(home.nodejobs(["ls", "--limit", "4"]).stderr, "");
    // A job that is run again keeps its place.
    home.ok(["run", "--id", "alpha", "--wait", "--", "true"]);
    assert_eq!(listed(&home, &["--oldest-first"]), ["alpha", "beta", "gamma", "delta"]);
    assert_eq!(listed(&home, &["--filter", "dirname=x"]), [""; 0], "its newest attempt ran elsewhere");
}

#[test]
fn a_long_listing_comes_in_parts_and_is_whole() {
    let home = Home::new();
    let submit = r#"i=0; while [ $i -lt 130 ]; do i=$((i + 1)); "$1" run --id j$i -- true; done"#;
    let program = crate::support::NODEJOBS;
    home.ok(["run", "--wait", "--id", "submitter", "--", "sh", "-c", submit, "sh", program]);
    assert_eq!(listed(&home, &[]).len(), 100, "the default");
    let mut all = listed(&home, &["--all", "--oldest-first"]);
    assert_eq!(all.remove(0), "submitter");
    assert_eq!(all, (1..=130).map(|number| format!("j{number}")).collect::<Vec<_>>());
    assert_eq!(home.ok(["-o", "jsonl", "ls", "--limit", "131"]).lines().count(), 131);
    let early = home.nodejobs(["-o", "jsonl", "ls", "--all"]);
    for line in String::from_utf8_lossy(&early.stdout).lines() {
        serde_json::from_str::<Value>(line).expect(line);
    }
}

#[test]
fn a_job_is_found_by_its_name_and_by_the_beginning_of_its_id() {
    let home = with_jobs();
    assert_eq!(home.record("gam")["self_id"], "gamma");
    home.ok(["run", "--id", "omega", "--name", "the last one / ü", "--wait", "--", "true"]);
    assert_eq!(home.record("the last one / ü")["self_id"], "omega");
    assert_eq!(home.ok(["logs", "alp"]), "hello");
    assert_eq!(home.nodejobs(["wait", "bet"]).code, 3);
    home.ok(["stop", "gam"]);
    assert_eq!(home.record("gamma")["status"], "stopped");
    // An id goes before a name.
    home.ok(["run", "--id", "sigma", "--name", "alpha", "--wait", "--", "true"]);
    assert_eq!(home.record("alpha")["self_id"], "alpha");
}

#[test]
fn every_command_takes_a_name_or_a_beginning_and_tells_of_those_that_fit_when_there_are_several() {
    let home = Home::new();
    for (id, name) in [("twin-1", "pair"), ("twin-2", "pair"), ("twin-3", "single")] {
        home.ok(["run", "--id", id, "--name", name, "--", "sleep", "1000"]);
        home.running(id);
    }
    let commands: [&[&str]; 11] = [
        &["status"],
        &["logs"],
        &["logs", "-f"],
        &["logs", "-f", "-o", "jsonl"],
        &["wait"],
        &["history"],
        &["pause"],
        &["resume"],
        &["restart"],
        &["rm"],
        &["stop"],
    ];
    for command in commands {
        let is_mirrored = command.contains(&"-f") || command.contains(&"wait");
        for (reference, count, last) in [("twin", "3", "twin-1"), ("pair", "2", "twin-1")] {
            let said = home.nodejobs(command.iter().copied().chain([reference]));
            assert_eq!(said.code, if is_mirrored { 125 } else { 4 }, "{command:?} {said:?}");
            let lines: Vec<_> = said.stderr.lines().collect();
            let first = format!("error: '{reference}' fits {count} jobs; give the id of one of them");
            assert_eq!(lines[0], first, "{command:?} {said:?}");
            assert_eq!(lines.len().to_string(), (count.parse::<usize>().expect("a number") + 1).to_string());
            let words: Vec<_> = lines[lines.len() - 1].split_whitespace().collect();
            assert_eq!(words[..3], [last, "pair", "running"], "{command:?} {said:?}");
        }
        let unknown = home.nodejobs(command.iter().copied().chain(["nobody"]));
        assert_eq!(unknown.code, if is_mirrored { 125 } else { 3 }, "{command:?} {unknown:?}");
        assert!(unknown.stderr.contains("'nobody'"), "{command:?} {unknown:?}");
    }
    // Nothing was done to any of them, and each can be named in every way.
    for (command, reference, status) in [
        (&["pause"][..], "single", "paused"),
        (&["resume"], "twin-3", "running"),
        (&["restart", "--force"], "single", "running"),
        (&["stop", "--force"], "single", "stopped"),
    ] {
        home.ok(command.iter().copied().chain([reference]));
        assert_eq!(home.running("twin-3")["status"], status, "{command:?}");
    }
    for id in ["twin-1", "twin-2"] {
        assert_eq!(home.record(id)["status"], "running");
    }
    assert_eq!(home.nodejobs(["wait", "single"]).code, 137);
    assert_eq!(home.ok(["history", "single"]).lines().count(), 3);
    home.ok(["rm", "single"]);
    assert_eq!(home.nodejobs(["status", "twin-3"]).code, 3);
}

#[test]
fn of_many_that_fit_the_newest_are_named_and_the_others_counted() {
    let home = Home::new();
    let submit = r#"i=0; while [ $i -lt 37 ]; do i=$((i + 1)); "$1" run --id j$i -- true; done"#;
    home.ok(["run", "--wait", "--id", "submitter", "--", "sh", "-c", submit, "sh", crate::support::NODEJOBS]);
    let said = home.nodejobs(["status", "j"]);
    let lines: Vec<_> = said.stderr.lines().collect();
    assert_eq!((said.code, lines.len(), lines[0].contains("'j' fits 37 jobs")), (4, 22, true), "{said:?}");
    assert!(
        lines[1].trim_start().starts_with("j37 ") && lines[20].trim_start().starts_with("j18 "),
        "{said:?}"
    );
    assert_eq!(lines[21], "  and 17 more");
}

/// What a command prints on a terminal of so many columns.
fn on_terminal(home: &Home, columns: u16, words: &[&str]) -> String {
    let terminal =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let size = Winsize { ws_row: 25, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).expect("a size");
    let side = std::fs::OpenOptions::new().read(true).write(true).open(name).expect("its other side");
    let mut command = home.command(words);
    command.env("TERM", "xterm").stdout(side).stderr(Stdio::null());
    let mut child = command.spawn().expect("nodejobs starts");
    drop(command);
    let mut text = Vec::new();
    // It ends with an error once nobody has the other side open.
    let _ = std::fs::File::from(terminal).read_to_end(&mut text);
    assert!(child.wait().expect("an end").success());
    String::from_utf8(text).expect("UTF-8").replace("\r\n", "\n")
}

#[test]
fn a_table_fits_the_terminal() {
    let home = with_jobs();
    let long = "word ".repeat(60);
    home.ok([
        "run",
        "--id",
        "long",
        "--name",
        &"n".repeat(100),
        "--wait",
        "--",
        "echo",
        &long,
        "\x1b[31mred",
    ]);
    let table = on_terminal(&home, 80, &["ls"]);
    let mut plain = table.clone();
    for colour in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[0m"] {
        plain = plain.replace(colour, "");
    }
    assert_ne!(plain, table, "there are colours");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert_eq!(plain.lines().count(), 6, "{plain}");
    assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
    assert!(plain.lines().next().is_some_and(|header| header.starts_with("ID ")), "{plain}");
    for word in ["alpha", "failed_start", "running", "echo hello", "…"] {
        assert!(plain.contains(word), "{word} is not in\n{plain}");
    }
    let wide = on_terminal(&home, 200, &["ls"]);
    assert!(wide.lines().any(|line| line.chars().count() > 100), "{wide}");
    // Into a file or a pipe goes everything, without colours.
    let whole = home.ok(["ls"]);
    assert!(whole.contains(&long) && !whole.contains('\x1b') && whole.contains(&"n".repeat(100)), "{whole}");
}
