//! `nodejobs events`: what happened to all jobs, one status after the other.

use clap::Args;
use nodejobs::api::{EventsQuery, JobEvent};

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::watch;

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Events {
    /// Go on with what happens from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what came after this event [default: 0, all there are; with --follow the newest]
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs events                     all there are, the oldest first
  nodejobs events -f                  what happens from now on
  nodejobs events -f --after 0        everything, and then what happens
  nodejobs events -f --after 4711 -o jsonl | ./tell-the-pager

Each event has a number, one more than that of the event before it: whoever keeps the last one and goes on with --after has \
missed nothing and hears nothing twice. --follow goes on when the daemon is killed or restarted. Events of forgotten jobs \
stay. A status may come twice in a row, such as running when the main process has ended and others of the job are still there.";

impl Events {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        if self.follow {
            format.require_stream("events --follow")?;
        }
        let mut connection = target.connect()?;
        let after = match (self.after, self.follow) {
            (Some(after), _) => after,
            (None, false) => 0,
            (None, true) => connection.ask(nodejobs::client::Client::newest_event)?,
        };
        let query = EventsQuery { after, follow: self.follow };
        // An array is printed as it comes: there may be millions.
        let mut before = "[";
        watch::events(&mut connection, query, |event| match format {
            Format::Table => output::print(&line(&event)),
            Format::Jsonl => output::print_json(&event),
            Format::Json => {
                output::print(before)?;
                before = ",";
                output::print_json(&event)
            }
        })?;
        if format == Format::Json {
            output::print(if before == "[" { "[]\n" } else { "]\n" })?;
        }
        Ok(0)
    }
}

fn line(event: &JobEvent) -> String {
    let JobEvent { seq, attempt, status, reason, at } = event;
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let again = if attempt.attempt > 1 { format!(", attempt {}", attempt.attempt) } else { String::new() };
    format!("{seq:<7} {at}  {}{again}: {status}{reason}\n", attempt.id)
}
