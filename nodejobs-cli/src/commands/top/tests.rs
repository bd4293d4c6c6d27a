//! What is drawn and what keys do, on a screen in memory.

use nodejobs::Status;
use nodejobs::api::LogStream;
use nodejobs::spec::Command;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::feed::Action;
use super::model::{Model, SortKey, Wish};
use crate::output::tests::record;

fn model() -> Model {
    let mut running = record("0e3k9t2v02");
    (running.status, running.exit_code, running.seq) = (Status::Running, None, 2);
    running.name = Some("web \x1b[2J server with a long name".to_owned());
    (running.memory_mb, running.cpu_percent, running.runtime_ms) = (Some(1536.0), Some(99.5), Some(61_000));
    running.command = Command::argv(["python3", "-m", "http.server"]);
    let mut failed = record("0e3k9t2v01");
    (failed.status, failed.exit_code, failed.seq) = (Status::Failed, Some(3), 1);
    let mut model = Model::new(SortKey::Status, String::new(), true);
    model.set_jobs(vec![failed, running]);
    model
}

fn press(model: &mut Model, keys: &str) -> Vec<Wish> {
    let code = |c| match c {
        '\n' => KeyCode::Enter,
        '\x1b' => KeyCode::Esc,
        c => KeyCode::Char(c),
    };
    keys.chars().filter_map(|c| model.key(KeyEvent::new(code(c), KeyModifiers::NONE))).collect()
}

fn screen(model: &mut Model, width: u16) -> (Vec<String>, ratatui::buffer::Buffer) {
    let mut terminal = Terminal::new(TestBackend::new(width, 6)).expect("a screen");
    terminal.draw(|frame| draw(model, frame)).expect("drawn");
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    ((0..6).map(line).collect(), buffer)
}

#[test]
fn a_screen_of_80_columns_has_the_jobs_and_the_keys() {
    let (lines, buffer) = screen(&mut model(), 80);
    let expected = [
        "nodejobs: 1 running, 1 failed | by status",
        "ID         NAME         STATUS  RUNTIME MEMORY  CPU    COMMAND",
        "0e3k9t2v02 web \u{FFFD}[2J se… running 1m01s   1.5G    99.5%  python3 -m http.server",
        "0e3k9t2v01 -            failed  1.2s    -       -      make all",
        "",
        "q quit  enter log  s stop  r restart  p pause  o O sort  / filter  a all",
    ];
    assert_eq!(lines, expected);
    assert_eq!(buffer[(24, 2)].fg, Color::Green);
    assert!(buffer[(0, 2)].modifier.contains(Modifier::REVERSED), "the first is chosen");
    assert!(!buffer[(0, 3)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_wide_screen_has_more_columns_and_no_colour_is_none() {
    let mut model = model();
    model.colour = false;
    let (lines, buffer) = screen(&mut model, 200);
    for word in ["PID", "ATTEMPT", "EXIT", "STARTED", "web \u{FFFD}[2J server with a …"] {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}: {lines:#?}");
    }
    let area = buffer.area;
    let all = (0..area.width).flat_map(|x| (0..area.height).map(move |y| (x, y)));
    assert!(all.map(|at| &buffer[at]).all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
}

#[test]
fn keys_choose_sort_and_filter() {
    let mut model = model();
    assert_eq!(press(&mut model, "jp"), [Wish::Act(Action::Pause, "0e3k9t2v01".to_owned())]);
    // The chosen one stays chosen wherever it goes.
    assert_eq!(press(&mut model, "o"), []);
    assert!(screen(&mut model, 80).0[2].starts_with("0e3k9t2v01"), "by id now");
    assert_eq!(model.place(), 0);
    press(&mut model, "O");
    assert_eq!((model.place(), screen(&mut model, 80).0[0].contains("by id, reversed")), (1, true));
    press(&mut model, "/HTTP");
    let (lines, _) = screen(&mut model, 80);
    assert!(
        lines[0].ends_with("| /HTTP_") && lines[2].contains("python3") && lines[3].is_empty(),
        "{lines:#?}"
    );
    assert_eq!(press(&mut model, "\np"), [Wish::Act(Action::Pause, "0e3k9t2v02".to_owned())]);
    press(&mut model, "/\x1ba");
    let (lines, _) = screen(&mut model, 80);
    assert!(lines[0].ends_with("| living only") && !lines.concat().contains("make all"), "{lines:#?}");
    press(&mut model, "/nothing\n");
    assert_eq!(press(&mut model, "psrl"), [], "there is no job to do it to");
    assert_eq!(press(&mut model, "q"), [Wish::Leave]);
}

#[test]
fn what_ends_something_is_asked_first() {
    let mut model = model();
    assert_eq!(press(&mut model, "s"), []);
    let question = "stop 0e3k9t2v02, with everything it started? y: yes, any other key: no";
    assert_eq!(screen(&mut model, 80).0[5], question);
    assert_eq!(press(&mut model, "n"), []);
    assert_eq!(press(&mut model, "sy"), [Wish::Act(Action::Stop, "0e3k9t2v02".to_owned())]);
    assert_eq!(press(&mut model, "ry"), [Wish::Act(Action::Restart, "0e3k9t2v02".to_owned())]);
    model.say("0e3k9t2v02: stopped by SIGTERM\x07".to_owned());
    assert_eq!(screen(&mut model, 80).0[5], "0e3k9t2v02: stopped by SIGTERM\u{FFFD}");
}

#[test]
fn a_log_shows_its_end_and_can_be_gone_through() {
    let mut model = model();
    assert_eq!(press(&mut model, "l"), [Wish::Look]);
    assert_eq!(screen(&mut model, 80).0[1], "(nothing)");
    assert_eq!(model.log_wanted(), Some(("0e3k9t2v02".to_owned(), LogStream::Stdout)));
    let log: String = (0..20).map(|number| format!("line {number} \x1b[31m\n")).collect();
    model.set_log("another", b"not this");
    model.set_log("0e3k9t2v02", log.as_bytes());
    let shown = |model: &mut Model| screen(model, 80).0[4].clone();
    assert_eq!(shown(&mut model), "line 19 \u{FFFD}[31m");
    press(&mut model, "kk");
    assert_eq!(shown(&mut model), "line 17 \u{FFFD}[31m");
    assert!(screen(&mut model, 80).0[0].ends_with("| 2 lines below"));
    press(&mut model, "g");
    assert!(screen(&mut model, 80).0[1].starts_with("line 0 "), "a whole screen of its beginning");
    assert_eq!(press(&mut model, "e"), [Wish::Look]);
    assert!(screen(&mut model, 80).0[0].starts_with("standard error of 0e3k9t2v02"));
    assert_eq!(press(&mut model, "q"), []);
    assert!(screen(&mut model, 80).0[1].starts_with("ID"));
}

#[test]
fn whoever_takes_its_place_is_chosen_when_a_job_goes() {
    let mut model = model();
    press(&mut model, "j");
    let running = model.shown()[0].clone();
    model.set_jobs(vec![running]);
    assert_eq!(press(&mut model, "p"), [Wish::Act(Action::Pause, "0e3k9t2v02".to_owned())]);
    model.set_jobs(Vec::new());
    assert!(!model.runs());
    assert_eq!(screen(&mut model, 80).0[0], "nodejobs: no jobs | by status");
}
