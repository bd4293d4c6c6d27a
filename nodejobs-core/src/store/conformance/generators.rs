//! Jobs, changes and questions by chance.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{DocumentChange, DocumentKind, Order, PageRequest};
use crate::filter::{JobFilter, TimeRange};
use crate::id::AttemptId;
use crate::job::{Array, Definition, ExitStatus, Input, JobState, Origin, Process, ResourceUsage, WaitingOn};
use crate::logs::{LogLayout, LogStart, Logs};
use crate::signal::Signal;
use crate::spec::{
    After, Backoff, Command, Condition, Dependency, JobSpec, Limits, OpenFiles, Output, Policy, Restart,
    Retry, Start, TerminalSize, Unmet,
};
use crate::time::{BootTime, Moment};
use crate::{JobId, RawText, Reason, Status, Timestamp};

pub(super) const IDS: [&str; 9] = ["a", "ab", "abc", "b", "A", "a.b", "a-b", "_", "0"];

fn ids() -> impl Strategy<Value = JobId> {
    select(IDS.as_slice()).prop_map(|id| JobId::new(id).expect("valid"))
}

/// Few different texts, so that filters meet jobs, and among them what could be taken for something else.
fn texts() -> impl Strategy<Value = String> {
    select(["", "x", "X", "x y", "1", "1.0", "é", "x%", "'", "null", "a\0b", "\u{10ffff}"].as_slice())
        .prop_map(str::to_owned)
}

fn raw_texts() -> impl Strategy<Value = RawText> {
    static TEXTS: &[&[u8]] =
        &[b"/", b"/x", b"/x/", b"/x/y", b"/1", b"1", b"", b"/\xff", b"\xff", b"/x/\xff\xfe", "/é".as_bytes()];
    select(TEXTS).prop_map(|bytes| RawText::from(bytes.to_vec()))
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, Just(u64::MAX), Just(1 << 63), any::<u64>()]
}

fn times() -> impl Strategy<Value = Timestamp> {
    prop_oneof![6 => 0_i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN)].prop_map(Timestamp::from_millis)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(texts(), texts(), 0..3)
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![vec(raw_texts(), 0..3).prop_map(Command::Argv), raw_texts().prop_map(Command::Shell)]
}

fn inputs() -> impl Strategy<Value = Input> {
    let size = (1_u16.., 1_u16..).prop_map(|(rows, columns)| Input::Terminal(TerminalSize { rows, columns }));
    prop_oneof![
        Just(Input::Null),
        raw_texts().prop_map(Input::File),
        texts().prop_map(Input::Stored),
        Just(Input::Pipe),
        size
    ]
}

fn starts() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        numbers().prop_map(Start::AfterMs),
        (numbers(), any::<u32>()).prop_map(|(after_ms, failures)| Start::Again { after_ms, failures }),
        times().prop_map(Start::At)
    ]
}

prop_compose! {
    fn limits()(
        (memory, cpu_milli, nice) in (option::of(numbers()), option::of(any::<u32>()), option::of(any::<i32>())),
        (soft, hard, user) in (option::of(numbers()), option::of(numbers()), option::of(texts())),
        pids in option::of(any::<u32>()),
    ) -> Limits {
        Limits { memory, cpu_milli, pids, nice, user, open_files: soft.map(|soft| OpenFiles { soft, hard }) }
    }
}

prop_compose! {
    fn policies()(
        (stop_signal, grace_ms, timeout_ms) in (1..=31, numbers(), option::of(numbers())),
        (success_codes, keep_children) in (vec(any::<i32>(), 0..3), any::<bool>()),
        (restart, max_restarts, restart_delay_ms) in
            (select(Restart::ALL.as_slice()), option::of(any::<u32>()), numbers()),
        (delay_max_ms, healthy_after_ms, give_up_after) in
            (numbers(), numbers(), option::of(any::<u32>())),
        limits in option::of(limits().prop_map(Box::new)),
        log_cap in option::of(numbers()),
        retry in option::of(retries().prop_map(Box::new)),
    ) -> Policy {
        let stop_signal = Signal::from_number(stop_signal).expect("1 to 31");
        Policy {
            stop_signal, grace_ms, timeout_ms, success_codes, keep_children, restart, max_restarts, restart_delay_ms,
            backoff: Backoff { delay_max_ms, healthy_after_ms, give_up_after },
            limits,
            log_cap,
            retry,
        }
    }
}

prop_compose! {
    fn retries()(
        (retries, delay_ms, delay_max_ms, on_reboot) in (any::<u32>(), numbers(), numbers(), any::<bool>()),
        park_after in option::of(any::<u32>()),
    ) -> Retry {
        Retry { retries, delay_ms, delay_max_ms, on_reboot, park_after }
    }
}

fn afters() -> impl Strategy<Value = After> {
    let condition = select([Condition::Success, Condition::Failure, Condition::Any].as_slice());
    let dependency = (ids(), condition).prop_map(|(id, condition)| Dependency { id, condition });
    (vec(dependency, 0..3), select([Unmet::Cancel, Unmet::Wait].as_slice()))
        .prop_map(|(on, unmet)| After { on, unmet })
}

fn origins() -> impl Strategy<Value = Origin> {
    prop_oneof![
        (ids(), any::<u32>()).prop_map(|(array, index)| Origin::Element { array, index }),
        (texts(), times()).prop_map(|(name, due)| Origin::Schedule { name, due }),
    ]
}

fn arrays() -> impl Strategy<Value = Array> {
    (any::<u32>(), any::<bool>(), option::of(any::<u32>())).prop_map(|(size, fail_fast, max_running)| Array {
        size,
        fail_fast,
        max_running,
    })
}

prop_compose! {
    fn definitions()(
        (name, group, submit_key) in (option::of(texts()), option::of(texts()), option::of(texts())),
        (command, cwd, logdir) in (commands(), raw_texts(), raw_texts()),
        (priority, slots) in (any::<i32>(), any::<u32>()),
        (labels, context_key) in (labels(), texts()),
        (layout, merge) in (select(LogLayout::ALL.as_slice()), any::<bool>()),
        (input, start, policy, created_at) in (inputs(), starts(), policies(), times()),
        needs in btree_map(texts(), any::<u32>(), 0..3),
        (after, origin, array) in (option::of(afters()), option::of(origins()), option::of(arrays())),
    ) -> Definition {
        let mut definition = Definition::new(&JobSpec::new(command, cwd), logdir, created_at);
        definition.name = name;
        definition.group = group;
        definition.submit_key = submit_key;
        definition.priority = priority;
        definition.slots = slots;
        definition.logs.layout = layout;
        definition.logs.merge = merge;
        definition.input = input;
        definition.start = start;
        definition.policy = policy;
        definition.labels = labels;
        definition.context_key = context_key;
        Definition { needs, after, origin, array, ..definition }
    }
}

fn moments() -> impl Strategy<Value = Moment> {
    (times(), numbers()).prop_map(|(wall, boot)| Moment { wall, boot: BootTime(boot) })
}

fn exits() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        (0..3).prop_map(ExitStatus::Code),
        any::<i32>().prop_map(ExitStatus::Code),
        (0..3, any::<bool>()).prop_map(|(number, core_dumped)| ExitStatus::Signal { number, core_dumped }),
    ]
}

fn reasons() -> impl Strategy<Value = Reason> {
    select([Reason::Exit, Reason::Signal, Reason::Exec, Reason::Unknown].as_slice())
}

prop_compose! {
    fn states()(
        (restarts, status) in (any::<u32>(), select(Status::ALL.as_slice())),
        (reason, detail) in (option::of(reasons()), option::of(texts())),
        waits in any::<bool>(),
        process in option::of((texts(), option::of(prop_oneof![0_u32..3, any::<u32>()]))),
        (started, ended) in (option::of(moments()), option::of(moments())),
        exit in option::of(exits()),
        usage in option::of((numbers(), numbers())),
        (launch_asked, stdout, stderr, pending_restart) in (numbers(), numbers(), numbers(), option::of(texts())),
        last_update in times(),
        assigned in btree_map(texts(), vec(any::<u32>(), 0..3), 0..3),
    ) -> JobState {
        JobState {
            assigned,
            launch_asked: BootTime(launch_asked),
            log_start: LogStart { stdout, stderr },
            pending_restart,
            restarts,
            reason,
            detail,
            waiting_on: waits.then_some(WaitingOn::Resources),
            process: process.map(|(handle, pid)| Process { handle, pid }),
            started,
            ended,
            exit,
            usage: usage.map(|(cpu_ms, peak_memory_kib)| ResourceUsage { cpu_ms, peak_memory_kib }),
            ..JobState::new(1, status, last_update)
        }
    }
}

/// What is tried with one job. `honest` ones name the revision and attempt that fit.
#[derive(Clone, Debug)]
pub(super) enum Attempted {
    Insert,
    NewAttempt,
    Update,
    Redefine,
    Forget(u32),
    Remove,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) job: Option<(Attempted, JobId, Definition, JobState)>,
    pub(super) honest: bool,
    pub(super) documents: Vec<DocumentChange>,
}

fn document_kinds() -> impl Strategy<Value = DocumentKind> {
    select(DocumentKind::ALL.as_slice())
}

fn document_changes() -> impl Strategy<Value = DocumentChange> {
    let body = prop_oneof![vec(any::<u8>(), 0..5), texts().prop_map(String::into_bytes)];
    (document_kinds(), texts(), body, 0..3).prop_map(|(kind, key, body, which)| match which {
        0 => DocumentChange::Put { kind, key, body },
        1 => DocumentChange::PutIfAbsent { kind, key, body },
        _ => DocumentChange::Remove { kind, key },
    })
}

prop_compose! {
    pub(super) fn steps()(
        attempted in prop_oneof![
            3 => Just(Attempted::Insert), 2 => Just(Attempted::NewAttempt), 5 => Just(Attempted::Update),
            2 => Just(Attempted::Redefine), 1 => Just(Attempted::Remove),
            1 => (0_u32..4).prop_map(Attempted::Forget),
        ],
        with_job in prop::bool::weighted(0.95),
        (id, definition, state) in (ids(), definitions(), states()),
        honest in prop::bool::weighted(0.9),
        documents in vec(document_changes(), 0..3),
    ) -> Step {
        Step { job: with_job.then_some((attempted, id, definition, state)), honest, documents }
    }
}

prop_compose! {
    fn filters(often: f64)(
        status in sometimes(often, vec(select(Status::ALL.as_slice()), 1..6)),
        (self_id, id_prefix) in (sometimes(often, ids().prop_map(String::from)), sometimes(often, prop_oneof![
            ids().prop_map(String::from), texts()
        ])),
        (name, group) in (sometimes(often, texts()), sometimes(often, texts())),
        label in sometimes(often, vec((texts(), option::of(texts())), 1..3)),
        (cwd, dirname) in (sometimes(often, raw_texts()), sometimes(often, raw_texts())),
        logdir in sometimes(often, raw_texts()),
        logfile in sometimes(often, (raw_texts(), ids(), 1_u32..3)),
        (last_pid, exit_code) in (sometimes(often, 0_u32..3), sometimes(often, 0..3)),
        (last_update, created, started, ended) in (ranges(often), ranges(often), ranges(often), ranges(often)),
    ) -> JobFilter {
        let logfile = logfile.map(|(logdir, id, attempt)| {
            Logs::new(&Output::default(), logdir).paths(&AttemptId { id, attempt }).stdout
        });
        JobFilter {
            status: status.unwrap_or_default(), label: label.unwrap_or_default(),
            self_id, id_prefix, name, group, cwd, dirname, logdir, logfile, last_pid, exit_code, last_update, created,
            started, ended,
        }
    }
}

/// One condition alone: together with others it would seldom be the one that decides.
fn single_filters() -> impl Strategy<Value = JobFilter> {
    (filters(0.999), 0..16).prop_map(|(all, field)| {
        let mut one = JobFilter::default();
        match field {
            0 => one.status = all.status,
            1 => one.self_id = all.self_id,
            2 => one.id_prefix = all.id_prefix,
            3 => one.name = all.name,
            4 => one.group = all.group,
            5 => one.label = all.label,
            6 => one.cwd = all.cwd,
            7 => one.dirname = all.dirname,
            8 => one.logdir = all.logdir,
            9 => one.logfile = all.logfile,
            10 => one.last_pid = all.last_pid,
            11 => one.exit_code = all.exit_code,
            12 => one.last_update = all.last_update,
            13 => one.created = all.created,
            14 => one.started = all.started,
            _ => one.ended = all.ended,
        }
        one
    })
}

fn sometimes<S: Strategy>(often: f64, strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    option::weighted(often, strategy)
}

fn ranges(often: f64) -> impl Strategy<Value = TimeRange> {
    (sometimes(often, times()), sometimes(often, times())).prop_map(|(from, until)| TimeRange { from, until })
}

pub(super) fn requests() -> impl Strategy<Value = PageRequest> {
    let cursor = prop_oneof![0_u64..12, Just(u64::MAX)];
    let limit = prop_oneof![1 => 1_usize..4, 1 => Just(usize::MAX)];
    let filters = prop_oneof![filters(0.1), single_filters()];
    (filters, any::<bool>(), sometimes(0.1, cursor), limit).prop_map(
        |(filter, newest_first, after, limit)| {
            let order = if newest_first { Order::NewestFirst } else { Order::OldestFirst };
            PageRequest { filter, order, after, limit }
        },
    )
}
