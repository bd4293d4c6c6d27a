//! What has to be true of every job after the turmoil. Pure: records and evidence in, violations out.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// A job that was submitted, with what was said about it.
#[derive(Clone)]
pub(crate) struct Submitted {
    pub(crate) id: String,
    /// The exit code it ends with if it is left alone.
    pub(crate) code: u8,
    /// Whether `run` printed the id, or else what it said.
    pub(crate) run: Result<(), String>,
    /// Whether `stop` succeeded, or else what it said; none if the job was left alone.
    pub(crate) stop: Option<Result<(), String>>,
}

/// A broken promise about one job.
pub(crate) struct Violation {
    id: String,
    wrong: String,
    record: Option<Value>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n    ", self.id, self.wrong)?;
        match &self.record {
            Some(record) => write!(formatter, "record: {record}"),
            None => write!(formatter, "no record"),
        }
    }
}

/// Compares what was submitted with all records and with the lines `ID ATTEMPT` that the jobs wrote.
pub(crate) fn violations(submitted: &[Submitted], records: &[Value], evidence: &str) -> Vec<Violation> {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in evidence.lines() {
        let (id, attempt) = line.split_once(' ').unwrap_or((line, ""));
        lines.entry(id).or_default().push(attempt);
    }
    let mut unclaimed: BTreeMap<&str, &Value> =
        records.iter().map(|record| (record["self_id"].as_str().unwrap_or(""), record)).collect();
    let mut violations = Vec::new();
    for job in submitted {
        let (record, lines) = (unclaimed.remove(job.id.as_str()), lines.remove(job.id.as_str()));
        violations.extend(
            wrong(job, record, &lines.unwrap_or_default()).into_iter().map(|wrong| Violation {
                id: job.id.clone(),
                wrong,
                record: record.cloned(),
            }),
        );
    }
    violations.extend(unclaimed.into_iter().map(|(id, record)| Violation {
        id: id.to_owned(),
        wrong: "nobody submitted this job".to_owned(),
        record: Some(record.clone()),
    }));
    violations.extend(lines.into_keys().map(|id| Violation {
        id: id.to_owned(),
        wrong: "nobody submitted this job, and it ran".to_owned(),
        record: None,
    }));
    violations
}

/// Everything that is wrong with one job. `attempts`: which ones left evidence that they ran.
fn wrong(job: &Submitted, record: Option<&Value>, attempts: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(said) = &job.run {
        wrong.push(format!("`run` failed: {said}"));
    }
    if let Some(Err(said)) = &job.stop {
        wrong.push(format!("`stop` failed: {said}"));
    }
    match record {
        None if job.run.is_ok() => wrong.push("`run` printed the id, and there is no such job".to_owned()),
        None if !attempts.is_empty() => wrong.push("it ran, and there is no such job".to_owned()),
        None => {}
        Some(record) => wrong.extend(wrong_end(job, record, attempts)),
    }
    wrong
}

fn wrong_end(job: &Submitted, record: &Value, attempts: &[&str]) -> Option<String> {
    let own_status = if job.code == 0 { "finished" } else { "failed" };
    let status = record["status"].as_str().unwrap_or("none");
    let once = attempts == ["1"] && record["attempt"] == 1;
    let right = match status {
        "finished" => job.code == 0 && record["exit_code"] == 0 && once,
        "failed" => record["reason"] == "exit" && record["exit_code"] == job.code && job.code != 0 && once,
        // It may have been ended before its first word.
        "stopped" => job.stop.is_some() && (once || attempts.is_empty()),
        "cancelled" => job.stop.is_some() && attempts.is_empty(),
        _ => false,
    };
    let asked = if job.stop.is_some() { "stopped or " } else { "" };
    (!right).then(|| {
        format!(
            "{status} with exit code {} and evidence of the attempts [{}], instead of {asked}{own_status} with exit \
             code {} in attempt 1",
            record["exit_code"],
            attempts.join(", "),
            job.code,
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(code: u8) -> Submitted {
        Submitted { id: "j1".to_owned(), code, run: Ok(()), stop: None }
    }

    fn stopped(code: u8) -> Submitted {
        Submitted { stop: Some(Ok(())), ..job(code) }
    }

    fn record(status: &str, code: Option<u8>) -> Value {
        let reason = (status == "failed").then_some("exit");
        json!({ "self_id": "j1", "status": status, "reason": reason, "exit_code": code, "attempt": 1 })
    }

    fn wrong(job: &Submitted, record: Option<Value>, evidence: &str) -> Vec<String> {
        let records: Vec<Value> = record.into_iter().collect();
        let violations = violations(std::slice::from_ref(job), &records, evidence);
        violations.into_iter().map(|violation| violation.wrong).collect()
    }

    #[track_caller]
    fn right(job: &Submitted, record: Value, evidence: &str) {
        assert_eq!(wrong(job, Some(record), evidence), [""; 0]);
    }

    #[track_caller]
    fn one_wrong(job: &Submitted, record: &Value, evidence: &str) {
        let found = wrong(job, Some(record.clone()), evidence);
        assert_eq!(found.len(), 1, "{record} with evidence {evidence:?}: {found:?}");
    }

    #[test]
    fn a_job_ends_with_its_own_code_and_ran_once() {
        right(&job(0), record("finished", Some(0)), "j1 1\n");
        right(&job(7), record("failed", Some(7)), "j1 1\n");
        for (code, status, recorded, evidence) in [
            (0, "finished", Some(0), ""),
            (0, "finished", Some(0), "j1 1\nj1 1\n"),
            (0, "finished", Some(0), "j1 2\n"),
            (0, "finished", Some(0), "j1\n"),
            (0, "finished", None, "j1 1\n"),
            (7, "finished", Some(0), "j1 1\n"),
            (7, "failed", Some(6), "j1 1\n"),
            (7, "finished", Some(7), "j1 1\n"),
            (0, "failed", Some(0), "j1 1\n"),
            (7, "failed", None, "j1 1\n"),
        ] {
            one_wrong(&job(code), &record(status, recorded), evidence);
        }
        let mut second = record("finished", Some(0));
        second["attempt"] = json!(2);
        one_wrong(&job(0), &second, "j1 1\n");
        let mut killed = record("failed", Some(7));
        killed["reason"] = json!("signal");
        one_wrong(&job(7), &killed, "j1 1\n");
    }

    #[test]
    fn no_job_is_left_without_an_end() {
        for status in ["queued", "starting", "running", "stopping", "failed_stop", "failed_start", "lost"] {
            one_wrong(&job(0), &record(status, None), "j1 1\n");
            one_wrong(&stopped(0), &record(status, None), "j1 1\n");
        }
    }

    #[test]
    fn a_stop_may_come_at_any_time_but_not_by_itself() {
        right(&stopped(7), record("stopped", None), "");
        right(&stopped(7), record("stopped", None), "j1 1\n");
        right(&stopped(7), record("cancelled", None), "");
        right(&stopped(7), record("failed", Some(7)), "j1 1\n");
        one_wrong(&stopped(7), &record("failed", Some(7)), "");
        one_wrong(&stopped(7), &record("stopped", None), "j1 1\nj1 1\n");
        one_wrong(&stopped(7), &record("cancelled", None), "j1 1\n");
        one_wrong(&job(7), &record("stopped", None), "j1 1\n");
        one_wrong(&job(7), &record("cancelled", None), "");
    }

    #[test]
    fn an_id_that_was_printed_has_its_job() {
        assert_eq!(wrong(&job(0), None, ""), ["`run` printed the id, and there is no such job"]);
        let refused = Submitted { run: Err("exit status: 5: no".to_owned()), ..job(0) };
        assert_eq!(wrong(&refused, None, ""), ["`run` failed: exit status: 5: no"]);
        assert_eq!(wrong(&refused, None, "j1 1\n").len(), 2, "it ran all the same");
        assert_eq!(wrong(&refused, Some(record("finished", Some(0))), "j1 1\n").len(), 1);
        let unstopped = Submitted { stop: Some(Err("exit status: 1".to_owned())), ..job(0) };
        assert_eq!(
            wrong(&unstopped, Some(record("finished", Some(0))), "j1 1\n"),
            ["`stop` failed: exit status: 1"]
        );
    }

    #[test]
    fn what_nobody_submitted_is_told() {
        let found = violations(&[], &[record("finished", Some(0))], "j1 1\nj2 1\n");
        let ids: Vec<&str> = found.iter().map(|violation| violation.id.as_str()).collect();
        assert_eq!(ids, ["j1", "j1", "j2"]);
    }

    #[test]
    fn a_violation_shows_the_record() {
        let found = violations(&[job(0)], &[record("lost", None)], "j1 1\n");
        assert_eq!(
            found[0].to_string(),
            "j1: lost with exit code null and evidence of the attempts [1], instead of finished with exit code 0 in \
             attempt 1\n    \
             record: {\"attempt\":1,\"exit_code\":null,\"reason\":null,\"self_id\":\"j1\",\"status\":\"lost\"}"
        );
    }
}
