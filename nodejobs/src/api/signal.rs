//! Asking that jobs get a signal.

use nodejobs_core::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{Problem, ProblemKind};

/// Asks that jobs get a signal. What they do with it is their own affair: one that ends of it has failed, and is started
/// again if its policy says so. Whoever wants a job to end stops it.
///
/// ```
/// use nodejobs::api::SignalRequest;
/// use nodejobs::signal::Signal;
///
/// let request = SignalRequest::new(["server"], "HUP".parse()?);
/// assert!(!request.tree && request.check().is_ok());
/// assert!(SignalRequest::new(["server"], Signal::STOP).check().is_err(), "it would be halted and not `paused`");
/// # Ok::<(), nodejobs::signal::UnknownSignal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// References, each to one job.
    pub jobs: Vec<String>,
    /// Which signal, by number.
    pub signal: Signal,
    /// Whether everything that the main process has started gets it as well.
    #[serde(default)]
    pub tree: bool,
}

impl SignalRequest {
    /// Asks for the main processes of these jobs.
    pub fn new<T: Into<String>>(jobs: impl IntoIterator<Item = T>, signal: Signal) -> Self {
        Self { jobs: jobs.into_iter().map(Into::into).collect(), signal, tree: false }
    }

    /// Whether the signal is one that is sent so.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] for SIGSTOP and SIGCONT: a job that they reach would be halted and not `paused`, or `paused`
    /// and not halted. Pausing and resuming say both.
    pub fn check(&self) -> Result<(), Problem> {
        let instead = match self.signal {
            Signal::STOP => "pause",
            Signal::CONT => "resume",
            _ => return Ok(()),
        };
        let message =
            format!("{} is not sent as such; use `{instead}`, which the job's status shows", self.signal);
        Err(Problem::new(ProblemKind::Usage, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_and_nothing_is_added() {
        let request: SignalRequest = serde_json::from_str(r#"{"jobs":["a"],"signal":1}"#).expect("a request");
        assert_eq!(request, SignalRequest::new(["a"], "HUP".parse().expect("a signal")));
        for bad in
            [r#"{"jobs":["a"]}"#, r#"{"jobs":["a"],"signal":0}"#, r#"{"jobs":["a"],"signal":1,"all":true}"#]
        {
            assert!(serde_json::from_str::<SignalRequest>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_make_the_status_untrue_is_refused_with_the_way_out() {
        for (signal, instead) in [(Signal::STOP, "`pause`"), (Signal::CONT, "`resume`")] {
            let problem = SignalRequest::new(["a"], signal).check().expect_err("refused");
            assert!(problem.kind == ProblemKind::Usage && problem.message.contains(instead), "{problem}");
        }
        assert_eq!(SignalRequest::new(["a"], Signal::KILL).check(), Ok(()));
    }
}
