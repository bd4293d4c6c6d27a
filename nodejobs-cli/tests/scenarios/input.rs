//! What cannot be meant, cannot be used or is hard to carry: refused by name before anything is done, or carried whole.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::engine::{STORES, available, damages, store};
use crate::support::{Home, Said, eventually, is_alive, pid_of, said};

/// A failure with this code whose words hold all of these, and no data on standard output.
#[track_caller]
fn refused(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.stdout.is_empty(), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "'{word}' is not in {said:?}");
    }
}

/// Every file below a directory with its content; directories have none.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                directories.push(path.clone());
                found.insert(path, None);
            } else {
                found.insert(path.clone(), std::fs::read(&path).ok());
            }
        }
    }
    found
}

/// What a directory holds apart from what a failed start may leave: its words, and locks that are free again.
fn holdings(home: &Home) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut tree = tree(home.path());
    tree.retain(|path, _| {
        path.file_name().is_some_and(|name| name != "daemon.log" && name != "failed-starts.json")
            && path.extension() != Some("lock".as_ref())
    });
    tree
}

#[test]
fn an_unknown_job_is_not_found_by_any_command() {
    let home = Home::new();
    home.ok(["run", "--id", "known", "--wait", "--", "true"]);
    for command in [&["status"][..], &["logs"], &["stop"], &["stop", "--force"]] {
        for output in ["table", "json"] {
            if command == ["logs"] && output == "json" {
                continue;
            }
            let said = home.nodejobs(command.iter().copied().chain(["nobody", "-o", output]));
            assert_eq!(said.code, 3, "{command:?} {said:?}");
            assert!(said.stderr.contains("'nobody'"), "{command:?} {said:?}");
        }
    }
    for command in [&["wait", "nobody"][..], &["logs", "-f", "nobody"]] {
        refused(&home.nodejobs(command), 125, &["'nobody'"]);
    }
    let partly = home.nodejobs(["status", "known", "nobody"]);
    assert_eq!(partly.code, 6, "{partly:?}");
    assert!(partly.text().contains("known") && partly.stderr.contains("'nobody'"), "{partly:?}");
    refused(&home.nodejobs(["logs", "--attempt", "9", "known"]), 3, &["attempt 9"]);
    assert_eq!(home.record("known")["status"], "finished");
}

/// N27
#[test]
fn what_is_no_id_is_refused_and_leaves_nothing_behind() {
    let home = Home::new();
    let long = "x".repeat(300);
    let bad = ["../x", "a/b", "", &long, "ü", "-x", ".x", "a b", "a\nb", ".", ".."];
    for id in bad {
        refused(&home.nodejobs(["run", &format!("--id={id}"), "--", "true"]), 2, &["id"]);
    }
    assert_eq!(tree(home.path()), BTreeMap::new(), "nothing was made, not even the data directory");

    home.ok(["run", "--id", "known", "--wait", "--", "true"]);
    for id in bad {
        for command in ["status", "logs", "stop"] {
            refused(&home.nodejobs([command, "--", id]), 2, &["error: "]);
        }
    }
    assert_eq!(home.ok(["ls", "-o", "json"]).matches("self_id").count(), 1);
    let longest = "x".repeat(128);
    assert_eq!(home.ok(["run", "--id", &longest, "--wait", "--", "true"]), longest);
    assert_eq!(home.record(&longest)["status"], "finished");
}

/// N13
#[test]
fn an_id_in_use_is_a_conflict_and_its_job_is_untouched() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sh", "-c", "echo first; exec sleep 1000"]);
    let before = home.running("a");
    eventually("it has written", || (home.ok(["logs", "a"]) == "first").then_some(()));
    refused(&home.nodejobs(["run", "--id", "a", "--", "echo", "second"]), 4, &["'a'", "running"]);
    refused(&home.nodejobs(["run", "--wait", "--id", "a", "--", "echo", "second"]), 125, &["'a'", "running"]);
    let after = home.record("a");
    for field in ["status", "last_pid", "attempt", "command", "last_update", "started_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(home.ok(["logs", "a"]), "first");
    assert!(is_alive(pid_of(&before["last_pid"])));
}

/// C13
#[test]
fn a_reference_that_fits_several_jobs_lists_them_and_touches_none() {
    let home = Home::new();
    for id in ["build-1", "build-2", "other"] {
        home.ok(["run", "--id", id, "--name", "nightly", "--", "sleep", "1000"]);
    }
    for command in ["status", "stop", "logs"] {
        refused(&home.nodejobs([command, "build"]), 4, &["'build'", "build-1", "build-2"]);
        refused(&home.nodejobs([command, "nightly"]), 4, &["'nightly'", "build-1", "build-2", "other"]);
    }
    for id in ["build-1", "build-2", "other"] {
        assert!(is_alive(pid_of(&home.running(id)["last_pid"])));
    }
    assert_eq!(home.record("oth")["self_id"], "other");
    // A whole id is what it is, whatever else begins so.
    home.ok(["run", "--id", "build", "--wait", "--", "true"]);
    assert_eq!(home.record("build")["self_id"], "build");
}

#[test]
fn words_that_mean_nothing_are_a_usage_error_before_anything_is_made() {
    let home = Home::new();
    for words in [
        &["launch"][..],
        &[],
        &["run"],
        &["run", "--"],
        &["run", "--", ""],
        &["run", "--colour", "red", "--", "true"],
        &["run", "--env", "novalue", "--", "true"],
        &["run", "--env", "=x", "--", "true"],
        &["run", "--name", "", "--", "true"],
        &["run", "--name", "a\nb", "--", "true"],
        &["run", "--cwd", "", "--", "true"],
        &["run", "--shell", "--", "a", "b"],
        &["status"],
        &["wait"],
        &["logs"],
        &["stop"],
        &["stop", "a", "--all"],
        &["stop", "--signal", "NONE", "a"],
        &["stop", "--grace", "soon", "a"],
        &["ls", "extra"],
        &["-o", "yaml", "ls"],
        &["--data-dir", "", "ls"],
        &["--store", "paper", "ls"],
        &["daemon"],
        &["daemon", "dance"],
    ] {
        let said = home.nodejobs(words);
        assert_eq!(said.code, 2, "{words:?} {said:?}");
        assert!(said.stdout.is_empty() && !said.stderr.is_empty(), "{words:?} {said:?}");
    }
    assert_eq!(tree(home.path()), BTreeMap::new());
}

/// N26
#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let home = Home::below("file/data");
    let file = home.path().join("file");
    std::fs::write(&file, "mine").expect("written");
    for words in [&["run", "--", "true"][..], &["ls"], &["daemon", "start"], &["status", "a"]] {
        refused(&home.nodejobs(words), 5, &[file.to_str().expect("UTF-8")]);
    }
    assert_eq!(
        tree(home.path()),
        BTreeMap::from([(file, Some(b"mine".to_vec()))]),
        "there is no other place"
    );
}

#[test]
fn a_data_directory_of_a_long_path_has_everything() {
    let home = Home::below(format!("{0}/{0}/{0}", "d".repeat(80)));
    home.ok(["daemon", "start"]);
    assert!(home.daemon()["socket"].as_str().is_some_and(|socket| socket.len() > 240));
    assert_eq!(home.nodejobs(["run", "--id", "a", "--wait", "--", "sh", "-c", "echo x; exit 3"]).code, 3);
    assert_eq!(home.ok(["logs", "a"]), "x");
    home.ok(["run", "--id", "b", "--", "sleep", "1000"]);
    let pid = home.running("b")["last_pid"].clone();
    home.ok(["daemon", "stop"]);
    home.ok(["daemon", "start"]);
    assert_eq!(home.record("b")["last_pid"], pid);
    home.ok(["stop", "b"]);
    assert_eq!(home.record("b")["status"], "stopped");
    assert!(!is_alive(pid_of(&pid)));
}

/// A data directory with one finished job and no daemon.
fn left_alone() -> Home {
    let home = Home::new();
    home.ok(["run", "--id", "before", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    eventually("the keeper has left", || home.processes().is_empty().then_some(()));
    home
}

/// Puts something else in place of a file, expects every command to refuse the directory with the words and to leave
/// it as it is, and puts the file back.
fn refused_while(home: &Home, path: &Path, content: &[u8], words: &[&str]) {
    let original = tree(home.data_dir());
    std::fs::write(path, content).expect("written");
    // sled cuts a damaged log off before it can be asked, and says so among what it does not promise.
    let holdings = || {
        let mut holdings = holdings(home);
        holdings.retain(|path, _| store() != "sled" || !path.starts_with(home.store_path()));
        holdings
    };
    let before = holdings();
    for command in
        [&["ls"][..], &["run", "--id", "new", "--", "true"], &["status", "before"], &["daemon", "start"]]
    {
        refused(&home.nodejobs(command), 5, words);
    }
    assert_eq!(holdings(), before, "nothing was half done");
    eventually("no daemon is left", || home.processes().is_empty().then_some(()));
    for (path, content) in original.iter().filter_map(|(path, content)| Some((path, content.as_ref()?))) {
        let is_known = *path == home.data_dir().join("nodejobs.json") || path.starts_with(home.store_path());
        is_known.then(|| std::fs::write(path, content).expect("written"));
    }
    assert_eq!(home.record("before")["status"], "finished", "what was there is there again");
    home.ok(["daemon", "stop"]);
    eventually("the keeper has left", || home.processes().is_empty().then_some(()));
}

/// N26
#[test]
fn a_damaged_store_is_refused_by_name_and_left_as_it_is() {
    let home = left_alone();
    let good = std::fs::read(home.store_file()).expect("a store");
    for (_, content, word) in damages(&good) {
        refused_while(
            &home,
            &home.store_file(),
            &content,
            &[word, home.store_path().to_str().expect("UTF-8")],
        );
    }
}

#[test]
fn a_directory_that_says_what_cannot_be_understood_is_refused_by_name() {
    let home = left_alone();
    let meta = std::fs::read(home.data_dir().join("nodejobs.json")).expect("nodejobs.json");
    let meta: Value = serde_json::from_slice(&meta).expect("JSON");
    let with = |changes: Value| {
        let mut meta = meta.clone();
        for (key, value) in changes.as_object().expect("an object") {
            meta[key] = value.clone();
        }
        meta.to_string().into_bytes()
    };
    let path = home.data_dir().join("nodejobs.json");
    let refused_by = |content: &[u8], words: &[&str]| {
        refused_while(&home, &path, content, &[words, &[path.to_str().expect("UTF-8")]].concat());
    };
    for garbage in [&b"\xff\xfe\0"[..], b"", b"{}", b"{\"format\":", b"null", b"[1]"] {
        refused_by(garbage, &["cannot be understood"]);
    }
    refused_by(&with(json!({"format": 9})), &["format 9"]);
    // A later version writes more, and it is the version that has to be said.
    let later = with(json!({"format": 2, "store": "paper", "colour": "red"}));
    refused_by(&later, &["format 2"]);
    let elsewhere = with(json!({"machine_id": "0123456789abcdef0123456789abcdef"}));
    let words = ["another machine", "0123456789abcdef0123456789abcdef"];
    refused_by(&elsewhere, &words);
}

#[test]
fn another_store_than_the_directory_s_is_refused_by_name() {
    let home = left_alone();
    let path = home.data_dir().join("nodejobs.json");
    let original = std::fs::read_to_string(&path).expect("nodejobs.json");
    let others = STORES.iter().filter(|(other, _)| *other != store());
    for (other, is_here) in others.clone() {
        let names = [store(), other];
        std::fs::write(&path, original.replace(&format!("\"{}\"", store()), &format!("\"{other}\"")))
            .expect("written");
        refused(&home.nodejobs(["--store", store(), "ls"]), 4, &names);
        if !is_here {
            // What the directory says cannot be had, and the way out is another build.
            let here = format!("it has {}", available());
            refused(&home.nodejobs(["ls"]), 5, &[other, &here, &format!("--features {other}")]);
            refused(&home.nodejobs(["daemon", "start"]), 5, &[other, &here]);
        }
        std::fs::write(&path, &original).expect("written");
        if *is_here {
            refused(&home.nodejobs(["--store", other, "ls"]), 4, &names);
            home.ok(["daemon", "start"]);
            refused(&home.nodejobs(["--store", other, "ls"]), 4, &names);
            // The next round is about a directory that nobody owns.
            home.ok(["daemon", "stop"]);
        }
    }
    home.ok(["--store", store(), "status", "before"]);
}

#[test]
fn a_store_that_is_not_in_this_build_is_refused_with_those_that_are() {
    let home = Home::new();
    let here = available();
    for (name, is_here) in STORES {
        if !is_here {
            let words = [name, "not in this build", &here, &format!("--features {name}")];
            refused(&home.nodejobs(["--store", name, "ls"]), 2, &words);
            refused(&home.nodejobs(["run", "--store", name, "--", "true"]), 2, &words);
        }
    }
    refused(&home.nodejobs(["--store", "paper", "ls"]), 2, &["'paper'", "is no store", &here]);
    let help = home.ok(["help", "run"]);
    assert!(help.contains(&format!("[default: {}]", store())), "{help}");
    assert!(!home.data_dir().exists(), "nothing was made");
}

/// Prints checksums of its arguments and of a variable.
const SUMS: &str =
    r#"for text do printf %s "$text" | sha256sum; done; printf %s "$BIG" | sha256sum; echo $#"#;

#[test]
fn large_arguments_and_variables_arrive_whole() {
    let home = Home::new();
    let text = |letter: &str| letter.repeat(100_000);
    let words: Vec<String> =
        ["sh", "-c", SUMS, "sh"].map(str::to_owned).into_iter().chain(["a", "b"].map(text)).collect();
    let mut command = home.command(["run", "--id", "big", "--wait", "--"]);
    let ended = said(command.args(&words).env("BIG", text("c")));
    assert_eq!(ended.code, 0, "{ended:?}");
    let direct = said(Command::new("sh").args(&words[1..]).env("BIG", text("c")));
    assert_eq!(direct.text().lines().count(), 4, "{direct:?}");
    assert_eq!(home.ok(["logs", "big"]), direct.text());
    let record = home.record("big");
    assert_eq!(record["command"]["argv"].as_array().map(Vec::len), Some(6));
    assert!(home.ok(["ls"]).contains("big"));
}

/// N23 and more: what is not UTF-8 is carried byte for byte.
#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let home = Home::new();
    let odd = OsStr::from_bytes(b"\xff\xfe*\x80");
    let directory = home.path().join(odd);
    std::fs::create_dir(&directory).expect("made");
    let assign = OsString::from_vec(b"OWN=\xc3(\xff".to_vec());
    let print = r#"printf '%s|' "$1" "$INHERITED" "$OWN"; pwd"#;
    let mut command = home.command(["run", "--id", "odd", "--wait", "--cwd"]);
    command.arg(&directory).arg("--env").arg(&assign).args(["--", "sh", "-c", print, "sh"]).arg(odd);
    let ended = said(command.env("INHERITED", odd));
    assert_eq!(ended.code, 0, "{ended:?}");
    let reached = directory.canonicalize().expect("a path");
    let expected =
        [odd.as_bytes(), b"|", odd.as_bytes(), b"|\xc3(\xff|", reached.as_os_str().as_bytes(), b"\n"];
    let logs = home.nodejobs(["logs", "odd"]);
    assert_eq!(logs.stdout, expected.concat(), "{}", String::from_utf8_lossy(&logs.stdout));
    let record = home.record("odd");
    assert_eq!(record["command"]["argv"][4], json!({"base64": "//4qgA=="}));
    assert_eq!(record["dirname"], json!({"base64": "//4qgA=="}));
    home.ok(["ls"]);
    home.ok(["status", "odd"]);
}

/// N30
#[test]
fn a_relative_directory_is_meant_from_where_it_was_said() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join("sub/deep")).expect("made");
    let mut command = home.command(["run", "--id", "a", "--cwd", "deep", "--wait", "--", "pwd"]);
    let ended = said(command.current_dir(home.path().join("sub")));
    assert_eq!(ended.code, 0, "{ended:?}");
    let deep = home.path().join("sub/deep");
    assert_eq!(home.record("a")["cwd"], deep.to_str().expect("UTF-8"));
    assert_eq!(home.ok(["logs", "a"]), deep.canonicalize().expect("a path").to_str().expect("UTF-8"));
    // So is a relative data directory, whatever the daemon's own directory is.
    let mut command = home.command(["--data-dir", "../data", "logs", "a"]);
    assert_eq!(
        said(command.current_dir(home.path().join("sub"))).stdout,
        home.nodejobs(["logs", "a"]).stdout
    );
}

/// C16
#[test]
fn quotes_and_blanks_mean_what_a_shell_says() {
    let home = Home::new();
    let print = |words: &[&str]| {
        let id = home.ok(["run", "--", "printf", "<%s>"].iter().chain(words));
        home.ended(&id);
        home.ok(["logs", &id])
    };
    assert_eq!(print(&["a\"b", "", "c", " d  ", "$HOME", "*"]), "<a\"b><><c>< d  ><$HOME><*>");
    let id = home.ok(["run", r#"printf '<%s>' a\"b '' c | tr a x"#]);
    home.ended(&id);
    assert_eq!(home.ok(["logs", &id]), "<x\"b><><c>");
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let home = Home::new();
    let id = home.run_script("seq 100000; seq 100000 >&2");
    home.ended(&id);
    for words in [
        &["ls"][..],
        &["-o", "json", "ls"],
        &["status", &id],
        &["logs", &id],
        &["run", "--", "true"],
        &["--help"],
        &["daemon", "status"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let unread = said(home.command(words).stdout(writer));
        assert_eq!(unread.code, 0, "{words:?} {unread:?}");
        assert!(
            !unread.stderr.contains("panicked") && !unread.stderr.contains("error"),
            "{words:?} {unread:?}"
        );
        let closed = r#"exec "$@" >&- 2>&- <&-"#;
        assert_eq!(said(&mut as_shell(closed, &home.command(words))).code, 0, "{words:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let full = said(home.command(["ls"]).stdout(full));
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.stderr.contains("standard output"), "{full:?}");
}

/// `sh -c SCRIPT sh PROGRAM…` in the surroundings that a command has.
fn as_shell(script: &str, program: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args()).env_clear();
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.current_dir(program.get_current_dir().expect("a directory")).stdin(Stdio::null());
    shell
}

#[test]
fn json_is_json() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--name", "q\"\\ü", "--wait", "--", "echo", "a\nb", "\u{1b}[2J"]);
    home.ok(["run", "--id", "b", "--", "sleep", "1000"]);
    let one = |words: &[&str]| {
        let said = home.nodejobs(words);
        assert_eq!(said.code, 0, "{words:?} {said:?}");
        assert_eq!(said.text().lines().count(), 1, "one line: {said:?}");
        said.json()
    };
    let lines = |words: &[&str]| -> Vec<Value> {
        let text = home.ok(words);
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    assert_eq!(one(&["-o", "json", "status", "a"])["name"], "q\"\\ü");
    let several = one(&["status", "a", "b", "-o", "json"]);
    assert_eq!((&several[0]["self_id"], &several[1]["self_id"]), (&json!("a"), &json!("b")));
    let listed = home.nodejobs(["-o", "json", "ls"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    for words in [&["-o", "jsonl", "ls"][..], &["-o", "jsonl", "status", "a", "b"]] {
        let mut ids: Vec<_> = lines(words).into_iter().map(|record| record["self_id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        assert_eq!(ids, ["a", "b"], "{words:?}");
    }
    assert_eq!(one(&["-o", "json", "run", "--id", "c", "--", "true"])["self_id"], "c");
    assert_eq!(one(&["-o", "json", "run", "--id", "d", "--wait", "--", "true"])["status"], "finished");
    assert_eq!(one(&["-o", "json", "wait", "c"])["status"], "finished");
    assert_eq!(one(&["-o", "json", "stop", "b"])[0]["record"]["status"], "stopped");
    assert_eq!(one(&["-o", "json", "daemon", "status"])["store"], store());
    let nothing = home.nodejobs(["-o", "json", "ls", "--filter", "name=nobody"]);
    assert_eq!((nothing.code, nothing.text().as_str()), (0, "[]"), "{nothing:?}");
}

#[test]
fn the_value_of_a_variable_is_shown_nowhere() {
    let home = Home::new();
    let (given, inherited) = ("gIvEn-5ecret", "inHerited-5ecret");
    let variable = format!("TOKEN={given}");
    let mut shown = String::new();
    for (id, program) in [("good", "/bin/true"), ("bad", "/no/such/program")] {
        for command in ["run", "status"] {
            for output in ["table", "json"] {
                let id = format!("{id}-{output}");
                let mut words = vec!["-o", output, command];
                match command {
                    "run" => words.extend(["--id", &id, "--env", &variable, "--wait", "--", program]),
                    _ => words.push(&id),
                }
                let said = said(home.command(words).env("INHERITED", inherited));
                shown.push_str(&format!("{said:?}\n{}\n", String::from_utf8_lossy(&said.stdout)));
            }
        }
    }
    for words in [&["ls"][..], &["ls", "-o", "json"], &["daemon", "status", "-o", "json"]] {
        shown.push_str(&home.ok(words));
    }
    // And what a daemon of its own accord says that finds the jobs again.
    home.ok(["run", "--id", "long", "--env", &variable, "--", "sleep", "1000"]);
    home.running("long");
    home.ok(["daemon", "stop"]);
    home.ok(["status", "long"]);
    shown.push_str(&std::fs::read_to_string(home.data_dir().join("daemon.log")).expect("daemon.log"));
    for pid in home.processes().iter().map(|(pid, _)| pid) {
        shown.push_str(&String::from_utf8_lossy(
            &std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
        ));
    }
    assert!(shown.contains("good-json") && shown.contains("/no/such/program"));
    for secret in [given, inherited] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

/// N29
#[test]
fn what_is_kept_is_its_owner_s_alone_whatever_the_umask() {
    let home = Home::new();
    let run = home.command(["run", "--id", "a", "--wait", "--", "sh", "-c", "echo x; umask"]);
    assert_eq!(said(&mut as_shell(r#"umask 0; exec "$@""#, &run)).code, 0);
    assert_eq!(home.ok(["logs", "a"]), "x\n0000", "the job has the umask of its submitter");
    let mode = |path: &Path| std::fs::symlink_metadata(path).map(|found| found.permissions().mode() & 0o7777);
    assert_eq!(mode(home.data_dir()).expect("there"), 0o700);
    for path in tree(home.data_dir()).into_keys() {
        // Some come and go.
        if let Ok(mode) = mode(&path) {
            assert_eq!(mode & 0o077, 0, "{} has {mode:o}", path.display());
        }
    }
}

/// A store that is gone is not replaced by an empty one.
#[test]
fn a_store_that_is_missing_is_not_made_anew() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let store = home.store_path();
    let kept = home.path().join("kept");
    std::fs::rename(&store, &kept).expect("moved");
    for ending in ["-wal", "-shm"] {
        // What SQLite may have beside it.
        let _ = std::fs::remove_file(home.data_dir().join(format!("jobs.sqlite{ending}")));
    }
    let said = home.nodejobs(["ls"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.stderr.contains(&format!("'{}' is missing", store.display())), "{said:?}");
    assert!(!store.exists());
    std::fs::rename(kept, store).expect("restored");
    assert_eq!(home.ok(["ls"]).lines().count(), 2);
}

#[test]
fn input_of_a_launch_that_did_not_happen_is_not_left_behind() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    // No keeper can make its journal.
    let keepers = home.data_dir().join("keepers");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot");
    for number in 1..100 {
        let name = format!("00000001-{number}.{}.journal", &boot_id[..8]);
        std::fs::create_dir(keepers.join(name)).expect("made");
    }
    let said = home.with_input(&["run", "--id", "a", "--stdin", "-", "--", "cat"], b"a secret");
    assert_eq!(said.code, 0, "{said:?}");
    let waits = home.has_status("a", "queued");
    assert_eq!(waits["waiting_on"], "resources", "{waits}");
    home.ok(["stop", "a"]);
    let left: Vec<_> = std::fs::read_dir(&keepers)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().ends_with(".input"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
