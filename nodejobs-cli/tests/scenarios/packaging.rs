//! What packagers and shells ask for, where there is neither a home nor a data directory.

use std::process::Command;

use crate::support::{Home, said};

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
