//! `nodejobs signal`: sends jobs a signal.

use clap::Args;
use nodejobs::api::SignalRequest;
use nodejobs::signal::Signal as Number;

use crate::connect::Target;
use crate::exit::{Failure, UNAVAILABLE};
use crate::output::Format;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Signal {
    /// The signal, by name or number: HUP, SIGUSR1, 10
    #[arg(value_name = "SIGNAL")]
    signal: Number,
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    /// Send it to everything that the main process has started as well
    #[arg(long)]
    tree: bool,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs signal HUP ID              have a server read its configuration again
  nodejobs signal --tree USR1 ID ID

What a job does with the signal is its own affair. One that ends of it has failed, and begins again if its --restart says \
so; `nodejobs stop --signal` ends a job. A paused job gets the signal when it is resumed, KILL at once. STOP and CONT are \
refused: `pause` and `resume` say so in the job's status.

Exit status: 0 if all of them are sent it, 3 if there is no such job, 4 if one has ended or not begun, 6 if only some of \
several are.";

impl Signal {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let request = SignalRequest { jobs: self.jobs, signal: self.signal, tree: self.tree };
        request.check()?;
        let mut connection = target.connect()?;
        // A daemon that was just killed is found out by a question that may be asked again, whatever its answer. A signal
        // may not: a job that counts its signals would count it twice.
        let _ = connection.ask(|client| client.job(&request.jobs[0]));
        let answer = connection.client.signal(&request).map_err(|error| {
            if !error.is_broken() {
                return Failure::from(error);
            }
            Failure::caused(UNAVAILABLE, "whether the signal was sent is not known", &error)
        })?;
        let sent = self.signal.to_string();
        super::action::tell(&answer.results, format, |_| sent.clone())
    }
}
