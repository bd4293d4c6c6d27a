//! Jobs that wait for a time, and those that have only so much of it.

use super::*;

#[test]
fn a_delayed_job_starts_when_its_time_has_come_and_not_before() {
    let mut bench = Bench::new();
    let effects = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::AfterMs(60_000))]);
    assert_eq!(launches(&effects), 0);
    let state = bench.state("a");
    assert_eq!((state.status, state.waiting_on), (Status::Queued, Some(crate::job::WaitingOn::Time)));
    assert_eq!(bench.engine.next_deadline(), Some(bench.now.boot.plus_millis(60_000)));
    // Setting the wall clock does not change how long a delay is.
    bench.now.wall = Timestamp::from_millis(bench.now.wall.as_millis() + 3_600_000);
    let effects = bench.turn(vec![Input::ClockSet, Input::Tick]);
    assert_eq!(launches(&effects), 0);
    let effects = bench.wait_for_timer();
    assert_eq!((launches(&effects), bench.state("a").status), (1, Status::Starting));
    assert_eq!(bench.state("a").waiting_on, None);
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn a_time_on_the_wall_clock_moves_with_that_clock() {
    let mut bench = Bench::new();
    let at = Timestamp::from_millis(bench.now.wall.as_millis() + 60_000);
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::At(at))]);
    let set_by = |bench: &mut Bench, millis: i64| {
        bench.now.wall = Timestamp::from_millis(bench.now.wall.as_millis() + millis);
        bench.turn(vec![Input::ClockSet, Input::Tick])
    };
    assert_eq!(launches(&set_by(&mut bench, -30_000)), 0);
    assert_eq!(bench.engine.next_deadline(), Some(bench.now.boot.plus_millis(90_000)));
    assert_eq!(launches(&set_by(&mut bench, 100_000)), 1);

    // Set back without a word: the timer fires too early, and is set again.
    let at = Timestamp::from_millis(bench.now.wall.as_millis() + 60_000);
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 0, false)]);
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::At(at))]);
    bench.now.boot = bench.now.boot.plus_millis(60_000);
    assert_eq!(launches(&bench.turn(vec![Input::Tick])), 0);
    assert_eq!(bench.engine.next_deadline(), Some(bench.now.boot.plus_millis(60_000)));
}

#[test]
fn a_time_that_has_passed_is_refused_unless_it_passed_on_the_way() {
    let mut bench = Bench::new();
    let at =
        |bench: &Bench, millis: i64| Start::At(Timestamp::from_millis(bench.now.wall.as_millis() - millis));
    let past = at(&bench, 10_001);
    let effects = bench.turn(vec![bench.submission_with(|spec| spec.start = past)]);
    assert!(
        matches!(answers(&effects)[0], Answer::Refused(Refusal::Other(why)) if why.contains("has passed")),
        "{effects:?}"
    );
    assert_eq!(bench.engine.live_jobs(), 0);
    let start = at(&bench, 10_000);
    let submit = |bench: &Bench| {
        bench.submission_with(|spec| (spec.start, spec.submit_key) = (start, Some("k".to_owned())))
    };
    assert_eq!(launches(&bench.turn(vec![submit(&bench)])), 1);
    // Sent again after a while, it is the job that there is.
    bench.now.wall = Timestamp::from_millis(bench.now.wall.as_millis() + 3_600_000);
    let effects = bench.turn(vec![submit(&bench)]);
    assert!(matches!(answers(&effects)[0], Answer::Accepted(_)), "{effects:?}");
}

#[test]
fn a_waiting_job_is_cancelled_by_a_stop_and_kept_by_the_next_owner() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::AfterMs(60_000))]);
    bench.now = Moment {
        wall: Timestamp::from_millis(bench.now.wall.as_millis() + 20_000),
        boot: bench.now.boot.plus_millis(20_000),
    };
    assert_eq!(bench.succeed(), []);
    assert_eq!(bench.engine.next_deadline(), Some(bench.now.boot.plus_millis(40_000)));
    let _ = bench.turn(vec![bench.stop("a")]);
    assert_eq!((bench.state("a").status, bench.state("a").reason), (Status::Cancelled, Some(Reason::User)));
    assert_eq!(bench.engine.next_deadline(), None);
}

fn short_lived() -> Bench {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.policy.timeout_ms = Some(1_000))]);
    let _ = bench.turn(vec![bench.started("a")]);
    bench
}

#[test]
fn a_job_whose_time_is_up_is_ended_and_has_failed_whatever_its_code() {
    let mut bench = short_lived();
    let effects = bench.wait_for_timer();
    assert!(matches!(effects.as_slice(), [Effect::EndTree { plan, .. }] if plan.signal == Signal::TERM));
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", true, Vec::new())]);
    let state = bench.state("a");
    assert_eq!((state.status, state.reason), (Status::Failed, Some(Reason::Timeout)));
    assert_eq!((state.exit, state.detail.as_deref()), (Some(ExitStatus::Code(0)), Some("killed")));
}

#[test]
fn a_timeout_is_remembered_by_the_next_owner_before_and_after_it() {
    let mut bench = short_lived();
    let _ = bench.succeed();
    let effects = bench.wait_for_timer();
    assert_eq!(effects.len(), 1, "{effects:?}");
    let _ = bench.succeed();
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    assert!(matches!(bench.commit(turn).as_slice(), [Effect::EndTree { .. }]));
    let _ = bench.turn(vec![bench.exited("a", 1, false), tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").reason, Some(Reason::Timeout));
}

#[test]
fn what_ended_in_time_has_not_timed_out_and_a_stop_is_a_stop() {
    let mut bench = short_lived();
    let _ = bench.turn(vec![bench.exited("a", 0, true)]);
    assert_eq!(bench.engine.next_deadline(), None, "only its children are left");
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Finished);

    let mut bench = short_lived();
    let _ = bench.wait_for_timer();
    let _ = bench.turn(vec![bench.stop("a")]);
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", false, Vec::new())]);
    assert_eq!((bench.state("a").status, bench.state("a").reason), (Status::Stopped, None));
}

#[test]
fn too_much_memory_is_a_failure_of_its_own() {
    let mut bench = Bench::running("a");
    let effects =
        bench.turn(vec![report("a", 1, BackendEvent::OverMemory { detail: "too much".to_owned() })]);
    let kills =
        |effect: &Effect| matches!(effect, Effect::EndTree { plan, .. } if plan.signal == Signal::KILL);
    assert!(effects.iter().any(kills), "{effects:?}");
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", true, Vec::new())]);
    let state = bench.state("a");
    assert_eq!((state.status, state.reason), (Status::Failed, Some(Reason::Memory)));
    assert_eq!(state.detail.as_deref(), Some("too much; killed"));
}

#[test]
fn children_may_go_on_if_that_was_asked_for() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.policy.keep_children = true)]);
    let _ = bench.turn(vec![bench.started("a")]);
    let effects = bench.turn(vec![bench.exited("a", 0, true)]);
    assert!(matches!(effects.as_slice(), [Effect::Acknowledge(_)]), "{effects:?}");
    let state = bench.state("a");
    assert_eq!((state.status, state.detail.as_deref()), (Status::Finished, Some("left running: 9 (sleep)")));
}
