//! `nodejobs top` on a terminal of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{Home, eventually, signal, text};

/// `nodejobs top` on a pseudo terminal.
struct Top {
    child: Child,
    /// The side of whoever sits before it.
    keyboard: File,
    terminal: File,
    drawn: Arc<Mutex<Drawn>>,
}

/// What came to the terminal, and what a person sees.
struct Drawn {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

impl Top {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("granted");
        let name = ptsname(&keyboard, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let terminal = File::options().read(true).write(true).open(name).expect("opened");
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("set");
        let mut command = home.command(["top"].iter().chain(arguments));
        let side = || terminal.try_clone().expect("a descriptor");
        command.stdin(side()).stdout(side()).stderr(side()).env("TERM", "xterm");
        let child = command.spawn().expect("top starts");
        let keyboard = File::from(keyboard);
        let mut screen = keyboard.try_clone().expect("a descriptor");
        let drawn = Drawn { bytes: Vec::new(), screen: vt100::Parser::new(24, 100, 0) };
        let drawn = Arc::new(Mutex::new(drawn));
        let drawing = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                let mut drawn = drawing.lock().expect("no panic");
                drawn.bytes.extend_from_slice(&bytes[..length]);
                drawn.screen.process(&bytes[..length]);
            }
        });
        Self { child, keyboard, terminal, drawn }
    }

    fn shows(&self, what: &str) {
        let is_shown = || self.drawn.lock().expect("no panic").screen.screen().contents().contains(what);
        eventually(&format!("{what} is shown"), || is_shown().then_some(()));
    }

    /// Waits for a control sequence.
    fn sends(&self, what: &[u8]) {
        let is_sent =
            || self.drawn.lock().expect("no panic").bytes.windows(what.len()).any(|sent| sent == what);
        eventually(&format!("{what:?} is sent"), || is_sent().then_some(()));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("written");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    }

    /// Ends, and leaves the terminal as it was.
    fn ended(mut self) -> ExitStatus {
        let status = self.child.wait().expect("ended");
        assert!(!self.is_raw());
        self.sends(b"\x1b[?1049l");
        self.sends(b"\x1b[?25h");
        status
    }
}

#[test]
fn jobs_are_seen_and_acted_on_and_the_terminal_is_as_before() {
    let home = Home::new();
    home.ok(["run", "--id", "victim", "echo out; echo err >&2; exec sleep 1000"]);
    home.running("victim");
    let mut top = Top::start(&home, &["--sort", "id"]);
    top.sends(b"\x1b[?1049h");
    top.shows("victim");
    assert!(top.is_raw());
    // What begins meanwhile comes by itself.
    home.ok(["run", "--id", "another", "--", "true"]);
    top.shows("another");
    top.press("Gp");
    home.has_status("victim", "paused");
    top.shows("paused");
    top.press("p");
    home.has_status("victim", "running");
    top.press("l");
    top.shows("standard output of victim");
    top.press("e");
    top.shows("err");
    top.press("qsn");
    assert_eq!(text(&home.record("victim"), "status"), "running", "no is no");
    top.press("sy");
    home.has_status("victim", "stopped");
    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
    assert_eq!(text(&home.record("another"), "status"), "finished");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was_and_so_does_interrupt() {
    let home = Home::new();
    home.ok(["run", "--id", "lives", "--", "sleep", "1000"]);
    let top = Top::start(&home, &[]);
    top.shows("lives");
    signal(top.child.id(), rustix::process::Signal::TERM);
    assert_eq!(top.ended().signal(), Some(15));
    let mut top = Top::start(&home, &["--filter", "lives"]);
    top.shows("| /lives");
    top.press("\x03");
    assert_eq!(top.ended().code(), Some(0));
    assert_eq!(text(&home.record("lives"), "status"), "running");
}

#[test]
fn without_a_terminal_it_names_the_way_out() {
    let home = Home::new();
    let said = home.nodejobs(["top"]);
    assert!(said.code == 2 && said.stderr.contains("`nodejobs ls` prints a list of jobs"), "{said:?}");
    assert!(!home.data_dir().exists(), "no daemon was started for it");
    assert_eq!(home.nodejobs(["top", "--sort", "colour"]).code, 2);
}

#[test]
fn a_new_daemon_is_found_while_it_is_open() {
    let home = Home::new();
    home.ok(["run", "--id", "lives", "--", "sleep", "1000"]);
    home.running("lives");
    let mut top = Top::start(&home, &[]);
    top.shows("lives");
    crate::support::kill(home.daemon_pid());
    home.ok(["run", "--id", "later", "--", "true"]);
    top.shows("later");
    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
}
