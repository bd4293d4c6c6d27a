//! Jobs that are tried again when they have failed, and work that is submitted once.

use super::dependencies::launched;
use super::*;
use crate::spec::{Retry, Unique};

fn tried(retry: Retry) -> Bench {
    let mut bench = Bench::new();
    let submission = bench.submission_with(|spec| *spec = spec.clone().retry(retry));
    let _ = bench.turn(vec![submission]);
    bench
}

const CRASH: ExitStatus = ExitStatus::Signal { number: 11, core_dumped: false };

#[test]
fn a_job_is_tried_again_until_it_succeeds_whoever_the_owner_is() {
    let mut bench = tried(Retry { retries: 3, delay_ms: 100, ..Retry::default() });
    for retries in 1..=2 {
        assert_eq!(launches(&bench.ends("a", 1)), 0);
        let state = bench.state("a");
        assert_eq!((state.status, state.restarts, state.attempt), (Status::Restarting, retries, retries + 1));
        let _ = bench.succeed_and_resume();
        let delay = bench.engine.next_deadline().expect("a delay").millis_since(bench.now.boot);
        let doubled = 100 << (retries - 1);
        assert!((doubled..=doubled + doubled / 10).contains(&delay), "{delay} ms");
        assert_eq!(launches(&bench.wait_for_timer()), 1);
    }
    let _ = bench.ends("a", 0);
    assert_eq!((bench.state("a").status, bench.engine.live_jobs()), (Status::Finished, 0));
}

#[test]
fn it_has_failed_once_all_tries_have_and_a_restart_by_hand_has_them_anew() {
    let mut bench = tried(Retry { retries: 1, ..Retry::default() });
    for _ in 0..2 {
        let _ = bench.ends("a", 1);
        assert_eq!(bench.state("a").status, Status::Restarting);
        let _ = bench.wait_for_timer();
        let _ = bench.ends("a", 1);
        assert_eq!((bench.state("a").status, bench.state("a").restarts), (Status::Failed, 1));
        let _ = bench.turn(vec![bench.restart("a")]);
    }
    assert_eq!(bench.state("a").attempt, 5);
}

#[test]
fn what_crashes_the_same_way_again_and_again_is_parked() {
    let mut bench = tried(Retry { retries: 9, ..Retry::default() });
    for attempt in 1..=3 {
        assert_eq!(bench.state("a").attempt, attempt);
        let _ = bench.ends_by("a", CRASH);
        // What it ended with is on disk with the next.
        let _ = bench.succeed_and_resume();
        if attempt < 3 {
            let _ = bench.wait_for_timer();
        }
    }
    let state = bench.state("a");
    assert_eq!((state.status, state.reason), (Status::Failed, Some(Reason::Signal)));
    let said = "parked: 3 attempts in a row ended with signal 11; restart it when it is mended";
    assert_eq!(state.detail.as_deref(), Some(said));
    assert_eq!((bench.engine.live_jobs(), bench.engine.next_deadline()), (0, None));
}

#[test]
fn a_stop_ends_the_tries_and_a_retry_waits_for_survivors() {
    let mut bench = tried(Retry::default());
    let _ = bench.ends("a", 1);
    let _ = bench.turn(vec![bench.stop("a")]);
    assert_eq!((bench.state("a").status, bench.engine.live_jobs()), (Status::Stopped, 0));

    let mut bench = tried(Retry::default());
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 1, true)]);
    let survivors = vec![TreeMember { pid: 77, name: "stuck".to_owned() }];
    let _ = bench.turn(vec![tree_ended("a", true, survivors)]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (1, Status::Running));
    let _ = bench.turn(vec![tree_ended("a", true, Vec::new())]);
    assert_eq!((bench.state("a").attempt, bench.state("a").status), (2, Status::Restarting));
}

impl Bench {
    fn unique(&self, name: &str, key: &str, window_ms: Option<u64>, submit_key: &str) -> Input {
        let spec = JobSpec::new(Command::argv(["true"]), "/").unique(key).submit_key(submit_key);
        let Input::Submit(mut submission) = self.submission_of(&id(name), &spec) else { unreachable!() };
        let all =
            PageRequest { filter: Default::default(), order: Order::NewestFirst, after: None, limit: 99 };
        let has_key = |job: &Job| job.definition.labels.get("unique").is_some_and(|other| other == key);
        let newest = self.store.jobs(&all).expect("memory").jobs.into_iter().find(has_key);
        submission.unique = Some(UniqueSubmit { unique: Unique { key: key.to_owned(), window_ms }, newest });
        Input::Submit(submission)
    }
}

fn existing(name: &str, attempt: u32) -> Answer {
    Answer::Existing(AttemptId { id: id(name), attempt })
}

#[test]
fn one_of_a_key_lives_also_among_those_of_one_turn_and_under_the_next_owner() {
    let mut bench = Bench::new();
    let racing = (0..20).map(|n| bench.unique(&format!("j{n}"), "k", None, &format!("s{n}"))).collect();
    let effects = bench.turn(racing);
    assert_eq!(launched(&effects), ["j0"]);
    assert_eq!(answers(&effects).iter().filter(|answer| ***answer == existing("j0", 1)).count(), 19);
    let _ = bench.succeed_and_resume();
    let effects = bench.turn(vec![bench.unique("x", "k", None, "x"), bench.unique("y", "other", None, "y")]);
    assert_eq!((answers(&effects)[0], launched(&effects)), (&existing("j0", 1), vec!["y".to_owned()]));
    // Sent again, it is no other.
    let effects = bench.turn(vec![bench.unique("x", "k", None, "s0")]);
    assert_eq!(answers(&effects), [&Answer::Accepted(AttemptId { id: id("j0"), attempt: 1 })]);
    let _ = bench.ends("j0", 0);
    assert_eq!(launched(&bench.turn(vec![bench.unique("x", "k", None, "x")])), ["x"]);
}

#[test]
fn within_its_window_an_ended_one_counts_too() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.unique("a", "k", Some(1_000), "1")]);
    let _ = bench.ends("a", 1);
    bench.now.wall = Timestamp::from_millis(bench.now.wall.as_millis() + 999);
    let effects = bench.turn(vec![bench.unique("b", "k", Some(1_000), "2")]);
    assert_eq!(answers(&effects), [&existing("a", 1)]);
    assert_eq!(launched(&bench.turn(vec![bench.unique("c", "k", Some(999), "3")])), ["c"]);
}

#[test]
fn what_could_not_be_stored_is_nobodys_answer() {
    let mut bench = Bench::new();
    let mut turn = bench.engine.begin_turn();
    for input in [bench.unique("a", "k", None, "1"), bench.unique("b", "k", None, "2")] {
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(answers(&effects), [&Answer::NotStored; 2]);
    assert_eq!(launched(&bench.turn(vec![bench.unique("b", "k", None, "2")])), ["b"]);
}
