//! Starts that are taken back: told because somebody had to know whom to kill, and then nothing was executed.

use super::*;

fn permanent(bench: &Bench) -> Input {
    not_started("a", StartFailureKind::Permanent(Reason::Cwd), bench.now)
}

/// A job that is stopped while it starts, and whose child was told so that it could be killed.
fn stopped_on_its_way() -> Bench {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a")]);
    let _ = bench.turn(vec![bench.stop("a"), bench.started("a")]);
    assert_eq!(bench.state("a").status, Status::Stopping);
    bench
}

#[test]
fn what_was_stopped_on_its_way_and_then_not_executed_is_stopped() {
    for tree_first in [false, true] {
        let mut bench = stopped_on_its_way();
        let gone = || tree_ended("a", false, Vec::new());
        if tree_first {
            let _ = bench.turn(vec![gone()]);
            assert_eq!(bench.state("a").status, Status::Stopping, "nobody knows yet how it ended");
        }
        let _ = bench.turn(vec![permanent(&bench)]);
        let state = bench.state("a");
        assert_eq!((state.status, state.exit), (Status::Stopped, None));
        assert_eq!(state.detail.as_deref(), Some("stopped before it was executed"));
        assert_eq!((&state.process, state.started), (&None, None));
        let _ = bench.turn(vec![gone()]);
        assert_eq!(bench.state("a"), state, "its last word stays");
    }
}

#[test]
fn so_is_what_could_not_be_killed_where_it_hung() {
    let mut bench = stopped_on_its_way();
    let _ = bench.turn(vec![tree_ended("a", true, vec![TreeMember { pid: 7, name: "hangs".to_owned() }])]);
    assert_eq!(bench.state("a").status, Status::FailedStop);
    let _ = bench.turn(vec![permanent(&bench)]);
    assert_eq!(bench.state("a").status, Status::Stopped);
}

#[test]
fn what_is_restarted_on_its_way_goes_on_with_the_next_attempt() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a")]);
    let _ = bench.turn(vec![bench.restart("a")]);
    let _ = bench.turn(vec![bench.started("a")]);
    let effects = bench.turn(vec![permanent(&bench)]);
    assert_eq!(launches(&effects), 1);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Starting));
}

#[test]
fn a_start_that_a_silent_keepers_journal_told_and_that_was_none_is_a_failed_start() {
    for is_paused in [false, true] {
        for (kind, reason) in [
            (StartFailureKind::Permanent(Reason::Cwd), Reason::Cwd),
            // The attempt was said to run, so it does not go back to the queue.
            (StartFailureKind::NoRoom, Reason::Exec),
        ] {
            let mut bench = Bench::running("a");
            if is_paused {
                let _ = bench.turn(vec![Input::Pause { ticket: 5, id: id("a") }]);
            }
            let effects = bench.turn(vec![not_started("a", kind, bench.now)]);
            let state = bench.state("a");
            assert_eq!((state.status, state.reason), (Status::FailedStart, Some(reason)));
            assert_eq!((state.process, state.started, state.exit), (None, None, None));
            assert_eq!((launches(&effects), bench.engine.live_jobs()), (0, 0));
        }
    }
}

#[test]
fn what_has_ended_was_executed() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.exited("a", 0, true)]);
    let _ = bench.turn(vec![permanent(&bench)]);
    assert_eq!(bench.state("a").status, Status::Running);
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Finished);
}

#[test]
fn an_attempt_that_has_no_answer_waits_for_it_and_can_be_stopped() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a")]);
    let _ = bench.succeed_and_resume();
    assert_eq!(bench.state("a").status, Status::Starting);
    let effects = bench.turn(vec![bench.stop("a")]);
    assert!(
        matches!(
            &effects[..],
            [Effect::Reply { .. }, Effect::EndTree { process: None, .. }]
                | [Effect::EndTree { process: None, .. }, Effect::Reply { .. }]
        ),
        "{effects:?}"
    );
    // The next owner asks for its end again, and the proof comes late.
    let _ = bench.succeed_and_resume();
    let _ = bench.turn(vec![report("a", 1, BackendEvent::NeverLaunched)]);
    assert_eq!(bench.state("a").status, Status::Stopped);
}
