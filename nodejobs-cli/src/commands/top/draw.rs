//! Draws what the model shows.

use nodejobs::Status;
use nodejobs::api::LogStream;
use nodejobs::record::JobRecord;
use nodejobs::units::show_duration;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::feed::Action;
use super::model::{LogView, Mode, Model};
use crate::readable::{NAME_WIDTH, ago, fit, now, printable};

/// From this width on there is room for more columns.
const WIDE: u16 = 120;

pub(super) fn draw(model: &mut Model, frame: &mut Frame<'_>) {
    let parts = Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
    let [head, body, foot] = parts.areas(frame.area());
    model.page = usize::from(body.height.saturating_sub(1)).max(1);
    if let Mode::Log(view) = &model.mode {
        draw_log(view, frame, head, body);
    } else {
        frame.render_widget(head_line(model), head);
        draw_table(model, frame, body);
    }
    frame.render_widget(foot_line(model), foot);
}

fn head_line(model: &Model) -> Line<'static> {
    let counts = model.counts();
    let counts: Vec<_> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let counts = if counts.is_empty() { "no jobs".to_owned() } else { counts.join(", ") };
    let direction = if model.reverse { ", reversed" } else { "" };
    let mut text = format!("nodejobs: {counts} | by {}{direction}", model.sort.as_str());
    if model.living_only {
        text.push_str(" | living only");
    }
    if !model.filter.is_empty() || model.mode == Mode::Filter {
        text.push_str(&format!(" | /{}", printable(&model.filter)));
        if model.mode == Mode::Filter {
            text.push('_');
        }
    }
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn foot_line(model: &Model) -> Line<'static> {
    let keys = match &model.mode {
        _ if !model.message.is_empty() => return Line::raw(printable(&model.message)),
        Mode::Confirm(action, id) => {
            let question = match action {
                Action::Stop => format!("stop {id}, with everything it started?"),
                _ => format!("restart {id}?"),
            };
            let style = Style::new().add_modifier(Modifier::BOLD);
            return Line::styled(format!("{question} y: yes, any other key: no"), style);
        }
        Mode::Table => "q quit  enter log  s stop  r restart  p pause  o O sort  / filter  a all",
        Mode::Filter => "write a part of an id, name, status or command; enter keeps it, escape drops it",
        Mode::Log(_) => "q back  e stdout/stderr  up, down, page up, page down, home, end",
    };
    Line::styled(keys, Style::new().add_modifier(Modifier::DIM))
}

fn draw_table(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let jobs = model.shown();
    let is_wide = area.width >= WIDE;
    let longest = |cell: fn(&JobRecord) -> usize, least: usize, most: usize| {
        let longest = jobs.iter().map(|job| cell(job)).max().unwrap_or(0);
        Constraint::Length(u16::try_from(longest.clamp(least, most)).unwrap_or(u16::MAX))
    };
    let name_width = if is_wide { NAME_WIDTH } else { 12 };
    let mut columns = vec![
        ("ID", longest(|job| job.self_id.as_str().len(), 2, if is_wide { 32 } else { 16 })),
        ("NAME", longest(|job| name(job).chars().count(), 4, name_width)),
        ("STATUS", longest(|job| job.status.as_str().len(), 6, 12)),
        ("RUNTIME", Constraint::Length(7)),
        ("MEMORY", Constraint::Length(7)),
        ("CPU", Constraint::Length(6)),
    ];
    if is_wide {
        columns.push(("PID", Constraint::Length(8)));
        columns.push(("ATTEMPT", Constraint::Length(7)));
        columns.push(("EXIT", Constraint::Length(8)));
        columns.push(("STARTED", Constraint::Length(8)));
    }
    columns.push(("COMMAND", Constraint::Min(10)));
    let header = Row::new(columns.iter().map(|(title, _)| Cell::from(*title)));
    let widths: Vec<Constraint> = columns.iter().map(|(_, width)| *width).collect();
    let time = now();
    let rows = jobs.iter().map(|job| {
        let mut cells = vec![
            Cell::from(job.self_id.to_string()),
            Cell::from(fit(&name(job), Some(name_width))),
            Cell::from(Span::styled(job.status.to_string(), colour(model, job.status))),
            Cell::from(known(job.runtime_ms, show_duration)),
            Cell::from(known(job.memory_mb, memory)),
            Cell::from(known(job.cpu_percent, |percent| format!("{percent:.1}%"))),
        ];
        if is_wide {
            cells.push(Cell::from(known(job.last_pid, |pid| pid.to_string())));
            cells.push(Cell::from(job.attempt.to_string()));
            let exit = job.exit_code.map(|code| code.to_string());
            let signal = || job.signal.map(crate::output::signal_name);
            cells.push(Cell::from(known(exit.or_else(signal), |exit| exit)));
            cells.push(Cell::from(known(job.started_at, |at| ago(time, at))));
        }
        cells.push(Cell::from(printable(&job.command.to_string())));
        Row::new(cells)
    });
    let table = Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected((!jobs.is_empty()).then(|| model.place()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_log(view: &LogView, frame: &mut Frame<'_>, head: Rect, body: Rect) {
    let stream = match view.stream {
        LogStream::Stdout => "standard output",
        LogStream::Stderr => "standard error",
    };
    let below = if view.above_end > 0 { format!(" | {} lines below", view.above_end) } else { String::new() };
    let title = format!("{stream} of {}{below}", view.id);
    frame.render_widget(Line::styled(title, Style::new().add_modifier(Modifier::BOLD)), head);
    let end = view.lines.len().saturating_sub(view.above_end);
    let begin = end.saturating_sub(usize::from(body.height));
    let text = if view.lines.is_empty() {
        Paragraph::new("(nothing)")
    } else {
        Paragraph::new(view.lines[begin..end].iter().map(|line| Line::raw(line.as_str())).collect::<Vec<_>>())
    };
    frame.render_widget(text, body);
}

fn colour(model: &Model, status: Status) -> Style {
    if !model.colour {
        return Style::new();
    }
    match status {
        Status::Queued | Status::Starting | Status::Restarting => Style::new().fg(Color::Cyan),
        Status::Running => Style::new().fg(Color::Green),
        Status::Paused | Status::Stopping | Status::Lost => Style::new().fg(Color::Yellow),
        Status::Failed | Status::FailedStart | Status::FailedStop => Style::new().fg(Color::Red),
        Status::Finished | Status::Stopped | Status::Cancelled => Style::new(),
    }
}

fn name(job: &JobRecord) -> String {
    job.name.as_deref().map_or_else(|| "-".to_owned(), printable)
}

fn known<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn memory(mib: f64) -> String {
    if mib >= 1024.0 { format!("{:.1}G", mib / 1024.0) } else { format!("{mib:.1}M") }
}
