//! What `top` shows and what each key does: no terminal, no daemon.

use std::cmp::{Ordering, Reverse};

use clap::ValueEnum;
use nodejobs::Status;
use nodejobs::api::LogStream;
use nodejobs::record::JobRecord;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::Action;
use crate::readable::printable;

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortKey {
    /// Living ones first, those with trouble before the others
    Status,
    Id,
    Name,
    Runtime,
    Memory,
    Cpu,
}

impl SortKey {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            SortKey::Status => "status",
            SortKey::Id => "id",
            SortKey::Name => "name",
            SortKey::Runtime => "runtime",
            SortKey::Memory => "memory",
            SortKey::Cpu => "cpu",
        }
    }

    fn next(self) -> Self {
        let all = Self::value_variants();
        let place = all.iter().position(|key| *key == self).unwrap_or(0);
        all[(place + 1) % all.len()]
    }

    /// Numbers: the largest first.
    fn compare(self, a: &JobRecord, b: &JobRecord) -> Ordering {
        let number = |value: Option<f64>| value.unwrap_or(-1.0);
        match self {
            SortKey::Status => (a.status.is_terminal(), a.status).cmp(&(b.status.is_terminal(), b.status)),
            SortKey::Id => a.self_id.cmp(&b.self_id),
            SortKey::Name => (a.name.is_none(), &a.name).cmp(&(b.name.is_none(), &b.name)),
            SortKey::Runtime => b.runtime_ms.cmp(&a.runtime_ms),
            SortKey::Memory => number(b.memory_mb).total_cmp(&number(a.memory_mb)),
            SortKey::Cpu => number(b.cpu_percent).total_cmp(&number(a.cpu_percent)),
        }
    }
}

/// What a key asks for that the model cannot do itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Leave,
    /// Ask the daemon again, now.
    Look,
    Act(Action, String),
}

/// What the keys mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// A text for the filter is written.
    Filter,
    /// Something is asked before it is done.
    Confirm(Action, String),
    /// The output of a job is shown.
    Log(LogView),
}

/// The output of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogView {
    pub(super) id: String,
    pub(super) stream: LogStream,
    pub(super) lines: Vec<String>,
    /// How many lines are below the last one shown.
    pub(super) above_end: usize,
}

pub(super) struct Model {
    pub(super) mode: Mode,
    pub(super) sort: SortKey,
    pub(super) reverse: bool,
    pub(super) filter: String,
    pub(super) living_only: bool,
    pub(super) colour: bool,
    pub(super) message: String,
    /// How many jobs fit on the screen, as it was last drawn.
    pub(super) page: usize,
    jobs: Vec<JobRecord>,
    /// The chosen job, which stays chosen wherever it goes.
    chosen: Option<String>,
}

impl Model {
    pub(super) fn new(sort: SortKey, filter: String, colour: bool) -> Self {
        Self {
            mode: Mode::Table,
            sort,
            reverse: false,
            filter,
            living_only: false,
            colour,
            message: String::new(),
            page: 1,
            jobs: Vec::new(),
            chosen: None,
        }
    }

    pub(super) fn set_jobs(&mut self, jobs: Vec<JobRecord>) {
        let place = self.place();
        self.jobs = jobs;
        let shown = self.shown();
        let is_there = shown.iter().any(|job| Some(job.self_id.as_str()) == self.chosen.as_deref());
        if !is_there {
            // Whoever takes its place.
            let next = shown.get(place.min(shown.len().saturating_sub(1)));
            self.chosen = next.map(|job| job.self_id.to_string());
        }
    }

    /// How a job stands now, ahead of the next look at all of them.
    pub(super) fn set_job(&mut self, record: JobRecord) {
        if let Some(known) = self.jobs.iter_mut().find(|job| job.self_id == record.self_id) {
            *known = record;
        }
    }

    pub(super) fn set_log(&mut self, of: &str, bytes: &[u8]) {
        if let Mode::Log(view) = &mut self.mode
            && view.id == of
        {
            let text = String::from_utf8_lossy(bytes);
            view.lines = text.lines().map(|line| printable(&line.replace('\t', "    "))).collect();
        }
    }

    pub(super) fn say(&mut self, words: String) {
        self.message = words;
    }

    /// Whether anything changes by itself.
    pub(super) fn runs(&self) -> bool {
        self.jobs.iter().any(|job| !job.status.is_terminal())
    }

    pub(super) fn log_wanted(&self) -> Option<(String, LogStream)> {
        match &self.mode {
            Mode::Log(view) => Some((view.id.clone(), view.stream)),
            _ => None,
        }
    }

    /// How many jobs have each status, of those that are known here.
    pub(super) fn counts(&self) -> Vec<(Status, usize)> {
        let count = |status| self.jobs.iter().filter(|job| job.status == status).count();
        Status::ALL
            .into_iter()
            .map(|status| (status, count(status)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The jobs that are shown, in their order.
    pub(super) fn shown(&self) -> Vec<&JobRecord> {
        let mut shown: Vec<&JobRecord> = self.jobs.iter().filter(|job| self.fits(job)).collect();
        shown.sort_by_key(|job| Reverse(job.seq));
        shown.sort_by(|a, b| {
            let order = self.sort.compare(a, b);
            if self.reverse { order.reverse() } else { order }
        });
        shown
    }

    /// The place of the chosen job among those shown.
    pub(super) fn place(&self) -> usize {
        let is_chosen = |job: &&JobRecord| Some(job.self_id.as_str()) == self.chosen.as_deref();
        self.shown().iter().position(is_chosen).unwrap_or(0)
    }

    fn fits(&self, job: &JobRecord) -> bool {
        if self.living_only && job.status.is_terminal() {
            return false;
        }
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        wanted.is_empty()
            || has(job.self_id.as_str())
            || job.name.as_deref().is_some_and(has)
            || has(job.status.as_str())
            || has(&job.command.to_string())
    }

    fn chosen(&self) -> Option<&JobRecord> {
        self.shown().into_iter().nth(self.place())
    }

    fn go(&mut self, steps: isize) {
        let place = self.place().saturating_add_signed(steps);
        let shown = self.shown();
        let chosen = shown.get(place.min(shown.len().saturating_sub(1)));
        self.chosen = chosen.map(|job| job.self_id.to_string());
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c')).then_some(Wish::Leave);
        }
        self.message.clear();
        match &self.mode {
            Mode::Table => self.key_in_table(key.code),
            Mode::Filter => {
                match key.code {
                    KeyCode::Enter => self.mode = Mode::Table,
                    KeyCode::Esc => {
                        self.filter.clear();
                        self.mode = Mode::Table;
                    }
                    KeyCode::Backspace => _ = self.filter.pop(),
                    KeyCode::Char(c) => self.filter.push(c),
                    _ => {}
                }
                self.go(0);
                None
            }
            Mode::Confirm(action, id) => {
                let wish = Wish::Act(*action, id.clone());
                self.mode = Mode::Table;
                matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(wish)
            }
            Mode::Log(_) => self.key_in_log(key.code),
        }
    }

    fn key_in_table(&mut self, key: KeyCode) -> Option<Wish> {
        let page = isize::try_from(self.page).unwrap_or(1);
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::Leave),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-page),
            KeyCode::PageDown => self.go(page),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            KeyCode::Char('o') => self.sort = self.sort.next(),
            KeyCode::Char('O') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('a') => {
                self.living_only = !self.living_only;
                self.go(0);
            }
            KeyCode::Char('s') => self.ask(Action::Stop),
            KeyCode::Char('r') => self.ask(Action::Restart),
            KeyCode::Char('p') => {
                let job = self.chosen()?;
                let action = if job.status == Status::Paused { Action::Resume } else { Action::Pause };
                return Some(Wish::Act(action, job.self_id.to_string()));
            }
            KeyCode::Enter | KeyCode::Char('l') => {
                let id = self.chosen()?.self_id.to_string();
                let (stream, lines) = (LogStream::Stdout, Vec::new());
                self.mode = Mode::Log(LogView { id, stream, lines, above_end: 0 });
                return Some(Wish::Look);
            }
            _ => {}
        }
        None
    }

    fn ask(&mut self, action: Action) {
        if let Some(job) = self.chosen() {
            self.mode = Mode::Confirm(action, job.self_id.to_string());
        }
    }

    fn key_in_log(&mut self, key: KeyCode) -> Option<Wish> {
        let page = self.page;
        let Mode::Log(view) = &mut self.mode else { return None };
        // There is no header as over the table.
        let most = view.lines.len().saturating_sub(page + 1);
        match key {
            KeyCode::Char('q' | 'l') | KeyCode::Esc | KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Up | KeyCode::Char('k') => view.above_end = (view.above_end + 1).min(most),
            KeyCode::Down | KeyCode::Char('j') => view.above_end = view.above_end.saturating_sub(1),
            KeyCode::PageUp => view.above_end = (view.above_end + page).min(most),
            KeyCode::PageDown => view.above_end = view.above_end.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => view.above_end = most,
            KeyCode::End | KeyCode::Char('G') => view.above_end = 0,
            KeyCode::Char('e') => {
                view.stream = match view.stream {
                    LogStream::Stdout => LogStream::Stderr,
                    LogStream::Stderr => LogStream::Stdout,
                };
                view.lines.clear();
                view.above_end = 0;
                return Some(Wish::Look);
            }
            _ => {}
        }
        None
    }
}
