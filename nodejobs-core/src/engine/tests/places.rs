//! How many run at a time, and whose turn it is.

use super::*;
use crate::job::WaitingOn;
use crate::spec::{Limits, Restart as RestartPolicy};

fn bench(capacity: Capacity) -> Bench {
    let mut bench = Bench::new();
    bench.engine = Engine::with_capacity(1, capacity);
    bench
}

fn at_most(max: u32) -> Capacity {
    Capacity { max_processes: Some(max), ..Capacity::default() }
}

impl Bench {
    fn submits(&mut self, names: &[&str]) -> Vec<Effect> {
        let inputs = names.iter().map(|name| self.submission(name)).collect();
        self.turn(inputs)
    }

    fn submit_with(&mut self, name: &str, change: impl FnOnce(&mut JobSpec)) -> Vec<Effect> {
        let mut spec = JobSpec::new(Command::argv(["true"]), "/");
        change(&mut spec);
        let input = self.submission_of(&id(name), &spec);
        self.turn(vec![input])
    }

    fn statuses(&self, names: &[&str]) -> Vec<Status> {
        names.iter().map(|name| self.state(name).status).collect()
    }
}

fn launched(effects: &[Effect]) -> Vec<String> {
    effects.iter().filter_map(Effect::launched).map(|attempt| attempt.id.to_string()).collect()
}

fn limited(mebibytes: u64) -> impl Fn(&mut JobSpec) {
    move |spec| {
        let memory = Some(mebibytes << 20);
        spec.policy.limits = Some(Box::new(Limits { memory, ..Limits::default() }));
    }
}

/// C7
#[test]
fn who_finds_no_place_is_queued_and_started_in_the_commit_that_frees_one() {
    let mut bench = bench(at_most(2));
    let effects = bench.submits(&["a", "b", "c", "d"]);
    assert_eq!(launched(&effects), ["a", "b"]);
    let state = bench.state("c");
    assert_eq!((state.status, state.waiting_on), (Status::Queued, Some(WaitingOn::Slot)));
    let why =
        bench.engine.explain(&id("c")).and_then(|explanation| explanation.queue).expect("it is in the queue");
    let expected = "1 of 2 that wait in group 'default': 2 run, and no more than 2 may at a time";
    assert_eq!((why.to_string().as_str(), state.detail), (expected, None));
    assert_eq!(bench.engine.next_deadline(), None, "nothing wakes for those who wait");
    let _ = bench.turn(vec![bench.started("a"), bench.started("b")]);

    let effects = bench.turn(vec![bench.exited("b", 0, false)]);
    assert_eq!(launched(&effects), ["c"]);
    assert_eq!(bench.statuses(&["b", "c", "d"]), [Status::Finished, Status::Starting, Status::Queued]);
    assert_eq!((bench.state("c").waiting_on, bench.state("c").detail), (None, None));
    // A new one does not overtake who waits.
    let effects = bench.turn(vec![bench.exited("a", 0, false), bench.submission("e")]);
    assert_eq!(launched(&effects), ["d"]);
    // Whoever is not wanted any more gives up the turn.
    let _ = bench.submits(&["f"]);
    let _ = bench.turn(vec![bench.stop("e")]);
    assert_eq!(bench.state("e").status, Status::Cancelled);
    let _ = bench.turn(vec![bench.started("c")]);
    assert_eq!(launched(&bench.turn(vec![bench.exited("c", 0, false)])), ["f"]);
}

/// C7
#[test]
fn a_hundred_launches_that_fail_leak_no_place() {
    for kind in [StartFailureKind::Permanent(Reason::Exec), StartFailureKind::NoRoom] {
        let mut bench = bench(at_most(2));
        for number in 0..100 {
            let name = format!("f{number}");
            let _ = bench.submits(&[&name]);
            let failure = StartFailure { kind, detail: "no".to_owned() };
            let _ = bench.turn(vec![report(&name, 1, BackendEvent::NotStarted { failure, at: bench.now })]);
            if kind == StartFailureKind::NoRoom {
                let _ = bench.turn(vec![bench.stop(&name)]);
            }
        }
        assert_eq!(bench.engine.queue.running(), 0);
        assert_eq!(launched(&bench.submits(&["a", "b", "c"])), ["a", "b"]);
    }
}

#[test]
fn what_is_refused_when_full_is_what_is_new() {
    let mut bench = bench(Capacity { when_full: WhenFull::Refuse, ..at_most(1) });
    let _ = bench.submits(&["a"]);
    let effects = bench.submits(&["b"]);
    assert!(
        matches!(&effects[..], [Effect::Reply { answer: Answer::Full { why }, .. }] if why.contains("no more than 1")),
        "{effects:?}"
    );
    assert_eq!(bench.store.job(&id("b")).expect("memory"), None, "it leaves nothing");
    let _ = bench.turn(vec![bench.submission_with_key("a", None)]);
    // What is due later is accepted, and waits then.
    let _ = bench.submit_with("later", |spec| spec.start = Start::AfterMs(5));
    let _ = bench.wait_for_timer();
    assert_eq!(bench.state("later").waiting_on, Some(WaitingOn::Slot));
    let _ = bench.turn(vec![bench.started("a")]);
    assert_eq!(launched(&bench.turn(vec![bench.exited("a", 0, false)])), ["later"]);
    let effects = bench.turn(vec![bench.restart("a")]);
    assert!(matches!(&effects[..], [Effect::Reply { answer: Answer::Full { .. }, .. }]), "{effects:?}");
}

#[test]
fn a_restart_keeps_its_place_and_a_wait_between_attempts_gives_it_up() {
    let mut bench = bench(at_most(1));
    let _ = bench.submits(&["a", "b"]);
    let _ = bench.turn(vec![bench.started("a")]);
    let _ = bench.turn(vec![bench.restart("a")]);
    let effects = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", false, Vec::new())]);
    assert_eq!(launched(&effects), ["a"]);
    assert_eq!((bench.state("a").attempt, bench.state("b").status), (2, Status::Queued));

    let mut bench = self::bench(at_most(1));
    let _ = bench.submit_with("a", |spec| spec.policy.restart = RestartPolicy::Always);
    let _ = bench.submits(&["b"]);
    let _ = bench.turn(vec![bench.started("a")]);
    let effects = bench.turn(vec![bench.exited("a", 0, false)]);
    assert_eq!((launched(&effects), bench.state("a").status), (vec!["b".to_owned()], Status::Restarting));
    let _ = bench.wait_for_timer();
    let state = bench.state("a");
    assert_eq!((state.status, state.waiting_on), (Status::Queued, Some(WaitingOn::Slot)));
    let _ = bench.turn(vec![bench.started("b")]);
    assert_eq!(launched(&bench.turn(vec![bench.exited("b", 0, false)])), ["a"]);
}

#[test]
fn memory_is_what_those_who_run_may_have_together() {
    let mut bench = bench(Capacity { max_memory: Some(100 << 20), ..Capacity::default() });
    for (name, mebibytes, starts) in [("a", 60, true), ("b", 50, false), ("c", 10, false)] {
        let effects = bench.submit_with(name, limited(mebibytes));
        assert_eq!(!launched(&effects).is_empty(), starts, "{name}");
    }
    let why =
        bench.engine.explain(&id("b")).and_then(|explanation| explanation.queue).expect("it is in the queue");
    let lack = "those that run may have 60 MiB of memory, it 50 MiB, and all together 100 MiB";
    assert_eq!(why.lacks.iter().map(ToString::to_string).collect::<Vec<_>>(), [lack]);
    let why =
        bench.engine.explain(&id("c")).and_then(|explanation| explanation.queue).expect("it is in the queue");
    assert_eq!((why.lacks, why.behind), (Vec::new(), Some(id("b"))));
    assert_eq!(bench.state("c").status, Status::Queued, "it would fit, and does not overtake");
    let _ = bench.turn(vec![bench.started("a")]);
    assert_eq!(launched(&bench.turn(vec![bench.exited("a", 0, false)])), ["b", "c"]);
    // Without a limit nobody knows how much it will be.
    assert_eq!(launched(&bench.submits(&["free"])), ["free"]);
}

#[test]
fn the_next_owner_goes_on_in_the_same_order_once_it_knows_who_runs() {
    let mut bench = bench(at_most(1));
    for name in ["a", "z", "y", "x"] {
        let _ = bench.submits(&[name]);
        bench.now.wall = Timestamp::from_millis(bench.now.wall.as_millis() + 1);
    }
    let _ = bench.turn(vec![bench.started("a")]);
    let _ = bench.succeed();
    bench.engine.queue.set_capacity(at_most(1));
    let mut turn = bench.engine.begin_turn();
    let exited = bench.exited("a", 0, false);
    bench.engine.handle(exited, bench.now, &mut turn);
    assert_eq!(launched(&bench.commit(turn)), [""; 0], "the keepers are still being heard");
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    assert_eq!(launched(&bench.commit(turn)), ["z"]);
    let _ = bench.turn(vec![bench.started("z")]);
    assert_eq!(launched(&bench.turn(vec![bench.exited("z", 0, false)])), ["y"]);
}

#[test]
fn who_could_not_be_stored_leaves_the_place_to_the_next() {
    let mut bench = bench(at_most(1));
    let mut turn = bench.engine.begin_turn();
    for name in ["a", "b"] {
        let input = bench.submission(name);
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Reply { answer: Answer::NotStored, .. })));
    assert_eq!((bench.engine.queue.running(), bench.engine.live_jobs()), (0, 0));
    assert_eq!(launched(&bench.submits(&["c", "d"])), ["c"]);
}
