//! What has to be true of the attempts of one job: each ran once or never, ended as it did end, and is there because
//! somebody asked for it or the job's policy did.

use super::super::export::Attempt;
use super::{Kind, Story, Submitted};

/// The signal that everything is killed with.
const KILL: i64 = 9;
/// And the one that jobs are stopped with.
const TERM: i64 = 15;
/// How exact the boot clock of this program is, in milliseconds.
const CLOCK: u64 = 50;

/// Everything that is wrong, and how many outcomes are excused by a keeper that lost both halves.
pub(super) fn judge(job: &Submitted, attempts: &[Attempt], story: &Story) -> (Vec<String>, usize) {
    let (mut wrong, mut excepted) = (Vec::new(), 0);
    for (index, attempt) in attempts.iter().enumerate() {
        let number = attempt.number;
        if number as usize != index + 1 {
            wrong.push(format!("attempt {} is numbered {number}", index + 1));
        }
        let is_excepted = attempt.status == "lost" && was_orphaned(attempt, story);
        excepted += usize::from(is_excepted);
        if let Some(what) = wrong_end(job, attempt, is_excepted, story) {
            wrong.push(format!("attempt {number}: {what}"));
        }
        wrong.extend(wrong_log(job, attempt, story).map(|what| format!("attempt {number}: {what}")));
    }
    for number in story.evidence.attempts(&job.id) {
        if number == 0 || number as usize > attempts.len() {
            wrong.push(format!("attempt {number} ran, and there is no such attempt"));
        }
    }
    wrong.extend(overlap(job, attempts.len(), story));
    wrong.extend(wrong_restarts(job, attempts));
    (wrong, excepted)
}

/// Whether a keeper lost both halves while the attempt lived.
fn was_orphaned(attempt: &Attempt, story: &Story) -> bool {
    story.done.orphaned.iter().any(|at| lived_at(attempt, *at))
}

fn lived_at(attempt: &Attempt, at: u64) -> bool {
    let ended = attempt.ended.unwrap_or(u64::MAX);
    attempt.begun <= at + CLOCK && ended.saturating_add(CLOCK) >= at
}

fn wrong_end(job: &Submitted, attempt: &Attempt, is_excepted: bool, story: &Story) -> Option<String> {
    let trace = story.evidence.of(&job.id, attempt.number);
    let hits = || story.done.hits.iter().filter(|hit| hit.0 == job.id && hit.1 == attempt.number);
    // Of somebody between clone and execve nobody knows whose it is.
    let may_be_child = story.done.children.iter().any(|at| lived_at(attempt, *at));
    let was_hit = hits().any(|hit| Some(hit.2) == attempt.pid) || may_be_child;
    let code = i64::from(job.plan.code(attempt.number));
    let (once, never) = (trace.starts.len() == 1, trace.starts.is_empty());
    let to_the_end = trace.ends.len() == 1 && i64::from(trace.ends[0].0) == code;
    let own_end = once && to_the_end && attempt.code == Some(code) && attempt.signal.is_none();
    let reason = attempt.reason.as_deref();
    let right = match attempt.status.as_str() {
        "finished" => code == 0 && own_end,
        "failed" if reason == Some("exit") => code != 0 && own_end,
        // It may have been killed before its first word, or just after its last.
        "failed" if reason == Some("signal") => {
            // Signals go out also when the store cannot be written, and then the owner may die.
            let was_stopped = matches!(attempt.signal, Some(TERM | KILL)) && job.may_be_stopped_unwritten();
            ((attempt.signal == Some(KILL) && was_hit) || was_stopped)
                && (once || never)
                && (to_the_end || trace.ends.is_empty())
        }
        "failed_start" => {
            let is_missing = job.plan.kind == Kind::Missing && reason == Some("exec");
            (is_missing || may_be_child) && never
        }
        "stopped" => job.may_be_stopped() && (once || never) && trace.ends.len() <= 1,
        "cancelled" => job.may_be_stopped() && never,
        "lost" if may_be_child && never => true,
        "lost" => is_excepted && (once || never),
        _ => false,
    };
    if !right {
        let end = match (attempt.code, attempt.signal) {
            (Some(code), _) => format!(" with exit code {code}"),
            (_, Some(signal)) => format!(" by signal {signal}"),
            _ => String::new(),
        };
        let killed = if was_hit { ", killed from outside" } else { ", not killed by anyone" };
        return Some(format!(
            "{}{end} ({}); planned: exit code {code}; it began {} times and came to its end {} times{killed}",
            attempt.status,
            reason.unwrap_or("no reason"),
            trace.starts.len(),
            trace.ends.len(),
        ));
    }
    let began_as = trace.starts.first().map(|(pid, _)| *pid);
    // Where nobody can read any more that it was executed, nobody knows as what.
    let is_forgotten = attempt.status == "lost" && attempt.pid.is_none();
    (began_as.is_some() && began_as != attempt.pid && !is_forgotten)
        .then(|| format!("recorded as process {:?}, and it was {began_as:?}", attempt.pid))
}

/// Output is whole if the attempt came to its end, and as far as it got otherwise.
fn wrong_log(job: &Submitted, attempt: &Attempt, story: &Story) -> Option<String> {
    let planned = job.plan.output(&job.id, attempt.number)?;
    let nothing = [String::new(), String::new()];
    let written = story.logs.get(&(job.id.clone(), attempt.number)).unwrap_or(&nothing);
    let to_the_end = !story.evidence.of(&job.id, attempt.number).ends.is_empty();
    ["standard output", "standard error"].iter().zip(planned.iter().zip(written)).find_map(
        |(stream, (planned, written))| {
            let is_right =
                if to_the_end { planned == written } else { planned.starts_with(written.as_str()) };
            (!is_right).then(|| {
                let same =
                    planned.bytes().zip(written.bytes()).take_while(|(one, other)| one == other).count();
                format!(
                    "its {stream} has {} bytes of {} and is right up to byte {same}",
                    written.len(),
                    planned.len()
                )
            })
        },
    )
}

/// An attempt may begin only when the one before has ended.
fn overlap(job: &Submitted, count: usize, story: &Story) -> Option<String> {
    let mut last_word = 0;
    for number in 1..=u32::try_from(count).unwrap_or(u32::MAX) {
        let trace = story.evidence.of(&job.id, number);
        let places = || trace.starts.iter().map(|(_, at)| *at).chain(trace.ends.iter().map(|(_, at)| *at));
        if places().any(|at| at < last_word) {
            return Some(format!("attempt {number} ran while an earlier one did"));
        }
        last_word = places().max().unwrap_or(last_word);
    }
    None
}

/// Each attempt after the first is there because the policy wants it or because somebody asked.
fn wrong_restarts(job: &Submitted, attempts: &[Attempt]) -> Vec<String> {
    let mut wrong = Vec::new();
    let most = job.plan.most_restarts();
    let mut asked = 0;
    for (index, attempt) in attempts.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &attempts[before]);
        let failed = before.is_some_and(|before| matches!(before.status.as_str(), "failed" | "lost"));
        match before {
            Some(before) if attempt.restarts == before.restarts + 1 => {
                if !failed || attempt.restarts > most {
                    wrong.push(format!(
                        "attempt {} was begun by a policy that does not say so",
                        attempt.number
                    ));
                }
            }
            _ if attempt.restarts == 0 => asked += 1,
            _ => wrong.push(format!("attempt {} counts {} restarts", attempt.number, attempt.restarts)),
        }
        let policy_goes_on = matches!(attempt.status.as_str(), "failed" | "lost") && attempt.restarts < most;
        if policy_goes_on && attempts.get(index + 1).is_none_or(|next| next.restarts != attempt.restarts + 1)
        {
            wrong.push(format!("attempt {} failed, and the policy did not start it again", attempt.number));
        }
    }
    let (least, most) = job.asked_for();
    if !(least..=most).contains(&asked) {
        wrong.push(format!("{asked} attempts were begun on request, and {least} to {most} were asked for"));
    }
    wrong
}
