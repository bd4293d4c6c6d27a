//! Jobs that wait for the ends of others.

use super::*;
use crate::array::{Content, Which, next_attempt};
use crate::job::{Array, WaitingOn};
use crate::spec::{After, Condition, Dependency, Elements, Range, Retry, Unmet};

pub(super) fn after(on: &[(&str, Condition)], unmet: Unmet) -> After {
    let on = on.iter().map(|(name, condition)| Dependency { id: id(name), condition: *condition });
    After { on: on.collect(), unmet }
}

fn on_success(names: &[&str]) -> After {
    let on: Vec<_> = names.iter().map(|name| (*name, Condition::Success)).collect();
    after(&on, Unmet::Cancel)
}

impl Bench {
    /// How those of these have ended that are not live, as an owner would look it up.
    pub(super) fn ended(&self, after: &After) -> EndedJobs {
        let not_live = after.on.iter().filter(|dependency| !self.engine.is_live(&dependency.id));
        let stored = not_live.filter_map(|dependency| self.store.job(&dependency.id).expect("memory"));
        stored.map(|job| (job.id, Ended::new(&job.state))).collect()
    }

    pub(super) fn submission_after(
        &self,
        name: &str,
        after: After,
        change: impl FnOnce(&mut JobSpec),
    ) -> Input {
        let mut spec = JobSpec::new(Command::argv(["true"]), "/");
        change(&mut spec);
        let Input::Submit(mut submission) = self.submission_of(&id(name), &spec) else { unreachable!() };
        submission.ended = self.ended(&after);
        submission.definition.after = Some(after);
        Input::Submit(submission)
    }

    fn submit_after(&mut self, name: &str, after: After) -> Vec<Effect> {
        let input = self.submission_after(name, after, |_| {});
        self.turn(vec![input])
    }

    fn submit(&mut self, name: &str) {
        let _ = self.turn(vec![self.submission(name)]);
    }

    /// The newest attempt of a job that was launched runs and ends so.
    pub(super) fn ends(&mut self, name: &str, code: i32) -> Vec<Effect> {
        self.ends_by(name, ExitStatus::Code(code))
    }

    pub(super) fn ends_by(&mut self, name: &str, exit: ExitStatus) -> Vec<Effect> {
        let attempt = self.state(name).attempt;
        let ended = BackendEvent::Exited { exit, usage: None, at: self.now, leftovers: left(false) };
        let began = report(name, attempt, started_at(self.now));
        self.turn(vec![began, report(name, attempt, ended)])
    }

    /// A later owner that has taken over.
    pub(super) fn succeed_and_resume(&mut self) -> Vec<Effect> {
        let _ = self.succeed();
        let awaited = self.engine.awaited_ended_jobs();
        let stored = awaited.iter().filter_map(|id| self.store.job(id).expect("memory"));
        let ended = stored.map(|job| (job.id, Ended::new(&job.state))).collect();
        self.engine.know_ended(ended);
        let mut turn = self.engine.begin_turn();
        self.engine.resume(self.now, &mut turn);
        self.commit(turn)
    }

    fn depend(&self, name: &str, after: Option<After>) -> Input {
        let ended = after.as_ref().map_or_else(EndedJobs::new, |after| self.ended(after));
        Input::Depend(Box::new(NewDependencies { ticket: 5, job: self.job(name), after, ended }))
    }

    fn waiting_on(&self, name: &str) -> Option<WaitingOn> {
        self.state(name).waiting_on
    }
}

pub(super) fn launched(effects: &[Effect]) -> Vec<String> {
    effects.iter().filter_map(Effect::launched).map(|attempt| attempt.id.to_string()).collect()
}

#[test]
fn a_diamond_goes_from_top_to_bottom_in_the_commits_of_the_ends_whoever_the_owner_is() {
    for succeeds in [false, true] {
        let mut bench = Bench::new();
        bench.submit("top");
        let _ = bench.submit_after("left", on_success(&["top"]));
        let _ = bench.submit_after("right", on_success(&["top"]));
        let _ = bench.submit_after("bottom", on_success(&["left", "right"]));
        let state = bench.state("bottom");
        assert_eq!((state.status, state.waiting_on), (Status::Queued, Some(WaitingOn::Dependency)));
        assert_eq!(bench.engine.next_deadline(), None, "nothing wakes for those who wait");
        assert_eq!(launched(&bench.ends("top", 0)), ["left", "right"]);
        assert_eq!(launched(&bench.ends("left", 0)), [""; 0]);
        assert_eq!(bench.engine.waits_for(&id("bottom")).len(), 1);
        if succeeds {
            assert_eq!(launched(&bench.succeed_and_resume()), [""; 0]);
            assert_eq!(bench.engine.waits_for(&id("bottom")).len(), 1);
        }
        assert_eq!(launched(&bench.ends("right", 0)), ["bottom"]);
        let _ = bench.ends("bottom", 0);
        assert_eq!(bench.engine.live_jobs(), 0);
        assert!(!bench.engine.dependencies.is_awaited(&id("top")), "nothing is kept of it");
    }
}

#[test]
fn what_cannot_start_any_more_is_cancelled_and_names_who_is_to_blame() {
    let mut bench = Bench::new();
    bench.submit("a");
    let _ = bench.submit_after("b", on_success(&["a"]));
    let _ = bench.submit_after("c", on_success(&["b"]));
    let _ = bench.submit_after("d", after(&[("c", Condition::Any)], Unmet::Cancel));
    let _ = bench.submit_after("e", after(&[("a", Condition::Failure)], Unmet::Cancel));
    assert_eq!(launched(&bench.ends("a", 3)), ["e", "d"], "in one commit, in the order in which they may");
    let state = bench.state("b");
    assert_eq!((state.status, state.reason), (Status::Cancelled, Some(Reason::Dependency)));
    assert_eq!(state.detail.as_deref(), Some("'a' failed, exit code 3, and was to succeed"));
    let detail = bench.state("c").detail.expect("why");
    assert_eq!(detail, "'b' was to succeed and was cancelled, as 'a' failed, exit code 3");
    // Who comes later is told as well, and it is on record.
    let effects = bench.submit_after("f", on_success(&["b"]));
    assert!(matches!(answers(&effects)[..], [Answer::Accepted(_)]), "{effects:?}");
    let state = bench.state("f");
    assert_eq!((state.status, state.reason), (Status::Cancelled, Some(Reason::Dependency)));
    assert_eq!(state.detail.as_deref(), Some("'b' was cancelled, and was to succeed"));
}

#[test]
fn who_is_stopped_was_to_succeed_and_who_succeeds_was_to_fail() {
    let mut bench = Bench::new();
    bench.submit("a");
    let _ = bench.submit_after("w", after(&[("a", Condition::Failure)], Unmet::Cancel));
    let _ = bench.submit_after("x", on_success(&["w"]));
    let _ = bench.submit_after("y", on_success(&["x"]));
    let _ = bench.turn(vec![bench.stop("x")]);
    assert_eq!(bench.state("x").reason, Some(Reason::User));
    assert_eq!(bench.state("y").detail.as_deref(), Some("'x' was cancelled, and was to succeed"));
    let _ = bench.ends("a", 0);
    assert_eq!(bench.state("w").detail.as_deref(), Some("'a' finished, exit code 0, and was to fail"));
}

#[test]
fn who_waits_for_what_has_ended_already_starts_at_once() {
    let mut bench = Bench::running("a");
    let _ = bench.ends("a", 0);
    assert_eq!(launched(&bench.submit_after("b", on_success(&["a"]))), ["b"]);
    assert_eq!(
        bench.store.events(0, 99).expect("memory").iter().filter(|e| e.attempt.id == id("b")).count(),
        1
    );
}

#[test]
fn whoever_wants_to_waits_until_it_is_run_again() {
    let mut bench = Bench::new();
    bench.submit("a");
    let _ = bench.submit_after("b", after(&[("a", Condition::Success)], Unmet::Wait));
    let _ = bench.ends("a", 1);
    assert_eq!(bench.waiting_on("b"), Some(WaitingOn::Dependency));
    let _ = bench.succeed_and_resume();
    assert_eq!(bench.waiting_on("b"), Some(WaitingOn::Dependency));
    // It cannot be forgotten meanwhile.
    let effects = bench.turn(vec![bench.remove("a")]);
    assert_eq!(answers(&effects), [&Answer::Needed { by: id("b") }]);
    let _ = bench.turn(vec![bench.restart("a")]);
    assert_eq!(launched(&bench.ends("a", 0)), ["b"]);
    let effects = bench.turn(vec![bench.remove("a")]);
    assert_eq!(answers(&effects), [&Answer::Removed(id("a"))]);
}

#[test]
fn what_is_gone_had_met_its_condition_and_what_is_run_again_is_waited_for_again() {
    let mut bench = Bench::new();
    ["a", "b"].iter().for_each(|name| bench.submit(name));
    let _ = bench.submit_after("c", on_success(&["a", "b"]));
    let _ = bench.ends("a", 0);
    let _ = bench.turn(vec![bench.remove("a")]);
    let _ = bench.succeed_and_resume();
    assert_eq!(bench.engine.waits_for(&id("c")).len(), 1);
    bench.submit("a");
    assert_eq!(bench.engine.waits_for(&id("c")).len(), 2);
    assert_eq!(launched(&bench.ends("b", 0)), [""; 0]);
    assert_eq!(launched(&bench.ends("a", 0)), ["c"]);
}

#[test]
fn time_comes_first_and_a_failure_meanwhile_does_not_wait_for_it() {
    let mut bench = Bench::new();
    bench.submit("a");
    let later = |spec: &mut JobSpec| spec.start = Start::AfterMs(5_000);
    for (name, condition) in [("b", Condition::Success), ("c", Condition::Any)] {
        let input = bench.submission_after(name, after(&[("a", condition)], Unmet::Cancel), later);
        let _ = bench.turn(vec![input]);
        assert_eq!(bench.waiting_on(name), Some(WaitingOn::Time));
    }
    let _ = bench.ends("a", 1);
    assert_eq!(bench.state("b").status, Status::Cancelled);
    assert_eq!(launched(&bench.wait_for_timer()), ["c"]);

    let mut bench = Bench::new();
    bench.submit("a");
    let input = bench.submission_after("b", on_success(&["a"]), later);
    let _ = bench.turn(vec![input]);
    assert_eq!(launched(&bench.wait_for_timer()), [""; 0]);
    assert_eq!((bench.waiting_on("b"), bench.engine.next_deadline()), (Some(WaitingOn::Dependency), None));
    assert_eq!(launched(&bench.ends("a", 0)), ["b"]);
}

#[test]
fn who_restarts_what_waits_has_it_wait_no_longer() {
    let mut bench = Bench::new();
    bench.submit("a");
    let _ = bench.submit_after("b", on_success(&["a"]));
    assert_eq!(launched(&bench.turn(vec![bench.restart("b")])), ["b"]);
    let _ = bench.ends("a", 1);
    assert_eq!(bench.state("b").status, Status::Starting);
    // And its next attempt begins at once.
    let _ = bench.ends("b", 0);
    assert_eq!(launched(&bench.turn(vec![bench.restart("b")])), ["b"]);
    assert_eq!(bench.job("b").definition.after, None);
}

#[test]
fn between_two_attempts_nothing_has_ended() {
    let mut bench = Bench::new();
    let retry = Retry { retries: 1, ..Retry::default() };
    let _ = bench.turn(vec![bench.submission_with(|spec| *spec = spec.clone().retry(retry))]);
    let _ = bench.submit_after("b", on_success(&["a"]));
    let _ = bench.ends("a", 1);
    assert_eq!((bench.state("a").status, bench.state("b").status), (Status::Restarting, Status::Queued));
    let _ = bench.wait_for_timer();
    let _ = bench.turn(vec![report("a", 2, started_at(bench.now)), bench.restart("a")]);
    let ended = tree_ended("a", false, Vec::new());
    let Input::Report(ended) = ended else { unreachable!() };
    let exit = BackendEvent::Exited {
        exit: ExitStatus::Code(0),
        usage: None,
        at: bench.now,
        leftovers: left(false),
    };
    let ended = BackendReport { attempt: AttemptId { id: id("a"), attempt: 2 }, ..ended };
    let _ = bench.turn(vec![report("a", 2, exit), Input::Report(ended)]);
    assert_eq!((bench.state("a").attempt, bench.state("b").status), (3, Status::Queued), "it was restarted");
    assert_eq!(launched(&bench.ends("a", 0)), ["b"]);
}

#[test]
fn a_circle_is_refused_with_the_way_round() {
    let mut bench = Bench::new();
    bench.submit("a");
    let waits = |name| after(&[(name, Condition::Success)], Unmet::Wait);
    let _ = bench.submit_after("b", waits("a"));
    let _ = bench.submit_after("c", waits("b"));
    let _ = bench.ends("a", 1);
    let circle = |names: &[&str]| Answer::Cycle(names.iter().map(|name| id(name)).collect());
    let effects = bench.submit_after("a", waits("c"));
    assert_eq!(answers(&effects), [&circle(&["a", "c", "b", "a"])]);
    let effects = bench.submit_after("a", waits("a"));
    assert_eq!(answers(&effects), [&circle(&["a", "a"])]);
    let _ = bench.submit_after("x", waits("a"));
    let effects = bench.turn(vec![bench.depend("b", Some(waits("c")))]);
    assert_eq!(answers(&effects), [&circle(&["b", "c", "b"])]);
    assert_eq!(bench.job("b").definition.after, Some(waits("a")), "it is as it was");
    let effects = bench.submit_after("d", waits("nobody"));
    assert_eq!(answers(&effects), [&Answer::NoDependency(id("nobody"))]);
    assert_eq!(bench.store.job(&id("d")).expect("memory"), None, "it leaves nothing");
}

#[test]
fn what_a_queued_job_waits_for_may_be_changed() {
    let mut bench = Bench::new();
    bench.engine = Engine::with_capacity(1, Capacity { max_processes: Some(2), ..Capacity::default() });
    ["a", "b", "c"].iter().for_each(|name| bench.submit(name));
    let _ = bench.submit_after("d", on_success(&["a"]));
    let effects = bench.turn(vec![bench.depend("d", Some(on_success(&["b"])))]);
    assert!(matches!(answers(&effects)[..], [Answer::Accepted(_)]), "{effects:?}");
    assert_eq!(bench.job("d").definition.after, Some(on_success(&["b"])));
    assert_eq!(bench.waiting_on("c"), Some(WaitingOn::Slot));
    // One that waits for a place gives that up.
    let _ = bench.turn(vec![bench.depend("c", Some(on_success(&["d"])))]);
    assert_eq!(bench.waiting_on("c"), Some(WaitingOn::Dependency));
    assert_eq!(launched(&bench.ends("a", 1)), [""; 0], "d does not wait for it any more, and c does for d");
    assert_eq!(launched(&bench.turn(vec![bench.depend("d", None)])), ["d"]);
    let _ = bench.ends("d", 0);
    assert_eq!(bench.state("c").status, Status::Starting);
    let effects = bench.turn(vec![bench.depend("c", None)]);
    assert_eq!(answers(&effects), [&Answer::Conflict { status: Some(Status::Starting) }]);
}

#[test]
fn what_could_not_be_stored_has_changed_nothing() {
    let mut bench = Bench::new();
    bench.submit("a");
    let _ = bench.submit_after("b", after(&[("a", Condition::Success)], Unmet::Wait));
    let _ = bench.ends("a", 1);
    // The next attempt of a is refused, and so is who would wait for it.
    let mut turn = bench.engine.begin_turn();
    for input in [bench.submission("a"), bench.submission_after("c", on_success(&["a"]), |_| {})] {
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(answers(&effects), [&Answer::NotStored; 2]);
    assert_eq!((bench.engine.live_jobs(), bench.state("b").status), (1, Status::Queued));
    let _ = bench.turn(vec![Input::Tick]);
    assert_eq!(bench.engine.waits_for(&id("b")).len(), 1);
    // A start that could not be written is written later.
    let _ = bench.turn(vec![bench.restart("a")]);
    let attempt = bench.state("a").attempt;
    let exit = BackendEvent::Exited {
        exit: ExitStatus::Code(0),
        usage: None,
        at: bench.now,
        leftovers: left(false),
    };
    let mut turn = bench.engine.begin_turn();
    for input in [report("a", attempt, started_at(bench.now)), report("a", attempt, exit)] {
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(launches(&effects), 0);
    assert_eq!(launched(&bench.turn(Vec::new())), ["b"]);
}

#[test]
fn an_edit_that_could_not_be_stored_is_not_confirmed_and_is_written_later() {
    let mut bench = Bench::new();
    ["a", "b"].iter().for_each(|name| bench.submit(name));
    let _ = bench.submit_after("c", on_success(&["a"]));
    let mut turn = bench.engine.begin_turn();
    let edit = bench.depend("c", Some(on_success(&["b"])));
    bench.engine.handle(edit, bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    let _ = bench.turn(vec![Input::Tick]);
    assert_eq!(bench.job("c").definition.after, Some(on_success(&["b"])));
    assert_eq!(launched(&bench.ends("b", 0)), ["c"]);
}

/// A chain that ends with the first one's failure, and a job that many are waited for by.
#[test]
fn ten_thousand_in_a_row_and_five_thousand_at_once_are_told_in_one_turn() {
    let begin = std::time::Instant::now();
    let mut bench = Bench::new();
    bench.submit("j0");
    let chain: Vec<Input> = (1..10_000)
        .map(|number| {
            bench.submission_after(&format!("j{number}"), on_success(&[&format!("j{}", number - 1)]), |_| {})
        })
        .collect();
    let _ = bench.turn(chain);
    let _ = bench.ends("j0", 1);
    let last = bench.state("j9999");
    assert_eq!((last.status, bench.engine.live_jobs()), (Status::Cancelled, 0));
    assert_eq!(
        last.detail.as_deref(),
        Some("'j9998' was to succeed and was cancelled, as 'j0' failed, exit code 1")
    );

    let names: Vec<String> = (0..5_000).map(|number| format!("k{number}")).collect();
    let inputs = names.iter().map(|name| bench.submission(name)).collect();
    let _ = bench.turn(inputs);
    let _ = bench.submit_after("all", on_success(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let _ = bench.succeed_and_resume();
    for name in &names {
        assert_eq!(bench.state("all").status, Status::Queued);
        let _ = bench.ends(name, 0);
    }
    assert_eq!((bench.state("all").status, bench.engine.live_jobs()), (Status::Starting, 1));
    println!("{:?}", begin.elapsed());
}

#[test]
fn a_restart_of_an_array_that_could_not_be_stored_has_met_nothing() {
    let mut bench = Bench::new();
    let elements = Elements::Range(Range { first: 1, last: 1, step: 1 });
    let mut submission = bench.submission("many");
    if let Input::Submit(submission) = &mut submission {
        submission.definition.array =
            Some(Array { size: 1, fail_fast: false, max_running: None, on_done: None });
        submission.array = Some(Box::new(Content::new(elements, 1)));
    }
    let _ = bench.turn(vec![submission]);
    let _ = bench.submit_after("b", after(&[("many", Condition::Success)], Unmet::Wait));
    let _ = bench.submit_after("c", after(&[("many.1", Condition::Success)], Unmet::Wait));
    let _ = bench.ends("many.1", 1);
    assert_eq!(bench.state("many").status, Status::Failed);
    let job = bench.job("many");
    let content = next_attempt(&bench.store, &job, Which::All).expect("memory");
    let restart = Restart {
        ticket: 7,
        job,
        submit_key: "again".to_owned(),
        request: StopRequest::default(),
        array: Some(Box::new(content)),
    };
    let mut turn = bench.engine.begin_turn();
    bench.engine.handle(Input::Restart(Box::new(restart)), bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("nobody else writes");
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!((launches(&effects), bench.engine.waits_for(&id("b")).len()), (0, 1));
    assert_eq!(bench.engine.waits_for(&id("c")).len(), 1, "of an element as well");
}
