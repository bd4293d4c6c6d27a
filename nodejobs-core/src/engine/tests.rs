//! The engine against the in-memory store, with a backend made of the test's own reports.

mod any_order;
mod awaiting;
mod dependencies;
mod found;
mod moves;
mod places;
mod queues;
mod requests;
mod restarts;
mod retries;
mod schedules;
mod simulation;
mod starts;
mod time;

use super::*;
use crate::backend::fake::{Call, FakeBackend};
use crate::backend::{BackendEvent, ProcessBackend, StartFailure, StartFailureKind, TreeMember};
use crate::job::{ExitStatus, JobState, ResourceUsage};
use crate::logs::LogStart;
use crate::spec::{Command, JobSpec, Start};
use crate::status::Reason;
use crate::store::memory::MemoryStore;
use crate::store::{JobStore, Order, PageRequest};
use crate::time::Timestamp;

struct Bench {
    engine: Engine,
    store: MemoryStore,
    now: Moment,
}

impl Bench {
    fn new() -> Self {
        let wall = Timestamp::from_millis(1_784_000_000_000);
        Self {
            engine: Engine::new(1),
            store: MemoryStore::new(),
            now: Moment { wall, boot: BootTime(1_000) },
        }
    }

    fn turn(&mut self, inputs: Vec<Input>) -> Vec<Effect> {
        let mut turn = self.engine.begin_turn();
        for input in inputs {
            self.engine.handle(input, self.now, &mut turn);
        }
        self.commit(turn)
    }

    fn commit(&mut self, turn: Turn) -> Vec<Effect> {
        let outcomes = self.store.commit(&turn.units).expect("memory does not fail");
        self.engine.settle(turn, Some(&outcomes), self.now).expect("nobody else writes")
    }

    fn submission(&self, id: &str) -> Input {
        self.submission_with_key(id, None)
    }

    fn submission_with_key(&self, id: &str, key: Option<&str>) -> Input {
        let id = JobId::new(id).expect("valid");
        let mut spec = JobSpec::new(Command::argv(["true"]), "/");
        spec.submit_key = key.map(str::to_owned);
        self.submission_of(&id, &spec)
    }

    fn submission_of(&self, id: &JobId, spec: &JobSpec) -> Input {
        Input::Submit(Box::new(Submission {
            ticket: 1,
            definition: Definition::new(spec, "/logs".into(), self.now.wall),
            context: Vec::new(),
            input: None,
            existing: self.store.job(id).expect("memory does not fail"),
            ended: EndedJobs::new(),
            unique: None,
            id: Some(id.clone()),
            array: None,
        }))
    }

    /// A submission of job `a` by a spec that was changed so.
    fn submission_with(&self, change: impl FnOnce(&mut JobSpec)) -> Input {
        let mut spec = JobSpec::new(Command::argv(["true"]), "/");
        change(&mut spec);
        self.submission_of(&id("a"), &spec)
    }

    fn job(&self, name: &str) -> Job {
        self.store.job(&id(name)).expect("memory does not fail").expect("it exists")
    }

    fn restart(&self, name: &str) -> Input {
        self.restart_with_key(name, &format!("restart of {}", self.state(name).attempt))
    }

    fn restart_with_key(&self, name: &str, key: &str) -> Input {
        Input::Restart(Box::new(Restart {
            ticket: 3,
            job: self.job(name),
            submit_key: key.to_owned(),
            request: StopRequest::default(),
            array: None,
        }))
    }

    fn remove(&self, name: &str) -> Input {
        let job = self.job(name);
        let (logs, inputs) = (vec![job.log_paths()], vec![format!("{name}/1")]);
        Input::Remove(Box::new(Removal { ticket: 4, job, logs, inputs }))
    }

    /// A later owner, with what the earlier one left; gives what it wants to know of the backend.
    fn succeed(&mut self) -> Vec<KnownAttempt> {
        let live = PageRequest {
            filter: Default::default(),
            order: Order::OldestFirst,
            after: None,
            limit: usize::MAX,
        };
        let mut jobs = self.store.jobs(&live).expect("memory").jobs;
        jobs.retain(|job| !job.state.status.is_terminal());
        self.engine = Engine::new(2);
        let last_event = self.store.counters().expect("memory").last_event;
        self.engine.restore(jobs, Default::default(), last_event, self.now)
    }

    /// Goes to the next deadline and lets it happen.
    fn wait_for_timer(&mut self) -> Vec<Effect> {
        let at = self.engine.next_deadline().expect("something is due");
        let passed = at.millis_since(self.now.boot);
        self.now.boot = at;
        self.now.wall = Timestamp::from_millis(self.now.wall.as_millis() + passed.cast_signed());
        self.turn(vec![Input::Tick])
    }

    fn state(&self, id: &str) -> JobState {
        self.job(id).state
    }

    fn started(&self, id: &str) -> Input {
        report(id, 1, started_at(self.now))
    }

    fn exited(&self, id: &str, code: i32, leftovers: bool) -> Input {
        let exit = ExitStatus::Code(code);
        report(id, 1, BackendEvent::Exited { exit, usage: None, at: self.now, leftovers: left(leftovers) })
    }

    fn stop(&self, id: &str) -> Input {
        Input::Stop { ticket: 2, id: JobId::new(id).expect("valid"), request: StopRequest::default() }
    }

    fn running(id: &str) -> Self {
        let mut bench = Self::new();
        let _ = bench.turn(vec![bench.submission(id)]);
        let _ = bench.turn(vec![bench.started(id)]);
        assert_eq!(bench.state(id).status, Status::Running);
        bench
    }
}

fn id(name: &str) -> JobId {
    JobId::new(name).expect("valid")
}

fn started_at(at: Moment) -> BackendEvent {
    BackendEvent::Started { process: process(), log_start: LogStart { stdout: 5, stderr: 0 }, at }
}

fn left(any: bool) -> Option<Vec<TreeMember>> {
    Some(any.then(|| TreeMember { pid: 9, name: "sleep".to_owned() }).into_iter().collect())
}

fn report(id: &str, attempt: u32, event: BackendEvent) -> Input {
    let attempt = AttemptId { id: JobId::new(id).expect("valid"), attempt };
    let receipt = Some(Receipt { source: "keeper".to_owned(), position: 7 });
    Input::Report(BackendReport { attempt, event, receipt })
}

fn process() -> Process {
    Process { handle: "p".to_owned(), pid: Some(42) }
}

fn tree_ended(id: &str, killed: bool, survivors: Vec<TreeMember>) -> Input {
    report(id, 1, BackendEvent::TreeEnded { killed, ended: Vec::new(), survivors, usage: None })
}

fn not_started(id: &str, kind: StartFailureKind, now: Moment) -> Input {
    let failure = StartFailure { kind, detail: "why".to_owned() };
    report(id, 1, BackendEvent::NotStarted { failure, at: now })
}

fn answers(effects: &[Effect]) -> Vec<&Answer> {
    let replies = effects.iter().filter_map(|effect| match effect {
        Effect::Reply { answer, .. } => Some(answer),
        _ => None,
    });
    replies.collect()
}

fn launches(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Launch(_))).count()
}

#[test]
fn a_job_goes_from_submit_to_finished_and_the_exit_is_acknowledged_after_its_commit() {
    let mut bench = Bench::new();
    let effects = bench.turn(vec![bench.submission("a")]);
    assert_eq!((launches(&effects), bench.state("a").status), (1, Status::Starting));
    let _ = bench.turn(vec![bench.started("a")]);
    assert_eq!(bench.state("a").status, Status::Running);
    let effects = bench.turn(vec![bench.exited("a", 0, false)]);
    assert_eq!(bench.state("a").status, Status::Finished);
    assert!(matches!(effects.as_slice(), [Effect::Acknowledge(receipts)] if receipts[0].position == 7));
    assert_eq!(bench.engine.live_jobs(), 0);
}

#[test]
fn the_exit_decides_the_status() {
    let cases = [
        (ExitStatus::Code(0), Status::Finished, None),
        (ExitStatus::Code(3), Status::Failed, Some(Reason::Exit)),
        (ExitStatus::Signal { number: 11, core_dumped: true }, Status::Failed, Some(Reason::Signal)),
    ];
    for (exit, status, reason) in cases {
        let mut bench = Bench::running("a");
        let event = BackendEvent::Exited { exit, usage: None, at: bench.now, leftovers: left(false) };
        let _ = bench.turn(vec![report("a", 1, event)]);
        let state = bench.state("a");
        assert_eq!((state.status, state.reason, state.exit), (status, reason, Some(exit)));
    }
}

#[test]
fn started_and_exited_in_one_turn_are_both_events() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a")]);
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 0, false)]);
    let statuses: Vec<_> =
        bench.store.events(0, 10).expect("memory").into_iter().map(|event| event.status).collect();
    assert_eq!(statuses, [Status::Starting, Status::Running, Status::Finished]);
}

#[test]
fn a_live_id_is_refused_also_within_one_turn_and_an_ended_one_gets_a_second_attempt() {
    let mut bench = Bench::new();
    let effects = bench.turn(vec![bench.submission("a"), bench.submission("a")]);
    assert_eq!(launches(&effects), 1);
    let refused = Answer::Conflict { status: Some(Status::Starting) };
    assert!(answers(&effects).contains(&&refused), "{effects:?}");
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 3, false)]);
    let effects = bench.turn(vec![bench.submission("a")]);
    assert_eq!((launches(&effects), bench.state("a").attempt), (1, 2));
    let attempts = bench.store.attempts(&JobId::new("a").expect("valid")).expect("memory");
    assert_eq!(
        attempts.iter().map(|job| job.state.status).collect::<Vec<_>>(),
        [Status::Failed, Status::Starting]
    );
}

#[test]
fn a_submit_that_is_sent_twice_is_one_job() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission_with_key("a", Some("k"))]);
    let effects = bench.turn(vec![bench.submission_with_key("a", Some("k"))]);
    assert!(matches!(answers(&effects).as_slice(), [Answer::Accepted(_)]));
    let _ = bench.turn(vec![bench.started("a"), bench.exited("a", 0, false)]);
    let effects = bench.turn(vec![bench.submission_with_key("a", Some("k"))]);
    assert!(matches!(answers(&effects).as_slice(), [Answer::Accepted(_)]));
    assert_eq!((launches(&effects), bench.state("a").attempt), (0, 1));
}

#[test]
fn a_start_that_fails_for_good_and_one_that_finds_no_room() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a"), bench.submission("b")]);
    let exec = StartFailureKind::Permanent(Reason::Exec);
    let _ = bench
        .turn(vec![not_started("a", exec, bench.now), not_started("b", StartFailureKind::NoRoom, bench.now)]);
    assert_eq!((bench.state("a").status, bench.state("a").reason), (Status::FailedStart, Some(Reason::Exec)));
    assert_eq!((bench.state("b").status, bench.state("b").attempt), (Status::Queued, 1));
    bench.now.boot = bench.engine.next_deadline().expect("it is tried again");
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!((launches(&effects), bench.state("b").status), (1, Status::Starting));
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn stop_waits_for_the_exit_and_the_tree_in_either_order() {
    for exit_first in [true, false] {
        let mut bench = Bench::running("a");
        let effects = bench.turn(vec![bench.stop("a")]);
        let [Effect::Reply { .. }, Effect::EndTree { plan, .. }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!((plan.signal, plan.deadline), (Signal::TERM, bench.now.boot.plus_millis(5_000)));
        let mut last = vec![bench.exited("a", 143, false), tree_ended("a", true, Vec::new())];
        if !exit_first {
            last.reverse();
        }
        for input in last {
            assert_eq!(bench.state("a").status, Status::Stopping);
            let _ = bench.turn(vec![input]);
        }
        let state = bench.state("a");
        assert_eq!((state.status, state.detail.as_deref()), (Status::Stopped, Some("killed")));
        assert_eq!(state.exit, Some(ExitStatus::Code(143)));
    }
}

#[test]
fn a_stop_before_the_start_reaches_the_process_that_starts_all_the_same() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![bench.submission("a"), bench.stop("a")]);
    assert_eq!(bench.state("a").status, Status::Stopping);
    let effects = bench.turn(vec![bench.started("a")]);
    assert!(matches!(effects.first(), Some(Effect::EndTree { process: Some(_), .. })), "{effects:?}");
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", false, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Stopped);

    let _ = bench.turn(vec![bench.submission("b"), bench.stop("b")]);
    let _ = bench.turn(vec![not_started("b", StartFailureKind::CalledOff, bench.now)]);
    assert_eq!(bench.state("b").status, Status::Stopped);
}

#[test]
fn survivors_make_a_failed_stop_until_they_are_gone() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![bench.stop("a")]);
    let survivor = TreeMember { pid: 77, name: "stuck".to_owned() };
    let _ = bench.turn(vec![bench.exited("a", 0, false), tree_ended("a", true, vec![survivor])]);
    let state = bench.state("a");
    assert_eq!(state.status, Status::FailedStop);
    assert!(state.detail.is_some_and(|detail| detail.contains("77 (stuck)")));
    let _ = bench.turn(vec![tree_ended("a", true, Vec::new())]);
    assert_eq!(bench.state("a").status, Status::Stopped);
}

#[test]
fn leftovers_are_ended_before_the_last_word_and_the_exit_is_on_disk_meanwhile() {
    let mut bench = Bench::running("a");
    let effects = bench.turn(vec![bench.exited("a", 7, true)]);
    // In this order: the keeper may leave with the acknowledgement, and what is left is a child of it until then.
    assert!(matches!(&effects[..], [Effect::EndTree { .. }, Effect::Acknowledge(_)]), "{effects:?}");
    let state = bench.state("a");
    assert_eq!((state.status, state.exit), (Status::Running, Some(ExitStatus::Code(7))));
    let ended = vec![TreeMember { pid: 9, name: "sleep".to_owned() }];
    let usage = Some(ResourceUsage { cpu_ms: 7, peak_memory_kib: 9 });
    let event = BackendEvent::TreeEnded { killed: false, ended, survivors: Vec::new(), usage };
    let _ = bench.turn(vec![report("a", 1, event)]);
    let state = bench.state("a");
    assert_eq!(
        state.usage, usage,
        "what all of it has used takes the place of what was known of the main process"
    );
    assert_eq!((state.status, state.reason), (Status::Failed, Some(Reason::Exit)));
    assert_eq!(state.detail.as_deref(), Some("also ended: 9 (sleep)"));
}

#[test]
fn a_failed_commit_refuses_new_jobs_keeps_facts_and_launches_nothing() {
    let mut bench = Bench::running("old");
    let mut turn = bench.engine.begin_turn();
    for input in [bench.submission("new"), bench.exited("old", 0, false)] {
        bench.engine.handle(input, bench.now, &mut turn);
    }
    let effects = bench.engine.settle(turn, None, bench.now).expect("a failed commit is no inconsistency");
    assert_eq!(answers(&effects), [&Answer::NotStored]);
    assert_eq!(effects.len(), 1, "nothing is launched or acknowledged: {effects:?}");
    bench.now.boot = bench.engine.next_deadline().expect("it is tried again");
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!(bench.state("old").status, Status::Finished);
    assert!(matches!(effects.as_slice(), [Effect::Acknowledge(_)]), "{effects:?}");
    assert_eq!(bench.engine.next_deadline(), None);
    assert!(bench.store.job(&JobId::new("new").expect("valid")).expect("memory").is_none());
}

#[test]
fn a_job_that_fills_the_disk_can_be_stopped() {
    let mut bench = Bench::running("a");
    let mut turn = bench.engine.begin_turn();
    bench.engine.handle(bench.stop("a"), bench.now, &mut turn);
    let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::EndTree { .. })), "{effects:?}");
}

#[test]
fn a_new_owner_goes_on_where_the_old_one_was() {
    let mut bench = Bench::new();
    for id in ["starting", "running", "stopping", "swept", "never"] {
        let _ = bench.turn(vec![bench.submission(id)]);
    }
    let _ = bench.turn(["running", "stopping", "swept"].map(|id| bench.started(id)).into());
    let _ = bench.turn(vec![bench.stop("stopping"), bench.exited("swept", 4, true)]);

    let known = bench.succeed();
    assert_eq!(known.len(), 5);
    let mut turn = bench.engine.begin_turn();
    let answers = [
        bench.started("starting"),
        report("never", 1, BackendEvent::NeverLaunched),
        bench.exited("running", 7, false),
    ];
    let reports = answers.into_iter().filter_map(|input| match input {
        Input::Report(report) => Some(report),
        _ => None,
    });
    let backend = FakeBackend::recovering(reports.collect());
    for report in backend.recover(&known).expect("a fake does not fail") {
        bench.engine.handle(Input::Report(report), bench.now, &mut turn);
    }
    assert_eq!(backend.take_calls(), [Call::Recover(known)]);
    bench.engine.resume(bench.now, &mut turn);
    let effects = bench.commit(turn);
    assert_eq!(launches(&effects), 1);
    let ended = |wanted: &str| {
        let is_it = |effect: &&Effect| matches!(effect, Effect::EndTree { attempt, .. } if attempt.id.as_str() == wanted);
        effects.iter().filter(is_it).count()
    };
    assert_eq!((ended("stopping"), ended("swept"), ended("starting")), (1, 1, 0));
    assert_eq!(bench.state("starting").status, Status::Running);
    assert_eq!(bench.state("running").exit, Some(ExitStatus::Code(7)));
    assert_eq!(bench.state("never").status, Status::Starting);
}

#[test]
fn a_live_job_is_small() {
    // With what it has on the heap it is to have no more than a KiB.
    assert!(std::mem::size_of::<(JobId, Live)>() <= 700, "{}", std::mem::size_of::<(JobId, Live)>());
}

#[test]
fn what_a_lost_job_has_left_is_ended_first_unless_the_machine_restarted() {
    let lost = |bench: &Bench, reason| report("a", 1, BackendEvent::Lost { reason, at: bench.now });
    let ends =
        |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::EndTree { .. })).count();
    let mut bench = Bench::running("a");
    assert_eq!(ends(&bench.turn(vec![lost(&bench, Reason::Reboot)])), 0);
    assert_eq!((bench.state("a").status, bench.state("a").reason), (Status::Lost, Some(Reason::Reboot)));

    for stopped in [false, true] {
        let mut bench = Bench::running("a");
        if stopped {
            let _ = bench.turn(vec![bench.stop("a")]);
        }
        let effects = bench.turn(vec![lost(&bench, Reason::Unknown)]);
        assert_eq!(ends(&effects), usize::from(!stopped), "once");
        assert!(!bench.state("a").status.is_terminal() && bench.state("a").ended.is_some());
        // Whoever is killed in between has somebody who goes on.
        assert!(bench.succeed()[0].ended);
        let mut turn = bench.engine.begin_turn();
        bench.engine.resume(bench.now, &mut turn);
        assert_eq!(ends(&bench.commit(turn)), 1);
        let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
        let state = bench.state("a");
        assert_eq!((state.status, state.reason), (Status::Lost, Some(Reason::Unknown)), "stopped: {stopped}");
    }
}

#[test]
fn the_tree_of_an_attempt_lost_without_a_process_is_ended_before_anything_follows() {
    let lost = |bench: &Bench| report("a", 1, BackendEvent::Lost { reason: Reason::Unknown, at: bench.now });
    let ends =
        |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::EndTree { .. })).count();
    let starting = |stopped: bool| {
        let mut bench = Bench::new();
        let input = bench.submission("a");
        let _ = bench.turn(vec![input]);
        if stopped {
            let _ = bench.turn(vec![bench.stop("a")]);
        }
        let lost = lost(&bench);
        assert_eq!(ends(&bench.turn(vec![lost])), 1, "also if it was only called off before");
        assert!(!bench.state("a").status.is_terminal());
        bench
    };
    for stopped in [false, true] {
        let mut bench = starting(stopped);
        assert!(bench.succeed()[0].ended);
        let mut turn = bench.engine.begin_turn();
        bench.engine.resume(bench.now, &mut turn);
        assert_eq!(ends(&bench.commit(turn)), 1, "the next owner goes on");
        let _ = bench.turn(vec![tree_ended("a", false, Vec::new())]);
        assert_eq!((bench.state("a").status, bench.state("a").reason), (Status::Lost, Some(Reason::Unknown)));

        // A later report proves that it was not executed.
        let mut bench = starting(stopped);
        let effects = bench.turn(vec![report("a", 1, BackendEvent::NeverLaunched)]);
        let (status, launched) = if stopped { (Status::Stopped, 0) } else { (Status::Starting, 1) };
        assert_eq!((bench.state("a").status, launches(&effects)), (status, launched));

        let mut bench = starting(stopped);
        let started = bench.started("a");
        assert_eq!(ends(&bench.turn(vec![started])), 1, "now by its process");
        let effects = bench.turn(vec![report("a", 1, BackendEvent::NeverLaunched)]);
        assert_eq!(launches(&effects), 0, "it is not launched beside itself");
        let _ = bench.turn(vec![tree_ended("a", true, Vec::new())]);
        let state = bench.state("a");
        assert_eq!((state.status, state.process.is_some()), (Status::Lost, true));
    }
}

#[test]
fn a_stop_does_not_overtake_a_launch_that_waits_for_the_store() {
    let mut bench = Bench::new();
    let no_room = not_started("a", StartFailureKind::NoRoom, bench.now);
    let _ = bench.turn(vec![bench.submission("a"), no_room]);
    bench.now.boot = bench.engine.next_deadline().expect("tried again");
    for input in [Input::Tick, bench.stop("a")] {
        let mut turn = bench.engine.begin_turn();
        bench.engine.handle(input, bench.now, &mut turn);
        let effects = bench.engine.settle(turn, None, bench.now).expect("no inconsistency");
        let to_backend = |effect: &Effect| matches!(effect, Effect::Launch(_) | Effect::EndTree { .. });
        assert!(!effects.iter().any(to_backend), "{effects:?}");
    }
    let effects = bench.turn(Vec::new());
    assert!(matches!(effects.as_slice(), [Effect::Launch(_), Effect::EndTree { .. }]), "{effects:?}");
    assert_eq!(bench.state("a").status, Status::Stopping);
}

#[test]
fn a_paused_job_whose_tree_is_being_ended_is_not_halted_by_the_next_owner() {
    let mut bench = Bench::running("a");
    let _ = bench.turn(vec![Input::Pause { ticket: 5, id: id("a") }]);
    let _ = bench.succeed();
    let mut turn = bench.engine.begin_turn();
    let exited = bench.exited("a", 0, true);
    bench.engine.handle(exited, bench.now, &mut turn);
    bench.engine.resume(bench.now, &mut turn);
    let effects = bench.commit(turn);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::EndTree { .. })), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })), "{effects:?}");
}
