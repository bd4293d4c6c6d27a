//! Progress bars of arrays that somebody waits for, on a terminal and nowhere else.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nodejobs::JobId;
use nodejobs::api::WaitProgress;

/// What a bar shows: `a ━━━━╸     57/100  2 running, 3 failed, 41s, about 32s left`.
const TEMPLATE: &str = "{prefix} [{bar:30}] {pos}/{len}  {msg}{elapsed}, about {eta} left";

/// One bar for each array.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    bars: Arc<Mutex<HashMap<JobId, ProgressBar>>>,
}

impl Bars {
    /// Bars, if standard error is a terminal that can show them.
    pub(crate) fn on_terminal() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let is_terminal = std::io::stderr().is_terminal() && !is_dumb;
        is_terminal.then(|| Self { all: MultiProgress::new(), bars: Arc::default() })
    }

    /// Shows how far an array got.
    pub(crate) fn show(&self, WaitProgress { job, progress }: &WaitProgress) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(job.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(u64::from(progress.size)));
            bar.set_prefix(job.to_string());
            match ProgressStyle::with_template(TEMPLATE) {
                Ok(style) => bar.with_style(style.progress_chars("=> ")),
                Err(_) => bar,
            }
        });
        let failed = progress.failed + progress.stopped;
        let failed = if failed > 0 { format!("{failed} not finished, ") } else { String::new() };
        bar.set_message(format!("{} running, {failed}", progress.running));
        bar.set_position(u64::from(progress.ended()));
    }

    /// The array has ended, and whatever is said of it comes in place of its bar.
    pub(crate) fn end(&self, job: &JobId) {
        let bar = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(job);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}
