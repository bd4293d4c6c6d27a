//! Jobs as a table, a line each, cut to the width of the terminal.

use nodejobs::Timestamp;
use nodejobs::record::JobRecord;
use nodejobs::units::show_duration;
use unicode_width::UnicodeWidthStr as _;

use super::{Screen, signal_name};
use crate::readable::{NAME_WIDTH, ago, fit, printable};

const COLUMNS: [&str; 10] =
    ["ID", "NAME", "GROUP", "STATUS", "EXIT", "STARTED", "RUNTIME", "%CPU", "MEMORY", "COMMAND"];
const NAME: usize = 1;
/// Shown only where a job has one.
const GROUP: usize = 2;
const STATUS: usize = 3;
/// Shown only where it was asked for.
const USAGE: std::ops::Range<usize> = 7..9;
const COMMAND: usize = COLUMNS.len() - 1;
/// Of a name at least this is shown, even if lines then break.
const MIN_NAME_WIDTH: usize = 8;
/// The command has at least this, even if names are cut for it and lines break.
const COMMAND_WIDTH: usize = 12;

/// Jobs as a table that may come in parts; the first part decides the width of the columns.
#[derive(Debug)]
pub(crate) struct JobTable {
    screen: Screen,
    now: Timestamp,
    usage: bool,
    widths: Option<[usize; COLUMNS.len()]>,
}

impl JobTable {
    /// A table for this screen, seen at this time.
    pub(crate) fn new(screen: Screen, now: Timestamp) -> Self {
        Self { screen, now, usage: false, widths: None }
    }

    /// The same with what jobs use now.
    pub(crate) fn with_usage(self) -> Self {
        Self { usage: true, ..self }
    }

    /// The lines of a part, under a header if it is the first. No jobs, no lines.
    pub(crate) fn render(&mut self, jobs: &[JobRecord]) -> String {
        let mut text = String::new();
        if jobs.is_empty() {
            return text;
        }
        let rows: Vec<_> = jobs.iter().map(|job| self.cells(job)).collect();
        let widths = *self.widths.get_or_insert_with(|| {
            let header = COLUMNS.map(|title| fit(title, self.screen.width));
            let widths = column_widths(&rows, self.screen.width, self.usage);
            push_line(&mut text, &header, &widths, |_, cell| cell);
            widths
        });
        for (job, mut row) in jobs.iter().zip(rows) {
            row[NAME] = fit(&row[NAME], self.screen.width.map(|_| widths[NAME]));
            push_line(&mut text, &row, &widths, |column, cell| match column {
                STATUS => self.screen.paint(job.status, &cell),
                _ => cell,
            });
        }
        text
    }

    fn cells(&self, job: &JobRecord) -> [String; COLUMNS.len()] {
        let absent = || "-".to_owned();
        let exit = match (job.exit_code, job.signal) {
            (Some(code), _) => code.to_string(),
            (None, Some(number)) => signal_name(number),
            (None, None) => absent(),
        };
        let name = job.name.as_deref().map_or_else(absent, printable);
        [
            job.self_id.to_string(),
            fit(&name, self.screen.width.map(|_| NAME_WIDTH)),
            job.group.as_deref().map_or_else(absent, printable),
            status(job),
            exit,
            job.started_at.map_or_else(absent, |time| ago(self.now, time)),
            job.runtime_ms.map_or_else(absent, show_duration),
            job.cpu_percent.map_or_else(absent, |percent| format!("{percent:.1}")),
            job.memory_mb.map_or_else(absent, |size| format!("{size:.1}M")),
            printable(&job.command.to_string()),
        ]
    }
}

/// The status, of an array with how many of its elements have ended: `running 57/100`.
fn status(job: &JobRecord) -> String {
    match &job.progress {
        Some(counts) => format!("{} {}/{}", job.status, counts.ended(), counts.size),
        None => job.status.to_string(),
    }
}

fn column_widths(
    rows: &[[String; COLUMNS.len()]],
    screen: Option<usize>,
    usage: bool,
) -> [usize; COLUMNS.len()] {
    let mut widths = COLUMNS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if !usage {
        widths[USAGE].fill(0);
    }
    if rows.iter().all(|row| row[GROUP] == "-") {
        widths[GROUP] = 0;
    }
    let Some(screen) = screen else {
        widths[COMMAND] = usize::MAX;
        return widths;
    };
    let others = |widths: &[usize]| {
        widths[..COMMAND].iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>()
    };
    let excess = (others(&widths) + COMMAND_WIDTH).saturating_sub(screen);
    let name = widths[NAME];
    widths[NAME] = name.saturating_sub(excess).max(MIN_NAME_WIDTH.min(name));
    widths[COMMAND] = screen.saturating_sub(others(&widths)).max(COMMAND_WIDTH);
    widths
}

fn push_line(
    text: &mut String,
    cells: &[String; COLUMNS.len()],
    widths: &[usize; COLUMNS.len()],
    paint: impl Fn(usize, String) -> String,
) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if *width == 0 {
            continue;
        }
        if column == COMMAND {
            text.push_str(&fit(cell, Some(*width)));
        } else {
            let padding = " ".repeat(width.saturating_sub(cell.width()) + 2);
            text.push_str(&paint(column, cell.clone()));
            text.push_str(&padding);
        }
    }
    text.push('\n');
}

const _: () = assert!(NAME < STATUS && STATUS < USAGE.start && USAGE.end == COMMAND);

#[cfg(test)]
mod tests {
    use nodejobs::Status;
    use nodejobs::api::Candidate;
    use nodejobs::spec::Command;

    use super::*;
    use crate::output::tests::{noon, record};
    use crate::readable::candidate_lines;

    fn jobs() -> Vec<JobRecord> {
        let mut running = record("0e3k9t2v01");
        running.name = Some("nightly".to_owned());
        running.status = Status::Running;
        running.exit_code = None;
        running.runtime_ms = Some(180_400);
        running.command =
            Command::shell("for i in 1 2 3; do\n  make \x1b[31m clean all; done; echo everything is done");
        let mut killed = record("0e3k9t2v02");
        (killed.status, killed.exit_code, killed.signal) = (Status::Failed, None, Some(9));
        killed.name = Some("ein ziemlich langer Name 日本語 日本語".to_owned());
        let mut queued = record("b");
        (queued.status, queued.exit_code) = (Status::Queued, None);
        (queued.started_at, queued.runtime_ms) = (None, None);
        vec![running, killed, queued]
    }

    fn render(width: Option<usize>, colour: bool) -> String {
        JobTable::new(Screen { width, colour }, noon()).render(&jobs())
    }

    #[test]
    fn a_table_fits_80_columns() {
        let short = jobs().into_iter().map(|mut job| {
            job.name = job.name.filter(|name| name.len() < 10);
            job
        });
        let table = JobTable::new(Screen { width: Some(80), colour: false }, noon())
            .render(&short.collect::<Vec<_>>());
        let expected = "\
ID          NAME     STATUS   EXIT     STARTED  RUNTIME  COMMAND
0e3k9t2v01  nightly  running  -        3m ago   3m00s    for i in 1 2 3; do   m…
0e3k9t2v02  -        failed   SIGKILL  3m ago   1.2s     make all
b           -        queued   -        -        -        make all
";
        assert_eq!(table, expected);
        assert!(table.lines().all(|line| line.width() <= 80));
    }

    #[test]
    fn what_jobs_use_is_shown_where_it_is_asked_for() {
        let mut jobs = jobs();
        (jobs[0].cpu_percent, jobs[0].memory_mb) = (Some(99.5), Some(1024.0));
        jobs[1].name = None;
        let screen = Screen { width: Some(80), colour: false };
        let expected = "\
ID          NAME     STATUS   EXIT     STARTED  RUNTIME  %CPU  MEMORY   COMMAND
0e3k9t2v01  nightly  running  -        3m ago   3m00s    99.5  1024.0M  for i in 1 …
0e3k9t2v02  -        failed   SIGKILL  3m ago   1.2s     -     -        make all
b           -        queued   -        -        -        -     -        make all
";
        let table = JobTable::new(screen, noon()).with_usage().render(&jobs);
        let narrow: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        assert_eq!(narrow, expected);
    }

    #[test]
    fn names_give_way_before_lines_break() {
        let table = render(Some(80), false);
        assert!(table.lines().all(|line| line.width() <= 80), "{table}");
        assert!(table.contains("ein ziemlich lang…") && table.contains("nightly "), "{table}");
        let table = render(Some(40), false);
        assert!(table.contains("  ein zie…  ") && table.contains("for i in 1 …"), "{table}");
    }

    #[test]
    fn long_names_are_cut_and_wide_characters_counted() {
        let table = render(Some(100), false);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[2].starts_with("0e3k9t2v02  ein ziemlich langer Nam…  failed "), "{table}");
        assert_eq!(fit("日本語", Some(5)), "日本…");
        assert_eq!(fit("日本語", Some(4)), "日…");
        assert_eq!(fit("日本語", Some(6)), "日本語");
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let table = render(None, false);
        assert!(table.contains("日本語 日本語") && table.contains("echo everything is done\n"), "{table}");
        assert!(!table.contains('\x1b'));
    }

    #[test]
    fn colour_changes_no_column() {
        let coloured = render(Some(100), true);
        assert!(coloured.contains("\x1b[32mrunning\x1b[0m"), "{coloured}");
        let plain = ["\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, sequence| text.replace(sequence, ""));
        assert_eq!(plain, render(Some(100), false));
    }

    #[test]
    fn candidates_are_told_apart_by_name_status_and_age() {
        let candidates = jobs().into_iter().map(|job| Candidate {
            id: job.self_id,
            name: job.name,
            status: job.status,
            created_at: job.created_at,
        });
        let lines = candidate_lines(&candidates.collect::<Vec<_>>(), noon());
        let expected = [
            "0e3k9t2v01  nightly                   running  3m ago",
            "0e3k9t2v02  ein ziemlich langer Nam…  failed   3m ago",
            "b           -                         queued   3m ago",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_second_part_has_no_header_and_no_jobs_have_no_lines() {
        let mut table = JobTable::new(Screen { width: Some(80), colour: false }, noon());
        assert_eq!(table.render(&[]), "");
        assert!(table.render(&jobs()).starts_with("ID "));
        assert!(table.render(&jobs()).starts_with("0e3k9t2v01 "));
    }
}
