//! Restarting, removing, pausing and resuming.

use super::*;
use crate::store::{DocumentChange, DocumentKind};

fn statuses(bench: &Bench) -> Vec<(u32, Status)> {
    let events = bench.store.events(0, 100).expect("memory");
    events.into_iter().map(|event| (event.attempt.attempt, event.status)).collect()
}

#[test]
fn an_ended_job_is_restarted_as_it_was_with_its_next_attempt() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.exited("a", 3, false)]);
    let effects = bench.turn(vec![bench.restart("a")]);
    let second = AttemptId { id: id("a"), attempt: 2 };
    assert_eq!(answers(&effects), [&Answer::Accepted(second.clone())]);
    assert!(effects.contains(&Effect::Launch(second)), "{effects:?}");
    let attempts = bench.store.attempts(&id("a")).expect("memory");
    assert_eq!(attempts[0].definition.command, attempts[1].definition.command);
    assert_eq!(attempts[0].state.exit, Some(ExitStatus::Code(3)));
}

#[test]
fn a_running_job_is_stopped_first_and_whoever_waits_never_sees_it_ended() {
    let mut bench = Bench::running("a");
    let effects = bench.turn(vec![bench.restart("a")]);
    assert!(matches!(effects.as_slice(), [Effect::EndTree { .. }]), "nobody is answered yet: {effects:?}");
    assert_eq!(bench.state("a").status, Status::Stopping);
    // Asked a second time: the same attempt answers both.
    let _ = bench.turn(vec![bench.restart("a")]);
    let effects = bench.turn(vec![bench.exited("a", 143, false), tree_ended("a", false, Vec::new())]);
    let second = AttemptId { id: id("a"), attempt: 2 };
    assert_eq!(answers(&effects), [&Answer::Accepted(second.clone()), &Answer::Accepted(second)]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Starting));
    let expected = [
        (1, Status::Starting),
        (1, Status::Running),
        (1, Status::Stopping),
        (1, Status::Stopping),
        (1, Status::Stopping),
        (1, Status::Stopped),
        (2, Status::Starting),
    ];
    assert!(statuses(&bench).ends_with(&expected[5..]) && statuses(&bench).starts_with(&expected[..3]));
    assert_eq!(bench.state("a").pending_restart, None);
}

#[test]
fn a_restart_survives_its_owner() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.restart("a")]);
    let known = bench.succeed();
    assert_eq!(known.len(), 1);
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    let effects = bench.commit(turn);
    assert!(matches!(effects.as_slice(), [Effect::EndTree { .. }]), "{effects:?}");
    let _ = bench.turn(vec![bench.exited("a", 143, false), tree_ended("a", false, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Starting));
}

#[test]
fn a_restart_that_is_sent_twice_is_one_attempt() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.exited("a", 3, false)]);
    let _ = bench.turn(vec![bench.restart_with_key("a", "k")]);
    let effects = bench.turn(vec![bench.restart_with_key("a", "k")]);
    assert_eq!(answers(&effects), [&Answer::Accepted(AttemptId { id: id("a"), attempt: 2 })]);
    assert_eq!(bench.state("a").status, Status::Starting, "it is not stopped for it");
}

#[test]
fn a_stop_takes_a_restart_back() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.restart("a")]);
    let effects = bench.turn(vec![bench.stop("a")]);
    let refused = Answer::Conflict { status: Some(Status::Stopping) };
    assert!(answers(&effects).contains(&&refused), "{effects:?}");
    let _ = bench.turn(vec![bench.exited("a", 143, false), tree_ended("a", false, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (1, Status::Stopped));
}

#[test]
fn a_restart_whose_commit_fails_leaves_the_job_stopped_and_says_so() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.restart("a")]);
    let mut turn = bench.engine.begin_turn();
    for input in [bench.exited("a", 0, false), tree_ended("a", false, Vec::new())] {
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
    assert_eq!(effects, [Effect::Reply { ticket: 3, answer: Answer::NotStored }]);
    let _ = bench.wait_for_timer();
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (1, Status::Stopped));
    assert_eq!(bench.engine.live_jobs(), 0);
}

#[test]
fn a_restarted_job_that_waits_is_started() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::AfterMs(10))]);
    let effects = bench.turn(vec![bench.restart("a")]);
    assert_eq!(answers(&effects), [&Answer::Accepted(AttemptId { id: id("a"), attempt: 1 })]);
    assert_eq!((launches(&effects), bench.state("a").status), (1, Status::Starting));
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn an_ended_job_is_removed_with_its_logs_after_the_commit_and_a_live_one_is_not() {
    let mut bench = Bench::running("a");
    let effects = bench.turn(vec![bench.remove("a")]);
    assert_eq!(answers(&effects), [&Answer::Conflict { status: Some(Status::Running) }]);
    let _ = bench.turn(vec![bench.exited("a", 0, false)]);

    let mut turn = bench.engine.begin_turn();
    let removal = bench.remove("a");
    bench.engine.handle(removal, bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
    assert_eq!(effects, [Effect::Reply { ticket: 4, answer: Answer::NotStored }], "no file is deleted");
    let _ = bench.turn(vec![Input::Tick]);
    assert_eq!(bench.state("a").status, Status::Finished, "a removal is not done later");

    let files = vec![bench.job("a").log_paths()];
    let effects = bench.turn(vec![bench.remove("a")]);
    assert_eq!(
        effects,
        [
            Effect::DeleteLogs { id: id("a"), files },
            Effect::Reply { ticket: 4, answer: Answer::Removed(id("a")) },
        ]
    );
    assert!(bench.store.job(&id("a")).expect("memory").is_none());
}

#[test]
fn what_is_heard_of_a_removed_job_is_not_about_the_next_one_of_that_id() {
    let mut bench = Bench::running("a");
    let (started, exited) = (bench.started("a"), bench.exited("a", 7, false));
    let _ = bench.turn(vec![bench.exited("a", 7, false)]);
    let _ = bench.turn(vec![bench.remove("a")]);
    bench.now.boot = bench.now.boot.plus_millis(1);
    let _ = bench.turn(vec![bench.submission("a")]);
    let _ = bench.succeed();
    let effects = bench.turn(vec![started, exited]);
    assert!(matches!(effects.as_slice(), [Effect::Acknowledge(_)]), "{effects:?}");
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (1, Status::Starting));
}

#[test]
fn a_job_is_halted_and_goes_on_and_can_end_either_way() {
    let mut bench = Bench::running("a");
    let pause = || Input::Pause { ticket: 5, id: id("a") };
    let resume = || Input::Resume { ticket: 5, id: id("a") };
    let signal = |effects: &[Effect]| {
        let signals = effects.iter().find_map(|effect| match effect {
            Effect::Signal { signal, .. } => Some(*signal),
            _ => None,
        });
        signals.map(|signal| signal.to_string())
    };
    assert_eq!(signal(&bench.turn(vec![pause()])).as_deref(), Some("SIGSTOP"));
    assert_eq!(bench.state("a").status, Status::Paused);
    // It is halted already, or was to be when an owner was killed: the signal goes out again, and nothing is written.
    let revision = bench.job("a").revision;
    let effects = bench.turn(vec![pause()]);
    assert_eq!((answers(&effects), signal(&effects).as_deref()), (vec![&Answer::Done], Some("SIGSTOP")));
    assert_eq!(bench.job("a").revision, revision);
    assert_eq!(signal(&bench.turn(vec![resume()])).as_deref(), Some("SIGCONT"));
    assert_eq!(bench.state("a").status, Status::Running);
    let effects = bench.turn(vec![resume()]);
    assert_eq!((answers(&effects), signal(&effects).as_deref()), (vec![&Answer::Done], Some("SIGCONT")));
    let _ = bench.turn(vec![pause()]);
    let _ = bench.succeed();
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    assert_eq!(signal(&bench.commit(turn)).as_deref(), Some("SIGSTOP"), "the next owner makes sure");
    let effects = bench.turn(vec![bench.stop("a")]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::EndTree { .. })), "{effects:?}");
    let refused = Answer::Conflict { status: Some(Status::Stopping) };
    assert_eq!(answers(&bench.turn(vec![pause()])), [&refused]);
    let _ = bench.turn(vec![bench.exited("a", 143, false), tree_ended("a", false, Vec::new())]);
    assert_eq!(answers(&bench.turn(vec![resume()])), [&Answer::NotLive]);
}

#[test]
fn a_signal_goes_to_who_has_a_process_and_changes_nothing() {
    let mut bench = Bench::new();
    let signal = |scope| Input::Signal { ticket: 5, id: id("a"), signal: Signal::INT, scope };
    let both = [SignalScope::Main, SignalScope::Tree];
    assert_eq!(answers(&bench.turn(vec![signal(SignalScope::Main)])), [&Answer::NotLive]);
    let _ = bench.turn(vec![bench.submission("a")]);
    for scope in both {
        let early = Answer::Conflict { status: Some(Status::Starting) };
        assert_eq!(answers(&bench.turn(vec![signal(scope)])), [&early]);
    }
    let _ = bench.turn(vec![bench.started("a")]);
    let before = bench.job("a");
    for wanted in both {
        let effects = bench.turn(vec![signal(wanted)]);
        let is_sent = |effect: &Effect| matches!(effect, Effect::Signal { signal: Signal::INT, scope, .. } if *scope == wanted);
        assert!(effects.iter().any(is_sent) && answers(&effects) == [&Answer::Done], "{effects:?}");
    }
    assert_eq!(bench.job("a"), before);
    // Only what it has left behind is there.
    let _ = bench.turn(vec![bench.exited("a", 0, true)]);
    let ended = Answer::Conflict { status: Some(Status::Running) };
    assert_eq!(answers(&bench.turn(vec![signal(SignalScope::Main)])), [&ended]);
    assert_eq!(answers(&bench.turn(vec![signal(SignalScope::Tree)])), [&Answer::Done]);
}

#[test]
fn a_restart_in_a_hurry_shortens_a_stop_that_is_under_way() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.stop("a")]);
    let ends = |effects: &[Effect]| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::EndTree { plan, .. } if plan.signal == Signal::KILL))
    };
    let job = bench.job("a");
    let restart = |job: &Job, force| {
        let request = StopRequest { force, ..StopRequest::default() };
        Input::Restart(Box::new(Restart {
            ticket: 3,
            job: job.clone(),
            submit_key: "k".to_owned(),
            request,
            array: None,
        }))
    };
    assert!(!ends(&bench.turn(vec![restart(&job, false)])), "a patient one does not ask again");
    assert!(ends(&bench.turn(vec![restart(&job, true)])));
    let _ = bench.turn(vec![bench.exited("a", 137, false), tree_ended("a", true, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Starting));
}

#[test]
fn documents_that_could_not_be_written_are_written_with_the_next_commit() {
    let mut bench = Bench::new();
    let change = |body: &str| DocumentChange::Put {
        kind: DocumentKind::Meta,
        key: "hooks".to_owned(),
        body: body.into(),
    };
    let mut turn = bench.engine.begin_turn();
    let keep = |ticket, body| Input::Keep { ticket, documents: vec![change(body)] };
    bench.engine.handle(keep(7, "1"), bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
    assert_eq!(answers(&effects), [&Answer::Done]);
    let _ = bench.turn(vec![keep(8, "2")]);
    let body = bench.store.document(DocumentKind::Meta, "hooks").expect("memory");
    assert_eq!(body.as_deref(), Some(&b"2"[..]), "in the order in which they were asked for");
}
