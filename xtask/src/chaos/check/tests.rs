//! The rules see what is wrong, and nothing else.

use super::*;

/// A job with its attempts, its evidence and what was said about it; right unless something is changed.
struct Case {
    plan: Plan,
    calls: Vec<Call>,
    attempts: Vec<Attempt>,
    evidence: String,
    story: Story,
}

fn said(code: i32, stdout: &str) -> Said {
    Said::Ended {
        code: Some(code),
        stdout: stdout.to_owned(),
        stderr: String::new(),
        excused: false,
        deaths: 0,
        disturbed: false,
    }
}

fn excused(code: i32) -> Said {
    Said::Ended {
        code: Some(code),
        stdout: String::new(),
        stderr: String::new(),
        excused: true,
        deaths: 9,
        disturbed: false,
    }
}

fn call(verb: Verb, said: Said) -> Call {
    Call { verb, said, left: Vec::new() }
}

fn attempt(number: u32, status: &str, code: Option<i64>) -> Attempt {
    let reason = (status == "failed").then(|| "exit".to_owned());
    let pid = Some(100 + number);
    Attempt {
        number,
        status: status.to_owned(),
        reason,
        code,
        pid,
        begun: 10,
        ended: Some(20),
        ..Attempt::default()
    }
}

fn by_signal(number: u32) -> Attempt {
    let reason = Some("signal".to_owned());
    Attempt { reason, signal: Some(9), ..attempt(number, "failed", None) }
}

fn ran(number: u32, code: u8) -> String {
    format!("S c1 {number} {}\nE c1 {number} {code}\n", 100 + number)
}

impl Case {
    /// Ends with 7 in its only attempt.
    fn new() -> Self {
        let story = Story {
            jobs: Vec::new(),
            export: Export::default(),
            nested: Vec::new(),
            heard: Vec::new(),
            evidence: Evidence::default(),
            logs: Logs::new(),
            done: Done::default(),
        };
        let calls = vec![call(Verb::Run, said(0, "c1\n"))];
        let attempts = vec![attempt(1, "failed", Some(7))];
        Self { plan: Plan::contended(), calls, attempts, evidence: ran(1, 7), story }
    }

    fn with(attempts: Vec<Attempt>, evidence: &str) -> Self {
        Self { attempts, evidence: evidence.to_owned(), ..Self::new() }
    }

    fn calls(mut self, calls: Vec<Call>) -> Self {
        self.calls = calls;
        self
    }

    fn and(mut self, verb: Verb, said: Said) -> Self {
        self.calls.push(call(verb, said));
        self
    }

    fn plan(mut self, kind: Kind) -> Self {
        self.plan.kind = kind;
        self
    }

    fn hit(mut self, attempt: u32, pid: u32) -> Self {
        self.story.done.hits.insert(("c1".to_owned(), attempt, pid));
        self
    }

    fn verdict(mut self) -> Verdict {
        let mut seq = 0;
        let mut event = |attempt: u32, status: &str| {
            seq += 1;
            Event { seq, id: "c1".to_owned(), attempt, status: status.to_owned() }
        };
        for attempt in &self.attempts {
            let way: &[&str] = match attempt.status.as_str() {
                "cancelled" => &["queued"],
                "failed_start" => &["starting"],
                "stopped" => &["starting", "running", "stopping"],
                "running" => &["starting"],
                _ => &["starting", "running"],
            };
            self.story.export.events.extend(way.iter().map(|status| event(attempt.number, status)));
            self.story.export.events.push(event(attempt.number, &attempt.status));
        }
        self.story.heard = self.story.export.events.clone();
        if !self.attempts.is_empty() {
            self.story.export.jobs.insert("c1".to_owned(), self.attempts);
        }
        self.story.evidence = Evidence::parse(&self.evidence).unwrap();
        self.story.jobs = vec![Submitted { id: "c1".to_owned(), plan: self.plan, calls: self.calls }];
        judge(&self.story)
    }

    fn wrong(self) -> Vec<String> {
        self.verdict().violations.into_iter().map(|violation| violation.wrong).collect()
    }

    #[track_caller]
    fn holds(self) {
        assert_eq!(self.wrong(), [""; 0]);
    }

    #[track_caller]
    fn breaks(self, what: &str) {
        let wrong = self.wrong();
        assert!(wrong.iter().any(|wrong| wrong.contains(what)), "{wrong:?}");
    }
}

#[test]
fn a_job_ends_with_its_own_code_and_ran_once() {
    Case::new().holds();
    for (found, evidence) in [
        (attempt(1, "finished", Some(0)), ran(1, 7)),
        (attempt(1, "failed", Some(6)), ran(1, 7)),
        (attempt(1, "failed", Some(6)), ran(1, 6)),
        (attempt(1, "failed", None), ran(1, 7)),
        (attempt(1, "failed", Some(7)), String::new()),
        (attempt(1, "failed", Some(7)), "S c1 1 101\n".to_owned()),
        (attempt(1, "failed", Some(7)), ran(1, 7) + &ran(1, 7)),
        (attempt(1, "stopped", None), ran(1, 7)),
        (attempt(1, "cancelled", None), String::new()),
        (attempt(1, "failed_start", None), String::new()),
        (attempt(1, "lost", None), ran(1, 7)),
        (attempt(1, "running", None), "S c1 1 101\n".to_owned()),
        (by_signal(1), "S c1 1 101\n".to_owned()),
    ] {
        Case::with(vec![found], &evidence).breaks("planned: exit code 7");
    }
    Case::with(vec![attempt(1, "failed", Some(7))], "S c1 1 5\nE c1 1 7\n").breaks("recorded as process");
}

#[test]
fn who_is_killed_fails_by_the_signal_in_that_attempt() {
    for evidence in [String::new(), "S c1 1 101\n".to_owned(), ran(1, 7)] {
        Case::with(vec![by_signal(1)], &evidence).hit(1, 101).holds();
    }
    Case::with(vec![by_signal(1)], "").hit(1, 500).breaks("not killed by anyone");
    Case::with(vec![by_signal(1)], "").hit(2, 101).breaks("not killed by anyone");
    Case::with(vec![attempt(1, "failed", Some(7))], "S c1 1 101\n").hit(1, 101).breaks("killed from outside");
    let other = Attempt { signal: Some(11), ..by_signal(1) };
    Case::with(vec![other], "").hit(1, 101).breaks("by signal 11");
}

#[test]
fn who_was_stopped_while_the_store_failed_may_have_failed_by_the_signal() {
    let stopped = |disturbed: bool| {
        let ended = Attempt { signal: Some(15), ..by_signal(1) };
        let mut case = Case::with(vec![ended], "S c1 1 101\n");
        let already_ended = Said::Ended {
            code: Some(0),
            stdout: String::new(),
            stderr: String::new(),
            excused: false,
            deaths: 1,
            disturbed,
        };
        case.calls.push(call(Verb::Stop, already_ended));
        case
    };
    stopped(true).holds();
    stopped(false).breaks("by signal 15");
}

#[test]
fn what_promise_4_names_is_counted_and_nothing_else_may_be_lost() {
    let lost = |orphaned: u64| {
        let mut case = Case::with(vec![attempt(1, "lost", None)], "S c1 1 101\n");
        case.story.done.orphaned.push(orphaned);
        case
    };
    let verdict = lost(15).verdict();
    assert_eq!((verdict.violations.len(), verdict.excepted), (0, 1));
    lost(500).breaks("lost");
}

#[test]
fn who_was_killed_on_its_way_has_a_reason_and_only_if_it_never_ran() {
    let killed_at = |at: u64, attempt: Attempt, evidence: &str| {
        let mut case = Case::with(vec![attempt], evidence);
        case.story.done.children.push(at);
        case
    };
    let failed_start = || Attempt { reason: Some("exec".to_owned()), ..attempt(1, "failed_start", None) };
    for status in ["lost", "failed_start"] {
        let ended = || Attempt { status: status.to_owned(), ..failed_start() };
        killed_at(15, ended(), "").holds();
        killed_at(900, ended(), "").breaks(status);
        killed_at(15, ended(), &ran(1, 7)).breaks(status);
    }
    killed_at(15, by_signal(1), "").holds();
}

#[test]
fn when_calls_failed_a_command_may_say_so_but_not_what_is_wrong() {
    let failed = |code| Said::Ended {
        code: Some(code),
        stdout: "c1\n".to_owned(),
        stderr: "the disk is full".to_owned(),
        excused: false,
        deaths: 0,
        disturbed: true,
    };
    Case::new().calls(vec![call(Verb::Run, failed(1))]).holds();
    Case::with(Vec::new(), "").calls(vec![call(Verb::Run, failed(1))]).holds();
    Case::with(Vec::new(), "").calls(vec![call(Verb::Run, failed(0))]).breaks("there is no such job");
}

#[test]
fn a_stop_may_come_at_any_time_but_not_by_itself() {
    let stopped =
        |found: Attempt, evidence: &str| Case::with(vec![found], evidence).and(Verb::Stop, said(0, ""));
    stopped(attempt(1, "stopped", None), "").holds();
    stopped(attempt(1, "stopped", None), "S c1 1 101\n").holds();
    stopped(attempt(1, "cancelled", None), "").holds();
    stopped(attempt(1, "failed", Some(7)), &ran(1, 7)).holds();
    stopped(attempt(1, "cancelled", None), "S c1 1 101\n").breaks("cancelled");
    stopped(attempt(1, "stopped", None), &(ran(1, 7) + &ran(1, 7))).breaks("stopped");
    let mut left = stopped(attempt(1, "stopped", None), "");
    left.calls[1].left = vec![5];
    left.breaks("lived");
}

#[test]
fn what_was_accepted_is_there_and_what_is_there_was_asked_for() {
    let twice = || {
        Case::with(
            vec![attempt(1, "failed", Some(7)), attempt(2, "failed", Some(7))],
            &(ran(1, 7) + &ran(2, 7)),
        )
    };
    twice().breaks("2 attempts were begun on request, and 1 to 1");
    twice().and(Verb::Run, said(0, "c1\n")).holds();
    twice().and(Verb::Run, Said::Killed).holds();
    twice().and(Verb::Restart, said(0, "c1: attempt 2\n")).holds();
    Case::new().and(Verb::Run, Said::Killed).holds();
    Case::new().and(Verb::Run, said(0, "c1\n")).breaks("1 attempts were begun on request, and 2 to 2");
    Case::with(Vec::new(), "").breaks("it was accepted, and there is no such job");
    Case::with(Vec::new(), "").calls(vec![call(Verb::Run, Said::Killed)]).holds();
    Case::with(Vec::new(), &ran(1, 7))
        .calls(vec![call(Verb::Run, Said::Killed)])
        .breaks("it ran, and there is no such job");
    Case::with(vec![attempt(1, "failed", Some(7))], &(ran(1, 7) + &ran(2, 7)))
        .breaks("attempt 2 ran, and there is no");
    Case::with(vec![attempt(2, "failed", Some(7))], &ran(2, 7)).breaks("attempt 1 is numbered 2");
    let overlapping = "S c1 1 101\nS c1 2 102\nE c1 1 7\nE c1 2 7\n";
    let both = vec![attempt(1, "failed", Some(7)), attempt(2, "failed", Some(7))];
    let overlapping = Case::with(both, overlapping).and(Verb::Run, said(0, "c1\n"));
    overlapping.breaks("attempt 2 ran while an earlier one did");
}

#[test]
fn of_several_who_submit_one_wins() {
    let record = r#"{"self_id":"c1"}"#;
    let contend = |said: [Said; 3]| Case::new().calls(said.map(|said| call(Verb::Contend, said)).to_vec());
    contend([said(4, ""), said(0, record), said(4, "")]).holds();
    contend([said(4, ""), Said::Killed, excused(5)]).holds();
    contend([said(0, record), said(0, record), said(4, "")])
        .breaks("1 attempts were begun on request, and 2 to 2");
    contend([said(0, record), said(5, ""), said(4, "")]).breaks("Contend said");
}

#[test]
fn the_policy_is_carried_out_to_the_letter() {
    let flaky = Kind::Flaky { failures: 2, most: 3 };
    let restarted = |number: u32, status: &str, code: i64| Attempt {
        restarts: number - 1,
        ..attempt(number, status, Some(code))
    };
    let failing = || vec![restarted(1, "failed", 7), restarted(2, "failed", 7)];
    let evidence = ran(1, 7) + &ran(2, 7);
    let mut right = failing();
    right.push(restarted(3, "finished", 0));
    Case::with(right.clone(), &(evidence.clone() + &ran(3, 0))).plan(flaky).holds();
    Case::with(failing(), &evidence).plan(flaky).breaks("attempt 2 failed, and the policy did not");
    right.push(restarted(4, "finished", 0));
    Case::with(right, &(evidence.clone() + &ran(3, 0) + &ran(4, 0)))
        .plan(flaky)
        .breaks("attempt 4 was begun by a policy");
    Case::with(failing(), &evidence).breaks("attempt 2 was begun by a policy");
    let skipped = vec![restarted(1, "failed", 7), restarted(3, "failed", 7)];
    Case::with(skipped, &evidence).plan(flaky).breaks("counts 2 restarts");
}

#[test]
fn a_command_without_a_reason_to_fail_does_not() {
    let wait =
        r#"{"self_id":"c1","attempt":1,"status":"failed","reason":"exit","exit_code":7,"signal":null}"#;
    Case::new().and(Verb::Wait, said(7, wait)).holds();
    Case::new().and(Verb::Wait, Said::Killed).holds();
    Case::new().and(Verb::Wait, said(0, wait)).breaks("ended with 0 for attempt 1");
    Case::new()
        .and(Verb::Wait, said(7, &wait.replace("\"exit\"", "\"signal\"")))
        .breaks("showed another end");
    Case::new()
        .and(Verb::Wait, said(7, &wait.replace("\"attempt\":1", "\"attempt\":2")))
        .breaks("attempt 2, which");
    Case::new().and(Verb::Wait, said(125, "")).breaks("Wait said");
    Case::new().and(Verb::Wait, Said::Hung).breaks("did not end");
    let verdict = Case::new().and(Verb::Wait, excused(125)).verdict();
    assert_eq!((verdict.violations.len(), verdict.gave_up), (0, 1));
    for code in [1, 3, 5] {
        Case::new().and(Verb::Stop, said(code, "")).breaks("Stop said");
    }
    Case::new().calls(vec![call(Verb::Run, said(5, ""))]).breaks("Run said");
    Case::new().calls(vec![call(Verb::Run, said(0, "c2\n"))]).breaks("Run said");
    Case::new().calls(vec![call(Verb::Run, excused(5))]).holds();
    Case::with(Vec::new(), "")
        .calls(vec![call(Verb::Run, Said::Killed)])
        .and(Verb::Stop, said(3, ""))
        .holds();
    Case::new().and(Verb::Pause, said(4, "")).holds();
}

#[test]
fn every_log_is_whole_and_so_is_what_a_follower_shows() {
    let out = "out c1 1 1\nout c1 1 2\n";
    let err = "err c1 1 1\nerr c1 1 2\n";
    let case = |out: &str, err: &str, evidence: &str, found: Attempt| {
        let mut case = Case::with(vec![found], evidence).plan(Kind::Writer { lines: 2 });
        case.story.logs.insert(("c1".to_owned(), 1), [out.to_owned(), err.to_owned()]);
        case
    };
    let whole = |out: &str, err: &str| case(out, err, &ran(1, 7), attempt(1, "failed", Some(7)));
    whole(out, err).holds();
    whole("out c1 1 1\n", err).breaks("standard output has 11 bytes of 22");
    whole(out, &format!("{err}{err}")).breaks("standard error");
    whole("out c1 1 2\nout c1 1 1\n", err).breaks("right up to byte 9");
    case("out c1 1 1\nou", "", "S c1 1 101\n", by_signal(1)).hit(1, 101).holds();
    case("out c1 1 2\n", "", "S c1 1 101\n", by_signal(1)).hit(1, 101).breaks("standard output");
    let follow = |stdout: &str, stderr: &str| {
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        let said = Said::Ended { code: Some(7), stdout, stderr, excused: false, deaths: 0, disturbed: false };
        whole(out, err).and(Verb::Follow, said)
    };
    follow(out, &format!("{err}c1: failed\n")).holds();
    follow("out c1 1 1\n", err).breaks("Follow showed 11 bytes of 22");
    follow(out, "err c1 1 1\n").breaks("Follow showed");
    follow(out, &format!("{err}{err}")).breaks("Follow showed");
}

#[test]
fn jobs_within_jobs_are_held_to_the_same() {
    let inner = |id: &str, code: i64| {
        let mut case = Case::new().plan(Kind::Nested);
        let mut export = Export::default();
        export.jobs.insert(id.to_owned(), vec![attempt(1, "failed", Some(code))]);
        let statuses = ["starting", "running", "failed"].iter().zip(1..);
        export.events = statuses
            .map(|(status, seq)| Event { seq, id: id.to_owned(), attempt: 1, status: (*status).to_owned() })
            .collect();
        case.story.nested.push(export);
        case.evidence += &format!("S {id} 1 101\nE {id} 1 3\n");
        case
    };
    inner("c1.1.in", 3).holds();
    inner("c1.1.in", 4).breaks("planned: exit code 3");
    inner("c2.1.in", 3).breaks("nobody submitted this job");
    let mut missing = inner("c1.1.in", 3);
    missing.story.nested.clear();
    missing.breaks("it ran, and there is no such job");
}

#[test]
fn events_have_no_gap_and_no_leap() {
    let event = |seq, status: &str| Event { seq, id: "c1".to_owned(), attempt: 1, status: status.to_owned() };
    let wrong = |events: Vec<Event>| {
        let mut export = Export { events, ..Export::default() };
        export.jobs.insert("c1".to_owned(), vec![attempt(1, "finished", Some(0))]);
        super::events::judge(&export)
    };
    let right = vec![event(1, "starting"), event(2, "running"), event(3, "finished")];
    assert_eq!(wrong(right.clone()), [""; 0]);
    assert!(wrong(vec![event(1, "starting"), event(3, "running")])[0].contains("has the number 3"));
    assert!(wrong(vec![event(1, "starting"), event(2, "finished")])[0].contains("goes from"));
    let mut beyond_the_end = right.clone();
    beyond_the_end.push(event(4, "finished"));
    assert!(wrong(beyond_the_end)[0].contains("goes from"));
    assert!(wrong(right[..2].to_vec())[0].contains("its last event is Some(\"running\")"));
    let mut stranger = right.clone();
    stranger.push(Event { attempt: 2, ..event(4, "starting") });
    assert!(wrong(stranger)[0].contains("which there is not"));
    assert_eq!(super::events::judge_heard(&right, &right), None);
    assert!(super::events::judge_heard(&right[..2], &right).unwrap().contains("2 events of 3"));
    assert!(super::events::judge_heard(&[right[0].clone(), right[0].clone()], &right).is_some());
}

#[test]
fn a_violation_shows_record_evidence_and_what_was_said() {
    let verdict = Case::with(vec![attempt(1, "lost", None)], "S c1 1 101\n").hit(1, 300).verdict();
    let shown = verdict.violations[0].to_string();
    for part in
        ["status: \"lost\"", "evidence of attempt 1", "process 300 of attempt 1", "Run", "events: 1:starting"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
