//! Jobs that are started again by their policy.

use super::*;
use crate::spec::Restart as SpecRestart;

fn restarting(restart: SpecRestart, max: Option<u32>) -> Bench {
    let mut bench = Bench::new();
    let submission = bench.submission_with(|spec| {
        spec.policy.restart = restart;
        spec.policy.max_restarts = max;
        spec.policy.restart_delay_ms = 200;
    });
    let _ = bench.turn(vec![submission]);
    bench
}

impl Bench {
    /// The newest attempt of job `a` runs and ends so.
    fn fails(&mut self, code: i32) -> Vec<Effect> {
        let attempt = self.state("a").attempt;
        let exit = ExitStatus::Code(code);
        let ended = BackendEvent::Exited { exit, usage: None, at: self.now, leftovers: left(false) };
        self.turn(vec![report("a", attempt, started_at(self.now)), report("a", attempt, ended)])
    }
}

#[test]
fn a_failing_job_is_started_again_as_often_as_it_may_be() {
    let mut bench = restarting(SpecRestart::OnFailure, Some(3));
    for restarts in 1..=3 {
        let effects = bench.fails(1);
        let state = bench.state("a");
        assert_eq!((launches(&effects), state.status), (0, Status::Restarting));
        assert_eq!((state.attempt, state.restarts), (restarts + 1, restarts));
        let delay = bench.engine.next_deadline().expect("a delay").millis_since(bench.now.boot);
        let doubled = 200 << (restarts - 1);
        assert!((doubled..=doubled + doubled / 10).contains(&delay), "{delay} ms");
        let detail = state.detail.expect("why");
        assert!(
            detail.starts_with(&format!("attempt {restarts} failed, exit code 1; starts at")),
            "{detail}"
        );
        assert_eq!(launches(&bench.wait_for_timer()), 1);
    }
    let _ = bench.fails(1);
    let state = bench.state("a");
    assert_eq!((state.status, state.attempt, state.restarts), (Status::Failed, 4, 3));
    assert_eq!(bench.engine.live_jobs(), 0);
    let attempts = bench.store.attempts(&id("a")).expect("memory");
    assert!(attempts.iter().all(|job| job.state.status == Status::Failed), "each keeps its own end");
}

#[test]
fn one_that_fails_at_once_each_time_is_given_up_and_a_restart_by_hand_begins_anew() {
    let mut bench = restarting(SpecRestart::Always, None);
    for _ in 1..16 {
        let _ = bench.fails(1);
        assert_eq!(bench.state("a").status, Status::Restarting);
        // The row of failures is on disk.
        let _ = bench.succeed();
        assert_eq!(launches(&bench.wait_for_timer()), 1);
    }
    let _ = bench.fails(1);
    let state = bench.state("a");
    assert_eq!((state.status, state.attempt, bench.engine.next_deadline()), (Status::Failed, 16, None));
    let detail = state.detail.expect("why");
    assert_eq!(detail, "given up: 16 failures in a row, none after a run of 30s");
    let _ = bench.turn(vec![bench.restart("a")]);
    let _ = bench.fails(1);
    assert_eq!(bench.state("a").status, Status::Restarting);
    let delay = bench.engine.next_deadline().expect("a delay").millis_since(bench.now.boot);
    assert!(delay <= 220, "{delay} ms");
}

#[test]
fn a_success_ends_it_unless_it_is_always_started_again_and_a_stop_always_does() {
    let mut bench = restarting(SpecRestart::OnFailure, None);
    let _ = bench.fails(0);
    assert_eq!(bench.state("a").status, Status::Finished);

    let mut bench = restarting(SpecRestart::Always, None);
    let _ = bench.fails(0);
    assert_eq!(bench.state("a").status, Status::Restarting);
    let _ = bench.turn(vec![bench.stop("a")]);
    let state = bench.state("a");
    assert_eq!((state.status, state.attempt, state.started), (Status::Stopped, 2, None));
    assert_eq!(bench.engine.next_deadline(), None, "no further start");

    let mut bench = restarting(SpecRestart::Always, None);
    let _ = bench.turn(vec![bench.started("a")]);
    let _ = bench.turn(vec![bench.stop("a")]);
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Stopped);
}

#[test]
fn the_next_owner_goes_on_waiting_and_a_reboot_is_a_failure() {
    let mut bench = restarting(SpecRestart::OnFailure, None);
    let _ = bench.fails(1);
    assert_eq!(bench.succeed(), [], "the backend knows nothing of it");
    assert_eq!(launches(&bench.wait_for_timer()), 1);
    let attempt = bench.state("a").attempt;
    let lost = BackendEvent::Lost { reason: Reason::Reboot, at: bench.now };
    let _ = bench.turn(vec![report("a", attempt, started_at(bench.now)), report("a", attempt, lost)]);
    assert_eq!((bench.state("a").status, bench.state("a").restarts), (Status::Restarting, 2));
}

#[test]
fn who_restarts_it_by_hand_does_not_wait_for_it() {
    let mut bench = restarting(SpecRestart::OnFailure, None);
    let _ = bench.fails(1);
    let effects = bench.turn(vec![bench.restart("a")]);
    assert_eq!(answers(&effects), [&Answer::Accepted(AttemptId { id: id("a"), attempt: 2 })]);
    assert_eq!((launches(&effects), bench.state("a").status), (1, Status::Starting));
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn a_restart_that_cannot_be_written_is_written_later() {
    let mut bench = restarting(SpecRestart::OnFailure, None);
    let _ = bench.turn(vec![bench.started("a")]);
    let mut turn = bench.engine.begin_turn();
    let exited = bench.exited("a", 1, false);
    bench.engine.handle(exited, bench.now, &mut turn);
    let _ = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
    bench.now.boot = bench.now.boot.plus_millis(10_000);
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!((launches(&effects), bench.state("a").attempt), (1, 2), "with what has become due meanwhile");
}

#[test]
fn a_lost_attempt_is_followed_only_once_what_it_left_is_gone() {
    let mut bench = restarting(SpecRestart::OnFailure, None);
    let _ = bench.turn(vec![bench.started("a")]);
    let lost = BackendEvent::Lost { reason: Reason::Unknown, at: bench.now };
    let _ = bench.turn(vec![report("a", 1, lost)]);
    assert_eq!((bench.state("a").attempt, bench.engine.next_deadline()), (1, None));
    let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Restarting));
}

#[test]
fn nothing_follows_as_long_as_somebody_cannot_be_killed() {
    let mut bench = restarting(SpecRestart::Always, None);
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 0, true)]);
    let survivors = vec![TreeMember { pid: 77, name: "stuck".to_owned() }];
    let _ = bench.turn(vec![tree_ended("a", true, survivors)]);
    let state = bench.state("a");
    assert_eq!((state.attempt, state.status, bench.engine.next_deadline()), (1, Status::Running, None));
    assert_eq!(state.detail.as_deref(), Some("could not be killed: 77 (stuck)"));
    let _ = bench.turn(vec![tree_ended("a", true, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Restarting));
}
