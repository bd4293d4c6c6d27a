//! Rules about listings: order, cursors, filters and counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{JobChange, JobStore, Order, PageRequest, Unit};
use super::case::Case;
use super::jobs::{
    all_jobs, commit, definition, id, insert, insert_with, new_attempt, remove, request, state, update,
    update_attempt,
};
use crate::filter::JobFilter;
use crate::job::{ExitStatus, Job, Origin, Process};
use crate::time::{BootTime, Moment};
use crate::{JobId, Status, Timestamp};

/// All pages of a listing, read with `limit`, and `between` called between them.
fn pages(store: &dyn JobStore, first: &PageRequest, mut between: impl FnMut(&[Job])) -> Vec<Job> {
    let mut request = first.clone();
    let mut all = Vec::new();
    loop {
        let page = store.jobs(&request).expect("a page");
        assert!(page.jobs.len() <= request.limit, "more than were asked for");
        assert!(page.next.is_none() || page.jobs.len() == request.limit, "a page that is not full");
        assert!(page.next.is_none() || page.next == page.jobs.last().map(|job| job.seq));
        between(&page.jobs);
        all.extend(page.jobs);
        request.after = page.next;
        if page.next.is_none() {
            return all;
        }
    }
}

pub(super) fn listings_are_in_the_order_of_submission(case: &Case) {
    let store = case.store();
    assert_eq!(store.jobs(&request(Order::OldestFirst, None, 1)).expect("a page").next, None);
    // Neither the order of ids nor that of changes.
    let names = ["m", "z", "a", "q", "b", "y", "c"];
    for name in names {
        commit(&*store, &[insert(name, Status::Finished)]);
    }
    commit(&*store, &[new_attempt("z", 1, 2, Status::Running), remove("q", 1)]);
    let expected: Vec<(u64, &str)> = (1..).zip(names).filter(|(_, name)| *name != "q").collect::<Vec<_>>();
    for limit in [1, 2, 3, 6, 7, usize::MAX] {
        let seen = |order| -> Vec<(u64, String)> {
            let jobs = pages(&*store, &request(order, None, limit), |_| {});
            jobs.into_iter().map(|job| (job.seq, job.id.into())).collect()
        };
        let mut expected: Vec<_> = expected.iter().map(|(seq, name)| (*seq, (*name).to_owned())).collect();
        assert_eq!(seen(Order::OldestFirst), expected, "pages of {limit}");
        expected.reverse();
        assert_eq!(seen(Order::NewestFirst), expected, "pages of {limit}");
    }
    // Cursors that no job has.
    let behind = |order, after| store.jobs(&request(order, Some(after), 9)).expect("a page").jobs.len();
    assert_eq!(behind(Order::OldestFirst, 0), 6);
    assert_eq!((behind(Order::OldestFirst, 4), behind(Order::NewestFirst, 4)), (3, 3));
    assert_eq!((behind(Order::OldestFirst, 7), behind(Order::NewestFirst, 1)), (0, 0));
    assert_eq!((behind(Order::OldestFirst, u64::MAX), behind(Order::NewestFirst, u64::MAX)), (0, 6));
    assert_eq!(behind(Order::NewestFirst, 0), 0);
}

pub(super) fn cursors_are_stable(case: &Case) {
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let store = case.store();
        let stays = |job: &Job| job.id.as_str().starts_with("stay");
        let fill: Vec<Unit> = (0..60)
            .map(|n| insert(&format!("{}-{n}", if n % 2 == 0 { "stay" } else { "go" }), Status::Finished))
            .collect();
        commit(&*store, &fill);
        let mut expected: Vec<JobId> =
            all_jobs(&*store).into_iter().filter(stays).map(|job| job.id).collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let seen_staying = |jobs: Vec<Job>| -> Vec<JobId> {
            jobs.into_iter().filter(|job| stays(job)).map(|job| job.id).collect()
        };

        // Between two pages the job at the cursor goes, and others come.
        let mut round = 0;
        let jobs = pages(&*store, &request(order, None, 3), |page| {
            round += 1;
            let mut units: Vec<Unit> = page
                .iter()
                .filter(|job| job.id.as_str().starts_with("go"))
                .map(|job| remove(job.id.as_str(), 1))
                .collect();
            if round < 9 {
                units.push(insert(&format!("come-{round}"), Status::Finished));
            }
            commit(&*store, &units);
        });
        let come = jobs.iter().filter(|job| job.id.as_str().starts_with("come")).count();
        assert_eq!(come, if order == Order::OldestFirst { 8 } else { 0 });
        assert_eq!(seen_staying(jobs), expected);

        // The same with somebody who does it all the time.
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0.. {
                    let name = format!("passing-{n}");
                    commit(&*store, &[insert(&name, Status::Finished)]);
                    if done.load(Ordering::Acquire) {
                        return;
                    }
                    commit(&*store, &[remove(&name, 1)]);
                }
            });
            for _ in 0..10 {
                let jobs = pages(&*store, &request(order, None, 2), |_| {});
                let seqs: Vec<u64> = jobs.iter().map(|job| job.seq).collect();
                let in_order = |pair: &[u64]| (pair[0] < pair[1]) == (order == Order::OldestFirst);
                assert!(seqs.windows(2).all(in_order), "{seqs:?}");
                assert_eq!(seen_staying(jobs), expected);
                if expected.is_empty() {
                    break;
                }
            }
            done.store(true, Ordering::Release);
        });
    }
}

/// Sixty jobs of which each condition finds some and not others.
fn varied(store: &dyn JobStore) -> Vec<Job> {
    let mut units = Vec::new();
    for number in 0..60_u32 {
        let name = format!("{}{number}", ["a", "ab", "b"][number as usize % 3]);
        let time = Timestamp::from_millis(i64::from(number % 10));
        let mut definition = definition("true");
        definition.created_at = time;
        definition.cwd = format!("/{}", number % 5).into();
        definition.logs.path = format!("/l{}", number % 2).into();
        definition.name = (number % 2 == 0).then(|| format!("n{}", number % 4));
        definition.group = (number % 3 == 0).then(|| format!("g{}", number % 6));
        definition.labels.insert("parity".to_owned(), (number % 2).to_string());
        if number % 7 == 0 {
            definition.labels.insert("rare".to_owned(), String::new());
        }
        definition.origin = match number % 4 {
            0 => Some(Origin::Element { array: id("a0"), index: number, values: Default::default() }),
            1 => Some(Origin::Schedule { name: "element".to_owned(), due: time }),
            _ => None,
        };
        let mut state = state(1, Status::ALL[number as usize % Status::ALL.len()]);
        state.last_update = time;
        state.process = Some(Process { handle: String::new(), pid: Some(number % 4) });
        state.started = Some(Moment { wall: time, boot: BootTime::default() });
        state.ended = (number % 2 == 0).then_some(Moment { wall: time, boot: BootTime::default() });
        state.exit = Some(ExitStatus::Code(i32::from(number % 3 == 0)));
        units.push(JobChange::Insert { id: id(&name), definition: Box::new(definition), state }.into());
    }
    commit(store, &units);
    let jobs = all_jobs(store);
    assert_eq!(jobs.len(), units.len());
    jobs
}

/// Every key of a filter with values that find some of the varied jobs.
fn conditions() -> Vec<(&'static str, String)> {
    let early = Timestamp::from_millis(4).to_string();
    let times = JobFilter::KEYS.iter().filter(|key| key.ends_with("_from") || key.ends_with("_until"));
    let times: Vec<_> = times.map(|key| (*key, early.clone())).collect();
    let logs = crate::logs::Logs::new(&Default::default(), "/l0".into());
    let logfile = logs.paths(&crate::id::AttemptId { id: id("a0"), attempt: 1 }).stdout.to_string();
    let mut conditions: Vec<_> = [
        ("status", "running"),
        ("status", "finished,failed,lost"),
        ("status", "queued,running,queued"),
        ("self_id", "a0"),
        ("id_prefix", "a"),
        ("id_prefix", "ab"),
        ("id_prefix", ""),
        ("name", "n0"),
        ("group", "g3"),
        ("label", "parity=1"),
        ("label", "rare"),
        ("label", "rare="),
        ("label", "rare=1"),
        ("cwd", "/3"),
        ("dirname", "3"),
        ("logdir", "/l1"),
        ("logfile", &logfile),
        ("last_pid", "2"),
        ("exit_code", "1"),
        ("is_element", "true"),
        ("is_element", "false"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into();
    conditions.extend(times);
    for key in JobFilter::KEYS {
        assert!(conditions.iter().any(|(tested, _)| *tested == key), "{key} is not tested");
    }
    conditions
}

fn assert_finds(store: &dyn JobStore, jobs: &[Job], filter: &JobFilter) -> usize {
    let mut expected: Vec<Job> = jobs.iter().filter(|job| filter.matches(job)).cloned().collect();
    let count = expected.len();
    for order in [Order::OldestFirst, Order::NewestFirst] {
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let request = PageRequest { filter: filter.clone(), order, after: None, limit: 4 };
        assert!(pages(store, &request, |_| {}) == expected, "{filter:?} {order:?}");
    }
    count
}

pub(super) fn every_filter_finds_what_matches(case: &Case) {
    let store = case.store();
    let jobs = varied(&*store);
    for (key, value) in conditions() {
        let mut filter = JobFilter::default();
        filter.set(key, &value).expect("a filter");
        let found = assert_finds(&*store, &jobs, &filter);
        // Those that find nothing, or everything, are there for just that.
        let some = 0 < found && found < jobs.len();
        let (none, all) =
            ((key, value.as_str()) == ("label", "rare=1"), (key, value.as_str()) == ("id_prefix", ""));
        assert_eq!(some, !none && !all, "{key}={value} finds {found}");
    }
    // What could be taken for a pattern is itself.
    for value in ["%", "_", "*", "n?", "N0", "a0\0", "\u{10ffff}"] {
        for key in ["self_id", "id_prefix", "name", "group", "label", "cwd", "dirname", "logdir", "logfile"] {
            let mut filter = JobFilter::default();
            filter.set(key, value).expect("a filter");
            assert_eq!(assert_finds(&*store, &jobs, &filter), 0, "{key}={value}");
        }
    }
}

pub(super) fn every_pair_of_filters_finds_what_matches(case: &Case) {
    let store = case.store();
    let jobs = varied(&*store);
    let conditions = conditions();
    let mut found = 0;
    for (index, (key, value)) in conditions.iter().enumerate() {
        for (second_key, second) in &conditions[index + 1..] {
            let mut filter = JobFilter::default();
            filter.set(key, value).expect("a filter");
            if filter.set(second_key, second).is_err() {
                // What can hold only once has two values here.
                assert_eq!(key, second_key);
                continue;
            }
            found += assert_finds(&*store, &jobs, &filter);
        }
    }
    assert!(found > 0);
}

pub(super) fn counts_are_those_of_the_jobs(case: &Case) {
    let store = case.store();
    let assert_counts = || {
        let mut expected = BTreeMap::new();
        for job in all_jobs(&*store) {
            *expected.entry(job.state.status).or_insert(0) += 1;
        }
        assert_eq!(store.counts().expect("counts"), expected);
        expected
    };
    assert_eq!(assert_counts(), BTreeMap::new());
    let steps: [&[Unit]; 6] = [
        &[insert("a", Status::Queued), insert("b", Status::Queued), insert("c", Status::Finished)],
        &[update("a", 1, Status::Starting), update("b", 1, Status::Running)],
        &[update("a", 2, Status::Running), new_attempt("c", 1, 2, Status::Running)],
        &[update("a", 3, Status::Running), update_attempt("c", 2, 2, Status::Failed)],
        &[remove("c", 3), insert("c", Status::Lost), remove("c", 1)],
        &[insert_with("d", definition("d"), Status::FailedStop)],
    ];
    for units in steps {
        store.commit(units).expect("committed");
        assert_counts();
    }
    let expected = [(Status::Queued, 1), (Status::Running, 1), (Status::FailedStop, 1)];
    assert_eq!(assert_counts(), expected.into());
}
