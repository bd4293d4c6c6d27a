//! What packagers and shells ask for, where there is neither a home nor a data directory; and the programs, installed in
//! part.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{DAEMON, Home, NODEJOBS, Said, said};

/// `nodejobs ARGUMENTS` as a build of a package runs it.
fn bare(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.env_remove("HOME").env_remove("NODEJOBS_DIR");
    command
}

#[test]
fn bash_completes_commands_and_their_options() {
    let home = Home::new();
    let script = said(&mut bare(&home, &["completions", "bash"]));
    assert_eq!(script.code, 0, "{script:?}");
    let path = home.path().join("nodejobs.bash");
    std::fs::write(&path, &script.stdout).expect("written");
    let checked = said(Command::new("bash").arg("-n").arg(&path));
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    let complete = |before: &str, word: &str| {
        let words = format!("{before} {word}");
        let count = before.split(' ').count();
        let previous = before.split(' ').next_back().expect("a word");
        let program = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={count}; _nodejobs nodejobs '{word}' {previous}; \
             echo \"${{COMPREPLY[@]}}\"",
            path.display()
        );
        let said = said(Command::new("bash").args(["--norc", "-c", &program]));
        assert_eq!(said.code, 0, "{said:?}");
        said.text()
    };
    assert_eq!(complete("nodejobs", "do"), "doctor");
    assert_eq!(complete("nodejobs daemon", "s"), "start stop status");
    assert_eq!(complete("nodejobs doctor", "--k"), "--keepers");
    assert_eq!(complete("nodejobs completions", "f"), "fish");
}

#[test]
fn each_shell_has_its_script_and_an_unknown_one_is_refused() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&mut bare(&home, &["completions", shell]));
        assert_eq!(script.code, 0, "{script:?}");
        for command in ["run", "ls", "status", "logs", "wait", "stop", "daemon", "doctor", "completions"] {
            assert!(script.text().contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(said(&mut bare(&home, &["completions", "csh"])).code, 2);
    assert_eq!(said(&mut bare(&home, &["completions"])).code, 2);
    assert!(!home.data_dir().exists());
}

#[test]
fn manual_pages_are_written_or_printed() {
    let home = Home::new();
    let printed = said(&mut bare(&home, &["man"]));
    assert!(printed.code == 0 && printed.text().contains(".TH nodejobs 1"), "{printed:?}");
    let place = home.path().join("usr/share/man/man1");
    let written = said(&mut bare(&home, &["man", "--dir", place.to_str().expect("UTF-8")]));
    assert_eq!((written.code, written.text().as_str()), (0, ""), "{written:?}");
    assert!(
        std::fs::read(place.join("nodejobs.1")).expect("a page") == printed.stdout,
        "it is the same page"
    );
    assert!(place.join("nodejobs-daemon-start.1").exists());
    let refused = said(&mut bare(&home, &["man", "--dir", "/dev/null/x"]));
    assert!(refused.code == 1 && refused.stderr.contains("'/dev/null/x'"), "{refused:?}");
    assert!(!home.nodejobs(["--help"]).text().contains(" man "), "it is for packagers");
}

/// The programs as somebody has put them into a directory, by these names.
fn installed(home: &Home, programs: &[(&str, &str)]) -> PathBuf {
    let directory = home.path().join("bin");
    std::fs::create_dir(&directory).expect("made");
    for (program, name) in programs {
        std::fs::copy(program, directory.join(name)).expect("copied");
    }
    directory.join("nodejobs")
}

/// `nodejobs ARGUMENTS` of those programs.
fn run(home: &Home, program: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(program);
    let like = home.command(arguments);
    command.args(arguments).env_clear().current_dir(home.path()).stdin(Stdio::null());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    said(&mut command)
}

#[test]
fn what_is_called_all_the_time_has_no_store_in_it() {
    const MAGIC: [&[u8]; 2] = [b"SQLite format 3", b"redb\x1a\x0a\xa9\x0d\x0a"];
    let has = |program: &str| {
        let bytes = std::fs::read(program).expect("a program");
        MAGIC.map(|magic| bytes.windows(magic.len()).any(|window| window == magic))
    };
    assert_eq!(has(NODEJOBS), [false, false], "the linker should have left it out: see program.rs");
    assert!(has(DAEMON).contains(&true), "what there is would be found");
}

#[test]
fn without_the_daemon_beside_it_the_command_says_what_to_install() {
    let home = Home::new();
    let program = installed(&home, &[(NODEJOBS, "nodejobs")]);
    assert_eq!(run(&home, &program, &["--version"]).code, 0);
    for (arguments, code) in [
        (&["run", "true"][..], 5),
        (&["daemon", "start"], 5),
        (&["daemon", "serve"], 1),
        (&["doctor"], 1),
        (&["logs", "--grep", "x", "a"], 1),
        (&["store", "info"], 1),
    ] {
        let said = run(&home, &program, arguments);
        assert_eq!((said.code, said.stdout.as_slice()), (code, &b""[..]), "{said:?}");
        for word in ["bin/nodejobs-daemon'", "install nodejobs-daemon", "caused by: No such file"] {
            assert!(said.stderr.contains(word), "{word}: {said:?}");
        }
    }
}

#[test]
fn the_daemon_alone_is_the_whole_command_line() {
    let home = Home::new();
    let program = installed(&home, &[(DAEMON, "nodejobs")]);
    let said = run(&home, &program, &["run", "--id", "a", "--wait", "echo one; echo two; exit 7"]);
    assert_eq!(said.code, 7, "{said:?}");
    assert_eq!(run(&home, &program, &["logs", "--grep", "^t", "a"]).text(), "two");
    let doctor = run(&home, &program, &["doctor"]);
    assert!(doctor.text().contains("nodejobs-keeper is not beside this program"), "{doctor:?}");
}

#[test]
fn a_link_to_the_command_finds_the_programs_beside_the_command() {
    let home = Home::new();
    let link = home.path().join("nodejobs");
    std::os::unix::fs::symlink(NODEJOBS, &link).expect("a link");
    assert_eq!(run(&home, &link, &["run", "--wait", "--", "true"]).code, 0);
    let doctor = run(&home, &link, &["doctor"]);
    assert!(doctor.code == 0 && !doctor.text().contains("not beside"), "{doctor:?}");
}

#[test]
fn a_pattern_that_is_none_is_refused_before_anything_is_started() {
    let home = Home::new();
    let said = home.nodejobs(["logs", "--grep", "a(", "job"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("--grep 'a(' is no regular expression"), "{said:?}");
    assert!(!home.data_dir().exists());
}
