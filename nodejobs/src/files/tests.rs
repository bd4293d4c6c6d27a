//! Lanes and threads, with work that stands still until it is told to go on.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// Begins to do something that ends when the sender is dropped. Says when it has begun, and when it is told of.
fn stand_still(files: &Files, path: &str) -> (Sender<()>, Receiver<()>, Receiver<bool>) {
    let (go, wait) = channel::<()>();
    let ((begins, begun), (tells, told)) = (channel(), channel());
    let work = move || {
        let _ = begins.send(());
        let _ = wait.recv();
    };
    files.go("stand in", Path::new(path), None, work, move |done| {
        let _ = tells.send(done.is_some());
    });
    (go, begun, told)
}

#[test]
fn two_of_a_mount_are_under_way_and_other_mounts_are_not_disturbed() {
    let files = Files::new();
    let first: Vec<_> = (0..5).map(|n| stand_still(&files, &format!("/proc/{n}"))).collect();
    for (_, begun, _) in &first[..2] {
        begun.recv_timeout(LONG).expect("begun");
    }
    let other = stand_still(&files, "/sys/x");
    other.1.recv_timeout(LONG).expect("another mount is not disturbed");
    assert!(first[2..].iter().all(|(_, begun, _)| begun.try_recv().is_err()), "the others wait");
    assert!(files.stuck_for(Path::new("/proc/y")).is_some());
    assert_eq!(files.stuck_for(Path::new("/dev/y")), None);
    let stuck = files.shared.lock().lanes.stuck(Duration::ZERO);
    let mut named: Vec<_> = stuck.iter().map(|stuck| (stuck.path.clone(), stuck.waiting)).collect();
    named.sort();
    let named_as = |path: &str, waiting| (PathBuf::from(path), waiting);
    assert_eq!(named, [named_as("/proc/0", 3), named_as("/proc/1", 3), named_as("/sys/x", 0)]);
    assert!(files.shared.lock().lanes.stuck(LONG).is_empty());

    for (go, begun, told) in first {
        // Some have begun long ago.
        let _ = begun.recv_timeout(Duration::ZERO);
        drop(go);
        assert!(told.recv_timeout(LONG).expect("told"));
    }
    drop(other.0);
    assert!(other.2.recv_timeout(LONG).expect("told"));
    assert!(files.shared.lock().lanes.stuck(Duration::ZERO).is_empty());
}

#[test]
fn a_link_leads_to_the_list_of_the_mount_that_it_leads_to() {
    let files = Files::new();
    let place = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/proc/self", place.path().join("link")).expect("a link");
    let behind = place.path().join("link/x").to_string_lossy().into_owned();
    let first: Vec<_> = (0..3).map(|_| stand_still(&files, &behind)).collect();
    for (_, begun, _) in &first[..2] {
        begun.recv_timeout(LONG).expect("begun");
    }
    let beside = stand_still(&files, &place.path().join("y").to_string_lossy());
    beside.1.recv_timeout(LONG).expect("its own mount is not disturbed");
    assert!(files.stuck_for(Path::new("/proc/z")).is_some());
    assert!(files.stuck_for(Path::new(&behind)).is_some(), "it is remembered where that leads to");
    drop(beside);
    first.into_iter().for_each(|(go, _, told)| {
        drop(go);
        assert!(told.recv_timeout(LONG).expect("told"));
    });
}

#[test]
fn what_panics_is_told_as_well_and_the_next_goes_on() {
    let files = Files::new();
    let (tells, told) = channel();
    for n in 0..5 {
        let tells = tells.clone();
        let work = move || assert_eq!(n % 2, 0, "a panic of this test's");
        files.go("fail at", Path::new("/x"), None, work, move |done| _ = tells.send((n, done.is_some())));
    }
    let mut all: Vec<_> = (0..5).map(|_| told.recv_timeout(LONG).expect("told")).collect();
    all.sort_unstable();
    assert_eq!(all, [(0, true), (1, false), (2, true), (3, false), (4, true)]);
}

#[test]
fn threads_have_descriptors_of_their_own_and_end() {
    let files = Files::new();
    let kept = std::fs::File::open("/proc/self/status").expect("opened");
    let number = std::os::fd::AsRawFd::as_raw_fd(&kept);
    let (tells, told) = channel();
    let work = move || {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        std::fs::read_link(format!("/proc/self/task/{thread}/fd/{number}")).is_ok()
    };
    files.go("look at", Path::new("/proc/x"), None, work, move |done| _ = tells.send(done));
    assert_eq!(told.recv_timeout(LONG), Ok(Some(false)), "what the process has open is not open there");
    drop(kept);
    let weak = Arc::downgrade(&files.shared);
    drop(files);
    let deadline = Instant::now() + LONG;
    while weak.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the threads end");
        std::thread::yield_now();
    }
}

#[test]
fn whoever_has_no_time_goes_on_without_an_answer() {
    assert_eq!(glance("look at", Path::new("/a"), || 7), Some(7));
    let (go, wait) = channel::<()>();
    let hang = move || wait.recv().unwrap_or_default();
    let place = Path::new("/sys/kernel/x");
    assert_eq!(wait_for(place, Duration::from_millis(1), hang), None);
    assert_eq!(wait_for(place, Duration::from_millis(1), || ()), None, "and at once, from then on");
    drop(go);
    finish(LONG);
    assert_eq!(wait_for(place, LONG, || ()), Some(()));
}

fn wait_for<T: Send + 'static>(
    path: &Path,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    wait("look at", path, patience, work)
}
