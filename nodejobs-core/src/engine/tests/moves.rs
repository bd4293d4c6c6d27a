//! The table of moves: a test for each pair of statuses, on the table, on what stores accept, and on the engine.

use super::*;
use crate::spec::Restart as SpecRestart;
use crate::store::StoredHead;

/// Every status that some input makes of a job that has this one.
fn reached_from(status: Status) -> Vec<Status> {
    let mut reached = Vec::new();
    for way in 0..3 {
        let inputs = (0..).map_while(|index| next_input(&at(status, way)?, index));
        for (index, _) in inputs.enumerate() {
            let Some(mut bench) = at(status, way) else { break };
            let attempt = bench.state("a").attempt;
            let seen = bench.store.events(0, 1_000).expect("memory").len();
            let Some(input) = next_input(&bench, index) else { break };
            if matches!(input, Input::Tick) {
                bench.now.boot = bench.engine.next_deadline().unwrap_or(bench.now.boot);
            }
            let _ = bench.turn(vec![input]);
            let events = bench.store.events(seen as u64, 10).expect("memory");
            if bench
                .store
                .job(&id("a"))
                .expect("memory")
                .is_some_and(|job| job.state.status == Status::Restarting)
            {
                reached.extend([Status::Restarting].into_iter().filter(|next| *next != status));
            }
            let of_this_attempt = events.iter().filter(|event| event.attempt.attempt == attempt);
            reached.extend(of_this_attempt.map(|event| event.status).take(1).filter(|next| *next != status));
        }
    }
    reached
}

/// A bench whose job `a` has that status, in one of several ways; `None` if there is no such way.
fn at(status: Status, way: u8) -> Option<Bench> {
    let mut bench = match (status, way) {
        (Status::Queued, 0) => {
            let mut bench = Bench::new();
            let _ = bench.turn(vec![bench.submission_with(|spec| spec.start = Start::AfterMs(5))]);
            bench
        }
        (Status::Starting, 0) => {
            let mut bench = Bench::new();
            let _ = bench.turn(vec![bench.submission("a")]);
            bench
        }
        (Status::FailedStart, 0) => {
            let mut bench = at(Status::Starting, 0)?;
            let exec = StartFailureKind::Permanent(Reason::Exec);
            let _ = bench.turn(vec![not_started("a", exec, bench.now)]);
            bench
        }
        (Status::Cancelled, 0) => {
            let mut bench = at(Status::Queued, 0)?;
            let _ = bench.turn(vec![bench.stop("a")]);
            bench
        }
        (Status::Stopping, 1) => {
            let mut bench = at(Status::Starting, 0)?;
            let _ = bench.turn(vec![bench.stop("a")]);
            bench
        }
        // Its main process, or its tree, is gone already.
        (Status::Stopping, 2) => {
            let mut bench = at(Status::Stopping, 0)?;
            let _ = bench.turn(vec![bench.exited("a", 0, false)]);
            bench
        }
        (Status::Running | Status::Paused, 1) | (Status::Restarting, 0) => {
            let mut bench = Bench::new();
            let _ = bench.turn(vec![bench.submission_with(|spec| spec.policy.restart = SpecRestart::Always)]);
            let _ = bench.turn(vec![bench.started("a")]);
            if status == Status::Restarting {
                let _ = bench.turn(vec![bench.exited("a", 0, false)]);
            }
            bench
        }
        (_, 0) => {
            let mut bench = Bench::new();
            let _ = bench.turn(vec![bench.submission_with(|spec| spec.policy.timeout_ms = Some(5))]);
            let _ = bench.turn(vec![bench.started("a")]);
            bench
        }
        (Status::FailedStop, 1) => {
            let mut bench = Bench::running("a");
            let survivor = vec![TreeMember { pid: 77, name: "stuck".to_owned() }];
            let _ = bench.turn(vec![bench.stop("a"), tree_ended("a", true, survivor)]);
            bench
        }
        _ => return None,
    };
    match (status, way) {
        (Status::Paused, _) => drop(bench.turn(vec![Input::Pause { ticket: 5, id: id("a") }])),
        (Status::Stopping, 0) => drop(bench.turn(vec![bench.stop("a")])),
        (Status::Finished, _) => drop(bench.turn(vec![bench.exited("a", 0, false)])),
        (Status::Failed, _) => drop(bench.turn(vec![bench.exited("a", 3, false)])),
        (Status::Stopped, _) => {
            let _ = bench.turn(vec![bench.stop("a"), bench.exited("a", 0, false)]);
            let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
        }
        (Status::Lost, _) => {
            let lost = BackendEvent::Lost { reason: Reason::Unknown, at: bench.now };
            let _ = bench.turn(vec![report("a", 1, lost), tree_ended("a", false, Vec::new())]);
        }
        (Status::FailedStop, 0) => {
            let survivor = vec![TreeMember { pid: 77, name: "stuck".to_owned() }];
            let _ = bench.turn(vec![bench.stop("a"), bench.exited("a", 0, false)]);
            let _ = bench.turn(vec![tree_ended("a", true, survivor)]);
        }
        _ => {}
    }
    assert_eq!(bench.state("a").status, status, "it cannot be made so");
    Some(bench)
}

/// Everything that can come next, one after the other.
fn next_input(bench: &Bench, index: usize) -> Option<Input> {
    let at = bench.now;
    let id = id("a");
    let survivor = || vec![TreeMember { pid: 77, name: "stuck".to_owned() }];
    Some(match index {
        0 => bench.submission("a"),
        1 => bench.stop("a"),
        2 => bench.restart("a"),
        3 => bench.remove("a"),
        4 => Input::Pause { ticket: 5, id },
        5 => Input::Resume { ticket: 5, id },
        6 => Input::Tick,
        7 => Input::ClockSet,
        8 => bench.started("a"),
        9 => not_started("a", StartFailureKind::Permanent(Reason::Exec), at),
        10 => not_started("a", StartFailureKind::NoRoom, at),
        11 => not_started("a", StartFailureKind::CalledOff, at),
        12 => report("a", 1, BackendEvent::NeverLaunched),
        13 => bench.exited("a", 0, false),
        14 => bench.exited("a", 3, false),
        15 => bench.exited("a", 0, true),
        16 => tree_ended("a", false, Vec::new()),
        17 => tree_ended("a", true, survivor()),
        18 => report("a", 1, BackendEvent::OverMemory { detail: "too much".to_owned() }),
        19 => report("a", 1, BackendEvent::Lost { reason: Reason::Reboot, at }),
        _ => return None,
    })
}

fn named(name: &str) -> Status {
    name.parse().expect("a status")
}

/// Whether a store takes this update.
fn is_accepted(from: Status, to: Status) -> bool {
    let head = StoredHead { revision: 1, attempt: 1, status: from };
    let state = JobState::new(1, to, Timestamp::default());
    let change = JobChange::Update { id: id("a"), expected: 1, state };
    match change.check(Some(head)) {
        Ok(()) => true,
        Err(rejection) => {
            assert_eq!(rejection, Rejection::IllegalMove { from, to });
            false
        }
    }
}

fn is_allowed(from: &str, to: &str) {
    let (from, to) = (named(from), named(to));
    assert!(from.may_become(to) && is_accepted(from, to));
    assert!(reached_from(from).contains(&to));
}

fn is_absent(from: &str, to: &str) {
    let (from, to) = (named(from), named(to));
    assert!(!from.may_become(to));
    // Staying where it is is no move, and allowed as long as nothing is final.
    assert_eq!(is_accepted(from, to), from == to && !from.is_terminal());
    assert!(!reached_from(from).contains(&to));
}

/// A test for each pair, under the names of both.
macro_rules! moves {
    ($($check:ident { $($from:ident => $($to:ident)*;)* })*) => {
        $(mod $check {
            $(mod $from {
                $(#[test] fn $to() { super::super::$check(stringify!($from), stringify!($to)) })*
            })*
        })*

        #[test]
        fn every_pair_has_its_test() {
            let pairs = [$($($((stringify!($from), stringify!($to)),)*)*)*];
            let distinct: HashSet<_> = pairs.into_iter().collect();
            assert_eq!((pairs.len(), distinct.len()), (169, 169));
        }
    };
}

moves! {
    is_allowed {
        queued => starting cancelled;
        starting => running failed_start stopping lost queued;
        running => paused stopping restarting finished failed failed_start lost;
        paused => running stopping restarting finished failed failed_start lost;
        stopping => stopped failed_stop lost;
        failed_stop => stopped lost;
        restarting => queued stopped;
    }
    is_absent {
        queued => queued running paused stopping failed_stop restarting finished failed failed_start stopped lost;
        starting => starting paused failed_stop restarting finished failed stopped cancelled;
        running => queued starting running failed_stop stopped cancelled;
        paused => queued starting paused failed_stop stopped cancelled;
        stopping => queued starting running paused stopping restarting finished failed failed_start cancelled;
        failed_stop => queued starting running paused stopping failed_stop restarting finished failed failed_start
            cancelled;
        restarting => starting running paused stopping failed_stop restarting finished failed failed_start cancelled
            lost;
        finished => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
        failed => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
        failed_start => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
        stopped => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
        cancelled => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
        lost => queued starting running paused stopping failed_stop restarting finished failed failed_start
            stopped cancelled lost;
    }
}
