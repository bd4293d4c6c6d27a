//! `nodejobs top`: the jobs as they are, on a terminal, with keys to act on them.

mod draw;
mod feed;
mod model;
mod screen;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;

use crate::connect::Target;
use crate::exit::{Failure, USAGE};
use crate::output::{Format, Screen};
use feed::{Feed, News};
use model::{Model, SortKey, Wish};
use screen::Terminal;

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Top {
    /// Sort by this to begin with
    #[arg(long, value_name = "KEY", value_enum, default_value_t = SortKey::Status)]
    sort: SortKey,
    /// Only jobs whose id, name, status or command contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

const AFTER_HELP: &str = "\
Keys:
  up, down, k, j, page up, page down, home, end    choose a job
  enter or l   its output, as it grows; e for standard error; escape goes back
  s            stop it, with everything it started; r restarts it (y confirms)
  p            pause it, or let it go on
  o, O         sort by the next key; the other way round
  /            show only jobs whose id, name, status or command contains a text
  a            all jobs, or living ones only
  q            leave; the jobs run on

Shown are the living jobs and the 100 that were submitted last of those that have ended. It looks again when something happens, and \
once a second while a job runs. Memory and processor use are shown where they are known.

It needs a terminal: `nodejobs ls` prints a list, and `nodejobs events -f` tells what happens. NO_COLOR is heeded.";

/// While a job runs, its runtime and use change.
const TICK: Duration = Duration::from_secs(1);
/// Where much happens at once, it is looked at together.
const TOGETHER: Duration = Duration::from_millis(100);

impl Top {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() || is_dumb {
            let message = "`top` needs a terminal that it can draw on; `nodejobs ls` prints a list of jobs";
            return Err(Failure::new(USAGE, message));
        }
        if format != Format::Table {
            return Err(Failure::new(USAGE, "`top` draws and prints no JSON; `nodejobs ls -o json` does"));
        }
        let mut model = Model::new(self.sort, self.filter, Screen::of_stdout().colour);
        // A daemon that cannot be reached is told on a screen that is as it was.
        model.set_jobs(feed::jobs(&mut target.connect()?)?);
        let (sender, news) = channel();
        let feed = Feed::start(target.clone(), sender);
        let mut terminal = Terminal::enter()?;
        // A daemon that is slow is not asked a second time before it has answered.
        let (mut is_asked, mut again) = (false, false);
        let mut due: Option<Instant> = model.runs().then(|| Instant::now() + TICK);
        loop {
            terminal.draw(|frame| draw::draw(&mut model, frame))?;
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            let heard = match left {
                Some(left) => news.recv_timeout(left),
                None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match heard {
                Ok(News::Key(key)) => match model.key(key) {
                    None => {}
                    Some(Wish::Leave) => return Ok(0),
                    Some(Wish::Look) => due = Some(Instant::now()),
                    Some(Wish::Act(action, id)) => feed.act(action, id),
                },
                Ok(News::Drawn) => {}
                // Several that come together are one look.
                Ok(News::Changed) => due = Some(sooner(due, Instant::now() + TOGETHER)),
                Ok(News::Jobs(jobs)) => {
                    model.set_jobs(jobs);
                    if again {
                        due = Some(Instant::now());
                    }
                    (is_asked, again) = (false, false);
                    due = due.or_else(|| model.runs().then(|| Instant::now() + TICK));
                }
                Ok(News::Log(id, log)) => model.set_log(&id, &log),
                Ok(News::Done(record, words)) => {
                    model.set_job(*record);
                    model.say(words);
                }
                Ok(News::Said(words)) => model.say(words),
                Ok(News::Failed(failure)) => return Err(failure),
                Ok(News::Signal(signal)) => {
                    drop(terminal);
                    nodejobs::end_by_signal(signal);
                }
                Err(RecvTimeoutError::Timeout) => {
                    due = None;
                    if is_asked {
                        again = true;
                    } else {
                        is_asked = true;
                        feed.look(model.log_wanted());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }
}

fn sooner(due: Option<Instant>, at: Instant) -> Instant {
    due.map_or(at, |due| due.min(at))
}
