//! What is written is read as the same, and what is wrong is refused with its line.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::id::AttemptId;
use crate::job::{Array, Definition, ExitStatus, Input, JobState, Origin, Process, ResourceUsage, WaitingOn};
use crate::logs::{LogLayout, LogStart, Logs};
use crate::spec::{
    After, Backoff, Command, Condition, Dependency, Limits, Policy, Restart, Retry, Start, TerminalSize,
    Unmet,
};
use crate::store::content::Counters;
use crate::store::{DocumentKind, JobEvent};
use crate::time::{BootTime, Moment};
use crate::{JobId, RawText, Reason, Status};

/// The format as it is, and as it stays: a change of this file is a new format.
const SAMPLE: &str = include_str!("sample.jsonl");
/// The same with what format 2 has added.
const SAMPLE_2: &str = include_str!("sample-2.jsonl");

fn read(text: &[u8]) -> Result<(Header, Vec<Item>, Totals), ReadError> {
    let mut reader = Reader::new(text)?;
    let mut items = Vec::new();
    while let Some((item, _)) = reader.next_item()? {
        items.push(item);
    }
    Ok((reader.header().clone(), items, reader.totals().expect("behind the end")))
}

fn write(header: &Header, items: &[Item]) -> (Vec<u8>, Totals) {
    let mut writer = Writer::new(Vec::new(), header).expect("a header");
    items.iter().for_each(|item| writer.item(item).expect("an item"));
    writer.finish().expect("an end")
}

fn header() -> Header {
    Header::new("memory", "3f", Timestamp::default(), "0.1.0")
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn raw() -> impl Strategy<Value = RawText> {
    prop_oneof![any::<String>().prop_map(RawText::from), any::<Vec<u8>>().prop_map(RawText::from)]
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn moment() -> impl Strategy<Value = Moment> {
    (time(), any::<u64>()).prop_map(|(wall, boot)| Moment { wall, boot: BootTime(boot) })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![vec(raw(), 0..4).prop_map(Command::Argv), raw().prop_map(Command::Shell)]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        any::<u64>().prop_map(Start::AfterMs),
        (any::<u64>(), any::<u32>()).prop_map(|(after_ms, failures)| Start::Again { after_ms, failures }),
        time().prop_map(Start::At)
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<u64>(), option::of(any::<u64>()), vec(any::<i32>(), 0..3), any::<bool>(), 0..3_usize, any::<u32>())
        .prop_map(|(grace_ms, timeout_ms, success_codes, keep_children, restart, max)| Policy {
            grace_ms,
            timeout_ms,
            success_codes,
            keep_children,
            restart: Restart::ALL[restart],
            max_restarts: Some(max),
            limits: (max % 2 == 0)
                .then(|| Box::new(Limits { memory: Some(grace_ms), nice: Some(-5), ..Limits::default() })),
            ..Policy::default()
        })
}

fn definition() -> impl Strategy<Value = Definition> {
    let input = prop_oneof![
        Just(Input::Null),
        raw().prop_map(Input::File),
        text().prop_map(Input::Stored),
        Just(Input::Pipe)
    ];
    let logs = (0..LogLayout::ALL.len(), raw(), any::<bool>()).prop_map(|(layout, path, merge)| Logs {
        layout: LogLayout::ALL[layout],
        path,
        merge,
    });
    let texts = (option::of(text()), text(), option::of(text()), option::of(text()));
    let labels = btree_map(text(), text(), 0..3);
    let rest = (start(), policy(), time(), any::<i32>(), any::<u32>());
    (texts, command(), raw(), input, logs, labels, rest).prop_map(
        |((name, context_key, group, submit_key), command, cwd, input, logs, labels, rest)| {
            let (start, policy, created_at, priority, slots) = rest;
            Definition {
                name,
                command,
                cwd,
                context_key,
                input,
                logs,
                group,
                priority,
                slots,
                labels,
                start,
                policy,
                submit_key,
                created_at,
                needs: [("gpu".to_owned(), slots)].into_iter().filter(|_| slots % 2 == 0).collect(),
                after: (slots % 3 == 0).then(after),
                origin: (slots % 5 == 0)
                    .then(|| Origin::Schedule { name: "nightly".to_owned(), due: created_at }),
                array: (slots % 7 == 0).then_some(Array { size: slots, fail_fast: true, max_running: None }),
            }
        },
    )
}

fn after() -> After {
    let on = ["a", "b"].map(|id| JobId::new(id).expect("valid"));
    let on = on.map(|id| Dependency { id, condition: Condition::Any }).into();
    After { on, unmet: Unmet::Wait }
}

fn state() -> impl Strategy<Value = JobState> {
    let exit = prop_oneof![
        any::<i32>().prop_map(ExitStatus::Code),
        (any::<i32>(), any::<bool>())
            .prop_map(|(number, core_dumped)| ExitStatus::Signal { number, core_dumped }),
    ];
    let process = (text(), option::of(any::<u32>())).prop_map(|(handle, pid)| Process { handle, pid });
    let usage =
        any::<(u64, u64)>().prop_map(|(cpu_ms, peak_memory_kib)| ResourceUsage { cpu_ms, peak_memory_kib });
    let reasons = [
        "exit",
        "signal",
        "timeout",
        "memory",
        "exec",
        "cwd",
        "user",
        "dependency",
        "element",
        "schedule",
        "reboot",
        "unknown",
    ];
    let words = (option::of(0..reasons.len()), option::of(text()), option::of(text()), option::of(0..2_u8));
    let ends = (option::of(process), option::of(moment()), option::of(moment()), option::of(exit));
    let numbers = (any::<u32>(), any::<u64>(), any::<(u64, u64)>(), time(), option::of(usage));
    (0..Status::ALL.len(), words, ends, numbers).prop_map(move |(status, words, ends, numbers)| {
        let (reason, detail, pending_restart, waiting_on) = words;
        let (process, started, ended, exit) = ends;
        let (restarts, asked, (stdout, stderr), last_update, usage) = numbers;
        JobState {
            restarts,
            assigned: [("gpu".to_owned(), vec![restarts, 0])]
                .into_iter()
                .filter(|_| restarts % 2 == 0)
                .collect(),
            reason: reason.and_then(|index| Reason::from_name(reasons[index])),
            detail,
            waiting_on: waiting_on.map(|which| [WaitingOn::Resources, WaitingOn::Time][usize::from(which)]),
            process,
            started,
            ended,
            exit,
            usage,
            launch_asked: BootTime(asked),
            log_start: LogStart { stdout, stderr },
            pending_restart,
            ..JobState::new(1, Status::ALL[status], last_update)
        }
    })
}

/// The whole content of a store, as a walk gives it.
fn content() -> impl Strategy<Value = Vec<Item>> {
    let attempts = vec((any::<u64>(), definition(), state()), 1..4);
    let jobs = vec((1..1000_u64, attempts), 0..4);
    let documents = btree_set((0..DocumentKind::ALL.len(), text()), 0..4);
    let events = (0..1_u64 << 40, vec((0..Status::ALL.len(), time()), 0..4));
    (jobs, documents, vec(any::<Vec<u8>>(), 4), events).prop_map(|(jobs, documents, bodies, events)| {
        let mut items = Vec::new();
        for ((kind, key), body) in documents.into_iter().zip(bodies) {
            items.push(Item::Document { kind: DocumentKind::ALL[kind], key, body });
        }
        let mut last_seq = 0;
        for (gap, attempts) in jobs {
            last_seq += gap;
            let id = JobId::new(&format!("job-{last_seq}")).expect("an id");
            let count = attempts.len();
            let attempts =
                attempts.into_iter().zip(1..).map(|((revision, definition, mut state), number)| {
                    state.attempt = number;
                    if number as usize != count && !state.status.is_terminal() {
                        state.status = Status::Failed;
                    }
                    Job { seq: last_seq, id: id.clone(), revision, definition, state }
                });
            items.push(Item::Job(attempts.collect()));
        }
        let (pruned, events) = events;
        let mut last_event = if events.is_empty() { 0 } else { pruned };
        for (status, at) in events {
            last_event += 1;
            let attempt = AttemptId { id: JobId::new("any").expect("an id"), attempt: 1 };
            let status = Status::ALL[status];
            items.push(Item::Event(JobEvent { seq: last_event, attempt, status, reason: None, at }));
        }
        items.insert(0, Item::Counters(Counters { last_seq: last_seq + 7, last_event }));
        items
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_written_is_read_as_the_same(items in content()) {
        let header = header();
        let (text, totals) = write(&header, &items);
        let (again, read, counted) = read(&text).expect("what was written");
        prop_assert_eq!((again, counted), (header.clone(), totals));
        prop_assert_eq!(&read, &items);
        prop_assert_eq!(write(&header, &read).0, text);
    }

    #[test]
    fn an_export_that_is_cut_off_anywhere_is_refused(items in content(), place in any::<prop::sample::Index>()) {
        let (text, _) = write(&header(), &items);
        // The very last line break may be missing.
        let cut = place.index(text.len() - 1);
        let error = read(&text[..cut]).expect_err("cut off");
        let lines = text[..cut].split(|byte| *byte == b'\n').count() as u64;
        prop_assert!(error.line == lines || error.line == lines + 1, "{error} with {lines} lines");
    }
}

#[test]
fn the_format_is_what_it_was() {
    let (header, items, totals) = read(SAMPLE.as_bytes()).expect("the sample");
    assert_eq!((totals.jobs, totals.attempts, totals.events, totals.documents), (2, 3, 3, 3));
    assert_eq!(String::from_utf8(write(&header, &items).0).expect("UTF-8"), SAMPLE);
    let Some(Item::Document { body, .. }) = items.get(2) else { panic!("{items:?}") };
    assert_eq!(body, &[0xff, 0x00]);
}

/// What format 2 has added.
#[test]
fn the_second_format_is_what_it_was() {
    let (header, mut items, _) = read(SAMPLE.as_bytes()).expect("the sample");
    for item in &mut items {
        let Item::Job(attempts) = item else { continue };
        for (job, input) in
            attempts.iter_mut().zip([Input::Terminal(TerminalSize { rows: 24, columns: 80 }), Input::Pipe])
        {
            job.definition.input = input;
            job.definition.start = Start::Again { after_ms: 1_000, failures: 2 };
            let policy = &mut job.definition.policy;
            policy.backoff = Backoff { delay_max_ms: 5, healthy_after_ms: 6, give_up_after: None };
            policy.limits =
                Some(Box::new(Limits { memory: Some(1 << 20), nice: Some(-1), ..Limits::default() }));
            policy.log_cap = Some(0);
            let retry =
                Retry { retries: 3, delay_ms: 1, delay_max_ms: 2, on_reboot: true, park_after: Some(2) };
            policy.retry = Some(Box::new(retry));
            job.state.assigned = [("gpu".to_owned(), vec![0, 2])].into();
            job.definition.needs = [("gpu".to_owned(), 2)].into();
            job.definition.after = Some(after());
            job.definition.origin =
                Some(Origin::Element { array: JobId::new("many").expect("valid"), index: 7 });
            job.definition.array = Some(Array { size: 9, fail_fast: false, max_running: Some(2) });
        }
    }
    let written = write(&Header { nodejobs_export: 2, ..header }, &items).0;
    assert_eq!(String::from_utf8_lossy(&written), SAMPLE_2);
    assert_eq!(read(SAMPLE_2.as_bytes()).expect("the sample").1, items);
}

#[test]
fn times_at_their_bounds_survive() {
    let (_, mut items, _) = read(SAMPLE.as_bytes()).expect("the sample");
    for millis in [i64::MIN, -1, 0, i64::MAX] {
        for item in &mut items {
            let Item::Job(attempts) = item else { continue };
            let wall = Timestamp::from_millis(millis);
            attempts[0].state.started = Some(Moment { wall, boot: BootTime(u64::MAX) });
            attempts[0].definition.start = Start::At(wall);
        }
        assert_eq!(read(&write(&header(), &items).0).expect("written").1, items);
    }
}

#[test]
fn many_attempts_are_spread_over_lines() {
    let (_, items, _) = read(SAMPLE.as_bytes()).expect("the sample");
    let Some(Item::Job(sample)) = items.iter().find(|item| matches!(item, Item::Job(_))) else {
        panic!("{items:?}")
    };
    let attempt = |number| {
        let mut job = sample[0].clone();
        job.definition.cwd = "x".repeat(ATTEMPTS_LINE / 3).into();
        job.state.attempt = number;
        job
    };
    let many = [
        Item::Counters(Counters { last_seq: sample[0].seq, last_event: 0 }),
        Item::Job((1..=8).map(attempt).collect()),
    ];
    let (text, _) = write(&header(), &many);
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with(b"{\"more_attempts\"")).count(), 3);
    assert!(lines.iter().all(|line| line.len() < ATTEMPTS_LINE + 1000));
    assert_eq!(read(&text).expect("written").1, many);
    // Those of another job, or of none.
    let alone = [lines[0], lines[1], lines[3]].join(&b'\n');
    let error = read(&alone).expect_err("no job before it").to_string();
    assert_eq!(error, format!("line 3: the attempts of job {} do not follow the job", sample[0].id));
}

#[test]
fn a_body_full_of_control_characters_is_no_longer_than_twice_itself() {
    let body = vec![1; 1 << 20];
    let document = Item::Document { kind: DocumentKind::Input, key: "a/1".to_owned(), body };
    let items = [Item::Counters(Counters::default()), document];
    let (text, _) = write(&header(), &items);
    assert!(text.len() < 2 << 20, "{}", text.len());
    assert_eq!(read(&text).expect("written").1, items);
}

/// The words about the sample with one line changed.
fn with(line: usize, change: impl Fn(&str) -> String) -> String {
    let mut lines: Vec<String> = SAMPLE.lines().map(str::to_owned).collect();
    lines[line - 1] = change(&lines[line - 1]);
    lines.retain(|line| !line.is_empty());
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    read(text.as_bytes()).expect_err("refused").to_string()
}

#[test]
fn what_contradicts_the_rules_is_refused_with_its_line() {
    let job = SAMPLE.lines().position(|line| line.starts_with("{\"job\"")).expect("a job") + 1;
    let event = SAMPLE.lines().position(|line| line.starts_with("{\"event\"")).expect("an event") + 1;
    let end = SAMPLE.lines().count();
    let twice = |line: &str| format!("{line}\n{line}");
    for (error, words) in [
        (with(1, |_| "{}".to_owned()), "line 1: this is no export of nodejobs: missing field"),
        (with(1, |_| "\u{7f}ELF".to_owned()), "line 1: this is no export of nodejobs: expected value"),
        (
            with(1, |line| line.replace(":1,", ":3,")),
            "line 1: the export has format 3, this version knows 1 to 2",
        ),
        (
            with(1, |line| line.replace("\"store\"", "\"shop\"")),
            "line 1: it cannot be understood: unknown field `shop`",
        ),
        (with(2, |_| String::new()), "line 2: document context 'k' comes before the counters"),
        (with(2, twice), "line 3: the counters are there twice"),
        (with(3, twice), "line 4: document context 'k' is out of order or there twice"),
        (with(3, |line| line.replace("context", "poem")), "line 3: there is no document of kind 'poem'"),
        (with(job, twice), "job two has seq 1 behind 1"),
        (
            with(job, |line| line.replace("\"attempt\":2", "\"attempt\":3")),
            "attempt 2 of job two (seq 1) says that it is attempt 3",
        ),
        (with(job, |line| line.replace("failed", "running")), "attempt 1 of job two has not ended"),
        (
            with(job, |line| line.replace("\"seq\":1", "\"seq\":9")),
            "job two has seq 9 behind 0, with 4 given out",
        ),
        (with(job, |line| line.replace("\"seq\":1", "\"seq\":1,\"colour\":1")), "unknown field `colour`"),
        (with(job, |line| line.replace("\"id\":\"two\"", "\"id\":\"../two\"")), "job id \"../two\" contains"),
        (with(job + 1, |line| line.replace("\"id\":\"one\"", "\"id\":\"two\"")), "job two is there twice"),
        (with(event, |line| line.replace("\"seq\":5", "\"seq\":4")), "event 6 follows event 4"),
        (with(event, |line| line.replace("\"seq\":5", "\"seq\":0")), "event 0 follows event 0"),
        (
            with(event - 1, |_| String::new()),
            "it counts 2 jobs, 3 attempts, 3 events and 3 documents, but there are 1",
        ),
        (with(end - 1, |_| String::new()), "the last event is 6, but 7 was given out"),
        (with(end, |_| String::new()), "the export is cut off"),
        (with(end, twice), "there is something behind the end"),
        (with(end, |line| format!("{line}\n ")), "there is something behind the end"),
    ] {
        assert!(error.starts_with("line ") && error.contains(words), "'{words}' is not in: {error}");
    }
    assert_eq!(
        read(b"").expect_err("empty").to_string(),
        "line 1: this is no export of nodejobs: there is nothing in it"
    );
    let mut long = SAMPLE.lines().next().expect("a line").as_bytes().to_vec();
    long.push(b'\n');
    long.resize(long.len() + MAX_LINE + 1, b' ');
    assert_eq!(
        read(&long).expect_err("too long").to_string(),
        format!("line 2: it is longer than {MAX_LINE} bytes")
    );
}

#[test]
fn what_nobody_could_read_is_not_written() {
    let (header, items, _) = read(SAMPLE.as_bytes()).expect("the sample");
    let mut writer = Writer::new(Vec::new(), &header).expect("a header");
    writer.item(&items[0]).expect("counters");
    let error = writer.item(&Item::Job(Vec::new())).expect_err("no attempt").to_string();
    assert_eq!(error, "a job has no attempt");
}
