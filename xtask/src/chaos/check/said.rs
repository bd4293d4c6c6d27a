//! What commands said has to fit what is recorded: nothing promised and not kept, no failure without a reason.

use serde_json::Value;

use super::super::export::Attempt;
use super::super::scene::Said;
use super::{Call, Logs, Submitted, Verb};

/// A command that found no daemon, and one that mirrors a job and found none.
const NO_DAEMON: [i32; 2] = [5, 125];
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;

/// What a command's words mean for the job.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Done,
    Refused,
    /// It may have done what was asked.
    Unknown,
    Wrong,
}

#[derive(Default)]
pub(super) struct Findings {
    pub(super) wrong: Vec<String>,
    pub(super) gave_up: usize,
}

impl Said {
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self, Said::Ended { code: Some(0), .. })
    }

    /// The record that it printed.
    pub(crate) fn record(&self) -> Option<Value> {
        match self {
            Said::Ended { stdout, .. } if stdout.starts_with('{') => serde_json::from_str(stdout).ok(),
            _ => None,
        }
    }
}

impl Call {
    fn stops(&self) -> bool {
        matches!(self.verb, Verb::Stop | Verb::Restart)
    }

    fn meaning(&self, id: &str, may_be_missing: bool) -> Meaning {
        let (code, stdout, excused, disturbed) = match &self.said {
            Said::Ended { code, stdout, excused, disturbed, .. } => {
                (code.unwrap_or(-1), stdout, *excused, *disturbed)
            }
            Said::Killed => return Meaning::Unknown,
            Said::Hung => return Meaning::Wrong,
        };
        let record = self.said.record();
        let is_this_job = record.as_ref().is_some_and(|record| record["self_id"] == id);
        let mirrors = self.verb.shows_the_end() || matches!(self.verb, Verb::RunAndFollow | Verb::Follow);
        match self.verb {
            Verb::Run if code == 0 && stdout.trim_end() == id => Meaning::Done,
            Verb::Contend if code == 0 && is_this_job => Meaning::Done,
            Verb::Contend if code == CONFLICT => Meaning::Refused,
            Verb::RunAndWait | Verb::Wait if is_this_job => Meaning::Done,
            Verb::Restart | Verb::Stop | Verb::Pause | Verb::Resume if code == 0 => Meaning::Done,
            // It is not running, or has ended.
            Verb::Pause | Verb::Resume if code == CONFLICT => Meaning::Refused,
            Verb::Restart | Verb::Stop | Verb::Pause | Verb::Resume
                if code == NOT_FOUND && may_be_missing =>
            {
                Meaning::Refused
            }
            Verb::Wait if may_be_missing && code == 125 => Meaning::Refused,
            Verb::RunAndFollow | Verb::Follow if !(disturbed || excused && code == 125) => Meaning::Done,
            _ if disturbed && code != 0 => Meaning::Unknown,
            Verb::RunAndFollow | Verb::Follow if disturbed => Meaning::Unknown,
            _ if excused && NO_DAEMON.contains(&code) && (mirrors || code == NO_DAEMON[0]) => {
                Meaning::Unknown
            }
            _ => Meaning::Wrong,
        }
    }
}

impl Submitted {
    /// How many attempts were asked for, at least and at most.
    pub(super) fn asked_for(&self) -> (usize, usize) {
        let (mut least, mut most) = (0, 0);
        for call in &self.calls {
            let asks = matches!(
                call.verb,
                Verb::Run | Verb::RunAndWait | Verb::RunAndFollow | Verb::Contend | Verb::Restart
            );
            if asks {
                let meaning = call.meaning(&self.id, true);
                // Where the machine had no room, the attempt waits, and a restart has it started now.
                let disturbed = matches!(call.said, Said::Ended { disturbed: true, .. });
                let is_surely_new = call.verb != Verb::Restart || !disturbed;
                least += usize::from(meaning == Meaning::Done && is_surely_new);
                most += usize::from(meaning != Meaning::Refused);
            }
        }
        (least, most)
    }

    pub(super) fn may_be_stopped(&self) -> bool {
        self.calls.iter().any(Call::stops)
    }

    /// Whether somebody may have had its processes ended, and could not write that down before dying.
    pub(super) fn may_be_stopped_unwritten(&self) -> bool {
        let disturbed = |call: &Call| matches!(call.said, Said::Ended { disturbed: true, .. });
        self.calls.iter().any(|call| call.stops() && disturbed(call))
    }
}

pub(super) fn judge(job: &Submitted, attempts: &[Attempt], logs: &Logs) -> Findings {
    let mut findings = Findings::default();
    let first_is_sure = job.calls.first().is_some_and(|call| call.meaning(&job.id, false) == Meaning::Done);
    if attempts.is_empty() && job.asked_for().0 > 0 {
        findings.wrong.push("it was accepted, and there is no such job".to_owned());
    }
    for call in &job.calls {
        let meaning = call.meaning(&job.id, !first_is_sure);
        match (&meaning, &call.said) {
            (Meaning::Wrong, Said::Hung) => findings.wrong.push(format!("{:?} did not end", call.verb)),
            (Meaning::Wrong, said) => findings.wrong.push(format!("{:?} said: {said:?}", call.verb)),
            (Meaning::Unknown, Said::Ended { .. }) => findings.gave_up += 1,
            _ => {}
        }
        if !call.left.is_empty() {
            findings.wrong.push(format!("{:?} said that it had ended, and {:?} lived", call.verb, call.left));
        }
        if meaning == Meaning::Done {
            findings.wrong.extend(contradiction(job, call, attempts, logs));
        }
    }
    findings
}

/// How the code, record or output that a command showed differs from what is recorded.
fn contradiction(job: &Submitted, call: &Call, attempts: &[Attempt], logs: &Logs) -> Option<String> {
    let Said::Ended { code, stdout, stderr, .. } = &call.said else { return None };
    let code = code.map_or(-1, i64::from);
    let record = call.said.record().filter(|_| call.verb.shows_the_end());
    let number = match &record {
        Some(record) => record["attempt"].as_u64()?,
        // These are asked of first attempts only.
        None if matches!(call.verb, Verb::RunAndFollow | Verb::Follow) => 1,
        None => return None,
    };
    let Some(attempt) = attempts.iter().find(|attempt| u64::from(attempt.number) == number) else {
        return Some(format!("{:?} showed attempt {number}, which there is not", call.verb));
    };
    if attempt.mirrored() != code {
        return Some(format!("{:?} ended with {code} for attempt {number}: {stderr}", call.verb));
    }
    if let Some(record) = record {
        let shown = |key: &str| record[key].as_i64();
        let same = record["status"] == attempt.status.as_str()
            && record["reason"].as_str() == attempt.reason.as_deref()
            && (shown("exit_code"), shown("signal")) == (attempt.code, attempt.signal);
        return (!same).then(|| format!("{:?} showed another end: {record}", call.verb));
    }
    let nothing = [String::new(), String::new()];
    let [out, err] = logs.get(&(job.id.clone(), 1)).unwrap_or(&nothing);
    // The words of the command itself are on standard error too, and so is what a shell says of killed children.
    let of_job = |text: &str| {
        text.lines().filter(|line| line.starts_with("err ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let has_err = of_job(stderr) == of_job(err);
    (stdout != out || !has_err).then(|| {
        format!("{:?} showed {} bytes of {} and other words than the log", call.verb, stdout.len(), out.len())
    })
}
