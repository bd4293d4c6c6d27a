//! Stores of every format, as they were written when it was the present one: they have to be read for ever.

use std::fs;
use std::path::Path;

use super::super::content::Item;
use super::super::memory::MemoryStore;
use super::super::{DocumentKind, JobChange};
use super::Verdict;
use super::case::DiskCase;
use super::files::copy;
use super::jobs::{
    applied, assert_same, assert_sound, commit, content, definition, documents, id, insert, insert_with,
    new_attempt, put, remove, state,
};
use crate::job::{ExitStatus, Input, Process, ResourceUsage, WaitingOn};
use crate::logs::{LogLayout, LogStart};
use crate::signal::Signal;
use crate::spec::{Command, Restart, Start};
use crate::time::{BootTime, Moment};
use crate::{RawText, Reason, Status, Timestamp};

/// What the fixtures hold: each field of each type with a value that is not its default, each once absent.
///
/// Never changed. A field that comes later is absent here, as in the stores of the time before it.
///
/// # Panics
/// Never, as long as its own changes are legal ones.
pub fn fixture_content() -> Vec<Item> {
    let store = MemoryStore::new();
    let time = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
    let moment = |millis: u32| Moment { wall: time(millis.into()), boot: BootTime(millis.into()) };

    let mut full = definition("full");
    full.name = Some("a name".to_owned());
    full.command = Command::Argv(vec!["echo".into(), RawText::from(b"\xff\0".to_vec()), "".into()]);
    full.cwd = RawText::from(b"/srv/\xfe".to_vec());
    full.context_key = "00112233445566778899aabbccddeeff".to_owned();
    full.input = Input::Stored("full/1".to_owned());
    full.logs.layout = LogLayout::FileInDirectory;
    full.logs.path = "/var/log/full.log".into();
    full.logs.merge = true;
    full.group = Some("a group".to_owned());
    full.priority = -7;
    full.slots = 3;
    full.labels = [("key", "value"), ("empty", ""), ("ü", "\u{10ffff}")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    full.start = Start::At(time(5));
    full.policy.stop_signal = Signal::from_number(2).expect("SIGINT");
    full.policy.grace_ms = 1;
    full.policy.timeout_ms = Some(u64::MAX);
    full.policy.success_codes = vec![0, 3];
    full.policy.keep_children = true;
    full.policy.restart = Restart::OnFailure;
    full.policy.max_restarts = Some(4);
    full.policy.restart_delay_ms = 5;
    full.submit_key = Some("a submit key".to_owned());
    full.created_at = time(1);

    let mut ended = state(1, Status::Failed);
    ended.restarts = 2;
    ended.reason = Some(Reason::Signal);
    ended.detail = Some("a sentence".to_owned());
    ended.process = Some(Process { handle: "a handle".to_owned(), pid: Some(4711) });
    ended.started = Some(moment(10));
    ended.ended = Some(moment(20));
    ended.exit = Some(ExitStatus::Signal { number: 11, core_dumped: true });
    ended.usage = Some(ResourceUsage { cpu_ms: u64::MAX, peak_memory_kib: 1 });
    ended.launch_asked = BootTime(9);
    ended.log_start = LogStart { stdout: 8, stderr: u64::MAX };
    ended.pending_restart = Some("another submit key".to_owned());
    ended.last_update = time(20);

    let mut queued = state(1, Status::Queued);
    queued.waiting_on = Some(WaitingOn::Resources);
    let mut shell = definition("shell");
    shell.command = Command::shell("echo \"it's\" | cat");
    shell.input = Input::File("/dev/zero".into());
    shell.start = Start::AfterMs(60_000);

    let update = JobChange::Update { id: id("full"), expected: 1, state: ended };
    let waits = JobChange::Insert { id: id("waits"), definition: Box::new(shell), state: queued };
    commit(&store, &[insert_with("full", full, Status::Running), update.into()]);
    commit(&store, &[waits.into(), insert("plain", Status::Finished)]);
    commit(&store, &[new_attempt("full", 2, 2, Status::Restarting)]);
    // The last job that was submitted is gone, and its numbers with it.
    commit(&store, &[insert("gone", Status::Cancelled), remove("gone", 1)]);
    commit(
        &store,
        &[documents([
            put(DocumentKind::Context, "00112233445566778899aabbccddeeff", b"{}"),
            put(DocumentKind::Context, "", b""),
            put(DocumentKind::Input, "full/1", b"\0\xff input"),
            put(DocumentKind::Input, &"a long key ".repeat(100), b"of a long key"),
            put(DocumentKind::Meta, "generation", b"7"),
        ])],
    );
    content(&store)
}

/// `format-N.NAME` for the formats there are.
fn number_of(name: &str, engine: &str) -> Option<u32> {
    name.strip_prefix("format-")?.strip_suffix(engine)?.strip_suffix('.')?.parse().ok()
}

pub(super) fn write(case: &DiskCase) {
    // Made somewhere else first, for its number.
    let place = case.place();
    let store = case.open(&place);
    store.load(&fixture_content()).expect("loaded");
    let format = store.info().format;
    drop(store);
    let fixture = case.fixtures.join(format!("format-{format}.{}", case.subject.name()));
    assert!(
        !fixture.exists(),
        "{} is there; what has been released is never written again",
        fixture.display()
    );
    fs::create_dir_all(case.fixtures).expect("a directory");
    copy(&place, &fixture);
}

pub(super) fn stores_of_every_format_are_read(case: &DiskCase) -> Verdict {
    let entries = fs::read_dir(case.fixtures);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", case.fixtures.display()));
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut formats: Vec<u32> = names.filter_map(|name| number_of(&name, case.subject.name())).collect();
    formats.sort_unstable();
    for format in &formats {
        assert_is_read(case, &case.fixtures.join(format!("format-{format}.{}", case.subject.name())));
    }
    let present = case.store().info().format;
    assert_eq!(
        formats.last(),
        Some(&present),
        "there is no fixture of the present format: run the ignored test write_fixture"
    );
    Verdict::Held
}

fn assert_is_read(case: &DiskCase, fixture: &Path) {
    let place = case.place();
    copy(fixture, &place);
    let store = case.open(&place);
    let what = fixture.display().to_string();
    assert_same(&content(&*store), &fixture_content(), &what);
    assert_sound(&*store);
    let counters = store.counters().expect("counters");
    let outcomes = store.commit(&[insert("next", Status::Queued)]).expect("committed");
    assert_eq!(outcomes, [applied(counters.last_seq + 1, counters.last_event + 1)]);
    drop(store);
    let store = case.open(&place);
    assert_eq!(store.attempts(&id("full")).expect("attempts").len(), 2);
    assert!(store.job(&id("next")).expect("a job").is_some());
    assert_sound(&*store);
}
