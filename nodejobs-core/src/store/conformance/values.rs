//! Rules about values at their edges: nothing, much, and odd.

use super::super::{DocumentKind, JobChange, JobStore, Order, Unit};
use super::case::Case;
use super::jobs::{
    all_jobs, assert_sound, commit, definition, documents, id, job, put, remove, request, state, with,
};
use crate::job::{Definition, ExitStatus, Input, Job, JobState, Process, ResourceUsage};
use crate::logs::{LogLayout, LogStart};
use crate::spec::{Command, Limits, OpenFiles, Start};
use crate::time::{BootTime, Moment};
use crate::{RawText, Status, Timestamp};

const MEBIBYTE: usize = 1 << 20;

/// Takes a definition and a state through insert, further attempt and update, and expects them back from every read.
fn assert_come_back(store: &dyn JobStore, definition: &Definition, state: &JobState) -> Job {
    let name = "value";
    let boxed = || Box::new(definition.clone());
    let ended = |attempt| JobState { attempt, status: Status::Failed, ..state.clone() };
    let living = JobState { attempt: 2, status: Status::Running, ..state.clone() };
    let insert = JobChange::Insert { id: id(name), definition: boxed(), state: ended(1) };
    let again =
        JobChange::NewAttempt { id: id(name), expected: 1, definition: boxed(), state: living.clone() };
    let update = JobChange::Update { id: id(name), expected: 2, state: living.clone() };
    commit(store, &[insert.into(), again.into()]);
    commit(store, &[update.into()]);
    let found = job(store, name).expect("there");
    // Not `assert_eq`: what is large here would be printed.
    assert!(found.definition == *definition && found.state == living, "not what was put there");
    let attempts = store.attempts(&id(name)).expect("attempts");
    assert!(
        attempts[0].definition == *definition && attempts[0].state == ended(1),
        "the first attempt is changed"
    );
    assert!(attempts.len() == 2 && attempts[1] == found, "the attempts do not end in the job");
    assert!(all_jobs(store).contains(&found), "the listing shows something else");
    found
}

pub(super) fn empty_values_come_back(case: &Case) {
    let store = case.store();
    let mut empty = definition("x");
    empty.command = Command::Argv(Vec::new());
    empty.cwd = "".into();
    empty.context_key = String::new();
    empty.name = Some(String::new());
    empty.group = Some(String::new());
    empty.submit_key = Some(String::new());
    empty.labels.insert(String::new(), String::new());
    empty.logs.path = "".into();
    empty.input = Input::Stored(String::new());
    empty.policy.success_codes = Vec::new();
    let mut state = state(1, Status::Failed);
    state.detail = Some(String::new());
    state.process = Some(Process { handle: String::new(), pid: None });
    state.pending_restart = Some(String::new());
    assert_come_back(&*store, &empty, &state);
    for (key, found) in
        [("name", 1), ("group", 1), ("label", 1), ("cwd", 1), ("id_prefix", 1), ("self_id", 0)]
    {
        let mut request = request(Order::OldestFirst, None, 9);
        request.filter.set(key, "").expect("a filter");
        assert_eq!(store.jobs(&request).expect("a page").jobs.len(), found, "{key} is empty");
    }
    commit(&*store, &[documents([put(DocumentKind::Meta, "", b"")])]);
    assert_eq!(store.document(DocumentKind::Meta, "").expect("a document"), Some(Vec::new()));
    assert_sound(&*store);
}

pub(super) fn large_values_come_back(case: &Case) {
    let store = case.store();
    let large = "x".repeat(MEBIBYTE);
    let mut definition = definition(&large);
    definition.labels.insert("large".to_owned(), large.clone());
    // Longer than what an engine may take as a key; a mebibyte of each would take only time.
    let long = &large[..10_000];
    definition.labels.insert(long.to_owned(), "long".to_owned());
    definition.name = Some(long.to_owned());
    definition.group = Some(long.to_owned());
    definition.cwd = vec![0xff; MEBIBYTE].into();
    let mut state = state(1, Status::Failed);
    state.detail = Some(large.clone());
    assert_come_back(&*store, &definition, &state);
    let other = format!("{}y", &large[1..]);
    for (key, value, found) in [
        ("name", long.to_owned(), 1),
        ("name", large.clone(), 0),
        ("group", long.to_owned(), 1),
        ("label", format!("large={large}"), 1),
        ("label", format!("large={other}"), 0),
        ("label", long.to_owned(), 1),
        ("label", large.clone(), 0),
    ] {
        let mut request = request(Order::OldestFirst, None, 9);
        request.filter.set(key, &value).expect("a filter");
        assert_eq!(store.jobs(&request).expect("a page").jobs.len(), found, "{key}");
    }

    let body: Vec<u8> = (0..=u8::MAX).cycle().take(MEBIBYTE).collect();
    let keys = [large.clone(), other];
    commit(&*store, &[documents(keys.iter().map(|key| put(DocumentKind::Context, key, &body)))]);
    for key in &keys {
        assert!(store.document(DocumentKind::Context, key).expect("a document").as_ref() == Some(&body));
    }
    let found = store.documents(DocumentKind::Context, &large[1..], None, 9).expect("documents");
    let expected: Vec<_> = keys.map(|key| (key, body.clone())).into();
    assert!(found == expected, "{} documents", found.len());
    let behind = store.documents(DocumentKind::Context, "", Some(&large), 9).expect("documents");
    assert!(behind == expected[1..], "{} documents", behind.len());
    assert_sound(&*store);

    let ended = JobChange::Update { id: id("value"), expected: 3, state: JobState { attempt: 2, ..state } };
    let gone = super::super::DocumentChange::Remove { kind: DocumentKind::Context, key: large };
    commit(&*store, &[ended.into(), with(remove("value", 4), gone)]);
    assert!(all_jobs(&*store).is_empty());
    assert_eq!(store.documents(DocumentKind::Context, "", None, 9).expect("documents").len(), 1);
    assert_sound(&*store);
}

pub(super) fn odd_values_come_back(case: &Case) {
    for (number, time) in [(u64::MAX, i64::MAX), (1 << 63, i64::MIN), (0, 0)] {
        let store = case.store();
        let odd = |bytes: &[u8]| RawText::from(bytes.to_vec());
        let text = "a\0b'\"\n\r\u{10ffff}\u{feff}%_\\";
        let time = Timestamp::from_millis(time);
        let moment = Moment { wall: time, boot: BootTime(number) };
        let mut definition = definition("x");
        definition.command =
            Command::Argv(vec![odd(b"\xff\xfe"), odd(b""), odd(b"a\0b"), text.into(), "{".into()]);
        definition.cwd = odd(b"/\xff/\0\x80/");
        definition.context_key = text.to_owned();
        definition.input = Input::File(odd(b"/\xfe"));
        definition.logs.layout = LogLayout::Directory;
        definition.logs.path = odd(b"/l\xff");
        definition.name = Some(text.to_owned());
        definition.group = Some("null".to_owned());
        definition.submit_key = Some("0".to_owned());
        definition.labels.insert(text.to_owned(), text.to_owned());
        definition.labels.insert("\0".to_owned(), "\0\0".to_owned());
        definition.priority = i32::MIN;
        definition.slots = u32::MAX;
        definition.start = Start::AfterMs(number);
        definition.policy.grace_ms = number;
        definition.policy.timeout_ms = Some(number);
        definition.policy.max_restarts = Some(u32::MAX);
        definition.policy.success_codes = vec![i32::MIN, i32::MAX];
        definition.policy.limits = Some(Box::new(Limits {
            memory: Some(number),
            cpu_milli: Some(u32::MAX),
            pids: Some(u32::MAX),
            open_files: Some(OpenFiles { soft: number, hard: Some(number) }),
            nice: Some(i32::MIN),
            user: Some(text.to_owned()),
        }));
        definition.created_at = time;
        let mut state = state(1, Status::Failed);
        state.restarts = u32::MAX;
        state.detail = Some(text.to_owned());
        state.process = Some(Process { handle: text.to_owned(), pid: Some(u32::MAX) });
        state.started = Some(moment);
        state.ended = Some(moment);
        state.exit = Some(ExitStatus::Code(i32::MIN));
        state.usage = Some(ResourceUsage { cpu_ms: number, peak_memory_kib: number });
        state.launch_asked = BootTime(number);
        state.log_start = LogStart { stdout: number, stderr: number };
        state.pending_restart = Some(text.to_owned());
        state.last_update = time;
        let found = assert_come_back(&*store, &definition, &state);
        assert_eq!(store.events(2, 9).expect("events")[0].at, time);

        let mut request = request(Order::OldestFirst, None, 9);
        request.filter.cwd = Some(definition.cwd.clone());
        request.filter.dirname = Some(definition.dirname());
        request.filter.logdir = Some(odd(b"/l\xff"));
        request.filter.logfile = Some(found.log_paths().stdout);
        request.filter.name = Some(text.to_owned());
        request.filter.label = vec![(text.to_owned(), Some(text.to_owned())), ("\0".to_owned(), None)];
        request.filter.last_pid = Some(u32::MAX);
        request.filter.exit_code = Some(i32::MIN);
        for range in [&mut request.filter.started, &mut request.filter.last_update] {
            (range.from, range.until) = (Some(time), Some(time));
        }
        assert_eq!(store.jobs(&request).expect("a page").jobs, [found]);

        let signal = JobState {
            attempt: 2,
            exit: Some(ExitStatus::Signal { number: i32::MAX, core_dumped: true }),
            ..state
        };
        let signal = JobChange::Update { id: id("value"), expected: 3, state: signal };
        let body: &[u8] = b"\0\xff\0";
        let unit = Unit { job: Some(signal.clone()), documents: vec![put(DocumentKind::Meta, text, body)] };
        commit(&*store, &[unit]);
        let JobChange::Update { state: signal, .. } = signal else { unreachable!("made above") };
        assert_eq!(job(&*store, "value").map(|job| job.state), Some(signal));
        assert_eq!(store.document(DocumentKind::Meta, text).expect("a document").as_deref(), Some(body));
        assert_sound(&*store);
    }
}
