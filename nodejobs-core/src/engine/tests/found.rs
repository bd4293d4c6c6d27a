//! What the simulation has found, one by one.

use super::*;

fn running_and_kept() -> Bench {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with(|spec| spec.policy.keep_children = true)]);
    let _ = bench.turn(vec![bench.started("a")]);
    bench
}

fn ends_tree(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::EndTree { .. }))
}

#[test]
fn a_stop_ends_also_what_may_stay_behind_if_the_exit_comes_to_the_next_owner() {
    let mut bench = running_and_kept();
    let _ = bench.turn(vec![bench.stop("a")]);
    let _ = bench.succeed();
    let effects = bench.turn(vec![bench.exited("a", 0, true)]);
    assert!(ends_tree(&effects), "{effects:?}");
    assert_eq!(bench.state("a").status, Status::Stopping);
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Stopped);
}

#[test]
fn a_stop_ends_also_what_may_stay_behind_if_the_exit_is_lost() {
    let mut bench = running_and_kept();
    let _ = bench.turn(vec![bench.stop("a")]);
    let lost = BackendEvent::Lost { reason: Reason::Unknown, at: bench.now };
    let _ = bench.turn(vec![report("a", 1, lost)]);
    assert_eq!(bench.state("a").status, Status::Stopping, "its tree is still being ended");
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Lost);
}

#[test]
fn the_end_of_a_tree_that_nobody_has_asked_for_is_that_of_an_earlier_job_of_that_id() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    let effects = bench.turn(vec![bench.exited("a", 0, true)]);
    assert!(ends_tree(&effects), "{effects:?}");
}

#[test]
fn a_restart_is_not_accepted_before_the_attempt_is_on_disk() {
    let mut bench = Bench::new();
    let spec = |spec: &mut JobSpec| spec.policy.restart = crate::spec::Restart::Always;
    let _ = bench.turn(vec![bench.submission_with(spec)]);
    let _ = bench.turn(vec![bench.started("a")]);
    let restart = bench.restart("a");
    for input in [bench.exited("a", 1, false), restart] {
        let mut turn = bench.engine.begin_turn();
        bench.engine.handle(input, bench.now, &mut turn);
        let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
        let accepted = answers(&effects).iter().any(|answer| matches!(answer, Answer::Accepted(_)));
        assert!(!accepted, "{effects:?}");
    }
    let effects = bench.turn(Vec::new());
    assert_eq!((launches(&effects), bench.state("a").attempt), (1, 2));
}

#[test]
fn a_submit_that_is_sent_again_finds_the_job_that_its_policy_has_started_again() {
    let mut bench = Bench::new();
    let spec = |spec: &mut JobSpec| {
        spec.submit_key = Some("key".to_owned());
        spec.policy.restart = crate::spec::Restart::Always;
    };
    let _ = bench.turn(vec![bench.submission_with(spec)]);
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 1, false)]);
    assert_eq!(bench.state("a").status, Status::Restarting);
    let effects = bench.turn(vec![bench.submission_with(spec)]);
    assert!(matches!(answers(&effects)[..], [Answer::Accepted(_)]), "{effects:?}");
}

#[test]
fn receipts_of_an_earlier_boot_are_acknowledged_before_anything_is_launched() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a")]);
    let mut turn = bench.engine.begin_turn();
    let never = report("a", 1, BackendEvent::NeverLaunched);
    bench.engine.handle(never, bench.now, &mut turn);
    let effects = bench.commit(turn);
    assert!(matches!(effects[..], [Effect::Acknowledge(_), Effect::Launch(_)]), "{effects:?}");
}

#[test]
fn a_commit_that_failed_and_was_written_after_all_is_found_out() {
    let mut bench = Bench::running("a");
    let mut turn = bench.engine.begin_turn();
    bench.engine.handle(bench.submission("b"), bench.now, &mut turn);
    let _ = bench.store.commit(&turn.units).expect("memory does not fail");
    let effects = bench.engine.settle(turn, None, bench.now).expect("a failed commit is no inconsistency");
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    let last_event = bench.store.counters().expect("memory").last_event;
    let found_out = Err(Inconsistent::Events { known: 2, found: 3 });
    assert_eq!(bench.engine.check_last_event(last_event), found_out);
    // Whoever could not look then sees it with the next commit.
    let mut turn = bench.engine.begin_turn();
    bench.engine.handle(bench.stop("a"), bench.now, &mut turn);
    let outcomes = bench.store.commit(&turn.units).expect("memory does not fail");
    assert_eq!(bench.engine.settle(turn, Some(&outcomes), bench.now).map(|_| ()), found_out);
}
