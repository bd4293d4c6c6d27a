//! Schedules: each occurrence runs once, waits, or has a record that says why it was skipped.

use super::*;
use crate::job::Origin;
use crate::schedule::{CatchUp, Every, Overlap, Schedule, Timing};
use crate::store::DocumentKind;

mod simulation;

const MINUTE: u64 = 60_000;

/// A schedule that is due each minute, changed so.
fn schedule(bench: &Bench, change: impl FnOnce(&mut Schedule)) -> Schedule {
    let from = bench.now.wall;
    let spec = JobSpec::new(Command::argv(["true"]), "/");
    let mut schedule = Schedule {
        name: "s".to_owned(),
        timing: Timing::Every { every_ms: MINUTE, from },
        overlap: Overlap::Skip,
        catch_up: CatchUp::Skip,
        until: None,
        definition: Box::new(Definition::new(&spec, "/logs".into(), from)),
        submit_key: None,
        created_at: from,
        is_paused: false,
        decided_until: from,
        waiting: Default::default(),
        last: None,
    };
    change(&mut schedule);
    schedule
}

fn known(schedule: Schedule) -> KnownSchedule {
    let Timing::Every { every_ms, from } = schedule.timing else { panic!("an interval") };
    KnownSchedule { schedule, calendar: Some(Box::new(Every { every_ms, from })) }
}

fn asked(change: ScheduleChange) -> Input {
    Input::Schedule { ticket: 7, name: "s".to_owned(), change }
}

fn add(schedule: Schedule, replace: bool) -> Input {
    asked(ScheduleChange::Add { known: Box::new(known(schedule)), context: Vec::new(), replace })
}

impl Bench {
    fn scheduled(change: impl FnOnce(&mut Schedule)) -> Self {
        let mut bench = Bench::new();
        let schedule = schedule(&bench, change);
        let effects = bench.turn(vec![add(schedule, false)]);
        assert_eq!(answers(&effects), [&Answer::Scheduled]);
        bench
    }

    /// Lets time pass, and a tick come.
    fn pass(&mut self, millis: u64) -> Vec<Effect> {
        self.now.boot = self.now.boot.plus_millis(millis);
        self.set_wall(millis.cast_signed());
        self.turn(vec![Input::Tick])
    }

    fn set_wall(&mut self, by: i64) {
        self.now.wall = Timestamp::from_millis(self.now.wall.as_millis() + by);
    }

    fn stored(&self) -> Option<Schedule> {
        let body = self.store.document(DocumentKind::Schedule, "s").expect("memory does not fail");
        body.map(|body| Schedule::from_bytes(&body).expect("a schedule"))
    }

    /// Every job of the schedule: its minute, its status, and what is said of it.
    fn occurrences(&self) -> Vec<(i64, Status, String)> {
        let request =
            PageRequest { filter: Default::default(), order: Order::OldestFirst, after: None, limit: 1000 };
        let jobs = self.store.jobs(&request).expect("memory").jobs;
        let first = 1_784_000_000_000;
        let found = jobs.into_iter().filter_map(|job| match job.definition.origin {
            Some(Origin::Schedule { due, .. }) => {
                let minute = (due.as_millis() - first) / MINUTE.cast_signed();
                Some((minute, job.state.status, job.state.detail.unwrap_or_default()))
            }
            _ => None,
        });
        found.collect()
    }

    fn found(&self) -> Vec<(i64, Status)> {
        self.occurrences().into_iter().map(|(minute, status, _)| (minute, status)).collect()
    }

    fn live(&self) -> JobId {
        self.engine.live.keys().next().expect("something lives").clone()
    }

    /// What lives runs, and ends.
    fn running_ones_end(&mut self) -> Vec<Effect> {
        let id = self.live();
        let _ = self.turn(vec![self.started(id.as_str())]);
        self.turn(vec![self.exited(id.as_str(), 0, false)])
    }

    /// A later owner takes over.
    fn next_owner(&mut self) -> Vec<Effect> {
        let _ = self.succeed();
        let stored = self.stored().map(known).into_iter().collect();
        self.engine.restore_schedules(stored, self.now);
        let mut turn = self.engine.begin_turn();
        self.engine.resume(self.now, &mut turn);
        let mut effects = self.commit(turn);
        if self.engine.next_deadline().is_some_and(|at| at <= self.now.boot) {
            effects.extend(self.turn(vec![Input::Tick]));
        }
        effects
    }
}

#[test]
fn each_occurrence_is_a_job_of_its_own_that_starts_in_time() {
    let mut bench = Bench::scheduled(|_| {});
    assert_eq!(bench.engine.next_deadline(), Some(bench.now.boot.plus_millis(MINUTE)));
    assert_eq!((bench.pass(MINUTE - 1).len(), bench.engine.active_schedules()), (0, 1));
    assert_eq!(launches(&bench.pass(1)), 1);
    let job = bench.job("s-20260714T033420Z");
    assert_eq!((job.state.status, job.definition.start), (Status::Starting, Start::Now));
    let stored = bench.stored().expect("a schedule");
    assert_eq!((stored.decided_until, stored.last.map(|last| last.id)), (bench.now.wall, Some(job.id)));
    bench.running_ones_end();
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
    assert_eq!(bench.found(), [(1, Status::Finished), (2, Status::Starting)]);
}

#[test]
fn one_that_is_due_while_the_last_has_not_ended_is_skipped_and_a_record_says_so() {
    let mut bench = Bench::scheduled(|_| {});
    bench.pass(MINUTE);
    assert_eq!(launches(&bench.pass(MINUTE)), 0);
    let (_, status, detail) = bench.occurrences().pop().expect("a record");
    assert_eq!(status, Status::Cancelled);
    assert!(detail.contains("'s-20260714T033420Z', has not ended"), "{detail}");
    assert_eq!(bench.state("s-20260714T033520Z").reason, Some(Reason::Schedule));
    bench.running_ones_end();
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
}

#[test]
fn those_that_wait_run_one_after_another_also_with_another_owner() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Queue);
    for _ in 0..3 {
        bench.pass(MINUTE);
    }
    assert_eq!(bench.found(), [(1, Status::Starting)]);
    assert_eq!(bench.stored().expect("a schedule").waiting.len(), 2);
    assert_eq!(launches(&bench.running_ones_end()), 1);
    assert_eq!(bench.found(), [(1, Status::Finished), (2, Status::Starting)]);
    // The next one ends with nobody there: an owner that is killed before it has begun the one behind.
    let id = bench.live();
    let _ = bench.turn(vec![bench.started(id.as_str())]);
    let _ = bench.succeed();
    let stored = bench.stored().map(known).into_iter().collect();
    bench.engine.restore_schedules(stored, bench.now);
    let effects = bench.turn(vec![bench.exited(id.as_str(), 0, false)]);
    assert_eq!(launches(&effects), 0, "not while it takes over");
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    assert_eq!(launches(&bench.commit(turn)), 1);
    let expected = [(1, Status::Finished), (2, Status::Finished), (3, Status::Starting)];
    assert_eq!(bench.found(), expected);
}

#[test]
fn no_more_wait_than_may() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Queue);
    for _ in 0..Schedule::MAX_WAITING + 3 {
        bench.pass(MINUTE);
    }
    let skipped = bench.occurrences().into_iter().filter(|(_, status, _)| *status == Status::Cancelled);
    let details: Vec<String> = skipped.map(|(_, _, detail)| detail).collect();
    assert_eq!(details.len(), 2, "one runs and a hundred wait");
    assert!(details[0].contains("100 wait already"), "{details:?}");
}

#[test]
fn one_that_replaces_stops_the_last_and_starts_when_it_has_ended() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Replace);
    bench.pass(MINUTE);
    let first = bench.live();
    let _ = bench.turn(vec![bench.started(first.as_str())]);
    let effects = bench.pass(MINUTE);
    assert!(matches!(effects.as_slice(), [Effect::EndTree { .. }]), "{effects:?}");
    // It takes its time, so the one that waits is overtaken by the next.
    bench.pass(MINUTE);
    let _ = bench.turn(vec![bench.exited(first.as_str(), 0, false)]);
    let effects = bench.turn(vec![tree_ended(first.as_str(), true, Vec::new())]);
    assert_eq!(launches(&effects), 1);
    let expected = [(1, Status::Stopped), (2, Status::Cancelled), (3, Status::Starting)];
    assert_eq!(bench.found(), expected);
}

#[test]
fn one_that_waits_for_a_place_is_replaced_as_well() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Replace);
    let capacity = Capacity { max_processes: Some(1), ..Capacity::default() };
    let _ = bench.turn(vec![Input::Capacity(capacity), bench.submission("other")]);
    bench.pass(MINUTE);
    bench.pass(MINUTE);
    let found = bench.occurrences();
    assert_eq!((found[0].1, found[1].1), (Status::Cancelled, Status::Queued), "{found:?}");
    assert!(found[0].2.contains("replaced"), "{found:?}");
}

/// What is there after an owner was away for so many minutes and some.
fn after_a_pause_of(minutes: u64, catch_up: CatchUp) -> (usize, Vec<(i64, Status, String)>) {
    let mut bench = Bench::scheduled(|it| (it.catch_up, it.overlap) = (catch_up, Overlap::Queue));
    bench.now.boot = bench.now.boot.plus_millis(minutes * MINUTE + 30_000);
    bench.set_wall((minutes * MINUTE + 30_000).cast_signed());
    bench.next_owner();
    let mut ran = 0;
    while bench.engine.live_jobs() > 0 {
        ran += 1;
        bench.running_ones_end();
    }
    (ran, bench.occurrences())
}

#[test]
fn what_was_missed_is_caught_up_with_as_asked_and_the_rest_has_one_record() {
    let (ran, found) = after_a_pause_of(5, CatchUp::Skip);
    assert_eq!((ran, found.len(), found[0].1), (0, 1, Status::Cancelled), "{found:?}");
    assert!(found[0].2.starts_with("5 occurrences, due 2026-07-14T03:34:20.000Z to "), "{found:?}");
    let (ran, found) = after_a_pause_of(5, CatchUp::One);
    assert_eq!((ran, found.len()), (1, 2), "{found:?}");
    assert!(found[0].2.starts_with("4 occurrences") && found[1].0 == 5, "{found:?}");
    let (ran, found) = after_a_pause_of(5, CatchUp::All(3));
    let minutes: Vec<i64> = found.iter().map(|(minute, ..)| *minute).collect();
    assert_eq!((ran, minutes), (3, vec![2, 3, 4, 5]), "{found:?}");
    let (ran, found) = after_a_pause_of(1, CatchUp::Skip);
    assert!(ran == 0 && found[0].2.starts_with("1 occurrence, due "), "{found:?}");
}

#[test]
fn a_suspended_machine_is_as_good_as_no_daemon() {
    let mut bench = Bench::scheduled(|_| {});
    bench.pass(3 * MINUTE + 30_000);
    assert_eq!(bench.found(), [(3, Status::Cancelled)]);
    assert_eq!(launches(&bench.pass(30_000)), 1);
}

#[test]
fn a_paused_schedule_starts_nothing_and_says_what_it_left_out() {
    let mut bench = Bench::scheduled(|_| {});
    let effects = bench.turn(vec![asked(ScheduleChange::Pause)]);
    assert_eq!(answers(&effects), [&Answer::Scheduled]);
    assert_eq!((bench.engine.next_deadline(), bench.engine.active_schedules()), (None, 0));
    assert!(bench.pass(3 * MINUTE).is_empty() && bench.occurrences().is_empty());
    bench.next_owner();
    assert_eq!(bench.engine.next_deadline(), None, "the next owner knows");
    let _ = bench.turn(vec![asked(ScheduleChange::Resume)]);
    let found = bench.occurrences();
    assert_eq!((found.len(), found[0].1), (1, Status::Cancelled));
    assert!(found[0].2.starts_with("3 occurrences") && found[0].2.ends_with("paused"), "{found:?}");
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
}

#[test]
fn one_can_be_run_by_hand_but_not_beside_another() {
    let mut bench = Bench::scheduled(|_| {});
    bench.pass(1_000);
    let effects = bench.turn(vec![asked(ScheduleChange::Pause), asked(ScheduleChange::Run)]);
    let Answer::Accepted(attempt) = answers(&effects)[1].clone() else { panic!("{effects:?}") };
    assert_eq!((attempt.id.as_str(), launches(&effects)), ("s-20260714T033321Z", 1));
    let effects = bench.turn(vec![asked(ScheduleChange::Run)]);
    assert!(
        matches!(answers(&effects)[0], Answer::Refused(Refusal::Other(why)) if why.contains("s-20260714T033321Z"))
    );
    bench.running_ones_end();
    // In the same millisecond its id is taken; a moment later it has another one.
    let effects = bench.turn(vec![asked(ScheduleChange::Run)]);
    assert_eq!(answers(&effects), [&Answer::Conflict { status: None }]);
    assert!(bench.pass(1).is_empty());
    let effects = bench.turn(vec![asked(ScheduleChange::Run)]);
    assert_eq!((launches(&effects), bench.live().as_str()), (1, "s-20260714T033321.001Z"));
    assert_eq!(bench.occurrences().len(), 2);
    let unknown = Input::Schedule { ticket: 1, name: "t".to_owned(), change: ScheduleChange::Run };
    assert_eq!(answers(&bench.turn(vec![unknown])), [&Answer::NotLive]);
}

#[test]
fn an_id_that_somebody_has_used_stops_nothing() {
    let mut bench = Bench::scheduled(|_| {});
    let taken = "s-20260714T033420Z";
    let _ = bench.turn(vec![bench.submission(taken)]);
    let _ = bench.turn(vec![bench.started(taken)]);
    let _ = bench.turn(vec![bench.exited(taken, 0, false)]);
    // What has that id is left alone.
    assert_eq!(launches(&bench.pass(MINUTE)), 0);
    assert_eq!(bench.engine.next_deadline(), Some(BootTime::default()));
    assert_eq!(launches(&bench.turn(vec![Input::Tick])), 1);
    assert_eq!(bench.job(taken).state.attempt, 1);
    let other = bench.live();
    assert!(other.as_str().starts_with("s-20260714T033420Z-"), "{other}");
    assert_eq!(bench.stored().expect("a schedule").last.map(|last| last.id), Some(other));
    // As long as a live job has it, it is not even tried.
    bench.running_ones_end();
    let _ = bench.turn(vec![bench.submission("s-20260714T033520Z")]);
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
    assert_eq!(bench.found().len(), 2);
}

#[test]
fn a_removed_schedule_is_never_due_again_and_what_it_began_goes_on() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Queue);
    bench.pass(MINUTE);
    bench.pass(MINUTE);
    let effects = bench.turn(vec![asked(ScheduleChange::Remove)]);
    assert_eq!((answers(&effects), bench.stored()), (vec![&Answer::Scheduled], None));
    assert_eq!(bench.found(), [(1, Status::Starting), (2, Status::Cancelled)]);
    assert_eq!((bench.engine.next_deadline(), launches(&bench.running_ones_end())), (None, 0));
    assert_eq!(bench.found()[0], (1, Status::Finished));
    // A new one of that name waits for what lives of the old one.
    let schedule = schedule(&bench, |_| {});
    let _ = bench.turn(vec![add(schedule, false)]);
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
}

#[test]
fn a_schedule_is_replaced_on_request_only_and_keeps_what_waits() {
    let mut bench = Bench::scheduled(|it| it.overlap = Overlap::Queue);
    bench.pass(MINUTE);
    bench.pass(MINUTE);
    let other = schedule(&bench, |it| it.submit_key = Some("k".to_owned()));
    let effects = bench.turn(vec![add(other.clone(), false)]);
    assert!(
        matches!(answers(&effects)[0], Answer::Refused(Refusal::Other(why)) if why.contains("--replace"))
    );
    let _ = bench.turn(vec![add(other.clone(), true)]);
    assert_eq!(bench.stored().expect("a schedule").waiting.len(), 1);
    // Sent again, it is the same.
    assert_eq!(answers(&bench.turn(vec![add(other, false)])), [&Answer::Scheduled]);
    assert_eq!(launches(&bench.running_ones_end()), 1);
}

#[test]
fn a_schedule_ends_at_its_end() {
    let end = Bench::new().now.wall.as_millis() + 90_000;
    let mut bench = Bench::scheduled(|it| it.until = Some(Timestamp::from_millis(end)));
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
    assert_eq!((bench.engine.next_deadline(), bench.engine.active_schedules()), (None, 0));
    bench.running_ones_end();
    assert!(bench.pass(10 * MINUTE).is_empty() && bench.found().len() == 1);
}

#[test]
fn a_clock_that_is_set_neither_repeats_nor_loses_an_occurrence() {
    let mut bench = Bench::scheduled(|_| {});
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
    bench.running_ones_end();
    // A little back: the same time comes again, and nothing happens.
    bench.set_wall(-5_000);
    let _ = bench.turn(vec![Input::ClockSet, Input::Tick]);
    assert!(bench.pass(5_000).is_empty());
    assert_eq!(bench.found().len(), 1);
    // Forward: it is due earlier.
    bench.set_wall(50_000);
    let _ = bench.turn(vec![Input::ClockSet]);
    assert_eq!(launches(&bench.pass(10_000)), 1);
    bench.running_ones_end();
    // Back without a word: the timer comes too early.
    bench.set_wall(-30_000);
    assert!(bench.pass(MINUTE).is_empty());
    assert_eq!(launches(&bench.pass(30_000)), 1);
    bench.running_ones_end();
    // Far back is a correction: an interval goes on by the new time.
    assert_eq!(launches(&bench.pass(120 * MINUTE)), 1);
    bench.running_ones_end();
    bench.set_wall(-3_600_000);
    let _ = bench.turn(vec![Input::ClockSet]);
    assert_eq!(launches(&bench.pass(MINUTE)), 1);
}

#[test]
fn nothing_is_decided_while_the_store_cannot_be_written() {
    let mut bench = Bench::scheduled(|_| {});
    let fails = |bench: &mut Bench, input: Input| {
        let mut turn = bench.engine.begin_turn();
        bench.engine.handle(input, bench.now, &mut turn);
        bench.engine.settle(turn, None, bench.now).expect("nobody else writes")
    };
    bench.now.boot = bench.now.boot.plus_millis(MINUTE);
    bench.set_wall(MINUTE.cast_signed());
    assert_eq!(launches(&fails(&mut bench, Input::Tick)), 0, "decided, and not written");
    bench.now.boot = bench.now.boot.plus_millis(5 * MINUTE + 30_000);
    bench.set_wall((5 * MINUTE + 30_000).cast_signed());
    let effects = fails(&mut bench, asked(ScheduleChange::Pause));
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    let _ = fails(&mut bench, asked(ScheduleChange::Resume));
    let _ = fails(&mut bench, Input::Tick);
    let at = bench.engine.next_deadline().expect("it is tried again");
    assert_eq!(at, bench.now.boot.plus_millis(1_000), "and no sooner");
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!(launches(&effects), 1, "what was decided is done");
    let _ = bench.turn(vec![Input::Tick]);
    let found = bench.occurrences();
    assert_eq!((found[0].0, found.last().map(|last| last.0)), (1, Some(6)), "{found:?}");
}

#[test]
fn a_commit_that_failed_and_left_nothing_holds_up_no_schedule() {
    let mut bench = Bench::scheduled(|_| {});
    let mut turn = bench.engine.begin_turn();
    bench.engine.handle(bench.submission("other"), bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    assert!(bench.pass(1_000).is_empty(), "there is nothing to try again");
    let due = bench.now.boot.plus_millis(MINUTE - 1_000);
    assert_eq!(bench.engine.next_deadline(), Some(due));
    assert_eq!(launches(&bench.pass(MINUTE - 1_000)), 1);
}

#[test]
fn a_schedule_whose_times_are_not_known_waits_for_an_owner_that_knows_them() {
    let mut bench = Bench::scheduled(|_| {});
    let _ = bench.succeed();
    let schedule = bench.stored().expect("a schedule");
    bench.engine.restore_schedules(vec![KnownSchedule { schedule, calendar: None }], bench.now);
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    let _ = bench.commit(turn);
    assert!(bench.pass(3 * MINUTE + 30_000).is_empty() && bench.occurrences().is_empty());
    bench.next_owner();
    assert_eq!(bench.found(), [(3, Status::Cancelled)], "and then all is said");
}
