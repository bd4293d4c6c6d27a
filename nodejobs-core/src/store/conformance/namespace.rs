//! A child in mount and user namespaces of its own, where it may mount a disk that is small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Verdict;
use super::case::DiskCase;
use super::child::{self, Role};

const UNSHARE: [&str; 3] = ["unshare", "-Urm", "--"];
/// Enough for every store to begin, and quickly filled.
const SIZE: &str = "size=24m,mode=700";

/// Runs a child that may mount at the directory it is given; says why where this user may not have one.
pub(super) fn run(case: &DiskCase, role: Role) -> Verdict {
    let directory = case.place();
    fs::create_dir(&directory).expect("a directory");
    let [program, arguments @ ..] = UNSHARE;
    let probe = Command::new(program)
        .args(arguments)
        .args(["mount", "-t", "tmpfs", "probe"])
        .arg(&directory)
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            return Verdict::NotRun(format!("no namespace with a disk of its own: {said}"));
        }
        Err(error) => return Verdict::NotRun(format!("cannot start unshare: {error}")),
    }
    child::succeed(&mut child::command(case, role, &directory, &UNSHARE));
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0, "it was not a disk of its own");
    Verdict::Held
}

/// A disk of the child's own, which goes with it.
pub(super) struct Disk {
    directory: PathBuf,
}

impl Disk {
    pub(super) fn mount(directory: &Path) -> Self {
        mount(&["-t", "tmpfs", "-o", SIZE, "nodejobs-test"], directory);
        Self { directory: directory.to_owned() }
    }

    pub(super) fn make_read_only(&self, read_only: bool) {
        // The mount and not the file system, whose options name users that this namespace does not have.
        mount(&["-o", if read_only { "remount,bind,ro" } else { "remount,bind,rw" }], &self.directory);
    }

    /// A place that is alone in its directory.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        fs::create_dir(&directory).expect("a directory");
        directory.join("store")
    }

    /// Takes all the space that is left, with a file that can be removed again.
    pub(super) fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.directory.join("ballast");
        let mut file = fs::File::create(&path).expect("a file");
        for size in [1 << 16, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

fn mount(arguments: &[&str], directory: &Path) {
    let output = Command::new("mount").args(arguments).arg(directory).output().expect("mount");
    assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
}
