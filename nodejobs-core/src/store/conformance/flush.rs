//! The rule that a commit is on disk when it returns: a trace shows the system calls that bring it there.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::Verdict;
use super::case::DiskCase;
use super::child::{self, Role};
use super::jobs::{commit, insert, update};
use crate::Status;

const COMMITS: u32 = 10;
const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,msync,write";

/// The body of the process that is traced.
pub(super) fn commit_between_marks(case: &DiskCase, place: &Path) {
    let store = case.open(place);
    for number in 0..COMMITS {
        let units = match number % 2 {
            0 => insert(&format!("job-{number}"), Status::Starting),
            _ => update(&format!("job-{}", number - 1), 1, Status::Running),
        };
        child::say(&format!("commit {number} begins"));
        commit(&*store, &[units]);
        child::say(&format!("commit {number} returned"));
    }
}

pub(super) fn each_commit_is_flushed(case: &DiskCase) -> Verdict {
    let (place, trace) = (case.place(), case.place());
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            return Verdict::NotRun(format!("strace may not trace: {said}"));
        }
        Err(error) => return Verdict::NotRun(format!("cannot start strace: {error}")),
    }
    let trace_text = trace.to_str().expect("UTF-8");
    let wrapper = ["strace", "-f", "-y", "-s", "64", "-e", CALLS, "-o", trace_text, "--"];
    child::succeed(&mut child::command(case, Role::Flush, &place, &wrapper));
    let trace = fs::read_to_string(&trace).expect("a trace");
    let flushes = flushes_in(&trace, &place.display().to_string());
    assert_eq!(flushes.len(), COMMITS as usize, "{trace}");
    for (number, flushes) in (0..).zip(&flushes) {
        assert!(*flushes > 0, "commit {number} returned without a flush; all have {flushes:?}:\n{trace}");
    }
    println!("flushes of each commit: {flushes:?}");
    Verdict::Held
}

/// How often a file whose path begins with `place` was synchronised with success, for each commit between its marks.
fn flushes_in(trace: &str, place: &str) -> Vec<u32> {
    let mut flushes = Vec::new();
    let mut is_open = false;
    // Calls of several threads are interrupted in the trace: whose flush has begun, and within which commit.
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        if call.starts_with("write(") && call.contains("\"commit ") {
            is_open = call.contains(" begins");
            if is_open {
                flushes.push(0);
            }
        } else if ["fsync(", "fdatasync("].iter().any(|name| call.starts_with(name)) {
            let is_ours = call.split_once('<').is_some_and(|(_, path)| path.starts_with(place));
            if !is_open || !is_ours {
                continue;
            }
            if call.contains("<unfinished") {
                begun.insert(thread, flushes.len());
            } else if call.ends_with(" = 0")
                && let Some(count) = flushes.last_mut()
            {
                *count += 1;
            }
        } else if call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed") {
            let within = begun.remove(thread);
            let commits = flushes.len();
            if is_open
                && call.ends_with(" = 0")
                && within == Some(commits)
                && let Some(count) = flushes.last_mut()
            {
                *count += 1;
            }
        }
    }
    flushes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flushes_of_the_store_between_the_marks_count() {
        let trace = r#"
7  fdatasync(4</d/store>) = 0
7  write(1<pipe:[3]>, "commit 0 begins\n", 16) = 16
7  fdatasync(4</d/store-wal>) = 0
7  sync_file_range(4</d/store>, 0, 0, 7) = 0
7  fsync(4</d/other>) = 0
7  fsync(4</d/store>) = -1 EIO (Input/output error)
7  write(1<pipe:[3]>, "commit 0 returned\n", 18) = 18
7  fsync(4</d/store>) = 0
7  fsync(4</d/store> <unfinished ...>
7  write(1<pipe:[3]>, "commit 1 begins\n", 16) = 16
7  <... fsync resumed>) = 0
8  fsync(4</d/store/db> <unfinished ...>
9  fdatasync(4</d/store/db> <unfinished ...>
8  <... fsync resumed>) = 0
7  write(1<pipe:[3]>, "commit 1 returned\n", 18) = 18
9  <... fdatasync resumed>) = 0
7  write(1<pipe:[3]>, "commit 2 begins\n", 16) = 16
7  sync_file_range(4</d/store>, 0, 0, 7) = 0
7  write(1<pipe:[3]>, "commit 2 returned\n", 18) = 18
"#;
        assert_eq!(flushes_in(trace, "/d/store"), [1, 1, 0]);
    }
}
